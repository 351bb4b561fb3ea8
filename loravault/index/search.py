"""The search over the library: SQLite's FTS5 over names, trigger words, tags, card texts and captions, and facets.

The two tables are made from entries and hold nothing of their own: they can be emptied and filled again at any time.
Our own code cuts texts into words (`search_words`), so the index is told to take what lies between blanks as it is.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from sqlmodel import Session

from loravault.index.chunks import chunks
from loravault.index.search_documents import SearchDocument
from loravault.index.search_slips import misspelt, not_here, strange
from loravault.index.search_words import Filter, Query, Term, parse_query, rating_of
from loravault.library.names import with_a_word_like

Sort = Literal["relevance", "name", "newest", "rating", "used", "size"]

_TEXTS = ("names", "trigger_text", "tag_text", "prose", "captions")
#: How much a word counts in each of them.
_WEIGHTS = (10.0, 6.0, 4.0, 1.5, 1.0)
_FACETS = tuple(one.name for one in fields(SearchDocument) if one.name not in _TEXTS)

#: What `index/database.py` runs to make the tables; they are none of SQLModel's.
DDL = (
    f"CREATE TABLE IF NOT EXISTS search_facet (id INTEGER PRIMARY KEY, {', '.join(_FACETS)}, sum TEXT NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS search_facet_key ON search_facet (key)",
    "CREATE INDEX IF NOT EXISTS search_facet_name ON search_facet (folded, name)",
    f"CREATE VIRTUAL TABLE IF NOT EXISTS search_text USING fts5({', '.join(_TEXTS)}, tokenize='ascii', prefix='1 2 3')",
)

#: Pages of the index that are merged at a time.
_MERGED = 16

#: Characters of a query that are read: nobody types more, and an expression may not become too large for SQLite.
MAX_QUERY = 1000

#: A query of more words than `_LONG` that more than `_BROAD` adapters have is ranked by what they are called.
_LONG, _BROAD = 4, 2000

#: Close names that are told, and words of a query that names are compared with.
_CLOSE, _MAX_WORDS = 3, 4
#: How much alike a name and all that was typed are (`difflib`).
_LIKE = 0.7


@dataclass(frozen=True)
class Hit:
    """One adapter that was found."""

    #: Weight id; `root/rel` of a file that could never be read.
    key: str
    name: str
    family: str
    variant: str | None
    network: str | None
    trigger_words: tuple[str, ...]
    weight: float | None
    #: Of the file that is used.
    folder: str
    rating: float | None
    favourite: bool
    #: How many pictures it had a part in.
    pictures: int
    size: int
    state: str
    #: Root and path of every file, the one that is used first.
    files: tuple[str, ...]
    title: str | None = None
    card: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Found:
    """What a search found."""

    hits: tuple[Hit, ...] = ()
    #: How many there are beyond the limit too.
    total: int = 0
    #: What else the person should know, in sentences.
    remarks: tuple[str, ...] = field(default_factory=tuple)


def store(session: Session, documents: Iterable[SearchDocument], sums: Mapping[str, str] = MappingProxyType({})) -> int:
    """Make these documents current; how many of them were written. What is the same already costs one look.

    `sums`: key -> what `unchanged` knows it by the next time; a sum of the document itself where there is none.
    """
    written = 0
    for some in chunks(documents):
        rows = [
            (document, sums.get(document.key) or _sum(document)) for document in {one.key: one for one in some}.values()
        ]
        known = _known(session, [row.key for row, _ in rows])
        changed = [(row, total) for row, total in rows if known.get(row.key, (0, ""))[1] != total]
        _delete(session, [known[row.key][0] for row, _ in changed if row.key in known])
        _insert(session, changed)
        written += len(changed)
    return written


def unchanged(session: Session, sums: Mapping[str, str]) -> set[str]:
    """The keys of those documents that were stored with these sums."""
    return {key for some in chunks(sums) for key, (_, total) in _known(session, some).items() if total == sums[key]}


def _known(session: Session, keys: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Key -> (number, sum)."""
    marks = ", ".join("?" * len(keys))
    rows = session.connection().exec_driver_sql(
        f"SELECT id, key, sum FROM search_facet WHERE key IN ({marks})", tuple(keys)
    )
    return {key: (number, total) for number, key, total in rows}


