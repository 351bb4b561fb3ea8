"""Text as the search sees it: the words of a document, and the words and filters of a query. Pure.

A word is cut by `cuts`, and is in a document as a whole, too. The order of neighbours is kept by the index, so that any
part of a word can be found. The same cuts are made in documents and in queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from loravault.formats.cuts import compounds, long_words, stands_alone, unaccented

Flag = Literal["favourite", "used", "unused", "missing", "duplicate", "broken", "untriggered", "nopreview"]
#: What may be written for a flag; anything else is a word.
FLAGS: dict[str, Flag] = {
    "favourite": "favourite", "favorite": "favourite", "used": "used", "unused": "unused", "missing": "missing",
    "duplicate": "duplicate", "duplicates": "duplicate", "broken": "broken", "untriggered": "untriggered",
    "nopreview": "nopreview",
}  # fmt: skip
#: Filters that are written `key:value`.
KEYS = ("family", "variant", "network", "folder", "tag", "rating")

_RATING = re.compile(r"(>=|<=|>|<|=|)(\d{1,3}(?:\.\d{1,3})?)")
# A minus, then: key:"…" or key:value, a quoted phrase (whose end may be missing), or anything without blanks.
_PIECE = re.compile(
    rf'(?P<no>-?)(?:(?P<key>{"|".join(KEYS)}|is):(?P<value>"[^"]*"?|[^\s"]+)|"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))',
    re.I,
)
#: An address on the web is none.
_LIKE_A_FILTER = re.compile(r"([^\W\d_]{2,}):(?!//)(.*)", re.S)


@dataclass(frozen=True)
class Term:
    """A word or phrase that is looked for."""

    #: Neighbours, in the order written; each as its parts.
    compounds: tuple[tuple[str, ...], ...]
    #: It was written in quotes: only whole words count.
    quoted: bool = False
    excluded: bool = False


@dataclass(frozen=True)
class Filter:
    """A condition on what an adapter is."""

    #: One of `KEYS`, or `is` for a flag.
    key: str
    #: Folded; a comma separates alternatives.
    value: str
    excluded: bool = False
    #: A flag that was written as a bare word, as in `broken mirror`: it may have been meant as one.
    bare: Term | None = None


@dataclass(frozen=True)
class Query:
    """What a person typed, taken apart."""

    terms: tuple[Term, ...] = ()
    filters: tuple[Filter, ...] = ()
    #: What looks like filters and is words: the word before the colon in small letters, and what follows.
    unread: tuple[tuple[str, str], ...] = ()

    def with_flags_as_words(self) -> Query | None:
        """The other reading of flags written as bare words; None if there are none."""
        bare = tuple(one.bare for one in self.filters if one.bare is not None)
        return Query((*bare, *self.terms), tuple(one for one in self.filters if one.bare is None)) if bare else None

    @property
    def whole(self) -> str:
        """All wanted words in one, to compare with names."""
        return "".join(part for term in self.terms if not term.excluded for one in term.compounds for part in one)

    @property
    def long_words(self) -> list[str]:
        """The wanted words and their parts, to compare with words of names."""
        wanted = (one for term in self.terms if not term.excluded for one in term.compounds)
        return list(dict.fromkeys(word for one in wanted for word in long_words(" ".join((*one, "".join(one))))))


def parse_query(text: str) -> Query:
    """Take apart what a person typed. Every text is a query; what is no filter is words."""
    terms: list[Term] = []
    filters: list[Filter] = []
    unread: list[tuple[str, str]] = []
    for piece in _PIECE.finditer(re.sub("[“”„«»]", '"', text)):
        excluded = bool(piece["no"])
        if piece["phrase"] is not None:
            found = tuple(compounds(piece["phrase"]))
            terms += [Term(found, quoted=True, excluded=excluded)] if found else []
        elif (condition := _filter(piece, excluded)) is not None:
            filters.append(condition)
        else:
            terms += _terms(piece[0], excluded)
            if looks := _LIKE_A_FILTER.fullmatch(piece[0].removeprefix("-")):
                unread.append((looks[1].lower(), looks[2]))
    return Query(tuple(terms), tuple(filters), tuple(unread))


def make_filter(key: str, value: str) -> Filter | None:
    """A filter from an option of the command line; None if the value says nothing."""
    key, value = key.lower(), value.strip().strip('"').strip()
    if key == "is":
        flag = FLAGS.get(value.lower())
        return Filter("is", flag) if flag else None
    if key == "rating":
        value = value.replace(" ", "")
        return Filter(key, value) if _RATING.fullmatch(value) else None
    folded = ",".join(part for one in value.split(",") if (part := path_key(one)))
    return Filter(key, folded) if folded else None


def rating_of(value: str) -> tuple[str, float]:
    """`>=4` as an operator of SQL and a number."""
    match = _RATING.fullmatch(value)
    assert match is not None
    return match[1] or "=", float(match[2])


def _filter(piece: re.Match[str], excluded: bool) -> Filter | None:
    if piece["key"]:
        found = make_filter(piece["key"], piece["value"])
        return Filter(found.key, found.value, excluded) if found else None
    flag = FLAGS.get(piece["word"].lower())
    return Filter("is", flag, excluded, _terms(piece["word"], excluded)[0]) if flag else None


def _terms(text: str, excluded: bool) -> list[Term]:
    """The words of a text without blanks: each for itself, but letters that stand alone together with their likes."""
    terms: list[Term] = []
    last_alone = False
    for compound in compounds(text):
        alone = stands_alone(compound[0])
        if alone and last_alone:
            terms[-1] = Term((*terms[-1].compounds, compound), excluded=excluded)
        else:
            terms.append(Term((compound,), excluded=excluded))
        last_alone = alone
    return terms


def index_text(texts: Iterable[str]) -> str:
    """Texts as the index stores them: all words in their order, then the compounds as wholes."""
    parts: list[str] = []
    wholes: dict[str, None] = {}
    for compound in compounds("\n".join(texts)):
        parts += compound
        if len(compound) > 1:
            wholes["".join(compound)] = None
    return " ".join([*parts, *wholes])


def path_key(text: str) -> str:
    """A folder or tag as filters compare it: folded, `_` like a blank, `/` between its levels and around it."""
    levels = (" ".join(level.replace("_", " ").split()) for level in unaccented(text).casefold().split("/"))
    return "/".join(level for level in levels if level)
