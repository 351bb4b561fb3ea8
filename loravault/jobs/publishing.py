"""How a job ends: its pictures into the vault, its answer into the index. File first, then row, then the job closed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from loravault.failpoints import reach
from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import AdapterHashes, GenerationOutcome, MadeImage
from loravault.index import adapters, images, work
from loravault.index.library import card_paths
from loravault.index.tables import ImageRow, JobRow
from loravault.jobs import words
from loravault.jobs.context import Context, Event, log
from loravault.vault.attachments import Attachments, NoAttachments, unusable

#: A folder with one of these is the wrong one, and no waiting makes it right: a file of its name, no permission, a name
#: that this disk cannot have. A full or failing disk is none of them: our own folder is on it too.
_NOT_THIS_FOLDER = frozenset(
    {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}
    | {errno.EINVAL, errno.EILSEQ, errno.ELOOP}
)


class Publisher:
    """Takes what the worker has made."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    @property
    def staging(self) -> Path:
        """Where the worker puts pictures before they are published."""
        return self._ctx.config.state_dir / "staging"

    def finished(self, job: JobRow, outcome: GenerationOutcome) -> None:
        """Every picture that can be made is made. Raises `VaultGone`, `UserError`, `OSError` if they go nowhere."""
        spec = spec_of(job)
        remarks = (*json.loads(job.remarks), *outcome.warnings)
        published = self._publish(job, spec, outcome.images, remarks)
        if not published:
            self.end(job, "failed", words.failure_lines(list(outcome.warnings) or ["No picture came out."]))
            return
        made = words.Made(spec, published, outcome.seconds, remarks, self.cards(spec))
        lines = words.made_lines(made, sheet=job.sheet)
        self.end(job, "done", lines, pictures=published, seconds=outcome.seconds, hashes=outcome.adapter_hashes)

    def cancelled(self, job: JobRow, made: Sequence[MadeImage]) -> None:
        """Stopped; what was finished before stays. Raises as `finished`."""
        spec = spec_of(job)
        published = self._publish(job, spec, made, json.loads(job.remarks))
        if not published:
            self.end(job, "cancelled", [])
            return
        remark = f"Cancelled after {words.images_phrase(len(published))} of {len(spec.seeds)}."
        remarks = (*json.loads(job.remarks), remark)
        lines = words.made_lines(words.Made(spec, published, None, remarks, self.cards(spec)), sheet=job.sheet)
        self.end(job, "cancelled", lines, pictures=published)

    def cards(self, spec: GenerationSpec) -> dict[str, str]:
        """Name of each adapter that has a card -> where the card is."""
        with self._ctx.index.session() as session:
            paths = card_paths(session, [use.weight_id for use in spec.adapters])
        return {use.name: paths[use.weight_id] for use in spec.adapters if use.weight_id in paths}

    def _publish(
        self, job: JobRow, spec: GenerationSpec, made: Sequence[MadeImage], remarks: Sequence[str]
    ) -> tuple[str, ...]:
        """Move finished pictures into the vault: durable file first, then its row. Returns their vault-relative paths.

        `remarks` is what is to be said of them: it becomes durable with their rows, for whoever answers after a crash.
        Names come from the job, so a second try after a crash replaces its own file instead of leaving two.
        """
        ctx = self._ctx
        published = self._put(job, [Path(image.path) for image in made])
        reach("job.images-durable")
        with ctx.index.session() as session:
            for image, rel in zip(made, published, strict=True):
                images.remember_image(session, image_row(job, spec, image, rel, ctx.path(rel)))
            row = work.job_by_id(session, job.id)
            if row is not None:
                row.remarks = json.dumps(list(remarks), ensure_ascii=False)
                session.add(row)
        reach("job.images-recorded")
        ctx.pictures_changed.update(published)
        if job.stands_for and published:
            ctx.covers_due.add(job.stands_for)
        return tuple(published)

    def _put(self, job: JobRow, sources: Sequence[Path]) -> list[str]:
        """Copy pictures into their folder, or into ours where that one takes none: one folder holds up no queue."""
        folder, own = self.folder_of(job), self._own_folder(job)
        try:
            return self._put_into(folder, sources)
        except OSError as error:
            if folder == own or error.errno not in _NOT_THIS_FOLDER:
                raise
            self._ctx.troubles["attachments"] = unusable(folder, error).message
        return self._put_into(own, sources)

    def _put_into(self, folder: str, sources: Sequence[Path]) -> list[str]:
        published = []
        for source in sources:
            rel = f"{folder}/{source.name}" if folder else source.name
            self._ctx.writer.publish(rel, source.read_bytes())
            published.append(rel)
        return published

    def folder_of(self, job: JobRow) -> str:
        """The vault-relative folder for the pictures of a job; the vault's root is `""`."""
        ctx = self._ctx
        ctx.troubles.pop("attachments", None)
        if ctx.config.images == "obsidian":
            try:
                return Attachments.read(ctx.config.vault).folder_for(job.note)
            except NoAttachments as problem:
                ctx.troubles["attachments"] = problem.message
        return self._own_folder(job)

    def _own_folder(self, job: JobRow) -> str:
        return f"{self._ctx.config.folder}/Images/{datetime.fromtimestamp(job.created):%Y-%m}"

    def end(
        self,
        job: JobRow,
        state: str,
        lines: Sequence[str],
        *,
        pictures: Sequence[str] = (),
        seconds: float = 0.0,
        hashes: Sequence[AdapterHashes] = (),
    ) -> None:
        """The job has this answer."""
        ctx = self._ctx
        with ctx.index.session() as session:
            row = work.job_by_id(session, job.id)
            if row is None:
                return
            row.seconds = seconds
            work.finish(session, row, state, lines, now=ctx.now(), pictures=pictures)
            if hashes:
                read = {use.weight_id: self._place(use.path) for use in spec_of(job).adapters}
                for known in hashes:
                    place = read.get(known.weight_id)
                    adapters.store_hashes(session, known.weight_id, place, known.autov2, known.autov3)
        reach("job.finished")
        shutil.rmtree(self.staging / job.id, ignore_errors=True)
        log.info("job %s %s", job.id, state)
        ctx.to_deliver.add(job.note)
        if state == "failed" and len(lines) > 1:
            ctx.tell(Event("note", lines[1], job=job.id, run=job.run))

    def _place(self, path: str) -> tuple[str, str] | None:
        """The root and the path in it of an adapter file; None if it is in none."""
        for root in self._ctx.config.loras:
            if Path(path).is_relative_to(root.path):
                return root.name, Path(path).relative_to(root.path).as_posix()
        return None


def spec_of(job: JobRow) -> GenerationSpec:
    """What the job asks for."""
    return msgspec.json.decode(job.spec, type=GenerationSpec)


def image_row(job: JobRow, spec: GenerationSpec, image: MadeImage, rel: str, path: Path) -> ImageRow:
    """The row of a published picture: what its own chunk says."""
    status = os.stat(path)
    return ImageRow(
        path=rel,
        job=job.id,
        block_hash=job.block_hash or "",
        fingerprint=job.fingerprint,
        seed=image.seed,
        n=image.index,
        adapters=json.dumps([use.weight_id for use in spec.adapters]),
        base=spec.base.name,
        stands_for=job.stands_for,
        named=job.named,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )
