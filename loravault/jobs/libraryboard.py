"""The part of the dashboard that is about the library, from the index and from what the keepers say of their work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session

from loravault.index import adapters, cards, images, troubled
from loravault.jobs.context import Context
from loravault.pages import bases
from loravault.pages.dashboard import Library, NoteLine
from loravault.pages.galleries import index_path

#: How many lines a list has before it ends in "and N more".
LINES = 12


@dataclass(frozen=True)
class Keeping:
    """What is being done for the library."""

    #: Files that are hashed, of how many, and the share of their bytes in whole percent; None: nothing is to be hashed.
    hashing: tuple[int, int, int] | None = None
    #: Covers to make.
    covers: int = 0
    #: (path, sentence) for pages of ours that the user changed.
    notices: tuple[tuple[str, str], ...] = ()


def library(session: Session, ctx: Context, keeping: Keeping) -> Library:
    """What the dashboard says of the library."""
    counts = adapters.count_adapters(session)
    broken = counts.get("broken", 0) + counts.get("incomplete", 0)
    uncovered, uncovered_all = troubled.uncovered(session, LINES)
    pickles, elsewhere = troubled.pickles(session), troubled.elsewhere(session)
    return Library(
        adapters=counts.get("ok", 0),
        families=adapters.count_families(session),
        copies=counts.get("duplicate", 0),
        broken=counts.get("broken", 0),
        incomplete=counts.get("incomplete", 0),
        missing=counts.get("missing", 0),
        wordless=troubled.without_trigger_words(session),
        images=images.count_images(session),
        hashing=keeping.hashing,
        covers_due=keeping.covers,
        links=tuple(_links(ctx)),
        unusable=(*(f"{place}: {reason}" for place, reason in troubled.unusable(session, LINES)), *more(broken)),
        uncovered=tuple(NoteLine(one.card or "", one.words) for one in uncovered),
        uncovered_more=max(0, uncovered_all - LINES),
        pickles=(*pickles[:LINES], *more(len(pickles))),
        elsewhere=(*elsewhere[:LINES], *more(len(elsewhere))),
    )


def notes_to_look_at(session: Session, keeping: Keeping) -> list[NoteLine]:
    """Cards and pages with which something is not as it could be."""
    return [NoteLine(path, words) for path, words in (*cards.problems(session), *keeping.notices)]


def more(number: int, shown: int = LINES) -> Sequence[str]:
    """The end of a list that was cut."""
    return (f"and {number - shown:,} more",) if number > shown else ()


def _links(ctx: Context) -> list[str]:
    """The galleries that are there."""
    folder = ctx.config.folder
    paths = [*(f"{folder}/{name}" for name in bases.NAMES), index_path(folder)]
    return [path for path in paths if ctx.path(path).is_file()]
