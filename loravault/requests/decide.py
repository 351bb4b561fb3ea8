"""What a tick runs: new and changed blocks, else everything that can come out differently, else nothing, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from loravault.requests.model import Refusal, Resolved


@dataclass(frozen=True)
class Decision:
    """What to do about the blocks of a note."""

    #: Places in the list of blocks, in order.
    run: tuple[int, ...]
    #: They ran before and run again with new seeds.
    reroll: bool = False
    #: Why nothing runs, in words for `lv_message`; None if something runs, or nobody asked.
    message: str | None = None


def blocks_to_run(
    blocks: Sequence[Resolved | Refusal], intact: Sequence[Collection[str]], *, explicit: bool
) -> Decision:
    """Decide for the blocks of one note.

    `intact[n]` are the fingerprints of the intact results below block n. `explicit` is a tick of a person; without it
    (`auto`) nothing is ever repeated. A block that cannot be run has no result, so a tick always answers it again.
    """
    if len(blocks) != len(intact):
        raise ValueError("one set of fingerprints for each block")
    changed = tuple(n for n, block in enumerate(blocks) if block.fingerprint not in intact[n])
    if changed:
        return Decision(changed)
    if not explicit:
        return Decision(())
    if not blocks:
        return Decision((), message="there is no ```prompt block in this note: write one and tick `run` again")
    open_seeds = tuple(n for n, block in enumerate(blocks) if isinstance(block, Resolved) and not block.seeds_fixed)
    if open_seeds:
        return Decision(open_seeds, reroll=True)
    return Decision((), message=_nothing_changed(blocks))


def _nothing_changed(blocks: Sequence[Resolved | Refusal]) -> str:
    fixed = [block for block in blocks if isinstance(block, Resolved)]
    seeds = list(dict.fromkeys(str(block.seed) for block in fixed))
    shown = ", ".join(seeds[:3]) + (" …" if len(seeds) > 3 else "")
    numbers = [int(block.again) for block in fixed if block.again.isdecimal() and len(block.again) < 9]
    again = max(numbers, default=1) + 1
    if len(seeds) == 1:
        return f"nothing changed; seed {shown} would give the same picture: change it or add `#| again: {again}`"
    return f"nothing changed; seeds {shown} would give the same pictures: change them or add `#| again: {again}`"
