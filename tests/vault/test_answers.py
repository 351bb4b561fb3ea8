"""Answers land behind their block, in the right order, and the user's bytes are what they were."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.vault import answers as room
from loravault.vault.answers import Answer, apply_answers_told, strip_ours
from loravault.vault.note import block_hash, parse_note
from loravault.vault.properties import EditRefused
from tests.answering import apply_answers
from tests.synth_vault import make_note

HEAD = "---\nloravault: generate\nrun: true\n---\n"
CAT = block_hash("a cat")


def result(job: str, ordinal: int = 0, digest: str | None = CAT, title: str = "1 image") -> Answer:
    return Answer(job, digest, ordinal, "result", (f"[!lora-result]+ {title}", f"![[{job}.webp|256]]"), "a cat")


def failure(job: str, ordinal: int = 0, digest: str | None = CAT, title: str = "No picture") -> Answer:
    return Answer(job, digest, ordinal, "failure", (f"[!failure] {title}", "Try this."), "a cat")


def jobs(data: bytes) -> list[str]:
    return [region.job for region in parse_note(data).regions]


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
def test_a_result_stands_directly_behind_its_block(eol):
    data = (HEAD + "```prompt\na cat\n```\n\nafter\n").replace("\n", eol).encode()
    new = apply_answers(data, [result("a1@desk")], {"run": False, "lv_job": "a1@desk"})
    total = parse_note(new).regions[0].checksum
    assert new.decode() == (
        "---\nloravault: generate\nrun: false\nlv_job: a1@desk\n---\n```prompt\na cat\n```\n\n"
        f"> [!lora-result]+ 1 image\n> ![[a1@desk.webp|256]]\n\n^lv-a1-{total}\n\nafter\n"
    ).replace("\n", eol)


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "\n",
        "\n\n",
        "\nafter",
        "\nafter\n",
        "\n> [!note] mine\n",
        "\n\n> quote",
        "\n```prompt\na dog\n```",
        "\n   \nx",
        "  \n\ty\n",
    ],
)
def test_whatever_follows_the_block_every_byte_comes_back(tail):
    """The empty line that Obsidian needs below a block id is added only where text follows, and is remembered."""
    data = (HEAD + "```prompt\na cat\n```" + tail).encode()
    new = data
    for job in ("a1", "a2", "a3"):
        new = apply_answers(new, [result(job)])
        assert strip_ours(new) == strip_ours(data)
    region = parse_note(new).regions[-1]
    below = new[region.end :].decode().split("\n")
    assert len(below) < 2 or not below[1].strip()
    assert jobs(new) == ["a3", "a2", "a1"]
    assert new.endswith(b"\n") == (data.endswith(b"\n"))


def test_newest_first_older_folded_failure_replaced():
    data = (HEAD + "```prompt\na cat\n```\nafter\n").encode()
    for answer in (failure("f1"), result("r1"), result("r2"), failure("f2"), failure("f3")):
        data = apply_answers(data, [answer])
    regions = parse_note(data).regions
    assert [(r.job, r.folded) for r in regions] == [("f3", False), ("r2", False), ("r1", True)]
    data = apply_answers(data, [result("r3")])
    assert [(r.job, r.folded) for r in parse_note(data).regions] == [("r3", False), ("r2", True), ("r1", True)]
    assert all(r.fence_index == 0 and r.intact for r in parse_note(data).regions)


def test_the_same_answer_again_changes_nothing_also_after_an_edit():
    data = (HEAD + "```prompt\na cat\n```\n").encode()
    once = apply_answers(data, [result("r1"), failure("f1", 7)], {"lv_status": "done"})
    assert apply_answers(once, [result("r1"), failure("f1", 7)], {"lv_status": "done"}) == once
    edited = once.replace(b"|256", b"|420")
    assert apply_answers(edited, [result("r1")]) == edited


def test_a_retry_of_a_failed_job_replaces_its_own_failure():
    data = apply_answers((HEAD + "```prompt\na cat\n```\n").encode(), [failure("j1")])
    data = apply_answers(data, [failure("j1", title="Failed again")])
    assert b"Failed again" in data
    assert jobs(data) == ["j1"]
    data = apply_answers(data, [result("j1")])
    assert [(r.job, r.kind) for r in parse_note(data).regions] == [("j1", "result")]
    assert apply_answers(data, [failure("j1")]) == data, "a late failure does not take a picture away"


def test_an_edited_region_is_never_touched_and_the_new_one_stands_above():
    data = apply_answers((HEAD + "```prompt\na cat\n```\n").encode(), [failure("f1")])
    edited = data.replace(b"Try this.", b"Try this. I did.")
    new = apply_answers(edited, [result("r1")])
    assert jobs(new) == ["r1", "f1"]
    assert b"> Try this. I did." in new
    assert not parse_note(new).regions[1].intact


def test_the_nth_of_equal_blocks_gets_its_own_answer():
    data = (HEAD + "```prompt\na cat\n```\n\n~~~prompt\na cat\n~~~\n").encode()
    new = apply_answers(data, [result("second", 1), result("first", 0)])
    assert [(r.job, r.fence_index) for r in parse_note(new).regions] == [("first", 0), ("second", 1)]


def test_a_copied_block_with_its_result_is_not_confused_with_the_original():
    data = apply_answers((HEAD + "```prompt\na cat\n```\n").encode(), [result("r1")])
    body = data[data.index(b"```prompt") :]
    copied = data + b"\n" + body
    new = apply_answers(copied, [result("r2", 1)])
    assert [(r.job, r.fence_index) for r in parse_note(new).regions] == [("r1", 0), ("r2", 1), ("r1", 1)]


def test_a_block_that_is_gone_is_answered_at_the_end_with_its_first_line():
    data = (HEAD + "text\n\n\n").encode()
    new = apply_answers(data, [result("r1"), result("r2", 3)])
    assert new.startswith(
        (HEAD + "text\n\n> [!lora-result]+ 1 image\n> The block it answers is gone: “a cat”\n").encode()
    )
    assert jobs(new) == ["r1", "r2"]
    assert strip_ours(new) == strip_ours(data)


@pytest.mark.parametrize(
    "body",
    [
        "- x\n  ```prompt\n  a cat\n  ```\n- y\nafter\n",
        "> ```prompt\n> a cat\n> ```\nlazy\n\nafter\n",
        "1. ```prompt\n   a cat\n   ```",
    ],
)
def test_a_block_in_a_list_or_quote_is_answered_below_the_whole_of_it(body):
    data = (HEAD + body).encode()
    new = apply_answers(data, [failure("f1")])
    assert strip_ours(new) == strip_ours(data)
    assert parse_note(new).regions[0].intact
    assert parse_note(apply_answers(new, [failure("f2")])).regions[0].job == "f2", (
        "the failure is replaced, not piled up"
    )
    assert jobs(apply_answers(new, [failure("f2")])) == ["f2"]


def test_an_unclosed_block_is_answered_above_it_because_below_would_be_inside():
    data = (HEAD + "text\n```prompt\na cat\n").encode()
    new = apply_answers(data, [failure("f1")])
    assert parse_note(new).regions[0].intact
    assert parse_note(new).fences[0].body == "a cat"
    assert strip_ours(new) == strip_ours(data)
    again = apply_answers(new, [failure("f2")])
    assert jobs(again) == ["f2"]
    both = apply_answers(new, [result("g1", 5), result("g2", 6)])
    assert strip_ours(both) == strip_ours(data)
    assert len(parse_note(both).prompts) == 1


def test_a_note_level_failure_replaces_the_last_one_but_not_a_neighbour_of_the_same_delivery():
    data = (HEAD + "text\n").encode()
    once = apply_answers(data, [failure("f1", digest=None)])
    assert jobs(apply_answers(once, [failure("f2", digest=None)])) == ["f2"]
    assert jobs(apply_answers(data, [failure("f1", digest=None), failure("f2", digest=None)])) == ["f1", "f2"]


def test_unreadable_properties_do_not_keep_an_answer_back():
    data = b"---\nloravault: generate\nrun: [true\n---\n```prompt\na cat\n```\n"
    new = apply_answers(data, [failure("f1")], {"run": False})
    assert jobs(new) == ["f1"]
    told = apply_answers_told(data, [failure("f1")], {"run": False})
    assert told.data == new
    assert "never closed" in told.unset["run"]
    assert apply_answers_told(HEAD.encode() + b"x", [failure("f1")], {"run": False}).unset == {}
    with pytest.raises(EditRefused):
        apply_answers(data, [], {"run": False})


@pytest.mark.parametrize("run", ["run: &a true", "run: true\nRun: true", "run: [true]"])
def test_a_checkbox_that_cannot_be_reset_is_told_and_everything_else_is_written(run):
    """Swallowed in silence it was an endless loop: the answer stood there, `run: true` too, and the run began again."""
    data = f"---\nloravault: generate\n{run}\n---\n```prompt\na cat\n```\n".encode()
    told = apply_answers_told(data, [result("r1")], {"run": False, "lv_status": "done"})
    assert list(told.unset) == ["run"]
    assert b"lv_status: done\n" in told.data
    assert jobs(told.data) == ["r1"]
    alone = apply_answers_told(data, [], {"run": False, "lv_status": "done"})
    assert (list(alone.unset), b"lv_status: done\n" in alone.data) == (["run"], True)
    with pytest.raises(EditRefused, match="`run` was not changed"):
        apply_answers_told(data, [], {"run": False})


def test_json_properties_get_their_answer_and_the_reason():
    data = b'---\n{"loravault": "generate", "run": true}\n---\n```prompt\na cat\n```\n'
    told = apply_answers_told(data, [result("r1")], {"run": False, "lv_status": "done"})
    assert jobs(told.data) == ["r1"]
    assert set(told.unset) == {"run", "lv_status"}
    assert "JSON" in told.unset["run"]
    with pytest.raises(EditRefused, match="JSON"):
        apply_answers(data, [], {"run": False})


def many_blocks(count: int) -> tuple[bytes, list[Answer]]:
    blocks = "".join(f"text\n```prompt\ncat {n}\n```\n" for n in range(count))
    return (HEAD + blocks).encode(), [failure(f"f{n}", 0, block_hash(f"cat {n}")) for n in range(count)]


def test_a_note_is_parsed_equally_often_for_two_and_for_two_hundred_answers(monkeypatch):
    """300 failing blocks in one note took 3.5 s: the whole note was parsed once for every answer."""
    counts = []
    for count in (2, 200):
        data, answers = many_blocks(count)
        calls = []
        monkeypatch.setattr(room, "parse_note", lambda d, calls=calls: calls.append(1) or parse_note(d))
        new = apply_answers(data, answers, {"run": False})
        assert jobs(new) == [f"f{n}" for n in range(count)]
        counts.append(len(calls))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf\n", b"---\na: 1\n---\n\xff"])
def test_a_note_without_text_is_refused(data):
    with pytest.raises(EditRefused):
        apply_answers(data, [failure("f1", digest=None)])


def test_a_frontmatter_only_note_gets_its_answer_below():
    data = b"---\nloravault: generate\n---  "
    new = apply_answers(data, [failure("f1", digest=None)])
    assert new.startswith(data + b"\n\n> [!failure]")
    assert strip_ours(new) == strip_ours(data)


def test_a_cap_removes_the_oldest_intact_results_but_no_edited_and_no_linked_one():
    data = (HEAD + "```prompt\na cat\n```\n\nafter\n").encode()
    for number in range(6):
        data = apply_answers(data, [result(f"r{number}")])
    data = data.replace(b"![[r2.webp|256]]", b"![[r2.webp|999]]")
    linked = next(r for r in parse_note(data).regions if r.job == "r1")
    data += f"see [[#^lv-r1-{linked.checksum}]]\n".encode()
    new = apply_answers(data, [], cap=2, linked=())
    assert jobs(new) == ["r5", "r4", "r2", "r1"]
    assert strip_ours(new) == strip_ours(data)
    assert jobs(apply_answers(data, [], cap=2, linked={f"lv-r0-{parse_note(data).regions[-1].checksum}"}))[-1] == "r0"


def test_as_long_as_nobody_knows_what_other_notes_link_the_cap_removes_nothing():
    """A result that another note links was taken away, and the link led nowhere."""
    data = (HEAD + "```prompt\na cat\n```\n").encode()
    for number in range(4):
        data = apply_answers(data, [result(f"r{number}")])
    assert apply_answers(data, [], cap=2) == data
    assert jobs(apply_answers(data, [], cap=2, linked=())) == ["r3", "r2"]


def test_a_title_that_does_not_fit_its_kind_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="title"):
        apply_answers(HEAD.encode(), [Answer("a", None, 0, "result", ("[!failure] x",))])


def test_the_post_condition_refuses_a_change_to_the_users_text(monkeypatch):
    """The check runs in production: an edit that goes wrong anywhere is not handed out."""
    data = (HEAD + "```prompt\na cat\n```\nafter\n").encode()
    real = room.apply_splices
    monkeypatch.setattr(room, "apply_splices", lambda d, s: real(d, s).replace(b"after", b"aftr"))
    with pytest.raises(EditRefused, match="not ours"):
        apply_answers(data, [result("r1")])
    monkeypatch.setattr(room, "strip_ours", lambda d, k=None: b"")
    monkeypatch.setattr(room, "apply_splices", lambda d, s: real(d, s).replace(b"a cat", b"a dog"))
    with pytest.raises(EditRefused, match="code blocks"):
        apply_answers(data, [result("r1")])


ANSWERS = st.lists(
    st.tuples(st.sampled_from(["result", "failure"]), st.sampled_from([0, 1, 9]), st.booleans()), min_size=1, max_size=5
)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 300), ANSWERS, st.booleans())
def test_in_any_ordinary_note_answers_come_out_again_without_a_trace(seed, number, steps, together):
    """W5 for regions: unpatch(patch(n)) == n, also when regions of the same note were answered before."""
    data = make_note(random.Random(seed), number)
    prompts = parse_note(data).prompts
    if len(data) > 50_000:
        return
    digest = prompts[-1].block_hash if prompts else CAT
    made = []
    for count, (kind, ordinal, at_end) in enumerate(steps):
        make = result if kind == "result" else failure
        made.append(make(f"j{count}", ordinal, None if at_end else digest))
    new = data
    try:
        for batch in [made] if together else [[answer] for answer in made]:
            new = apply_answers(new, batch, {"lv_status": "done", "run": False})
    except EditRefused as refused:
        if "not ours" in refused.message or "broken" in refused.message:
            raise  # the post-condition caught a mistake of ours
        return
    assert strip_ours(new) == strip_ours(data)
    assert apply_answers(new, made[-1:], {"lv_status": "done", "run": False}) == new
    old_regions = [r for r in parse_note(data).regions if not r.intact]
    assert [data[r.start : r.end] for r in old_regions] == [
        new[r.start : r.end] for r in parse_note(new).regions if not r.intact
    ]


STEP = st.tuples(
    st.sampled_from(["result", "failure"]),
    st.integers(0, 4),
    st.sampled_from(["a cat", "a dog", "gone", ""]),
    st.integers(0, 1),
)
PIECES = st.lists(
    st.sampled_from(
        [
            "```prompt\na cat\n```\n",
            "```prompt\na dog\n```",
            "- ```prompt\n  a cat\n  ```\n- ```prompt\n  a dog\n  ```\n",
            "> ```prompt\n> a dog\n> ```\n",
            "text\n",
            "\n",
            "%%\nopen\n",
        ]
    ),
    min_size=1,
    max_size=5,
)


def one_after_the_other(data: bytes, answers: list[Answer]) -> bytes:
    """What `apply_answers` promises to do, done the slow way."""
    batch = {answer.job for answer in answers}
    for answer in answers:
        data, rest = room._one_pass(data, [answer], batch)
        assert rest == []
    return data


def test_a_failure_that_became_a_result_is_folded_by_the_next_one_of_the_same_delivery():
    """Found by comparing with the slow way: the second answer of the block looked at what stood there before."""
    data = apply_answers((HEAD + "```prompt\na cat\n```\n").encode(), [failure("f0"), failure("f1")])
    new = apply_answers(data, [result("f0"), result("r1")])
    assert [(r.job, r.folded) for r in parse_note(new).regions] == [("r1", False), ("f0", True)]


@settings(max_examples=60, deadline=None)
@given(
    PIECES, st.lists(st.lists(STEP, min_size=1, max_size=6), min_size=1, max_size=3), st.sampled_from(["\n", "\r\n"])
)
def test_many_answers_in_one_pass_are_what_one_after_the_other_gives(pieces, batches, eol):
    data = (HEAD + "start\n" + "\n".join(pieces)).replace("\n", eol).encode()
    for steps in batches:
        answers = [
            (result if kind == "result" else failure)(f"j{job}", ordinal, block_hash(text) if text else None)
            for kind, job, text, ordinal in steps
        ]
        new = apply_answers(data, answers)
        assert new == one_after_the_other(data, answers)
        data = new
