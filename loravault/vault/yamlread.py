"""The one place that reads YAML a person wrote. Reading only: nothing here ever emits a document.

PyYAML supplies the scanner and parser (pure Python: the C loader dies by signal on deep nesting); what it resolves is
replaced by the YAML 1.2 core schema, which is what Obsidian's parser uses. Under YAML 1.1 rules `12:30` would be 750,
`on` would be True and `2026-11-20` a date object. The tree is built from parser events without recursion and with caps,
so no document can exhaust the stack, the memory or the clock.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

from yaml.error import MarkedYAMLError, YAMLError
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from loravault.errors import UserError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_NODES = 1000
_MAX_INT_DIGITS = 300
_TAG = "tag:yaml.org,2002:"

_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z")
_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
# YAML 1.1 breaks lines at these three, YAML 1.2 (and Obsidian) does not: they travel through the scanner in disguise.
_OLD_BREAKS = "\x85\u2028\u2029"
_PROBLEM_WORDS = {
    "mapping values are not allowed here": "a second `: ` on one line (put the value in quotes)",
    "could not find expected ':'": "a line without `key: value`",
    "while scanning a simple key": "a line without `key: value`",
    "expected <block end>, but found '<block mapping start>'": "the indentation is off",
    "expected <block end>, but found '-'": "a list item where a property was expected",
    "expected <block end>, but found '<scalar>'": "text after a closing quote or bracket",
    "found unexpected end of stream": "a quote or bracket is never closed",
}


class YamlProblem(UserError):  # noqa: N818 - a problem of the note, told in words
    """A block of properties that cannot be read. `line` counts from 1 inside the block, 0 where it is unknown."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(f"The properties cannot be read: {reason}{f' (line {line})' if line else ''}.")
        self.reason = reason
        self.line = line


@dataclass(frozen=True)
class Entry:
    """One `key: value` of the root mapping, with spans in characters of the text that was read.

    `kind` is `plain`, `quoted`, `block` (`|` or `>`), `list`, `map` or `empty`; `decorated` says that a tag or an
    anchor stands before the key or value.
    """

    key: str
    key_start: int
    key_end: int
    value_start: int
    value_end: int
    kind: str
    decorated: bool


@dataclass(frozen=True)
class Mapping12:
    """A root mapping: its values, where each entry stands, and whether it is written in braces (JSON style)."""

    values: dict[str, Any]
    entries: tuple[Entry, ...]
    flow: bool


def read_mapping(text: str) -> dict[str, Any]:
    """Read a block of properties under YAML 1.2 core rules. Raises `YamlProblem` with the reason in words."""
    return copy.deepcopy(read_entries(text).values)


@lru_cache(maxsize=8)
def read_entries(text: str) -> Mapping12:
    """Like `read_mapping`, and say where every entry of the root mapping stands in `text`.

    The last few are remembered: one write reads the same block several times over to prove that it changed nothing.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlProblem(f"they are longer than {MAX_BYTES // 1024} KiB")
    disguised, restore = _disguise(text)
    try:
        return _Builder(restore).build(_CoreParser(disguised))
    except YamlProblem:
        raise
    except MarkedYAMLError as error:
        raise _in_words(error, text) from None
    except YAMLError as error:  # ReaderError: a character YAML does not allow
        raise YamlProblem(f"a character that YAML does not allow ({str(error).splitlines()[0]})") from None
    except (ValueError, RecursionError, OverflowError, IndexError, AttributeError) as error:
        # The scanner was not written for hostile input: what escapes it is a problem of the note, not of the daemon.
        raise YamlProblem(f"they confuse the YAML reader ({type(error).__name__})") from None


def resolve_plain(text: str) -> Any:
    """The value of an unquoted scalar under the YAML 1.2 core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    return _number(text) if text[0] in "+-.0123456789" else text


