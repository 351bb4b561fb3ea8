"""`loravault clean`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from loravault.cli.app import App, pass_app
from loravault.cli.asking import confirmed
from loravault.cli.moves import tell
from loravault.cli.progress import following
from loravault.cli.words import as_json, columns, counted, plain, size
from loravault.errors import UserError

if TYPE_CHECKING:
    from loravault.keeping.tidy import CleanPlan
    from loravault.tidying import MovedView, Tidying

_SPAN = re.compile(r"(\d{1,6})\s*([dhw]?)", re.IGNORECASE)
_ONLY_LISTED = "Nothing was moved: this only lists; --yes with --duplicates, --sidecars, … moves it into the trash."
_SECONDS = {"": 86_400, "d": 86_400, "h": 3600, "w": 7 * 86_400}


@click.command("clean")
@click.option("--duplicates", is_flag=True, help="LoRA files with the same weights as another one.")
@click.option("--sidecars", is_flag=True, help="Files that tools wrote for a LoRA that is not there any more.")
@click.option(
    "--unused",
    is_flag=True,
    help="LoRAs without a picture, a rating or a note: no note names them, nobody wrote on their card.",
)
@click.option("--images", is_flag=True, help="Pictures we made that no note embeds, and covers nothing shows.")
@click.option("--trash", is_flag=True, help="What lies in the trash: delete it for good.")
@click.option("--unused-days", default=30.0, show_default=True, help="Unused: only files older than so many days.")
@click.option("--older-than", default="30d", show_default=True, help="Trash: only what lies there for so long.")
@click.option("-y", "--yes", is_flag=True, help="Do it. Without this, what would move is only listed.")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@click.pass_context
@pass_app
def command(
    app: App,
    ctx: click.Context,
    duplicates: bool,
    sidecars: bool,
    unused: bool,
    images: bool,
    trash: bool,
    unused_days: float,
    older_than: str,
    yes: bool,
    as_data: bool,
) -> None:
    """List what could be tidied away, and with --yes move it into the trash.

    Nothing is deleted: LoRA files go to `.loravault-trash` in their own folder, pictures to `.trash` in the vault, and
    `loravault undo` moves them back. Pictures that a note embeds and files that are none of ours are never touched.
    """
    from loravault.keeping.tidy import KINDS

    flags = dict(zip(KINDS, (duplicates, sidecars, unused, images), strict=True))
    kinds = [kind for kind in KINDS if flags[kind]]
    tidying = app.control().tidying()
    if trash:
        if kinds:
            raise UserError("--trash deletes for good: give it alone.")
        _empty(tidying, _span(older_than), yes=yes, as_data=as_data)
        return
    if yes and not kinds:
        raise UserError("Say what is to go: " + ", ".join(f"--{kind}" for kind in KINDS) + ".")
    plan = tidying.plan_clean(kinds or KINDS, unused_days)
    if not yes:
        lines = [*_lines(plan), *([_ONLY_LISTED] if plan.items else [])]
        click.echo(as_json({**vars(plan), "bytes": plan.size}) if as_data else plain("\n".join(lines)))
        return
    if not as_data:
        click.echo(plain("\n".join(_lines(plan))))
    ctx.exit(tell(_clean(tidying, kinds, plan, unused_days), as_data=as_data) if plan.items else _nothing(as_data))


def _clean(tidying: Tidying, kinds: list[str], plan: CleanPlan, unused_days: float) -> MovedView:
    """Do it; comparing large copies takes its time, which is shown."""
    from loravault.jobs.context import Event

    with following("Tidying up") as show:

        def compared(done: int, count: int) -> None:
            show(Event("phase", f"comparing copies, {done} of {count}", done / count))

        return tidying.clean(kinds, plan, unused_days, compared)


def _nothing(as_data: bool) -> int:
    click.echo(as_json({"moved": [], "stayed": []}) if as_data else "Nothing was moved.")
    return 0


def _lines(plan: CleanPlan) -> list[str]:
    rows = [
        (
            item.kind,
            item.name + (f" (+{len(item.pieces) - 1})" if len(item.pieces) > 1 else ""),
            size(item.size),
            item.why,
        )
        for item in plan.items
    ]
    lines = [columns(rows)] if rows else ["There is nothing to tidy up."]
    lines += [f"stays: {name} ({why})" for name, why in plan.stays]
    lines += list(plan.problems)
    if rows:
        files = sum(len(item.pieces) for item in plan.items)
        lines.append(f"{counted(files, 'file')}, {size(plan.size)}")
    return lines


def _empty(tidying: Tidying, older_than_s: float, *, yes: bool, as_data: bool) -> None:
    found = tidying.binned(older_than_s)
    if as_data and not yes:
        click.echo(as_json(found))
        return
    if not found:
        click.echo(
            as_json({"deleted": 0, "bytes": 0, "problems": []}) if as_data else "Nothing lies there for so long."
        )
        return
    if not as_data:
        rows = [(one.area or "vault", one.rel, counted(one.files, "file"), size(one.size)) for one in found]
        click.echo(columns(rows))
    if not yes and not confirmed("Delete this for good?", default=False):
        click.echo("Nothing was deleted.")
        return
    view = tidying.empty(found)
    if as_data:
        click.echo(as_json(view))
        return
    click.echo(f"{size(view.bytes)} deleted.")
    for problem in view.problems:
        click.echo(plain(f"  {problem}"))


def _span(text: str) -> float:
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise UserError(f"--older-than {text!r} is no time: write 30d, 12h or 2w.")
    return int(match.group(1)) * _SECONDS[match.group(2).lower()]
