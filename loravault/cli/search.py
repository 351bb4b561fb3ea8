"""`loravault search`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from loravault.cli.app import App, pass_app
from loravault.cli.tables import show_table
from loravault.cli.words import as_json, counted, plain
from loravault.errors import UserError

if TYPE_CHECKING:
    from loravault.index.search import Found, Hit, Sort
    from loravault.index.search_words import Filter

_SORTS = ("relevance", "name", "newest", "rating", "used", "size")


# Words that begin with a minus are words to leave out, no options; `-h` would be found inside of them.
@click.command("search", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("query", nargs=-1, type=click.UNPROCESSED)
@click.option("--family", multiple=True, help="sdxl, flux, pony, …: a family or a variant.")
@click.option("--network", multiple=True, help="lora, lokr, …")
@click.option("--folder", multiple=True, help="In this folder or below it.")
@click.option("--tag", multiple=True, help="With this tag or topic; several: with all of them.")
@click.option("--rating", metavar="N", help="As many stars: 4, '>=4', '<3'; 0: not rated.")
@click.option("--favourite", "--favorite", "flags", flag_value="favourite", multiple=True, help="Only favourites.")
@click.option("--used", "flags", flag_value="used", multiple=True, help="Only those that made a picture.")
@click.option("--unused", "flags", flag_value="unused", multiple=True, help="Only those that never made a picture.")
@click.option("--missing", "flags", flag_value="missing", multiple=True, help="Only those whose file is not there.")
@click.option("--duplicate", "flags", flag_value="duplicate", multiple=True, help="Only those with several files.")
@click.option("--broken", "flags", flag_value="broken", multiple=True, help="Only files that cannot be read.")
@click.option(
    "--untriggered", "flags", flag_value="untriggered", multiple=True, help="Only those without trigger words."
)
@click.option("--no-preview", "flags", flag_value="nopreview", multiple=True, help="Only those without a picture.")
@click.option("--sort", type=click.Choice(_SORTS), default="relevance", show_default=True, help="What comes first.")
@click.option("--limit", type=click.IntRange(min=0), default=25, show_default=True, help="At most so many; 0: all.")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@pass_app
def command(app: App, /, query: tuple[str, ...], sort: Sort, limit: int, as_data: bool, **filters: object) -> None:
    """Find LoRAs by name, trigger words, tags, notes and captions.

    All words must be there; the last may be a beginning. "two words" is a phrase, -word leaves out. Filters can be
    words too: family:sdxl network:lokr folder:styles tag:anime rating:>=4 favourite unused missing duplicate broken
    untriggered nopreview.
    """
    text = " ".join(query)
    found = app.control().search(text, _filters(filters), sort=sort, limit=limit or None)
    if as_data:
        click.echo(as_json({"query": text, "total": found.total, "remarks": found.remarks, "hits": found.hits}))
        return
    _show(found)


def _filters(given: dict[str, object]) -> list[Filter]:
    from loravault.index.search_words import make_filter

    found: list[Filter] = []
    for key, values in given.items():
        for value in (values if isinstance(values, tuple) else [values]) if values else []:
            made = make_filter("is" if key == "flags" else key, str(value))
            if made is None:
                raise UserError(f"--{key} {value!r} says nothing; try for example --{key} {_EXAMPLES.get(key, 'x')}.")
            found.append(made)
    return found


_EXAMPLES = {"family": "sdxl", "network": "lokr", "folder": "styles", "tag": "anime", "rating": "'>=4'"}


def _show(found: Found) -> None:
    if found.hits:
        show_table(("NAME", "FAMILY", "TRIGGER WORDS", "WEIGHT", "FOLDER", "RATING", "PICTURES"), map(_row, found.hits))
        for remark in found.remarks:
            click.echo(plain(remark))
    else:
        click.echo(plain(" ".join(("Nothing was found.", *found.remarks))))
    if found.total > len(found.hits):
        click.echo(f"{counted(len(found.hits), 'LoRA')} of {found.total:,}; --limit 0 shows all.")


def _row(hit: Hit) -> Sequence[str]:
    name = hit.name if hit.state == "ok" else f"{hit.name} ({hit.state})"
    return (
        f"{name} ♥" if hit.favourite else name,
        " ".join(part for part in (hit.family, hit.variant) if part),
        ", ".join(hit.trigger_words),
        "" if hit.weight is None else f"{hit.weight:g}",
        hit.folder,
        "" if not hit.rating else "★" * max(1, min(5, round(hit.rating))),
        str(hit.pictures) if hit.pictures else "",
    )
