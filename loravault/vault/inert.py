"""Text from strangers (metadata, file names, messages of libraries) made harmless before it enters a note.

The result is one line in which nothing is executed, linked, embedded, fetched, tagged or closed: Templater runs every
`<% … %>` it finds in a new file, even in code; Dataview evaluates inline code; Obsidian follows links. Tokens are
broken by a blank or replaced by a sign that looks alike, so that the text stays readable in a note, in a property
(where Markdown escapes would show) and on a terminal.
"""

from __future__ import annotations

import re
import unicodedata

_LOOKALIKE = str.maketrans({"`": "'", "\\": "∖", "$": "＄", "|": "¦", "^": "ˆ", "~": "∼"})
_KEPT_FORMAT = {"\u200c", "\u200d"}  # needed by Persian and Indic words and by emoji; they only ever separate
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<(?=[^\s])"), "< "),  # HTML, comments, autolinks, Templater
    (re.compile(r"(?<=\S)>"), " >"),
    (re.compile(r"%(?=%)"), "% "),  # Obsidian comments
    (re.compile(r"\[(?=[\[!^\]])"), "[ "),  # wikilinks, callouts, footnotes
    (re.compile(r"\](?=[\[(\]:])"), "] "),  # links, reference links, definitions
    (re.compile(r"!(?=\[)"), "! "),
    (re.compile(r"\{(?=\{)"), "{ "),  # core templates
    (re.compile(r"\}(?=\})"), "} "),
    (re.compile(r":(?=:)"), ": "),  # Dataview inline fields
    (re.compile(r"=(?==)"), "= "),
    (re.compile(r"#(?=\S)"), "＃"),  # tags
    (re.compile(r"(?i)(javascript|vbscript|data|file|obsidian|mailto|app):(?=\S)"), r"\1: "),
    (re.compile(r":(?=//)"), ": "),  # bare addresses
    (re.compile(r"-{3,}"), "—"),  # rules, the end of properties
    (re.compile(r"_{3,}"), "__"),
    (re.compile(r"\*{3,}"), "**"),
)
#: Every rule needs one of these, so that a text without them is done.
_ACTIVE = re.compile(r"[<>%\[\]!{}:=#_*`-]")
_VALUE_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"`"), "'"),
    (re.compile(r"<(?=[%!/?a-zA-Z])"), "< "),
    (re.compile(r"%(?=[>%])"), "% "),
    (re.compile(r"\[(?=\[)"), "[ "),
    (re.compile(r"\](?=\])"), "] "),
    (re.compile(r"\{(?=\{)"), "{ "),
    (re.compile(r"\}(?=\})"), "} "),
)
_BLOCK_START = re.compile(r"(?:[>#*+=-]|[0-9]{1,9}[.)])")
_JOINER = "\u2060"
#: Tags side by side are one piece of code. Nothing in one can run: no `%`, `$`, `{`, backtick or second `<`.
_TAGS = re.compile(r"(?:<(?:lora|lyco):\w(?:[\w .()+]|-(?![->])){0,100}(?::[A-Za-z0-9=.+-]{1,20}){0,3}>)+", re.I)
#: Words with single blanks between them, of signs that no rule touches unless there are two of them: nearly every text
#: is that, and stays as it is. (The two are looked for outside, which takes half the time.)
_HARMLESS = re.compile(
    r"""(?![0-9]{1,9}[.)])"""
    r"""[A-Za-z0-9('"·×_][A-Za-z0-9,;./()'"&+@?·×_-]*(?: [A-Za-z0-9,;./()'"&+@?·×_-]+)*\Z"""
)


def inert(text: str, limit: int | None = None) -> str:
    """The text on one line with every active token broken; at most `limit` characters if given (ends in `…` then)."""
    if (limit is None or len(text) <= limit) and _HARMLESS.match(text) and "--" not in text and "__" not in text:
        return text
    line = _one_line(text).translate(_LOOKALIKE)
    if limit is not None and len(line) > limit:
        line = line[: max(0, limit - 1)].rstrip() + "…"
    if _ACTIVE.search(line):
        for pattern, replacement in _RULES:
            line = pattern.sub(replacement, line)
    # A word joiner in front keeps a leading `-`, `>`, `#` or `1.` from starting a list, a quote or a heading.
    return _JOINER + line if _BLOCK_START.match(line) else line


def inert_with_tags(text: str, limit: int | None = None) -> str:
    """Like `inert`, but a LoRA tag, which a person copies from there, stays as it is, as code.

    Without the backticks it would be an autolink, and broken by a blank it is no tag any more.
    """
    if "<" not in text:
        return inert(text, limit)
    line = _one_line(text)
    if limit is not None and len(line) > limit:
        line = line[: max(0, limit - 1)].rstrip() + "…"
    parts, at = [], 0
    for tag in _TAGS.finditer(line):
        parts += [_between(line[at : tag.start()], at > 0), f"`{tag[0]}`"]
        at = tag.end()
    return "".join([*parts, _between(line[at:], at > 0)])


def _between(text: str, behind: bool) -> str:
    """A piece of a line with its outer blanks; `behind` a tag nothing starts a block."""
    if not text.strip():
        return text
    safe = inert(text)
    before, after = " " if text[0] == " " else "", " " if text[-1] == " " else ""
    return f"{before}{safe.removeprefix(_JOINER) if behind else safe}{after}"


def inert_value(text: str, limit: int | None = None) -> str:
    """For a property or a prompt, where Markdown is not read but Templater runs and links are followed all the same.

    One line without hidden characters in which `<%`, `[[`, `{{`, `%%` and backticks are broken; everything else stays,
    because a person may copy it from there.
    """
    if (limit is None or len(text) <= limit) and _HARMLESS.match(text) and "--" not in text and "__" not in text:
        return text
    line = _one_line(text)
    if limit is not None and len(line) > limit:
        line = line[: max(0, limit - 1)].rstrip() + "…"
    if _ACTIVE.search(line):
        for pattern, replacement in _VALUE_RULES:
            line = pattern.sub(replacement, line)
    return line


def _one_line(text: str) -> str:
    if not (text.isascii() and text.isprintable()):  # most text is, and then nothing in it is hidden
        seen = (" " if c.isspace() else c for c in text if c.isspace() or c in _KEPT_FORMAT or not _is_hidden(c))
        text = "".join(seen)
    return " ".join(text.split())


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN
