"""The Markdown galleries: catalogues by family and by folder, pictures by month and by adapter, and their index. Pure.

A gallery is planned as pages (values that can be compared), and a page is rendered only if its plan has changed. Plans
are made from adapters, pictures and configuration alone: no clock, no order of scanning. Where pages are cut and what
they are called: `paging`. What is ours: each page is sealed with `lv_sum`.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loravault.pages import own
from loravault.pages.examples import lora_tag, try_uri
from loravault.pages.paging import cuts, mark, stream_cuts
from loravault.pages.templates import Templates
from loravault.pages.tiles import Picture, Tile, by_time, embeddable, label_of, month_label, rows, span
from loravault.vault.inert import inert
from loravault.vault.links import embed, wikilink
from loravault.vault.names import free_stem, name_key, safe_stem

#: Covers that stand beside a family or a folder in the index.
SAMPLES = 4
#: Longest name of a family or folder in the name of its gallery, in bytes of UTF-8.
_LONGEST = 150


@dataclass(frozen=True)
class View:
    """The configuration that galleries depend on."""

    #: Our folder in the vault.
    folder: str
    vault_name: str
    #: Width of a thumbnail in pixels.
    width: int = 144


@dataclass(frozen=True, slots=True)
class Step:
    """A link to a page of a gallery."""

    path: str
    label: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page as planned. `template` says which of the fields it uses."""

    path: str
    template: str
    title: str
    up: Step | None = None
    back: Step | None = None
    on: Step | None = None
    #: On the first page of several: all of them.
    pages: tuple[Step, ...] = ()
    tiles: tuple[Tile, ...] = ()
    pictures: tuple[Picture, ...] = ()
    #: On the first page: how many adapters or pictures there are on all of them. Elsewhere 0: one more is one page.
    total: int = 0
    #: On the index: how many adapters there are.
    adapters: int = 0
    #: The adapter whose pictures these are, and how prompts call it.
    of: Tile | None = None
    call: str = ""
    shelves: tuple[tuple[str, tuple[Shelf, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Shelf:
    """A gallery as the index shows it."""

    label: str
    path: str
    count: int
    covers: tuple[str, ...] = ()


# ---- where galleries are


def index_path(folder: str) -> str:
    """The page that all galleries hang from."""
    return f"{folder}/Gallery/LoRA gallery.md"


def family_path(folder: str, family: str, taken: Container[str] = ()) -> str:
    """The first page of a family."""
    return _home(f"{folder}/Gallery/Families", f"{_plain(label_of(family))} gallery", taken)


def category_key(category: str) -> str:
    """Folders whose names differ only in what file names cannot tell apart share one gallery."""
    return name_key(_category_stem(category))


def _category_stem(category: str) -> str:
    return _plain(category.replace("/", " – ")) if category else "Top"


def category_path(folder: str, category: str, taken: Container[str] = ()) -> str:
    """The first page of a folder of adapters."""
    return _home(f"{folder}/Gallery/Folders", f"{_category_stem(category)} folder", taken)


def month_path(folder: str, month: str, taken: Container[str] = ()) -> str:
    """The first page of a month, such as `2026-11`."""
    return _home(f"{folder}/Gallery/Months", f"Made in {month or 'an unknown month'}", taken)


def _home(folder: str, stem: str, taken: Container[str]) -> str:
    """A path whose name no other note of the vault has (`taken`: the `name_key`s of their stems)."""
    return f"{folder}/{free_stem(stem, lambda name: name_key(name) not in taken)}.md"


def _plain(text: str) -> str:
    """A text as part of a file name."""
    return safe_stem(text, _LONGEST)


def _marked(path: str, ident: str) -> str:
    return f"{path.removesuffix('.md')} {mark(ident)}.md"


# ---- plans


def catalogue(view: View, path: str, title: str, tiles: Iterable[Tile]) -> list[Page]:
    """A family or a folder: its adapters by name, 20 to 60 on a page. No adapters, no page."""
    ordered = sorted(tiles, key=lambda tile: tile.order)
    parts = [ordered[part] for part in cuts([tile.weight_id for tile in ordered])]
    paths = _paths(path, [part[0].weight_id for part in parts])
    steps = tuple(Step(where, span(part)) for where, part in zip(paths, parts, strict=True))
    return [
        Page(
            path=where,
            template="catalogue.md.j2",
            title=title,
            up=Step(index_path(view.folder), "LoRA gallery"),
            back=steps[number - 1] if number else None,
            on=steps[number + 1] if number + 1 < len(steps) else None,
            pages=steps if len(steps) > 1 and not number else (),
            tiles=tuple(part),
            total=0 if number else len(ordered),
        )
        for number, (where, part) in enumerate(zip(paths, parts, strict=True))
    ]


def month(view: View, path: str, name: str, pictures: Iterable[Picture]) -> list[Page]:
    """The pictures of one month, newest first. No pictures, no page."""
    return _stream(view, path, month_label(name), pictures, None)


def of_adapter(view: View, path: str, tile: Tile, pictures: Iterable[Picture], call: str | None = None) -> list[Page]:
    """The pictures an adapter had a part in, newest first. There is a page without any too: the card embeds it.

    `call`: the name by which prompts find it, if its own is another one's too.
    """
    if pages := _stream(view, path, tile.headline, pictures, tile):
        return pages
    return [Page(path, "pictures.md.j2", tile.headline, up=_up(view), of=tile, call=call or tile.name)]


def index(view: View, shelves: Mapping[str, Sequence[Shelf]], adapters: int, pictures: int) -> Page:
    """The page that all galleries hang from. `shelves`: heading -> galleries, in the order they are shown."""
    return Page(
        path=index_path(view.folder),
        template="galleries.md.j2",
        title="LoRA gallery",
        shelves=tuple((heading, tuple(some)) for heading, some in shelves.items() if some),
        total=pictures,
        adapters=adapters,
    )


def shelf(label: str, path: str, tiles: Collection[Tile]) -> Shelf:
    """A catalogue as the index shows it: the covers that stand for it are picked by their marks, so they stay."""
    shown = sorted((mark(tile.weight_id), tile.cover) for tile in tiles if tile.cover)
    return Shelf(label, path, len(tiles), tuple(cover for _, cover in shown[:SAMPLES]))


def _stream(view: View, path: str, title: str, pictures: Iterable[Picture], of: Tile | None) -> list[Page]:
    ordered = sorted(pictures, key=lambda picture: picture.order)
    if not ordered:
        return []
    parts = [ordered[part] for part in reversed(stream_cuts([picture.path for picture in ordered]))]
    paths = _paths(path, [part[0].path for part in parts])
    steps = tuple(Step(where, "") for where in paths)
    return [
        Page(
            path=where,
            template="pictures.md.j2",
            title=title,
            up=_up(view),
            back=steps[number - 1] if number else None,
            on=steps[number + 1] if number + 1 < len(steps) else None,
            pictures=tuple(reversed(part)),
            total=0 if number else len(ordered),
            of=of,
        )
        for number, (where, part) in enumerate(zip(paths, parts, strict=True))
    ]


@lru_cache(maxsize=4)
def _up(view: View) -> Step:
    return Step(index_path(view.folder), "LoRA gallery")


def _paths(first: str, starts: Sequence[str]) -> list[str]:
    """The first page has the plain name, the others the mark of their first entry (twice the same: with a number)."""
    paths = [first] if starts else []
    taken = set(paths)
    for ident in starts[1:]:
        candidate, number = _marked(first, ident), 2
        while candidate in taken:
            candidate, number = _marked(first, f"{ident}\0{number}"), number + 1
        taken.add(candidate)
        paths.append(candidate)
    return paths


# ---- rendering


def render(page: Page, view: View, templates: Path) -> bytes:
    """The page as it is written."""
    if page.template == "pictures.md.j2":
        return own.seal(_TEMPLATES.fill(templates, page.template, _of_pictures(page, view)))
    values = _of_catalogue(page, view) if page.template == "catalogue.md.j2" else {"page": page, "view": view}
    return own.seal(_TEMPLATES.get(templates, page.template).render(values))


def _of_pictures(page: Page, view: View) -> dict[str, str | list[str] | list[tuple[str, str]]]:
    """What the template of pictures prints. Of an adapter without any it is an example, and a link that tries it."""
    tile = page.of
    prompt = _prompt(page) if tile and not page.pictures else ""
    return {
        "up": _link(page.up),
        "title": "" if tile else inert(page.title),
        "count": _counted(page.total, "picture"),
        "groups": [
            (when, " ".join([_thumb(picture.path, view.width, picture.path) for picture in some]))
            for when, some in by_time(page.pictures, months=tile is not None)
        ],
        "try_it": try_uri(view.vault_name, tile.name, page.call, tile.weight, prompt)
        if tile and not page.pictures
        else "",
        "prompt": prompt.replace("`", "'"),
        "card": wikilink(tile.card or "", page.title) if tile else "",
        "newer": _link(page.back, "Newer"),
        "older": _link(page.on, "Older"),
    }


def _of_catalogue(page: Page, view: View) -> dict[str, Any]:
    """What the template of a catalogue prints. `groups`: label, (thumbnail, name), (name, details, trigger words)."""
    return {
        "up": _link(page.up),
        "title": inert(page.title),
        "count": _counted(page.total, "LoRA"),
        "pages": [_link(step) for step in page.pages],
        "back": _link(page.back),
        "on": _link(page.on),
        "groups": [
            (
                group.label,
                [(_thumb(tile.cover or "", view.width, tile.card), _name(tile)) for tile in group.shown],
                [(_name(tile), tile.details, tile.words) for tile in group.bare],
            )
            for group in rows(page.tiles)
        ],
    }


def _name(tile: Tile) -> str:
    """What stands below a thumbnail: a link to the card."""
    name = wikilink(tile.card, tile.caption) if tile.card else tile.caption
    return f"{name} ({tile.trouble})" if tile.trouble else name


@lru_cache(maxsize=64)  # ten thousand pages hang from one
def _link(step: Step | None, label: str = "") -> str:
    return wikilink(step.path, label or step.label or None) if step else ""


def _counted(number: int, what: str) -> str:
    """`1 picture`, `2 pictures`; nothing for 0."""
    return f"{number} {what if number == 1 else f'{what}s'}" if number else ""


def _thumb(picture: str, width: int, target: str | None = None) -> str:
    """A picture that is a link: Obsidian takes an embed inside a Markdown link (and no other way to write it)."""
    shown = embed(picture, width)
    return f"[{shown}]({quote(target)})" if target and embeddable(picture) else shown


def _prompt(page: Page) -> str:
    """An example for the adapter of the page, with its tag if a tag can hold its name."""
    tile = page.of
    return " ".join(filter(None, (tile.example, lora_tag(page.call, tile.weight)))) if tile else ""


_TEMPLATES = Templates(filters={"to": wikilink}, functions={"thumb": _thumb})
