"""Where the fenced code blocks of a note are, by the block rules of CommonMark.

Only as much of CommonMark is followed as decides whether a line of backticks is a fence: block quotes, list items,
paragraphs with their lazy continuation, indented code and HTML blocks. Obsidian's `%%` block comments are skipped when
they are closed. Everything is bytes and byte offsets; lines end with LF, CRLF or a lone CR.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(rb"(?:(`{3,})([^`]*)|(~{3,})(.*))\Z", re.DOTALL)
_HEADING = re.compile(rb"#{1,6}(?:[ \t]|\Z)")
_SETEXT = re.compile(rb"(?:=+|-+)[ \t]*\Z")
_RULE = re.compile(rb"(?:(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|(?:-[ \t]*){3,})\Z")
_MARKER = re.compile(rb"(?:[-+*]|([0-9]{1,9})[.)])(?=[ \t]|\Z)")
_BLOCK_TAGS = (
    rb"address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|dl|dt|"
    rb"fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|menu|"
    rb"menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr|"
    rb"track|ul"
)
_ATTRIBUTE = rb"""\s+[A-Za-z_:][\w.:-]*(?:\s*=\s*(?:[^\s"'=<>`]+|'[^']*'|"[^"]*"))?"""
# (start, end); an end of None is a blank line.
_HTML: tuple[tuple[re.Pattern[bytes], re.Pattern[bytes] | None], ...] = (
    (
        re.compile(rb"<(?:script|pre|style|textarea)(?:\s|>|\Z)", re.I),
        re.compile(rb"</(?:script|pre|style|textarea)>", re.I),
    ),
    (re.compile(rb"<!--"), re.compile(rb"-->")),
    (re.compile(rb"<\?"), re.compile(rb"\?>")),
    (re.compile(rb"<!\[CDATA\["), re.compile(rb"\]\]>")),
    (re.compile(rb"<![A-Za-z]"), re.compile(rb">")),
    (re.compile(rb"</?(?:" + _BLOCK_TAGS + rb")(?:\s|/?>|\Z)", re.I), None),
)
_LONE_TAG = re.compile(rb"<(?:[A-Za-z][A-Za-z0-9-]*(?:" + _ATTRIBUTE + rb")*\s*/?|/[A-Za-z][A-Za-z0-9-]*\s*)>[ \t]*\Z")
_SPECIAL = frozenset(b" \t>`~<#-+*=_%0123456789")


@dataclass
class RawFence:
    """A fenced code block as found: byte offsets into the note, lines of the body without prefix and indentation."""

    start: int
    info: bytes
    container: str
    body_start: int
    body_end: int = 0
    end: int = 0
    closed: bool = False
    outer_end: int = 0
    lines: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Scan:
    """All fences in order; and where the first construct starts that swallows the rest of the note, if one does."""

    fences: tuple[RawFence, ...]
    open_tail: int | None


def scan_fences(data: bytes, start: int) -> Scan:
    """Find the fenced code blocks of `data` from byte `start` (the start of the body) on."""
    if not any(token in data for token in (b"```", b"~~~", b"%%", b"<")):  # most notes: nothing to find
        return Scan((), None)
    return _Scanner(data, start).scan()


def body_lines(data: bytes, start: int) -> Iterator[tuple[int, bytes, int]]:
    """(offset, line without its ending, offset of the next line) from `start` to the end."""
    at = start
    for line in data[start:].splitlines(keepends=True) if start else data.splitlines(keepends=True):
        yield at, line.rstrip(b"\r\n"), at + len(line)
        at += len(line)


@dataclass
class _Container:
    kind: str  # 'quote' | 'list'
    width: int = 0  # list: columns of indentation its content needs
    empty: bool = False  # list: nothing but the marker so far


class _Cursor:
    """A position in one line that counts columns, with tab stops of four."""

    __slots__ = ("col", "line", "pending", "pos")

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.pos = 0
        self.col = 0
        self.pending = 0  # columns of a tab that were not consumed with its first part

    def indent(self) -> int:
        """Columns of blanks ahead."""
        col, at = self.col + self.pending, self.pos
        while at < len(self.line):
            byte = self.line[at]
            if byte == 0x20:
                col += 1
            elif byte == 0x09:
                col += 4 - col % 4
            else:
                break
            at += 1
        return col - self.col

    def eat(self, columns: int) -> None:
        """Consume up to so many columns of blanks."""
        while columns > 0:
            if self.pending:
                taken = min(self.pending, columns)
                self.pending -= taken
                self.col += taken
                columns -= taken
            elif self.pos < len(self.line) and self.line[self.pos] in b" \t":
                width = 1 if self.line[self.pos] == 0x20 else 4 - self.col % 4
                self.pos += 1
                taken = min(width, columns)
                self.pending = width - taken
                self.col += taken
                columns -= taken
            else:
                return

    def rest(self) -> bytes:
        """What is left, without leading blanks."""
        return self.line[self.pos :].lstrip(b" \t")

    def skip(self, count: int) -> None:
        """Consume the blanks ahead and `count` further characters."""
        self.eat(self.indent())
        self.pos += count
        self.col += count


class _Scanner:
    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.begin = start
        self.fences: list[RawFence] = []
        self.containers: list[_Container] = []
        self.paragraph = False
        self.fence: RawFence | None = None
        self.fence_mark = b""
        self.fence_indent = 0
        self.html_end: re.Pattern[bytes] | None = None
        self.in_html = False
        self.html_start = 0
        self.comment_start: int | None = None
        self.skip_until = 0
        self.pending: list[RawFence] = []  # fences in a container that is still open
        self.pending_in: _Container | None = None  # the outermost container of those
        self.content_end = start

    def scan(self) -> Scan:
        for at, line, following in body_lines(self.data, self.begin):
            if at < self.skip_until:
                continue
            if not self.containers and self.fence is None and not self.in_html:
                first = line[:1]
                if not line.strip(b" \t"):
                    self.paragraph = False
                    continue
                if first[0] not in _SPECIAL:
                    self.paragraph = True
                    continue
            self._line(at, line, following)
        return self._finish()

    def _finish(self) -> Scan:
        end = len(self.data)
        tails = [] if self.comment_start is None else [self.comment_start]
        if self.fence is not None:
            if self.fence.container == "":
                tails.append(self.fence.start)
            self._end_fence(end, end, closed=False)
        if self.in_html and self.html_end is not None and not self.containers:
            tails.append(self.html_start)
        self._settle(None)
        return Scan(tuple(self.fences), min(tails) if tails else None)

    def _comment(self, at: int, line: bytes, following: int) -> None:
        """Skip a closed `%%` block comment; remember one that is never closed."""
        self.paragraph = False
        if line.count(b"%%") % 2 == 0:
            return
        close = self.data.find(b"%%", following)
        if close < 0:
            if self.comment_start is None:
                self.comment_start = at
            return
        ends = [e for e in (self.data.find(b"\n", close), self.data.find(b"\r", close)) if e >= 0]
        self.skip_until = min(ends) + 1 if ends else len(self.data)

    def _line(self, at: int, line: bytes, following: int) -> None:
        cursor = _Cursor(line)
        matched = self._match(cursor)
        blank = not cursor.rest()
        if matched < len(self.containers) and (self.fence is not None or self.in_html):
            self._close_leaf(at)
        if self.fence is not None:
            self._in_fence(cursor, at, line, following)
        elif self.in_html:
            self._in_html(cursor, blank)
        elif blank:
            self.paragraph = False
            self._drop(matched)
        elif matched == 0 and line.startswith(b"%%"):
            self._drop(0)
            self._comment(at, line, following)
        else:
            self._open_blocks(cursor, matched, at, following)
        if not blank:
            self._settle(at)
            if self.containers:
                self.content_end = at + len(line)

    def _match(self, cursor: _Cursor) -> int:
        """How many of the open containers this line continues; their prefixes are consumed."""
        for number, container in enumerate(self.containers):
            rest = cursor.rest()
            if container.kind == "quote":
                if cursor.indent() > 3 or rest[:1] != b">":
                    return number
                cursor.skip(1)
                cursor.eat(1)
            elif not rest:
                if container.empty:
                    return number
                cursor.eat(container.width)
            elif cursor.indent() >= container.width:
                cursor.eat(container.width)
                container.empty = False
            else:
                return number
        return len(self.containers)

    def _drop(self, keep: int) -> None:
        del self.containers[keep:]

    def _settle(self, at: int | None) -> None:
        """Fences of a container that has ended learn where it ended."""
        if not self.pending:
            return
        outer = self.containers[0] if self.containers and at is not None else None
        # The items of a list are containers of their own; a quote ends where its container ends.
        in_list = outer is not None and outer.kind == "list" and self.pending[0].container == "list"
        if outer is None or not (in_list or outer is self.pending_in):
            for fence in self.pending:
                fence.outer_end = max(fence.end, self.content_end)
            self.pending = []

    def _close_leaf(self, at: int) -> None:
        """The container around an open fence or HTML block ended, and the block with it."""
        if self.fence is not None:
            self._end_fence(at, max(self.content_end, self.fence.start), closed=False)
        self.in_html = False
        self.paragraph = False

    def _end_fence(self, body_end: int, end: int, *, closed: bool) -> None:
        fence = self.fence
        assert fence is not None
        fence.body_end, fence.end, fence.closed, fence.outer_end = body_end, end, closed, end
        if not closed:
            fence.body_start = min(fence.body_start, body_end)
        if fence.container:
            self.pending.append(fence)
        self.fence = None

    def _in_fence(self, cursor: _Cursor, at: int, line: bytes, following: int) -> None:
        assert self.fence is not None
        if cursor.indent() <= 3:
            rest = cursor.rest().rstrip(b" \t")
            if len(rest) >= len(self.fence_mark) and rest == self.fence_mark[:1] * len(rest):
                self._end_fence(at, at + len(line), closed=True)
                return
        cursor.eat(self.fence_indent)
        self.fence.lines.append(b" " * cursor.pending + line[cursor.pos :])
        self.fence.body_end = following

    def _in_html(self, cursor: _Cursor, blank: bool) -> None:
        if blank if self.html_end is None else bool(self.html_end.search(cursor.line, cursor.pos)):
            self.in_html = False

    def _open_blocks(self, cursor: _Cursor, matched: int, at: int, following: int) -> None:
        while True:
            indent, rest = cursor.indent(), cursor.rest()
            unmatched = matched < len(self.containers)
            if not rest:
                self._drop(matched)
                self.paragraph = False
                return
            if indent > 3:
                if not self.paragraph:
                    self._drop(matched)
                return
            if rest[:1] == b">":
                self._drop(matched)
                cursor.skip(1)
                cursor.eat(1)
                self._push(_Container("quote"))
            elif self._fence_opens(rest, indent, matched, at, following) or self._html_opens(rest, matched, at):
                return
            elif self._is_line_block(rest, setext=self.paragraph and not unmatched):
                self._drop(matched)
                self.paragraph = False
                return
            elif not self._list_opens(cursor, rest, unmatched, matched):
                if not (self.paragraph and unmatched):  # else a lazy continuation: every container stays open
                    self._drop(matched)
                self.paragraph = True
                return
            matched = len(self.containers)

    @staticmethod
    def _is_line_block(rest: bytes, *, setext: bool) -> bool:
        return bool(_HEADING.match(rest) or _RULE.match(rest) or (setext and _SETEXT.match(rest)))

    def _push(self, container: _Container) -> None:
        self.containers.append(container)
        self.paragraph = False

    def _fence_opens(self, rest: bytes, indent: int, matched: int, at: int, following: int) -> bool:
        found = _FENCE.match(rest) if rest[:1] in (b"`", b"~") else None
        if found is None:
            return False
        self._drop(matched)
        self.paragraph = False
        container = self.containers[0].kind if self.containers else ""
        info = (found.group(2) if found.group(1) else found.group(4)).strip(b" \t")
        self.pending_in = self.containers[0] if self.containers else None
        self.fence = RawFence(at, info, container, following, following)
        self.fence_mark = found.group(1) or found.group(3)
        self.fence_indent = indent
        self.fences.append(self.fence)
        return True

    def _html_opens(self, rest: bytes, matched: int, at: int) -> bool:
        if rest[:1] != b"<":
            return False
        end: re.Pattern[bytes] | None = None
        for start, end in _HTML:  # noqa: B007 - the end that goes with the start that matched
            if start.match(rest):
                break
        else:
            if self.paragraph or not _LONE_TAG.match(rest):
                return False
            end = None
        self._drop(matched)
        self.paragraph = False
        if end is None or not end.search(rest):
            self.in_html, self.html_end, self.html_start = True, end, at
        return True

    def _list_opens(self, cursor: _Cursor, rest: bytes, unmatched: bool, matched: int) -> bool:
        found = _MARKER.match(rest)
        if found is None:
            return False
        after = rest[found.end() :].strip(b" \t")
        number = found.group(1)
        if self.paragraph and not unmatched and (not after or (number is not None and int(number) != 1)):
            return False
        indent = cursor.indent()
        self._drop(matched)
        cursor.skip(found.end())
        blanks = cursor.indent()
        if not after or blanks > 4:
            blanks = 1
        cursor.eat(blanks)
        self._push(_Container("list", indent + found.end() + blanks, empty=not after))
        return True
