"""Which jobs can be drawn together, and which of those that wait come next. Pure: daemon and worker decide by the same.

Pictures of one call of the denoiser share base, size, steps, cfg and sampler; prompt, negative prompt and seed are each
picture's own. Merged adapters are in the weights, so they are shared too.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from loravault.formats.generation import AdapterUse, GenerationSpec

#: Orders, and pictures in all, that a worker holds at most. One order may hold more pictures alone.
MOST_ORDERS, MOST_PICTURES = 8, 16


def drawing_of(spec: GenerationSpec) -> tuple[object, ...]:
    """What the pictures of one call of the denoiser have in common, the adapters apart."""
    return spec.base, spec.vae, spec.width, spec.height, spec.steps, spec.cfg, spec.sampler


def stack_of(spec: GenerationSpec) -> tuple[AdapterUse, ...]:
    """The adapters with their strengths, in whatever order and under whatever name they were asked for."""
    return tuple(sorted((replace(use, name="") for use in spec.adapters), key=repr))


def mark_of(spec: GenerationSpec) -> Hashable:
    """Jobs of one mark can be drawn together while adapters are merged."""
    return drawing_of(spec), stack_of(spec)


@dataclass(frozen=True)
class Waiting:
    """One order that waits, as far as the choice looks at it."""

    mark: Hashable
    pictures: int
    #: A worker was lost over it: it is drawn with no other.
    alone: bool = False
    #: Nobody waits for it.
    background: bool = False
    #: A later one was drawn before it: that happens once to each.
    overtaken: bool = False


def choose(waiting: Sequence[Waiting], together: int) -> list[int]:
    """The places of those that are drawn next, together; the first is the one whose turn it is.

    `together` is how many pictures of this kind the device denoises at the same time. What people wait for goes first.
    Who comes along out of turn adds no more than that many pictures, and overtakes nobody who was overtaken before: so
    nobody waits for more than one batch out of turn. Of what nobody waits for only one batch is begun at a time.
    """
    turn = [n for n, one in enumerate(waiting) if not one.background] or list(range(len(waiting)))
    if not turn:
        return []
    first = waiting[turn[0]]
    chosen, pictures, extra, skipped = [turn[0]], first.pictures, 0, False
    for n in turn[1:] if not first.alone else ():
        one = waiting[n]
        fits = one.mark == first.mark and not one.alone and pictures + one.pictures <= MOST_PICTURES
        if fits and (skipped or first.background):
            room = together - (first.pictures if first.background else 0)
            fits = extra + one.pictures <= room
        if fits:
            chosen.append(n)
            pictures += one.pictures
            extra += one.pictures if skipped or first.background else 0
        elif one.overtaken:
            break
        else:
            skipped = True
    return chosen


def overtaken(waiting: Sequence[Waiting], chosen: Sequence[int]) -> list[int]:
    """The places of those that wait for the same kind of attention and are passed by if these are drawn next."""
    if not chosen:
        return []
    background = waiting[chosen[0]].background
    return [n for n in range(max(chosen)) if n not in chosen and waiting[n].background == background]