def forget(session: Session, keys: Iterable[str]) -> None:
    """These adapters are none of the library's any more: weight ids, or `root/rel` of files that could not be read."""
    for some in chunks(keys):
        marks = ", ".join("?" * len(some))
        found = session.connection().exec_driver_sql(f"SELECT id FROM search_facet WHERE key IN ({marks})", tuple(some))
        _delete(session, [number for (number,) in found.all()])


def merge(session: Session, *, begin: bool) -> bool:
    """A piece of putting the index's parts together, of a few milliseconds. False: there is nothing left to do.

    Every transaction leaves a part behind, and what it replaces stays until its part is merged: a search reads all of
    them. SQLite merges now and then; after ten thousand documents came in, together they make a search twice as slow.
    `begin`: the first piece.
    """
    connection = session.connection()
    ((before,),) = connection.exec_driver_sql("SELECT total_changes()").all()
    pages = -_MERGED if begin else _MERGED  # negative: all parts are merged, whatever their size
    connection.exec_driver_sql("INSERT INTO search_text (search_text, rank) VALUES ('merge', ?)", (pages,))
    ((after,),) = connection.exec_driver_sql("SELECT total_changes()").all()
    return bool(after - before > 1)  # SQLite counts the statement itself


def count(session: Session) -> int:
    """How many documents there are."""
    ((total,),) = session.connection().exec_driver_sql("SELECT COUNT(*) FROM search_facet").all()
    return int(total)


def known_keys(session: Session) -> set[str]:
    """The keys of all documents: weight ids, and `root/rel` of files that could not be read."""
    return {str(key) for (key,) in session.connection().exec_driver_sql("SELECT key FROM search_facet")}


def search(
    session: Session, text: str, filters: Sequence[Filter] = (), *, sort: Sort = "relevance", limit: int | None = 50
) -> Found:
    """Adapters that have all words of the text and meet all filters, those of the text included.

    If none does, more is tried: words that stand for a filter as words, beginnings of all words, then any of the words;
    what is found then is said to be so, and what was meant as a filter and is none.
    """
    asked = parse_query(text[:MAX_QUERY])
    query = replace(asked, filters=(*asked.filters, *filters))
    found = _tried(session, query, sort, limit)
    as_asked = found.total and not found.remarks
    said = (*misspelt(query), *(() if as_asked else strange(query)), *not_here(session, query.filters))
    return replace(found, remarks=(*said, *found.remarks))


def _tried(session: Session, query: Query, sort: Sort, limit: int | None) -> Found:
    found = _run(session, query, _all_words(query), sort, limit)
    if found.total:
        return found
    other = query.with_flags_as_words()
    if other is not None and (found := _run(session, other, _all_words(other), sort, limit)).total:
        flags = ", ".join(f"“{one.value}”" for one in query.filters if one.bare)
        return Found(found.hits, found.total, (f"{flags} was taken as a word, because as a filter it leaves nothing.",))
    query = other or query
    wanted = [term for term in query.terms if not term.excluded]
    if not wanted:
        return found
    if len(wanted) > 1:
        beginnings = [_expression(term, prefix=True) for term in wanted]
        if (found := _run(session, query, " AND ".join(beginnings), sort, limit)).total:
            return found
        if (found := _run(session, query, " OR ".join(beginnings), sort, limit)).total:
            return Found(found.hits, found.total, ("Nothing has all of these words; this has some of them.",))
    near = _near_names(session, query)
    return Found(remarks=(f"Close names: {', '.join(near)}.",) if near else ())


def _all_words(query: Query) -> str | None:
    """The index's expression for all wanted words; the last one may be the beginning of a word."""
    wanted = [term for term in query.terms if not term.excluded]
    last = len(wanted) - 1
    return " AND ".join(_expression(term, prefix=n == last) for n, term in enumerate(wanted)) or None


def _expression(term: Term, *, prefix: bool) -> str:
    """One word or phrase: its parts as neighbours, or the whole in one. Parts are letters and digits, never syntax."""
    star = "*" if prefix and not term.quoted else ""
    parts = [part for compound in term.compounds for part in compound]
    phrase = f'"{" ".join(parts)}"{star}'
    if len(term.compounds) > 1 or len(parts) == 1:
        return phrase
    return f'({phrase} OR "{"".join(parts)}"{star})'


