"""What is said of filters that are misspelt, and of those that ask for what no LoRA of the library is."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from sqlmodel import Session

from loravault.index.search_words import FLAGS, KEYS, Filter, Query, rating_of
from loravault.requests.slips import is_slip

#: What filters are called elsewhere.
_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "base": "family", "model": "family", "type": "network", "algo": "network", "dir": "folder", "path": "folder",
        "category": "folder", "topic": "tag", "topics": "tag", "star": "rating", "stars": "rating",
    }
)  # fmt: skip
_MOST_STARS = 5
#: Values that the library has, told in place of one that it has not; sentences of a kind; letters of a value.
_VALUES, _SENTENCES, _LETTERS = 12, 3, 60
#: How much alike two values are that are told first (`difflib`).
_NEAR = 0.5


def misspelt(query: Query) -> list[str]:
    """A sentence for every `word:value` that was certainly meant as a filter and says nothing as one. Pure."""
    sentences = [_slip(key) for key, _ in query.unread]
    if any(one.key == "rating" and rating_of(one.value)[1] > _MOST_STARS for one in query.filters):
        sentences.append(_RATING)
    return list(dict.fromkeys(one for one in sentences if one))


def strange(query: Query) -> list[str]:
    """The same for what only looks like a filter, as `size:>1` and a name like `re:zero` do. Pure."""
    words = dict.fromkeys(key for key, value in query.unread if value and not _slip(key))
    there = ", ".join(f"`{key}`" for key in KEYS)
    return [f"`{word[:_LETTERS]}` is no filter; there are {there}." for word in list(words)[:_SENTENCES]]


_RATING = f"`rating:` takes a number from 0 to {_MOST_STARS}, as in `rating:>=4`."


def _slip(key: str) -> str | None:
    if key == "rating":
        return _RATING
    if key == "is":
        return f"`is:` takes one of these: {', '.join(dict.fromkeys(FLAGS.values()))}."
    meant = _ELSEWHERE.get(key) or next((name for name in KEYS if is_slip(key, name)), None)
    return f"`{key}` is no filter; did you mean `{meant}`?" if meant else None


def not_here(session: Session, filters: Iterable[Filter]) -> list[str]:
    """A sentence for every family, variant, network and folder that filters name and no LoRA has."""
    asked = dict.fromkeys((one.key, value) for one in filters for value in one.value.split(","))
    sentences: list[str] = []
    for key, value in asked:
        if len(sentences) < _SENTENCES and key in _WHERE and not _there(session, key, value):
            known = _known(session, key)
            shown = f"; there are: {_listed(value, known, _more(session, key))}" if known else ""
            place = f"lies in a folder {value[:_LETTERS]}" if key == "folder" else f"is of the {key} {value[:_LETTERS]}"
            sentences.append(f"No LoRA here {place}{shown}.")
    return sentences


_WHERE = {
    "family": "family = :value OR variant = :value",
    "variant": "variant = :value",
    "network": "network = :value",
    "folder": "INSTR(folders, '/' || :value || '/')",
}


def _there(session: Session, key: str, value: str) -> bool:
    statement = f"SELECT 1 FROM search_facet WHERE {_WHERE[key]} LIMIT 1"
    return session.connection().exec_driver_sql(statement, {"value": value}).first() is not None


def _known(session: Session, key: str) -> list[str]:
    """What may be asked for."""
    if key != "folder":
        return _column(session, key)
    paths = (path.strip("/") for folders in _column(session, "folders") for path in folders.split("\n"))
    levels = (path.split("/") for path in paths if path)
    return sorted({"/".join(level[:end]) for level in levels for end in range(1, len(level) + 1)})


def _more(session: Session, key: str) -> list[str]:
    """What is understood, too, and told only if it was nearly said."""
    return _column(session, "variant") if key == "family" else []


def _column(session: Session, name: str) -> list[str]:
    rows = session.connection().exec_driver_sql(f"SELECT DISTINCT {name} FROM search_facet ORDER BY {name}")
    return [str(value) for (value,) in rows if value]


def _listed(value: str, known: Sequence[str], more: Collection[str]) -> str:
    """What is nearest first. Of a folder its last level is enough to be near."""
    spelled = {one.rpartition("/")[2]: one for one in reversed([*known, *more])} | {one: one for one in [*known, *more]}
    near = difflib.get_close_matches(value[:_LETTERS], spelled, n=_VALUES, cutoff=_NEAR)
    every = list(dict.fromkeys([*(spelled[one] for one in near), *known]))
    rest = len(every) - _VALUES
    return ", ".join(every[:_VALUES]) + (f" and {rest:,} more" if rest > 0 else "")
