"""Trainings on their way: what was planned, how far each is, and what came of it, into the loras folder and the vault.

    pictures into the vault ─▶ adapter file into the loras folder ─▶ index, card ─▶ the answer

What a worker has made is written down first (`outcome.json`, beside the files it names). From there on no crash costs
more than doing these steps again, and each of them finds what it did before; nothing is trained twice.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from loravault.config import Root
from loravault.durable import write_whole
from loravault.errors import UserError
from loravault.failpoints import reach
from loravault.formats.outcome import Provenance
from loravault.formats.training import Prepared, TrainingOutcome, TrainingSpec, TrainingStep
from loravault.index import adapters, images, work
from loravault.index.library import card_paths
from loravault.index.refresh_images import image_row_of
from loravault.index.tables import JobRow
from loravault.jobs import supervisor as sup
from loravault.jobs import trainingwords as words
from loravault.jobs.context import Context, log
from loravault.jobs.publishing import Publisher
from loravault.library.identify import read_adapter
from loravault.library.placing import place_adapter
from loravault.vault.names import image_stem
from loravault.vault.paths import VaultGone

#: After trouble with a disk: at most one attempt a minute (seconds).
RETRY_S = 60.0
#: The card of a new adapter is waited for so long (seconds); the answer then does without a link to it.
CARD_S = 60.0
#: How far a training is, is written down at most this often (seconds).
REACHED_S = 1.0
#: What is left of trainings that were stopped, and of answers that never came, is kept so long (seconds).
KEPT_S = 60 * 86400.0


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has made of a job, as it is written down."""

    outcome: TrainingOutcome
    chart: str | None = None
    strip: str | None = None
    #: What its pictures in the vault are called, without number and ending: a second try must not make a second set.
    stem: str = ""
    #: The root, and the path below it, that were chosen for the adapter file; it may or may not be there.
    root: str | None = None
    rel: str | None = None


@dataclass
class _Ending:
    """A training whose adapter is made, and whose answer is not."""

    job: str
    made: Made
    not_before: float = 0.0
    #: Vault-relative paths of its pictures, once they are there.
    samples: tuple[str, ...] | None = None
    chart: str | None = None
    strip: str | None = None
    placed: bool = False
    weight_id: str = ""
    #: When the answer is given although there is no card (steady clock).
    give_up: float = 0.0