def _run(session: Session, query: Query, words: str | None, sort: Sort, limit: int | None) -> Found:
    """One way to read a query. A wide row is read for what is shown only."""
    conditions, values = _conditions(query)
    source = "search_facet AS f"
    if words is not None:
        source = "search_text JOIN search_facet AS f ON f.id = search_text.rowid"
        conditions.insert(0, "search_text MATCH :words")
        values["words"] = words
    without = [term for term in query.terms if term.excluded]
    if without:
        values["without"] = " OR ".join(_expression(term, prefix=False) for term in without)
        conditions.append("f.id NOT IN (SELECT rowid FROM search_text WHERE search_text MATCH :without)")
    if sort == "relevance" and words is None:
        sort = "name"
    which = _Which(session, source, conditions, values)
    values |= {"whole": query.whole, "most": -1 if limit is None else limit}
    long = sort == "relevance" and sum(len(term.compounds) for term in query.terms) > _LONG
    if long and limit is not None and (total := which.count()) > _BROAD:
        return Found(tuple(_hits(session, which.broadly(words or "", limit))), total)
    numbers = which.ordered(sort)
    total = len(numbers)
    if limit is not None and total >= limit:
        total = which.count()
    return Found(tuple(_hits(session, numbers)), total)


@dataclass(frozen=True)
class _Which:
    """The rows that a query means, as SQL from `FROM` on."""

    session: Session
    source: str
    conditions: Sequence[str]
    values: Mapping[str, Any]

    @property
    def sql(self) -> str:
        """All of it."""
        return f"FROM {self.source} " + (f"WHERE {' AND '.join(self.conditions)}" if self.conditions else "")

    def count(self) -> int:
        """How many there are."""
        only_words = len(self.conditions) == 1 and "words" in self.values  # one row of each table for a document
        sql = f"FROM search_text WHERE {self.conditions[0]}" if only_words else self.sql
        ((total,),) = self._rows(f"SELECT COUNT(*) {sql}")
        return int(total)

    def ordered(self, sort: Sort) -> list[int]:
        """Their numbers, at most `:most`."""
        return [number for (number,) in self._rows(f"SELECT f.id {self.sql} ORDER BY {_ORDER[sort]}, {_TIE}")]

    def broadly(self, words: str, limit: int) -> list[int]:
        """Of many rows that have many words, by relevance as far as it tells something.

        Ranking costs the number of rows times that of words, and where most rows have all of them it says little: only
        those are ranked that have them in what people call an adapter by, the others follow by name.
        """
        exact = "search_text.rowid IN (SELECT id FROM search_facet WHERE folded = :whole)"
        called = replace(self, values={**self.values, "words": f"{{{' '.join(_TEXTS[:3])}}} : ({words})"})
        named = replace(self, conditions=(*self.conditions, exact))
        parts = (named.ordered("name"), called.ordered("relevance"))
        return list(dict.fromkeys([*parts[0], *parts[1], *self.ordered("name")]))[:limit]

    def _rows(self, sql: str) -> Sequence[Any]:
        return self.session.connection().exec_driver_sql(sql, dict(self.values)).all()


def _hits(session: Session, numbers: Sequence[int]) -> Iterator[Hit]:
    for some in chunks(numbers):
        statement = (
            f"SELECT f.*, {_MADE} AS pictures FROM search_facet AS f WHERE f.id IN ({', '.join('?' * len(some))})"
        )
        rows = {row["id"]: row for row in session.connection().exec_driver_sql(statement, tuple(some)).mappings()}
        yield from (_hit(rows[number]) for number in some)


_MADE = "(SELECT COUNT(*) FROM made WHERE weight_id = f.key)"
#: Equal ones by name.
_TIE = "f.folded, f.key LIMIT :most"
#: An adapter of exactly the name that was asked for comes first.
_ORDER: dict[Sort, str] = {
    "relevance": f"f.folded = :whole DESC, bm25(search_text, {', '.join(map(str, _WEIGHTS))})",
    "name": "f.folded",
    "newest": "f.newest DESC",
    "rating": "f.rating IS NULL, f.rating DESC",
    "used": f"{_MADE} DESC",
    "size": "f.size DESC",
}

_FLAG_CONDITIONS = {
    "favourite": "f.favourite",
    "used": "EXISTS (SELECT 1 FROM made WHERE weight_id = f.key)",
    "unused": "NOT EXISTS (SELECT 1 FROM made WHERE weight_id = f.key)",
    "missing": "f.state = 'missing'",
    "duplicate": "f.copies > 1",
    "broken": "f.state = 'broken'",
    "untriggered": "NOT f.triggered AND f.state <> 'broken'",
    "nopreview": "NOT f.previewed AND f.state <> 'broken'",
}