def _number(text: str) -> int | float | str:
    if _INT.match(text) and len(text) <= _MAX_INT_DIGITS:
        return int(text)
    if _FLOAT.match(text):  # an integer of hundreds of digits too: int() would refuse it, JavaScript has floats only
        return float(text)
    if _OCTAL.match(text) or _HEX.match(text):
        return int(text, 0)
    special = _SPECIAL_FLOAT.match(text)
    return float(special.group(1) + "inf") if special else text


def _disguise(text: str) -> tuple[str, dict[int, str]]:
    present = [c for c in _OLD_BREAKS if c in text]
    if not present:
        return text, {}
    free = (chr(c) for c in range(0xE000, 0xF8FF) if chr(c) not in text)
    pairs = dict(zip(present, free, strict=False))
    return text.translate({ord(k): v for k, v in pairs.items()}), {ord(v): k for k, v in pairs.items()}


def _in_words(error: MarkedYAMLError, text: str) -> YamlProblem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    lines = re.split(r"\r\n|\r|\n", text)
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    problem = str(error.problem or error.context or "invalid YAML")
    if "{{" in source or "<%" in source:
        return YamlProblem("a template placeholder that was never filled in", line)
    if "\\t" in problem:
        return YamlProblem("a tab where YAML wants spaces", line)
    if "<stream end>" in problem:
        return YamlProblem("a quote or bracket is never closed", line)
    words = _PROBLEM_WORDS.get(problem) or _PROBLEM_WORDS.get(str(error.context)) or problem
    return YamlProblem(words, line)


