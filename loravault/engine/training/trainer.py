"""From a spec to an adapter: look, decide, say what it will take, learn, draw, hand over.

Everything that takes long can be stopped, and what was done is on disk: encoded pictures and captions in the folder of
caches, the training itself in the spec's own folder of states. Who publishes the outcome removes that folder: until
then the same spec comes to the same outcome again, without a step.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from loravault.dataset.buckets import arrange, noted, table
from loravault.dataset.survey import survey
from loravault.engine.bases import Base, signature
from loravault.engine.devices import Device, free_cache
from loravault.engine.ends import Stopped
from loravault.engine.training.batches import Batches
from loravault.engine.training.checkpoints import StateFolder, copied, fingerprint
from loravault.engine.training.describing import describe
from loravault.engine.training.echoes import Echoes
from loravault.engine.training.export import add_thumbnail, write_adapter
from loravault.engine.training.facts import device_facts, learned_rates, remember_rate
from loravault.engine.training.learning import objective_for
from loravault.engine.training.loop import Loop
from loravault.engine.training.mates import Mates
from loravault.engine.training.networks import Network
from loravault.engine.training.parts import attached, attention_for, encodes_later, filled, frozen_base
from loravault.engine.training.sampling import Draw, draw_samples
from loravault.engine.training.steps import Ears, Steps, restored
from loravault.engine.training.store import Store
from loravault.engine.training.telling import runs
from loravault.errors import UserError
from loravault.formats.training import (
    Checkpoint,
    Prepared,
    Survey,
    TrainingOutcome,
    TrainingPlan,
    TrainingSpec,
    TrainingStep,
)
from loravault.formats.training_forecast import DeviceFacts
from loravault.formats.training_metadata import TrainingRun, training_metadata
from loravault.formats.training_plan import decide, forecast, rate_key, rate_of, why_not

#: Seconds of silence after which the supervisor may look whether we still live.
LOAD_DEADLINE_S, CACHE_DEADLINE_S, SAMPLES_DEADLINE_S = 300.0, 300.0, 300.0


def train(
    spec: TrainingSpec,
    out_dir: Path,
    *,
    device: Device,
    on_phase: Callable[[str, float], None],
    on_prepared: Callable[[Prepared], None],
    on_step: Callable[[TrainingStep], None],
    cancelled: Callable[[], bool],
    paused: Callable[[], bool],
    generate: Draw,
) -> TrainingOutcome:
    """Trains an adapter; its checkpoints and samples are durably in `out_dir` on return, the adapter the last of them.

    Goes on from the state that an earlier call for the same spec, pictures and base left. Raises `UserError` (in words:
    pictures, base, adapter, disk, a loss that is no number), `OutOfMemory`, `Stopped` and `Paused`; after the last two,
    as after a crash, the state is on disk.
    """
    ears = Ears(on_phase=on_phase, on_prepared=on_prepared, on_step=on_step, cancelled=cancelled, paused=paused)
    return _Training(spec, out_dir, device, ears).run(generate)


@dataclass
class _Training:
    spec: TrainingSpec
    out_dir: Path
    device: Device
    ears: Ears
    warnings: list[str] = field(default_factory=list)

    def run(self, generate: Draw) -> TrainingOutcome:
        """Everything."""
        prepared, states, facts = self._prepare()
        state = states.read()
        finished = state is not None and "made" in state.about
        made = restored(state.about["made"]) if state and finished else self._learn(prepared, states, facts)
        gc.collect()  # base, network and optimiser are unreachable now, but hold each other
        free_cache(self.device)
        checkpoints = self._handed_over(made, states)
        self.ears.on_phase("samples", SAMPLES_DEADLINE_S)
        files = [(one.step, one.path) for one in checkpoints]
        samples, alone = draw_samples(
            self.spec, files, self.out_dir, draw=generate, check=self.ears.check, warn=self.warn
        )
        checkpoints = tuple(replace(one, samples=samples.get(one.step, ())) for one in checkpoints)
        self._show(checkpoints[-1])
        states.forget_others()
        return TrainingOutcome(
            prepared=prepared,
            checkpoints=checkpoints,
            base_samples=alone,
            losses=tuple(made["losses"]),
            validation=tuple(made["validation"]),
            seconds=made["seconds"],
            peak_bytes=made["peak_bytes"],
            warnings=(*made["warnings"], *self.warnings),
        )

    def warn(self, sentence: str | None) -> None:
        """Keeps a sentence for the note, once."""
        if sentence and sentence not in self.warnings:
            self.warnings.append(sentence)

    # ---- before the first step

    def _prepare(self) -> tuple[Prepared, StateFolder, DeviceFacts]:
        """Looks at the pictures and decides; says so."""
        ears = self.ears
        ears.on_phase("survey", LOAD_DEADLINE_S)
        seen = survey(self.spec.pictures, progress=lambda _done, _all: ears.check())
        if problem := why_not(self.spec, seen):
            raise UserError(problem)
        # From here on it is as if somebody had written these captions.
        self.spec, described = describe(self.spec, seen, self.device, ears=ears, warn=self.warn)
        spec = self.spec
        states = StateFolder(Path(spec.state_dir), fingerprint(**identity(spec, seen)))
        if states.others() and not states.mine():
            self.warn(
                "An interrupted training was not gone on with, because settings, pictures or base have changed since: "
                "this one began anew. The other goes on if you change them back before this one is done."
            )
        facts = device_facts(self.device)
        # A training that goes on keeps its plan, whatever a newer version would decide.
        plan = states.plan(TrainingPlan) or decide(spec, seen, device=facts)
        states.keep_plan(asdict(plan))
        items = arrange(spec.pictures, seen, plan.resolutions, crops=plan.crops)
        prepared = Prepared(
            survey=noted(seen, items, crops=plan.crops),
            plan=plan,
            forecast=forecast(
                plan,
                family=spec.base.family,
                device=facts,
                samples=sum(len(one.seeds) for one in spec.samples),
                sample_steps=max((one.steps for one in spec.samples), default=25),
                learned=learned_rates(Path(spec.cache_dir)),
            ),
            buckets=table(items),
            described=described,
            warnings=tuple(self.warnings),
        )
        ears.on_prepared(prepared)
        return prepared, states, facts

    def _base(self, plan: TrainingPlan) -> Base:
        """The base as it is trained on: frozen, and on a card only as exact as the plan says."""
        self.ears.on_phase("load", LOAD_DEADLINE_S)
        return frozen_base(self.spec, plan, self.device, self.warn)

    # ---- learning

    def _learn(self, prepared: Prepared, states: StateFolder, facts: DeviceFacts) -> dict[str, Any]:
        """From the state there is to the last step."""
        plan = prepared.plan
        if plan.gpus > facts.cards:
            raise UserError(too_few_cards(plan.gpus, facts.cards))
        base = self._base(plan)
        objective_for(base, plan)  # whether it can be learned on is said before an hour of encoding
        store = Store(Path(self.spec.cache_dir))
        batches, echoes = self._filled(prepared, base, store)
        objective, network = attached(self.spec, plan, base, self.device)
        mates = Mates(self.spec, prepared, self.device) if plan.gpus > 1 else None
        loop = Loop(
            base=base, network=network, objective=objective, source=batches, plan=plan, device=self.device,
            echoes=echoes if echoes.wanted else None, company=mates,
        )  # fmt: skip
        steps = Steps(
            loop=loop,
            prepared=prepared,
            states=states,
            ears=self.ears,
            write=lambda path, step: self._write(network, base, prepared, path, run_at(step)),
            encoding=batches.encoding,
        )
        if (state := states.read()) is not None:
            try:
                steps.go_on_from(state)
            except (UserError, KeyError, ValueError, TypeError, RuntimeError):
                network.detach()
                states.set_aside()
                self.warn("The state of an earlier version of this program could not be gone on with: it began anew.")
                return self._learn(prepared, states, facts)
        run_at = runs(self.spec, prepared, objective, batches, began=steps.began)
        with attention_for(base, plan, self.device), mates or nullcontext():
            if mates is not None and loop.step < plan.steps:
                mates.start(loop.numbers, on_phase=self.ears.on_phase, check=self.ears.check)
            made = steps.all()
        self._warn_of(store)  # pictures were encoded on the way
        if (each := steps.seconds_per_step()) is not None:
            key = rate_key(plan, family=self.spec.base.family, device=facts)
            remember_rate(Path(self.spec.cache_dir), key, rate_of(plan, each))
        return made

    def _filled(self, prepared: Prepared, base: Base, store: Store) -> tuple[Batches, Echoes]:
        """What is learned from, encoded; what encodes it is let go of."""
        ears = self.ears
        ears.on_phase("cache", CACHE_DEADLINE_S)
        try:
            batches, echoes = filled(
                self.spec, prepared, base, store, encoded=self._encoded, leaving=ears.leaving,
                later=encodes_later(prepared.plan, self.device),
            )  # fmt: skip
        except Stopped:
            ears.check()  # it may be a pause
            raise
        self._warn_of(store)
        free_cache(self.device)
        return batches, echoes

    def _warn_of(self, store: Store) -> None:
        for sentence in store.problems:
            self.warn(sentence)

    def _encoded(self, _done: int, _all: int) -> None:
        self.ears.on_phase("cache", CACHE_DEADLINE_S)

    def _write(self, network: Network, base: Base, prepared: Prepared, path: Path, run: TrainingRun) -> tuple[str, ...]:
        """The adapter as it is now; returns what has to be said about the file."""
        metadata = training_metadata(self.spec, prepared.plan, prepared.survey, run)
        return write_adapter(network, base, prepared.plan, path, metadata).remarks

    # ---- handing over

    def _handed_over(self, made: dict[str, Any], states: StateFolder) -> tuple[Checkpoint, ...]:
        """The files under their own names in `out_dir`, durably; those among the states stay for another call."""
        measured, found = dict(made["validation"]), []
        files = sorted((int(step), name) for step, name in made["files"].items())
        for step, name in files:
            number = "" if step == files[-1][0] else f"-{step:06d}"
            target = self.out_dir / f"{self.spec.name}{number}.safetensors"
            copied(states.folder / name, target)
            found.append(Checkpoint(step=step, path=str(target), validation=measured.get(step)))
        return tuple(found)

    def _show(self, last: Checkpoint) -> None:
        """The first sample becomes the picture in the file."""
        if not last.samples:
            return
        try:
            add_thumbnail(Path(last.path), Path(last.samples[0].path))
        except UserError as error:
            self.warn(error.message)


def identity(spec: TrainingSpec, seen: Survey) -> dict[str, Any]:
    """Everything that decides what is learned: not where things are, nor what is drawn with it afterwards."""
    pictures = [
        (look.sha256, one.caption, one.repeats, one.regularisation, _stamp(one.mask))
        for one, look in zip(spec.pictures, seen.pictures, strict=True)
    ]
    return {
        "base": [(Path(name).name, *rest) for name, *rest in signature(spec.base)],
        "vae": _stamp(spec.vae.path) if spec.vae else None,
        "spec": (spec.name, spec.base.family, spec.subject, spec.trigger, spec.class_word),
        "pictures": pictures,
        "wishes": asdict(spec.wishes),
    }


def too_few_cards(wanted: int, there: int) -> str:
    """Of a training that was begun on more cards than there are now."""
    return (
        f"This training was begun on {wanted} cards, and {there} can be used now: make the others available again and "
        "it goes on, or set `gpus` to another number and it begins anew."
    )


def _stamp(path: str | None) -> tuple[str, int, int] | None:
    """Of a mask or a VAE; a folder counts by what was last changed in it."""
    if path is None:
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return Path(path).name, 0, 0
    return Path(path).name, status.st_size, status.st_mtime_ns
