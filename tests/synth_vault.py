"""Ordinary notes as people have them, made from a seed: the crowd in which loravault may change nothing.

`make_notes(500, seed=1)` gives (vault-relative path, bytes) pairs, always the same for the same arguments. None of them
is a request (`requests` makes those); all of them must be byte-identical after any run.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

BOM = b"\xef\xbb\xbf"
_WORDS = """river mountain lantern Übung naïve 東京 привет 🎨 👩‍🚀 quiet harbour 2026 winter [[Index]]
#idea #art/ink moonlight **bold** _thin_ `code` %%aside%% [link](https://example.org)
<span>html</span> ~~old~~ $x^2$ ==marked== ink, paper; tea"""
WORDS = _WORDS.split()
NAMES = (
    *(
        "Notes on ink",
        "Tagebuch",
        "café",
        "Ångström",
        "東京 trip",
        "2026-11-20",
        "Idee 💡",
        "a & b",
        "X 2",
        "prompt ideas",
    ),
    *("Новая заметка", "résumé (1)", "long " + "name " * 20),
)
FOLDERS = ("", "Daily", "Projects/Ink", "Projekte/Über", "Zettel", "café/notes", "Archive.old")

FRONTMATTERS = (
    "---\ntitle: A walk\ndate: 2026-11-20\n---\n",
    "---\n---\n",
    "---\n\n---\n",
    "---   \ntags: [a, b]\n---  \n",
    '---\ntags:\n- unindented\n-   wide\naliases:\n  - "quoted: yes"\n---\n',
    "---\n# a comment first\ntitle: x # and behind\n\n\nempty: \nrun: true\nstatus: queued\n---\n",
    "---\ntime: 12:30\nswitch: on\noctal: 010\nbig: 18446744073709551615\nsmall: 1e-4\n---\n",
    "---\ntext: |-\n  several\n  lines\n\n  ---\n  of text\nfolded: >+\n  more\n\n---\n",
    '---\n{\n  "json": true,\n  "list": [1, 2]\n}\n---\n',
    "---\ntitle: {{title}}\ndate: {{date}}\n---\n",
    "---\nbroken: [a, b\nother: 'x\n---\n",
    "---\nkey: 1\nkey: 2\nKey: 3\n---\n",
    "---\n\ttab: indented\n---\n",
    '---\nlink: [[Unquoted]]\nquoted: "[[Quoted|alias]]"\n---\n',
    "---\nanchor: &a {x: 1}\nalias: *a\n---\n",
    "---\njust some text between rules\n---\n",
    "---\nnever closed: true\n",
    "---\nends: with dots\n...\n",
    "----\nnot: properties\n----\n",
    "\n---\nlate: true\n---\n",
    "---\ntags:   \ncssclasses: [wide,img-grid]\npublish:\n---   \t\n",
    "---\nlv_unknown: kept\nmentions: loravault is nice\n---\n",
    "",
)

BLOCKS: tuple[Callable[[random.Random], str], ...] = (
    lambda r: _sentence(r) + "\n",
    lambda r: "\n".join(_sentence(r) for _ in range(r.randint(2, 6))) + "\n",
    lambda r: f"{'#' * r.randint(1, 6)} {_sentence(r)}\n",
    lambda r: "".join(
        f"{'  ' * r.randint(0, 4)}- [{r.choice(' x/')}] {_sentence(r)}\n" for _ in range(r.randint(1, 8))
    ),
    lambda r: "".join(f"{'   ' * r.randint(0, 2)}{i}. {_sentence(r)}\n" for i in range(1, r.randint(2, 6))),
    lambda r: "```prompt\na lantern on the river, in a note that is no request\n```\n",
    lambda r: f"```python\nprint({_sentence(r)!r})\n\n```\n",
    lambda r: "~~~~\n```\ninner\n```\n~~~~\n",
    lambda r: "- item\n  ```prompt\n  in a list\n  ```\n- next\n",
    lambda r: "> [!note]- folded\n> > nested\n> ```prompt\n> quoted\n> ```\n",
    lambda r: "> [!lora-result]+ 1 image, written by hand\n> ![[x.webp|256]]\n\n^lv-12345678-abcdef\n",
    lambda r: "%%\nhidden\n```prompt\nx\n```\n%%\n",
    lambda r: "<!-- hidden\n```prompt\nx\n```\n-->\n",
    lambda r: (
        "```dataview\nTABLE file.ctime FROM #art\nSORT file.name\n```\n\n`= this.file.name` and `$= dv.current()`\n"
    ),
    lambda r: "<%* tR += 'templater' %>\n<% tp.date.now() %>\n{{date}} {{title}}\n",
    lambda r: "| a | b |\n|---|:-:|\n| ![[x.png\\|20]] | y |\n",
    lambda r: '{"nodes":[{"id":"1","type":"text","text":"canvas","x":0,"y":0,"width":10,"height":10}],"edges":[]}\n',
    lambda r: "![[cover.png|300]]\n![300](https://example.org/x.png)\n",
    lambda r: "key:: value\n[inline:: field]\n\n^block-id\n",
    lambda r: "    indented code\n\ttabbed code   \n",
    lambda r: "---\n\n***\n\n- - -\n",
    lambda r: "text with trailing blanks   \nand\ttabs\t\n\u00a0nbsp \u200bzero\u2028line separator\u0085next\n",
    lambda r: "\n" * r.randint(1, 5),
    lambda r: "$$\n\\int_0^1 x\\,dx\n$$\n\n[^1]: a footnote\n",
    lambda r: "=======\nnot a conflict\n",
    lambda r: "a portrait <lora:ink_outline:0.8>\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 42\n",
)


def make_notes(count: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """`count` ordinary notes; paths are unique, also for a file system that knows no upper and lower case."""
    random_ = random.Random(seed)
    notes: list[tuple[str, bytes]] = []
    taken: set[str] = set()
    for number in range(count):
        path = _path(random_, number)
        key = unicodedata.normalize("NFC", path).casefold()
        if key in taken:
            path = path.removesuffix(".md") + f" {number}.md"
            key = unicodedata.normalize("NFC", path).casefold()
        taken.add(key)
        notes.append((path, make_note(random_, number)))
    return notes


def make_note(random_: random.Random, number: int) -> bytes:
    """One ordinary note; every oddity comes up, by number, before chance decides."""
    front = FRONTMATTERS[number % len(FRONTMATTERS)] if random_.random() < 0.8 else ""
    body = "".join(_joined(random_) for _ in range(random_.randint(0, 9)))
    if number % 97 == 50:
        body *= max(1, 300_000 // max(1, len(body.encode())))  # huge, but still a note
    text = front + body
    if number % 7 == 3:
        text = text.rstrip("\n")
    if number % 11 == 5:
        text = unicodedata.normalize("NFD", text)
    data = _line_ends(text, random_, number % 5).encode("utf-8")
    if number % 13 == 7:
        data = BOM + data
    return _damaged(data, number)


def write_vault(root: Path, count: int, seed: int = 0) -> dict[str, bytes]:
    """Write the notes below `root`; returns what was written, by vault-relative path."""
    written = {}
    for rel, data in make_notes(count, seed):
        path = root / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written[rel] = data
    return written


def snapshot(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below `root` outside dot folders, as (vault-relative path, bytes)."""
    for path in sorted(root.rglob("*")):
        rel = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in rel.parts):
            yield rel.as_posix(), path.read_bytes()


