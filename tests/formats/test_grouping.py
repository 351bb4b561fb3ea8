"""What is drawn next, and together: nobody waits for more than one batch out of turn, and every job has its turn."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec, VaeRef
from loravault.formats.grouping import MOST_PICTURES, Waiting, choose, mark_of, overtaken

BASE = BaseRef(name="demo", path="/demo", family="demo")
SPEC = GenerationSpec(
    base=BASE, prompt="a cat", seeds=(1,), width=64, height=64, steps=4, cfg=7.0, sampler="Euler",
    adapters=(
        AdapterUse(name="ink", path="/l/ink", weight_id="w1-1", te=1.0, unet=0.5),
        AdapterUse(name="oil", path="/l/oil", weight_id="w1-2", te=1.0, unet=1.0),
    ),
)  # fmt: skip


def test_what_each_picture_has_for_itself_does_not_part_jobs() -> None:
    other = replace(
        SPEC, prompt="dogs", negative="blur", seeds=(8, 9), clip_skip=2, written_prompt="dogs", image_format="png"
    )
    assert mark_of(other) == mark_of(SPEC)
    renamed = tuple(replace(use, name=f"my {use.name}") for use in reversed(SPEC.adapters))
    assert mark_of(replace(SPEC, adapters=renamed)) == mark_of(SPEC)


def test_what_the_pictures_of_a_call_share_parts_jobs() -> None:
    others = [
        replace(SPEC, base=replace(BASE, path="/other")),
        replace(SPEC, vae=VaeRef(name="v", path="/v")),
        replace(SPEC, width=72),
        replace(SPEC, height=72),
        replace(SPEC, steps=5),
        replace(SPEC, cfg=6.0),
        replace(SPEC, sampler="DDIM"),
        replace(SPEC, adapters=SPEC.adapters[:1]),
        replace(SPEC, adapters=(replace(SPEC.adapters[0], unet=0.6), SPEC.adapters[1])),
    ]
    assert len({mark_of(one) for one in (SPEC, *others)}) == 1 + len(others)


def line(text: str) -> list[Waiting]:
    """`a2 b1! c1~ a1?`: marks with pictures; `!` was overtaken, `~` nobody waits for it, `?` alone."""
    return [
        Waiting(word[0], int(word[1:].rstrip("!~?")), alone="?" in word, background="~" in word, overtaken="!" in word)
        for word in text.split()
    ]


def test_those_of_one_mark_are_drawn_together_in_their_turn() -> None:
    assert choose(line("a1 a1 a2"), 4) == [0, 1, 2]
    assert choose(line("a4 a8 a4 a1"), 4) == [0, 1, 2], "in turn as many as a worker holds"
    assert choose(line("a40 a1"), 4) == [0]
    assert choose([], 4) == []


def test_out_of_turn_no_more_than_one_batch_comes_along() -> None:
    assert choose(line("a1 b1 a2 a2 a1"), 4) == [0, 2, 3]
    assert choose(line("a1 b1 a5 a1"), 4) == [0, 3]
    assert overtaken(line("a1 b1 a2 a2 a1"), [0, 2, 3]) == [1]


def test_who_was_overtaken_once_is_not_overtaken_again() -> None:
    assert choose(line("a1 b1! a1"), 4) == [0]
    assert choose(line("a1 a1 b1! a1"), 4) == [0, 1]


def test_one_over_which_a_worker_was_lost_is_alone() -> None:
    assert choose(line("a1? a1 a1"), 4) == [0]
    assert choose(line("a1 a1? a1"), 4) == [0, 2]


def test_what_nobody_waits_for_is_last_and_one_batch_at_a_time() -> None:
    assert choose(line("a1~ a1~ b1 b1"), 4) == [2, 3]
    assert choose(line("a1~ a2~ a2~ a1~"), 4) == [0, 1, 3]
    assert choose(line("a1 a1~ a1"), 4) == [0, 2]
    assert overtaken(line("a1~ a1~ b1 b1"), [2, 3]) == [], "people do not overtake it: they are before it"


waiting = st.builds(
    Waiting,
    mark=st.sampled_from("abc"),
    pictures=st.integers(1, 9),
    alone=st.booleans(),
    background=st.booleans(),
    overtaken=st.just(False),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(waiting, min_size=1, max_size=10), st.integers(1, 8))
def test_everyone_has_a_turn_and_nobody_waits_for_two_batches_out_of_turn(jobs: list[Waiting], together: int) -> None:
    left = dict(enumerate(jobs))
    passed_by: dict[int, int] = dict.fromkeys(left, 0)
    done: list[int] = []
    while left:
        numbers, seen = list(left), list(left.values())
        chosen = choose(seen, together)
        assert chosen, "somebody always has a turn"
        group = [numbers[n] for n in chosen]
        assert len({jobs[n].mark for n in group}) == len({jobs[n].background for n in group}) == 1
        assert len(group) == 1 or not any(jobs[n].alone for n in group)
        assert len(group) == 1 or sum(jobs[n].pictures for n in group) <= MOST_PICTURES
        if jobs[group[0]].background:
            assert all(one.background for one in seen)
        for n in overtaken(seen, chosen):
            left[numbers[n]] = replace(left[numbers[n]], overtaken=True)
        for number in numbers:
            later = sum(jobs[m].pictures for m in group if m > number)
            if number not in group and later and jobs[number].background == jobs[group[0]].background:
                passed_by[number] += 1
                assert later <= together
        assert all(count <= 1 for count in passed_by.values())
        for number in group:
            del left[number]
        done += group
    assert sorted(done) == list(range(len(jobs)))
