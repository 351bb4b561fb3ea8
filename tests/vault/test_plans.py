"""What a training will be stands in the note until it has ended; then its end stands in the same place."""

from __future__ import annotations

import pytest

from loravault.vault.answers import Answer, strip_ours
from loravault.vault.note import parse_note
from tests.answering import apply_answers

NOTE = b"---\nloravault: train\n---\n![[cat.jpg]]\nasleep\n\n```prompt\na cat\n```\n"
MARKS = {"result": "[!lora-result]+", "failure": "[!failure]", "plan": "[!lora-training]+"}


def answer(job: str, kind: str, text: str = "") -> Answer:
    return Answer(job, None, 0, kind, (f"{MARKS[kind]} {text or job}", "told"), whole=True)


def told(data: bytes) -> list[tuple[str, str, bool]]:
    return [(region.job, region.kind, region.folded) for region in parse_note(data).regions]


@pytest.mark.parametrize("end", ["result", "failure"])
def test_the_end_takes_the_place_of_the_plan(end: str) -> None:
    planned = apply_answers(NOTE, [answer("a1", "plan")])
    assert told(planned) == [("a1", "plan", False)]
    ended = apply_answers(planned, [answer("a1", end)])
    assert told(ended) == [("a1", end, False)]
    assert strip_ours(ended) == NOTE
    assert apply_answers(ended, [answer("a1", end)]) == ended
    assert apply_answers(ended, [answer("a1", "plan")]) == ended or end == "failure"


def test_a_plan_that_was_said_is_not_said_twice_and_a_newer_one_replaces_it() -> None:
    planned = apply_answers(NOTE, [answer("a1", "plan")])
    assert apply_answers(planned, [answer("a1", "plan")]) == planned
    newer = apply_answers(planned, [answer("a1", "plan", "stopped at step 3")])
    assert told(newer) == [("a1", "plan", False)]
    assert b"stopped at step 3" in newer


def test_a_plan_that_a_person_wrote_into_is_theirs() -> None:
    planned = apply_answers(NOTE, [answer("a1", "plan")])
    edited = planned.replace(b"> told", b"> told, thanks")
    assert apply_answers(edited, [answer("a1", "plan")]) == edited
    ended = apply_answers(edited, [answer("a1", "result")])
    assert b"> told, thanks" in ended
    assert [kind for _, kind, _ in told(ended)] == ["plan", "result"]


def test_the_next_run_takes_the_place_of_what_the_last_one_only_planned_or_failed_at() -> None:
    for earlier in ("plan", "failure"):
        before = apply_answers(NOTE, [answer("a1", earlier)])
        for kind in ("plan", "result", "failure"):
            assert told(apply_answers(before, [answer("b2", kind)])) == [("b2", kind, False)]


def test_an_earlier_result_is_folded_and_stays() -> None:
    data = NOTE
    for job in ("a1", "b2", "c3"):
        data = apply_answers(apply_answers(data, [answer(job, "plan")]), [answer(job, "result")])
    assert told(data) == [("a1", "result", True), ("b2", "result", True), ("c3", "result", False)]
    assert strip_ours(data) == NOTE


def test_the_answer_of_a_block_is_not_taken_for_the_elder_of_a_whole_answer_that_says_so_only() -> None:
    """A failure of the note as a whole never replaced what stands below its last block, and does not now."""
    digest = parse_note(NOTE).fences[0].block_hash
    below = apply_answers(NOTE, [Answer("a1", digest, 0, "failure", ("[!failure] x", "y"))])
    both = apply_answers(below, [Answer("b2", None, 0, "failure", ("[!failure] whole", "y"))])
    assert [job for job, _, _ in told(both)] == ["a1", "b2"]