class _CoreParser(Reader, Scanner, Parser):
    """PyYAML's parser without its composer, with tabs allowed where YAML 1.2 allows them (between tokens, in text)."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)

    def scan_to_next_token(self) -> None:
        """Skip blanks, comments and line breaks; a tab only where it is not indentation."""
        at_line_start = self.column == 0
        while True:
            while self.peek() == " " or (self.peek() == "\t" and (not at_line_start or self.flow_level)):
                self.forward()
            if at_line_start and self.peek() == "\t" and self._rest_is_blank():
                while self.peek() == "\t" or self.peek() == " ":
                    self.forward()
            if self.peek() == "#":
                while self.peek() not in "\0\r\n":
                    self.forward()
            if not self.scan_line_break():  # type: ignore[no-untyped-call]
                return
            at_line_start = True
            if not self.flow_level:
                self.allow_simple_key = True

    def scan_plain_spaces(self, indent: int, start_mark: Any) -> list[str]:
        """Blanks inside an unquoted scalar: a tab between words is part of the text."""
        length = 0
        while self.peek(length) in " \t":
            length += 1
        blanks: str = self.prefix(length)
        if "\t" not in blanks:
            return list(super().scan_plain_spaces(indent, start_mark) or ())
        if self.peek(length) not in "\0\r\n":
            self.forward(length)
            return [blanks]
        self.forward(length)
        return list(super().scan_plain_spaces(indent, start_mark) or ()) if self.peek() != "\0" else []

    def _rest_is_blank(self) -> bool:
        length = 0
        while self.peek(length) in " \t":
            length += 1
        return self.peek(length) in "\0\r\n#"


@dataclass
class _Open:
    """A collection under construction."""

    value: Any
    event: Event
    key: str | None = None
    key_event: ScalarEvent | None = None
    seen: set[str] = field(default_factory=set)


class _Builder:
    """Builds plain Python values from parser events; refuses what a note's properties never need."""

    def __init__(self, restore: dict[int, str]) -> None:
        self._restore = restore
        self._stack: list[_Open] = []
        self._entries: list[Entry] = []
        self._nodes = 0
        self._root: _Open | None = None

    def build(self, parser: _CoreParser) -> Mapping12:
        documents = 0
        for event in _events(parser):
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse(event, "there is a second document (`---` or `...`) in them")
            elif isinstance(event, AliasEvent):
                _refuse(event, "they use a YAML alias (`*name`)")
            elif isinstance(event, ScalarEvent):
                self._scalar(event)
            elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
                self._open(event)
            elif isinstance(event, CollectionEndEvent):
                closed = self._stack.pop()
                self._place(closed.value, closed.event, _index(event.end_mark))
        if self._root is None:
            return Mapping12({}, (), False)
        flow = bool(getattr(self._root.event, "flow_style", False))
        return Mapping12(self._root.value, tuple(self._entries), flow)

    def _count(self, event: Event) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            _refuse(event, f"they hold more than {MAX_NODES} values")

    def _open(self, event: MappingStartEvent | SequenceStartEvent) -> None:
        self._count(event)
        if len(self._stack) >= MAX_DEPTH:
            _refuse(event, f"they are nested deeper than {MAX_DEPTH} levels")
        is_map = isinstance(event, MappingStartEvent)
        if not self._stack:
            if not is_map:
                _refuse(event, "they are a list, not `key: value` lines")
        elif isinstance(self._stack[-1].event, MappingStartEvent) and self._stack[-1].key is None:
            _refuse(
                event,
                "a brace or bracket where text was expected (a template placeholder? put `{{…}}` or `[[…]]` in quotes)",
            )
        opened = _Open({} if is_map else [], event)
        if not self._stack:
            self._root = opened
        self._stack.append(opened)

    def _scalar(self, event: ScalarEvent) -> None:
        self._count(event)
        if not self._stack:
            if event.value == "" and event.implicit[0] and event.style is None:
                return  # an empty block: `---` directly followed by `---`, or comments only
            _refuse(event, "they are plain text, not `key: value` lines")
        top = self._stack[-1]
        if isinstance(top.event, MappingStartEvent) and top.key is None:
            key = self._text(event)
            if key in top.seen:
                _refuse(event, f"the property `{key}` occurs twice")
            top.seen.add(key)
            top.key, top.key_event = key, event
            return
        self._place(self._value(event), event, _index(event.end_mark))

    def _place(self, value: Any, event: Event, end: int) -> None:
        if not self._stack:
            return
        top = self._stack[-1]
        if isinstance(top.event, SequenceStartEvent):
            top.value.append(value)
            return
        assert top.key is not None
        assert top.key_event is not None
        top.value[top.key] = value
        if len(self._stack) == 1:
            self._entries.append(_entry(top.key, top.key_event, event, end))
        top.key = top.key_event = None

    def _text(self, event: ScalarEvent) -> str:
        text: str = event.value.translate(self._restore) if self._restore else event.value
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            try:  # JSON writes emoji as two escapes
                text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                _refuse(event, "half of a character (a lone `\\ud8..` escape)")
        return text

    def _value(self, event: ScalarEvent) -> Any:
        text = self._text(event)
        tag = event.tag
        if tag is None:
            return resolve_plain(text) if event.style is None else text
        kind = tag.removeprefix(_TAG)
        if kind in ("int", "float", "bool", "null"):
            value = resolve_plain(text)
            return float(value) if kind == "float" and isinstance(value, int) else value
        return text  # `!!str`, `!` and tags we do not know: what stands there, as Obsidian shows it


def _events(parser: _CoreParser) -> Iterator[Event]:
    while parser.check_event():
        yield parser.get_event()  # type: ignore[no-untyped-call]


def _entry(key: str, key_event: ScalarEvent, event: Event, end: int) -> Entry:
    start = _index(event.start_mark)
    if isinstance(event, ScalarEvent):
        kind = {None: "plain", "'": "quoted", '"': "quoted"}.get(event.style, "block")
        if kind == "plain" and event.value == "" and start == end:
            kind = "empty"
    else:
        kind = "map" if isinstance(event, MappingStartEvent) else "list"
    decorated = any(getattr(e, "tag", None) or getattr(e, "anchor", None) for e in (key_event, event))
    key_start, key_end = _index(key_event.start_mark), _index(key_event.end_mark)
    return Entry(key, key_start, key_end, start, end, kind, decorated)


def _index(mark: Any) -> int:
    """The offset of a parser mark; events made by this parser always have one."""
    return int(mark.index)


def _refuse(event: Event, reason: str) -> NoReturn:
    raise YamlProblem(reason, event.start_mark.line + 1 if event.start_mark else 0)
