"""From notes to requests."""

from __future__ import annotations

import pytest

from loravault.requests.model import Request
from loravault.requests.parse import parse_request
from loravault.vault.note import parse_note


def parse(text: str) -> Request | None:
    return parse_request(parse_note(text.encode()))


def request(text: str) -> Request:
    found = parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "just text",
        "---\ntags: [a]\n---\n```prompt\na cat\n```\n",
        "---\nloravault:\n---\n",
        "---\nloravault: card\nlora: w1-0123456789abcdef\n---\n",
        "---\nloravault: [\n---\n```prompt\na cat\n```\n",
        "<<<<<<< a\nx\n=======\ny\n>>>>>>> b\n---\nloravault: generate\n---\n",
    ],
)
def test_what_is_no_request(text: str) -> None:
    assert parse(text) is None


def test_boxes_status_and_options_are_read() -> None:
    found = request(
        "---\nloravault: generate\nrun: true\ncancel: false\nauto: yes\nlv_job: 3fa81c20@desk\nlv_status: done\n"
        "seed: 42\nClip skip: 2\nloras:\n  - ink_outline 0.8\nsteps:\nmy own key: 7\nrating: 5\n---\n"
    )
    assert (found.kind, found.run, found.cancel, found.auto) == ("generate", True, False, True)
    assert (found.job, found.status) == ("3fa81c20@desk", "done")
    assert found.options == {"loras": ["ink_outline 0.8"], "seed": 42, "clip_skip": 2}
    assert found.problems == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("yes", True), ("On", True), ('"true"', True), ("false", False), ("1", False), ("", False)],
)
def test_a_checkbox(text: str, value: bool) -> None:
    assert request(f"---\nloravault: generate\nrun: {text}\n---\n").run is value


def test_a_kind_that_is_not_built_is_answered_in_words() -> None:
    assert request("---\nloravault: merge\n---\n").problems == (
        'Requests of the kind "merge" are not built yet in this version; '
        "`loravault: generate`, `loravault: train` and `loravault: preview` are.",
    )


def test_a_kind_that_does_not_exist_says_which_may_be_meant() -> None:
    assert request("---\nloravault: generat\n---\n").problems == (
        'There is no kind of request called "generat"; did you mean "generate"?',
    )
    assert "this version answers" in request("---\nloravault: zzz\n---\n").problems[0]


def test_only_prompt_blocks_are_blocks_and_each_keeps_its_place() -> None:
    found = request(
        "---\nloravault: generate\n---\n```python\nx\n```\n```prompt\na\n```\ntext\n"
        "~~~prompt\nb\n~~~\n```prompt\na\n```\n"
    )
    assert [block.fence_index for block in found.blocks] == [1, 2, 3]
    assert [block.parsed.prompt for block in found.blocks] == ["a", "b", "a"]
    assert [block.ordinal for block in found.blocks] == [0, 0, 1]
    assert found.blocks[0].block_hash == found.blocks[2].block_hash != found.blocks[1].block_hash


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("- item\n  ```prompt\n  a cat\n  ```\n", "inside a list"),
        ("> ```prompt\n> a cat\n> ```\n", "inside a quote"),
        ("> [!note]\n> ```prompt\n> a cat\n> ```\n", "inside a quote"),
        ("```prompt\na cat\n", "has no end"),
    ],
)
def test_a_block_below_which_nothing_can_be_written_says_so(body: str, words: str) -> None:
    (block,) = request(f"---\nloravault: generate\n---\n{body}").blocks
    assert block.container_problem
    assert words in block.container_problem


def test_the_first_line_of_a_prompt_is_short() -> None:
    (block,) = request(f"---\nloravault: generate\n---\n```prompt\n#| count: 2\n{'cat ' * 50}\nmore\n```\n").blocks
    assert block.first_line.startswith("cat cat")
    assert len(block.first_line) == 80
