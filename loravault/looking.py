"""When the library is looked at: soon after an event names some of its files, and all of it every now and then."""

from __future__ import annotations

import json
from collections.abc import Callable

from loravault.formats.families.index import prepare
from loravault.index import commands
from loravault.index.hinted import MOST, look_at_hinted
from loravault.index.refresh import Refreshed, refresh_adapters
from loravault.index.refresh_images import refresh_images
from loravault.jobs.context import Context

#: Adapters are looked at again this long after the last hint (seconds): a copy of many files comes as many hints.
SETTLE_S = 2.5

#: After a quick look at what events named, the whole look follows (seconds): what was found is shown first.
AFTER_HINTED_S = 1.0

#: New adapters are read for at most this long at a time (seconds): requests are answered in between.
BUDGET_S = 0.5


class Looks:
    """The looks at one vault's adapters and pictures.

    `on_looked` is told what a whole look found, `on_changed` the weight ids that a quick one took in.
    """

    def __init__(
        self, ctx: Context, on_looked: Callable[[Refreshed], None], on_changed: Callable[[set[str]], None]
    ) -> None:
        self._ctx = ctx
        self._on_looked = on_looked
        self._on_changed = on_changed
        self._due = 0.0
        #: Root name -> paths inside it that events named since the last look.
        self._hinted: dict[str, set[str]] = {}
        #: After a quick look the next one is whole, however many events come: a download names its file all the time.
        self._whole_is_due = True
        ctx.looks.ask = self.ask
        ctx.looks.briefly = lambda: self.whole(budget_s=BUDGET_S)

    @property
    def due_in(self) -> float:
        """Seconds until a look is due; not above 0: now."""
        return self._due - self._ctx.steady()

    def expect(self, seconds: float) -> None:
        """Look that soon, or earlier if that was due already."""
        self._due = min(self._due, self._ctx.steady() + seconds)

    def ask(self) -> None:
        """Somebody waits for a whole look."""
        self._whole_is_due = True
        self.expect(0.0)

    def hint(self, root: str, rel: str) -> None:
        """Something changed in a root: the file at `rel`, or nobody knows what (`""`)."""
        self.expect(SETTLE_S)
        prepare()  # while the file settles
        if rel:
            self._hinted.setdefault(root, set()).add(rel)

    def step(self) -> None:
        """The look that is due."""
        self._due = self._ctx.steady() + self._ctx.config.rescan_s
        if self._whole_is_due or not self._hinted or sum(map(len, self._hinted.values())) > MOST:
            self.whole(budget_s=BUDGET_S)
        else:
            self._quick()

    def _quick(self) -> None:
        """Read what the events named; the whole look, which alone is believed about all else, comes right after."""
        ctx = self._ctx
        hinted, self._hinted = self._hinted, {}
        self._due, self._whole_is_due = ctx.steady() + AFTER_HINTED_S, True
        well = [root for root in ctx.config.loras if f"root.{root.name}" not in ctx.troubles]
        result = look_at_hinted(ctx.index, well, hinted)
        if result.weights:
            self._on_changed(result.weights)

    def whole(self, on_progress: Callable[[int, int], None] | None = None, budget_s: float | None = None) -> Refreshed:
        """Look at every adapter and every picture; with a budget, at as many as fit into it, and soon at the rest."""
        ctx = self._ctx
        self._hinted.clear()
        result = refresh_adapters(ctx.index, ctx.config.loras, on_progress, budget_s=budget_s)
        self._whole_is_due = result.unfinished
        if not result.unfinished:
            self._look_at_pictures()
            with ctx.index.session() as session:
                pickles = [f"{root}/{rel}" for root, rels in sorted(result.pickles.items()) for rel in rels]
                commands.set_fact(session, "pickles", json.dumps(pickles, ensure_ascii=False))
                links = [(f"{root}/{rel}", to) for root, those in sorted(result.elsewhere.items()) for rel, to in those]
                commands.set_fact(session, "elsewhere", json.dumps(links, ensure_ascii=False))
        self._on_looked(result)
        for root in ctx.config.loras:
            ctx.troubles.pop(f"root.{root.name}", None)
        for name, trouble in result.troubles.items():
            ctx.troubles[f"root.{name}"] = trouble
        wait = SETTLE_S if result.unsettled else ctx.config.rescan_s
        self._due = ctx.steady() + (0.0 if result.unfinished else wait)
        if not result.unfinished:  # only now: who waits for it asks for names as they are known now
            ctx.looks.finished, ctx.looks.unsettled = ctx.looks.finished + 1, bool(result.unsettled)
        return result

    def _look_at_pictures(self) -> None:
        ctx, config = self._ctx, self._ctx.config
        everywhere = config.images == "obsidian"
        refresh_images(
            ctx.index, config.vault, config.folder, ctx.troubles, everywhere=everywhere, changed=ctx.pictures_changed
        )
