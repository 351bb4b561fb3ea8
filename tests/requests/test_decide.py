"""What a tick runs, over every mixture of up to four blocks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from loravault.requests.decide import Decision, blocks_to_run
from loravault.requests.model import Refusal, Resolved
from tests.requests.catalog import outcome, resolved

DRAWN = resolved("a cat")
FIXED = resolved("#| seed: 42\na cat")
REFUSED = outcome("a <lora:zzz:1>")
# A block's state: what it comes to, and whether an intact result below it has its fingerprint.
KINDS: tuple[tuple[Resolved | Refusal, bool], ...] = (
    (DRAWN, False),
    (DRAWN, True),
    (FIXED, False),
    (FIXED, True),
    (REFUSED, False),
)
MIXTURES = [mix for length in range(5) for mix in itertools.product(KINDS, repeat=length)]


def decide(mix: tuple[tuple[Resolved | Refusal, bool], ...], explicit: bool) -> Decision:
    blocks = [replace(block, fingerprint=f"f{n}") for n, (block, _) in enumerate(mix)]
    intact = [{f"f{n}", "older"} if done else {"older"} for n, (_, done) in enumerate(mix)]
    return blocks_to_run(blocks, intact, explicit=explicit)


def test_there_are_enough_mixtures() -> None:
    assert len(MIXTURES) == 1 + 5 + 25 + 125 + 625


def test_new_and_changed_blocks_run_and_nothing_beside_them() -> None:
    for mix in MIXTURES:
        changed = tuple(n for n, (_, done) in enumerate(mix) if not done)
        if changed:
            for explicit in (True, False):
                assert decide(mix, explicit) == Decision(changed)


def test_if_there_are_none_a_tick_rolls_those_without_a_fixed_seed_again() -> None:
    for mix in MIXTURES:
        if mix and all(done for _, done in mix):
            drawn = tuple(n for n, (block, _) in enumerate(mix) if block is DRAWN)
            decision = decide(mix, explicit=True)
            if drawn:
                assert decision == Decision(drawn, reroll=True)
            else:
                assert decision.run == ()
                assert decision.message


def test_without_a_tick_nothing_is_repeated_and_nothing_said() -> None:
    for mix in MIXTURES:
        if all(done for _, done in mix):
            assert decide(mix, explicit=False) == Decision(())


def test_a_message_stands_only_where_nothing_runs() -> None:
    for mix in MIXTURES:
        decision = decide(mix, explicit=True)
        assert bool(decision.run) != bool(decision.message)


def test_the_words_when_all_seeds_are_fixed() -> None:
    def message(*blocks: Resolved) -> str | None:
        return blocks_to_run(blocks, [{block.fingerprint} for block in blocks], explicit=True).message

    assert message(FIXED) == "nothing changed; seed 42 would give the same picture: change it or add `#| again: 2`"
    again = resolved("#| seed: 42\n#| again: 2\na cat")
    assert message(again) == "nothing changed; seed 42 would give the same picture: change it or add `#| again: 3`"
    two = message(FIXED, resolved("#| seed: 7\na dog"))
    assert two == "nothing changed; seeds 42, 7 would give the same pictures: change them or add `#| again: 2`"


def test_a_note_without_blocks_says_so() -> None:
    assert "no ```prompt block" in (blocks_to_run([], [], explicit=True).message or "")


def test_the_lists_belong_together() -> None:
    with pytest.raises(ValueError, match="one set"):
        blocks_to_run([DRAWN], [], explicit=True)
