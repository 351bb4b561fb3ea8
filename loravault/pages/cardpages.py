"""Which page shows the pictures of a card's adapter. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from loravault.library.entry import Entry

#: The pages with what adapters made are in this folder of ours.
PICTURES = "Gallery/Adapters"


def default_pictures_page(folder: str, card: str) -> str:
    """The page of the pictures of a card that embeds none."""
    return f"{folder}/{PICTURES}/{card.rpartition('/')[2].removesuffix('.md')} pictures.md"


def pictures_pages(folder: str, entries: Iterable[Entry]) -> dict[str, str]:
    """Weight id -> vault-relative path of the page of its pictures, for all entries with a card.

    It is the page that the card embeds: a card that was renamed still embeds the page it was made with. Of two cards
    that embed one page, it belongs to that whose name it carries, else to the first by weight id.
    """
    carded = sorted((entry for entry in entries if entry.card), key=lambda entry: entry.weight_id)
    default = {entry.weight_id: default_pictures_page(folder, entry.card or "") for entry in carded}
    wanted = {entry.weight_id: embedded_page(folder, entry.card_body) for entry in carded}
    owners: dict[str, str] = {}
    for weight_id, page in wanted.items():
        if page is not None and (page.casefold() not in owners or default[weight_id] == page):
            owners[page.casefold()] = weight_id
    pages: dict[str, str] = {}
    taken = set(owners)
    for weight_id, page in wanted.items():
        if page is not None and owners[page.casefold()] == weight_id:
            pages[weight_id] = page
            continue
        own, number = default[weight_id], 2
        while own.casefold() in taken:
            own = f"{default[weight_id].removesuffix('.md')} {number}.md"
            number += 1
        taken.add(own.casefold())
        pages[weight_id] = own
    return pages


def embedded_page(folder: str, body: str) -> str | None:
    """The page of pictures that a card's text embeds: its vault-relative path."""
    start = f"![[{folder}/{PICTURES}/"
    at = body.find(start)
    if at < 0:
        return None
    rest = re.match(r"([^\[\]|#^\r\n/\\:*?\"<>]{1,200}?)(?:\.md)?(?:[#|][^\[\]\r\n]*)?\]\]", body[at + len(start) :])
    return f"{folder}/{PICTURES}/{rest[1]}.md" if rest else None