class Trainings:
    """The trainings of one open vault."""

    def __init__(self, ctx: Context, publisher: Publisher) -> None:
        self._ctx = ctx
        self._publisher = publisher
        self._endings: dict[str, _Ending] = {}
        #: Jobs that are answered, until the note shows it: so long what they made is kept, for the index may be lost.
        self._answered: set[str] = {folder.name for folder in _folders(self._homes)}
        self._said_at: dict[str, float] = {}
        #: Job → the last step that was told.
        self.reached: dict[str, int] = {}

    @property
    def busy(self) -> list[str]:
        """The jobs whose adapter is made and is being taken in."""
        return list(self._endings)

    @property
    def _homes(self) -> Path:
        return self._ctx.config.state_dir / "training" / "jobs"

    def home(self, job_id: str) -> Path:
        """The folder of one job: what the worker makes, and what is known of that."""
        return self._homes / job_id

    def order(self, job: JobRow) -> sup.Order:
        """For the worker. Raises `UserError` if a path cannot be said."""
        origin = Provenance(job=job.id, fingerprint=job.fingerprint)
        return sup.training_order(job.id, spec_of(job), self.home(job.id) / "out", origin)

    # ---- what the worker says

    def planned(self, job_id: str, prepared: Prepared) -> None:
        """The first answer is known."""
        ctx = self._ctx
        with ctx.index.session() as session:
            job = work.job_by_id(session, job_id)
            if job is None:
                return
            lines = words.plan_lines(spec_of(job), prepared, json.loads(job.remarks))
            job.plan, job.plan_delivered = json.dumps(lines, ensure_ascii=False), False
            job.steps = prepared.plan.steps
            session.add(job)
            note = job.note
        reach("training.planned")
        ctx.to_deliver.add(note)

    def stepped(self, job_id: str, step: TrainingStep) -> None:
        """How far it is, for whoever finds it after a crash: a try that got further is no failure."""
        self.reached[job_id] = max(step.step, self.reached.get(job_id, 0))
        now = self._ctx.steady()
        if now - self._said_at.get(job_id, float("-inf")) < REACHED_S:
            return
        self._said_at[job_id] = now
        with self._ctx.index.session() as session:
            job = work.job_by_id(session, job_id)
            if job is not None:
                job.now_at = max(job.now_at, step.step)
                session.add(job)

    def has_moved(self, job: JobRow) -> bool:
        """Whether the try that was lost got further than any before it; then it does not count as one."""
        at = max(job.now_at, self.reached.get(job.id, 0))
        moved, job.reached, job.now_at = at > job.reached, max(at, job.reached), max(at, job.now_at)
        return moved

    def stopped(self, job: JobRow) -> None:
        """Called off. What it has learned is kept."""
        self._publisher.end(job, "cancelled", self.stopped_lines(job))
        self._forget(job.id)
        self._answered.add(job.id)

    def stopped_lines(self, job: JobRow) -> list[str]:
        """The answer of one that was called off."""
        return words.stopped_lines(spec_of(job), max(job.now_at, self.reached.get(job.id, 0)), job.steps)

    def failed(self, job: JobRow, message: str) -> None:
        """Refused by the worker, or ended in a way that trying again would not change."""
        self._publisher.end(job, "failed", words.failure_lines([message]))
        self._forget(job.id)
        self._answered.add(job.id)

    def done(self, job: JobRow, event: sup.TrainingDone) -> None:
        """The adapter is made. Raises `OSError` if that cannot be written down."""
        folder, stem = self._publisher.folder_of(job), image_stem(datetime.fromtimestamp(job.created), job.id)
        stem = f"{folder}/{stem}" if folder else stem
        made = Made(outcome=event.outcome, chart=event.chart, strip=event.strip, stem=stem)
        self._write_down(job.id, made)
        reach("training.made")
        self._endings[job.id] = _Ending(job.id, made)

    # ---- after a crash

    def take_up(self, job: JobRow) -> bool:
        """Whether the adapter of a job is made already, so that only its end is missing. It is taken up then."""
        try:
            data = self._record(job.id).read_bytes()
            made = msgspec.json.decode(data, type=Made)
        except (OSError, msgspec.MsgspecError):
            return False
        if not made.outcome.checkpoints or not os.path.isfile(made.outcome.checkpoints[-1].path):
            return False
        self._endings.setdefault(job.id, _Ending(job.id, made))
        return True

    def prune(self) -> None:
        """Take away what is left of trainings that nobody goes on with."""
        home = self._ctx.config.state_dir / "training"
        with self._ctx.index.session() as session:
            open_jobs = work.open_jobs(session)
            used = {Path(spec_of(job).state_dir) for job in open_jobs if job.kind == "train" and job.spec}
            used |= {self.home(job.id) for job in open_jobs}
        for folder in (*_folders(home), *_folders(home / "jobs")):
            old = time.time() - _last_change(folder) > KEPT_S
            if old and folder not in used and folder.name != "jobs":
                shutil.rmtree(folder, ignore_errors=True)
                log.info("%s: nobody went on with this training", folder)

    # ---- taking in what was made

    def step(self) -> None:
        """Go on with everything that is made and not answered, and take away what nobody needs any more."""
        for job_id in list(self._answered):
            self._clear(job_id)
        for ending in list(self._endings.values()):
            if ending.not_before > self._ctx.steady():
                continue
            with self._ctx.index.session() as session:
                job = work.job_by_id(session, ending.job)
            if job is None or job.state not in work.OPEN_STATES:
                self._forget(ending.job)
                continue
            try:
                self._advance(job, ending)
                self._ctx.troubles.pop(f"training.{job.id}", None)
            except (OSError, VaultGone) as error:
                self._wait(job, ending, error.message if isinstance(error, VaultGone) else error.strerror or str(error))
            except UserError as error:
                self.failed(job, error.message)

    def _clear(self, job_id: str) -> None:
        """The answer is in the note: what it was made from, and the state of the training, may go."""
        with self._ctx.index.session() as session:
            job = work.job_by_id(session, job_id)
        if job is None or job.state in work.OPEN_STATES:
            self._answered.discard(job_id)  # it is not known (yet), or not over: whoever ends it puts it back
        elif job.delivered:
            self._answered.discard(job_id)
            if job.state == "done":
                shutil.rmtree(spec_of(job).state_dir, ignore_errors=True)
            shutil.rmtree(self.home(job_id), ignore_errors=True)

    def _advance(self, job: JobRow, ending: _Ending) -> None:
        spec = spec_of(job)
        source = Path(ending.made.outcome.checkpoints[-1].path)
        if ending.samples is None:
            ending.weight_id = _weight_id(source)
            self._publish_pictures(ending)
        if not ending.placed:
            self._place(job, spec, ending, source)
            ending.give_up = self._ctx.steady() + CARD_S
        if self._is_known(ending) or self._ctx.steady() >= ending.give_up:
            self._answer(job, spec, ending, os.stat(source).st_size)

    def _publish_pictures(self, ending: _Ending) -> None:
        """Into the vault: durable files first, then their rows. A second try replaces its own files."""
        ctx, made = self._ctx, ending.made

        def publish(path: str, what: object) -> str:
            rel = f"{made.stem}-{what}{Path(path).suffix}"
            ctx.writer.publish(rel, Path(path).read_bytes())
            return rel

        last = made.outcome.checkpoints[-1]
        samples = [publish(one.path, number) for number, one in enumerate(last.samples, 1)]
        ending.chart = publish(made.chart, "loss") if made.chart else None
        ending.strip = publish(made.strip, "samples") if made.strip else None
        reach("training.pictures-durable")
        with ctx.index.session() as session:
            for rel in samples:
                row = image_row_of(ctx.config.vault, rel)
                if row is not None:
                    images.remember_image(session, row)
        ctx.pictures_changed.update(samples)
        ctx.covers_due.add(ending.weight_id)
        ending.samples = tuple(samples)

    def _place(self, job: JobRow, spec: TrainingSpec, ending: _Ending, source: Path) -> None:
        ctx, made = self._ctx, ending.made
        root = self._root(made.root)
        taken = self._names()

        def chosen(rel: str) -> None:
            ending.made = msgspec.structs.replace(ending.made, root=root.name, rel=rel)
            self._write_down(job.id, ending.made)
            reach("training.chosen")

        rel = place_adapter(
            source, root.path, folder=job.category, name=spec.name, token=job.id, earlier=made.rel,
            is_taken=lambda name: name.casefold() in taken, chosen=chosen,
        )  # fmt: skip
        reach("training.placed")
        log.info("job %s: the LoRA is %s/%s", job.id, root.name, rel)
        ending.placed = True
        ctx.look_for_adapter(root.name, rel)

    def _root(self, name: str | None) -> Root:
        roots = self._ctx.config.loras
        if not roots:
            raise UserError("There is no loras folder to put the LoRA into: name one in config.toml under `loras`.")
        return next((root for root in roots if root.name == name), roots[0])

    def _names(self) -> set[str]:
        """What adapters are called that are known; folded."""
        with self._ctx.index.session() as session:
            return {row.name.casefold() for row in adapters.named_adapters(session)}

    def _is_known(self, ending: _Ending) -> bool:
        """Whether the index has the new adapter, and its card is there if it gets one."""
        with self._ctx.index.session() as session:
            if self._ctx.keeps_cards:
                return bool(card_paths(session, [ending.weight_id]))
            return bool(adapters.adapters_by_weight_id(session, ending.weight_id))

    def _answer(self, job: JobRow, spec: TrainingSpec, ending: _Ending, size: int) -> None:
        ctx, made = self._ctx, ending.made
        with ctx.index.session() as session:
            card = card_paths(session, [ending.weight_id]).get(ending.weight_id)
        rel = made.rel or ""
        trained = words.Trained(
            spec=spec,
            outcome=made.outcome,
            name=rel.rpartition("/")[2].removesuffix(".safetensors"),
            place=f"{made.root}/{rel}",
            size=size,
            card=card,
            chart=ending.chart,
            strip=ending.strip,
            remarks=tuple(json.loads(job.remarks)),
        )
        told = [path for path in (ending.strip, ending.chart) if path]
        with ctx.index.session() as session:
            run = work.run_by_id(session, job.run)
            if run is not None:
                run.message = words.done_message(trained)
                session.add(run)
        pictures = (*told, *reversed(ending.samples or ()))  # the last one stands for the note
        self._publisher.end(job, "done", words.result_lines(trained), pictures=pictures, seconds=made.outcome.seconds)
        self._forget(job.id)
        self._answered.add(job.id)

    def _wait(self, job: JobRow, ending: _Ending, reason: str) -> None:
        ending.not_before = self._ctx.steady() + RETRY_S
        log.error("job %s: what was trained cannot be taken in: %s", job.id, reason)
        self._ctx.troubles[f"training.{job.id}"] = (
            f"{job.first_line}: the LoRA is made and cannot be put into its place: {reason}. It is kept and tried "
            "again every minute."
        )

    # ---- remembering

    def _record(self, job_id: str) -> Path:
        return self.home(job_id) / "outcome.json"

    def _write_down(self, job_id: str, made: Made) -> None:
        write_whole(self._record(job_id), msgspec.json.encode(made))

    def _forget(self, job_id: str) -> None:
        self._endings.pop(job_id, None)
        self._said_at.pop(job_id, None)
        self.reached.pop(job_id, None)
        self._ctx.to_cancel.discard(job_id)
        self._ctx.troubles.pop(f"training.{job_id}", None)


def spec_of(job: JobRow) -> TrainingSpec:
    """What the job asks for."""
    return msgspec.json.decode(job.spec, type=TrainingSpec)


def _weight_id(path: Path) -> str:
    record = read_adapter(path, "", path.name, ())
    if record.weight_id is None:
        raise UserError(f"The LoRA that was trained cannot be read back: {record.reason}. Nothing was published.")
    return record.weight_id


def _folders(home: Path) -> Sequence[Path]:
    try:
        return [path for path in home.iterdir() if path.is_dir()]
    except OSError:
        return ()


def _last_change(folder: Path) -> float:
    """Of anything in it."""
    times: list[Any] = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        try:
            times.append(path.lstat().st_mtime)
        except OSError:
            continue
    return float(max(times))