def _conditions(query: Query) -> tuple[list[str], dict[str, Any]]:
    """SQL conditions and their values. Of one kind of which an adapter has one, several filters are alternatives."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    alternatives: dict[str, list[str]] = {}
    for number, one in enumerate(query.filters):
        condition = _condition(one, f"v{number}", values)
        if one.excluded:
            conditions.append(f"NOT ({condition})")
        elif one.key in ("family", "variant", "network", "folder"):
            alternatives.setdefault(one.key, []).append(condition)
        else:
            conditions.append(f"({condition})")
    return conditions + [f"({' OR '.join(some)})" for some in alternatives.values()], values


def _condition(one: Filter, mark: str, values: dict[str, Any]) -> str:
    if one.key == "is":
        return _FLAG_CONDITIONS[one.value]
    if one.key == "rating":
        operator, values[mark] = rating_of(one.value)
        if operator == "=":
            return f"COALESCE(f.rating, 0) = :{mark}"  # 0 is what nobody has rated
        return f"f.rating IS NOT NULL AND f.rating {operator} :{mark}"
    either = []
    for number, value in enumerate(one.value.split(",")):
        name = f"{mark}_{number}"
        if one.key in ("folder", "tag"):
            values[name] = f"/{value}/"
            either.append(f"INSTR(f.{one.key}s, :{name})")
        else:
            values[name] = value
            either.append(f"f.{one.key} = :{name}" + (f" OR f.variant = :{name}" if one.key == "family" else ""))
    return " OR ".join(either)


def _hit(row: Any) -> Hit:
    shown = json.loads(row["shown"])
    return Hit(
        key=row["key"],
        name=row["name"],
        family=shown.get("family", row["family"]),
        variant=shown.get("variant"),
        network=shown.get("network"),
        trigger_words=tuple(shown.get("trigger_words", ())),
        weight=shown.get("weight"),
        folder=shown.get("folder", ""),
        rating=row["rating"],
        favourite=bool(row["favourite"]),
        pictures=row["pictures"],
        size=row["size"],
        state=row["state"],
        files=tuple(shown.get("files", ())),
        title=shown.get("title"),
        card=shown.get("card"),
        reason=shown.get("reason"),
    )


def _near_names(session: Session, query: Query) -> list[str]:
    """Names like all that was typed in one, else names with a word like one of it. Slow: only when nothing is found."""
    found = session.connection().exec_driver_sql("SELECT DISTINCT folded, name FROM search_facet")
    names: dict[str, str] = dict(found.cursor.fetchall()) if found.cursor is not None else {}
    whole = query.whole[:100]
    # a name that is much longer or shorter cannot be like it: most of ten thousand need not be compared
    alike = [folded for folded in names if _LIKE * (len(folded) + len(whole)) <= 2 * min(len(folded), len(whole))]
    near = [names[folded] for folded in difflib.get_close_matches(whole, alike, n=_CLOSE, cutoff=_LIKE)]
    if not near:
        near = with_a_word_like(query.long_words[:_MAX_WORDS], names.values())
    return list(dict.fromkeys(near))[:_CLOSE]


def _sum(document: SearchDocument) -> str:
    return hashlib.blake2b(repr(astuple(document)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _delete(session: Session, numbers: Sequence[int]) -> None:
    if numbers:
        for table, column in (("search_text", "rowid"), ("search_facet", "id")):
            session.connection().exec_driver_sql(
                f"DELETE FROM {table} WHERE {column} = ?", [(number,) for number in numbers]
            )


def _insert(session: Session, rows: Sequence[tuple[SearchDocument, str]]) -> None:
    if not rows:
        return
    connection = session.connection()
    ((last,),) = connection.exec_driver_sql("SELECT COALESCE(MAX(id), 0) FROM search_facet").all()
    facets = [
        (last + n, *(getattr(row, name) for name in _FACETS), total) for n, (row, total) in enumerate(rows, start=1)
    ]
    texts = [(last + n, *(getattr(row, name) for name in _TEXTS)) for n, (row, _) in enumerate(rows, start=1)]
    for table, names, values in (
        ("search_facet", ("id", *_FACETS, "sum"), facets),
        ("search_text", ("rowid", *_TEXTS), texts),
    ):
        marks = ", ".join("?" * len(names))
        connection.exec_driver_sql(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", values)
