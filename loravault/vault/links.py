"""Links as Obsidian writes and reads them. We always link by full vault path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

_UNLINKABLE = re.compile(r"[#|^\[\]\\\x00-\x1f]|%%")
_WIKILINK = re.compile(r"\s*(!?)\[\[([^\[\]\r\n]*)\]\]\s*\Z")


@dataclass(frozen=True)
class Wikilink:
    """A parsed `[[path#subpath|alias]]`."""

    path: str
    subpath: str = ""
    alias: str | None = None
    embed: bool = False


def wikilink(path: str, alias: str | None = None) -> str:
    """A link to a file of the vault. `.md` is left out, as Obsidian does.

    A path that a wikilink cannot hold (`#`, `|`, `^`, brackets) becomes a Markdown link, which Obsidian follows too.
    """
    target = path.removesuffix(".md")
    if _UNLINKABLE.search(target):
        return f"[{_plain(alias or target.rsplit('/', 1)[-1])}]({quote(path)})"
    shown = _plain(alias) if alias else ""
    return f"[[{target}|{shown}]]" if shown else f"[[{target}]]"


def embed(path: str, width: int | None = None) -> str:
    """An embedded file, shown `width` pixels wide."""
    if _UNLINKABLE.search(path):
        return f"![{width or ''}]({quote(path)})"
    return f"![[{path}|{width}]]" if width else f"![[{path}]]"


def parse_wikilink(text: str) -> Wikilink | None:
    """Read `[[path|alias]]` (also an embed, also with `\\|` as in tables); None if the text is anything else."""
    found = _WIKILINK.match(text)
    if found is None:
        return None
    target, bar, alias = found.group(2).replace("\\|", "|").partition("|")
    path, hash_sign, subpath = target.partition("#")
    if not path.strip() and not hash_sign:
        return None
    return Wikilink(path.strip(), subpath.strip(), alias.strip() if bar else None, found.group(1) == "!")


def _plain(text: str) -> str:
    """An alias on one line without the characters that would end it."""
    clean = " ".join(text.replace("[", "(").replace("]", ")").replace("|", "¦").split())
    return clean.replace("\\", "∖")