def _sentence(random_: random.Random) -> str:
    return " ".join(random_.choice(WORDS) for _ in range(random_.randint(1, 12)))


def _joined(random_: random.Random) -> str:
    return random_.choice(BLOCKS)(random_) + random_.choice(("", "\n", "\n", "\n\n"))


def _path(random_: random.Random, number: int) -> str:
    name = random_.choice(NAMES).strip()
    form = "NFD" if number % 4 == 1 else "NFC"
    folder = random_.choice(FOLDERS)
    path = f"{folder}/{name}" if folder else name
    return unicodedata.normalize(form, f"{path} {number // 3}" if number % 3 else path) + ".md"


def _line_ends(text: str, random_: random.Random, kind: int) -> str:
    if kind == 1:
        return text.replace("\n", "\r\n")
    if kind == 2 and random_.random() < 0.5:  # mixed, as two editors on two systems leave it
        return "".join(c if c != "\n" else random_.choice(("\n", "\r\n")) for c in text)
    if kind == 4 and random_.random() < 0.1:
        return text.replace("\n", "\r")
    return text


def _damaged(data: bytes, number: int) -> bytes:
    if number % 41 == 13:
        return data + b"\xff\xfe broken utf-8 \xc3\x28"
    if number % 83 == 29:
        return data + b"\0\0"
    if number % 89 == 31:
        return data + b"\n<<<<<<< HEAD\nmine\n=======\ntheirs\n>>>>>>> branch\n"
    if number % 101 == 37:
        return b""
    return data
