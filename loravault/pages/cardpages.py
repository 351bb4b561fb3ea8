"""Which page shows the pictures of a card's adapter. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

#: The pages with what adapters made are in this folder of ours.
PICTURES = "Gallery/Adapters"
#: Characters in which the embed of such a page has its end; a longer one is none.
LONGEST_EMBED = 1000
_NAME = re.compile(r"([^\[\]|#^\r\n/\\:*?\"<>]++)(?:[#|][^\[\]\r\n]*)?\]\]")
_LONGEST_NAME = 200


def default_pictures_page(folder: str, card: str) -> str:
    """The page of the pictures of a card that embeds none."""
    return f"{folder}/{PICTURES}/{card.rpartition('/')[2].removesuffix('.md')} pictures.md"


class Claim(NamedTuple):
    """What a card says about the page of its pictures. Plain tuples: ten thousand are compared at every change."""

    weight_id: str
    #: The page that has its name.
    default: str
    #: The page that it embeds.
    wanted: str | None


def claim(folder: str, weight_id: str, card: str, body: str) -> Claim:
    """The claim of the card at this path with this text."""
    return Claim(weight_id, default_pictures_page(folder, card), embedded_page(folder, body))


def pictures_pages(claims: Iterable[Claim]) -> dict[str, str]:
    """Weight id -> vault-relative path of the page of its pictures.

    It is the page that the card embeds: a card that was renamed still embeds the page it was made with. Of two cards
    that embed one page, it belongs to that whose name it carries, else to the first by weight id.
    """
    ordered = sorted(claims)
    owners: dict[str, str] = {}
    for weight_id, default, page in ordered:
        if page is not None and (page.casefold() not in owners or default == page):
            owners[page.casefold()] = weight_id
    pages: dict[str, str] = {}
    taken = set(owners)
    for weight_id, default, page in ordered:
        if page is not None and owners[page.casefold()] == weight_id:
            pages[weight_id] = page
            continue
        own, number = default, 2
        while own.casefold() in taken:
            own = f"{default.removesuffix('.md')} {number}.md"
            number += 1
        taken.add(own.casefold())
        pages[weight_id] = own
    return pages


def embed_start(folder: str) -> str:
    """How the embed of a page of pictures begins."""
    return f"![[{folder}/{PICTURES}/"


def embedded_page(folder: str, body: str) -> str | None:
    """The page of pictures that a card's text embeds: its vault-relative path."""
    start = embed_start(folder)
    at = body.find(start)
    if at < 0:
        return None
    rest = _NAME.match(body[at + len(start) : at + LONGEST_EMBED])
    if rest is None:
        return None
    name = rest[1].removesuffix(".md") or rest[1]
    return f"{folder}/{PICTURES}/{name}.md" if len(name) <= _LONGEST_NAME else None
