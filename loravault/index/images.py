"""The pictures that were made, as rows. The pictures themselves carry all of it.

A row without a job is a picture that was looked at and is none of ours: it need not be read again, and nobody is told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlmodel import Session, col, delete, func, select

from loravault.index.tables import ImageRow, MadeRow


def remember_image(session: Session, image: ImageRow) -> None:
    """Record a picture that is durably in place, and who had a part in it."""
    session.merge(image)
    session.exec(delete(MadeRow).where(col(MadeRow.image) == image.path))
    for weight_id in set(json.loads(image.adapters)):
        session.add(MadeRow(weight_id=weight_id, image=image.path))


def forget_image(session: Session, path: str) -> None:
    """The file is gone."""
    row = session.get(ImageRow, path)
    if row is not None:
        session.delete(row)
        session.exec(delete(MadeRow).where(col(MadeRow.image) == path))


def known_images(session: Session) -> dict[str, tuple[int, int, bool]]:
    """path -> (size, mtime_ns, whether it is ours) of everything that was looked at."""
    rows = session.exec(select(ImageRow.path, ImageRow.size, ImageRow.mtime_ns, ImageRow.job)).all()
    return {path: (size, mtime_ns, bool(job)) for path, size, mtime_ns, job in rows}


def fingerprints_of_jobs(session: Session, jobs: Sequence[str]) -> dict[str, str]:
    """job -> fingerprint, for those of these jobs that made a picture."""
    rows = session.exec(select(ImageRow.job, ImageRow.fingerprint).where(col(ImageRow.job).in_(list(jobs)))).all()
    return {job: fingerprint for job, fingerprint in rows if fingerprint}


def images_of_adapter(session: Session, weight_id: str) -> list[str]:
    """Pictures that an adapter had a part in, newest first (their names begin with the time)."""
    rows = session.exec(select(MadeRow.image).where(MadeRow.weight_id == weight_id).order_by(col(MadeRow.image).desc()))
    return list(rows.all())


def images_of_job(session: Session, job: str) -> Sequence[ImageRow]:
    """The pictures of one job, in the order of its seeds."""
    return session.exec(select(ImageRow).where(ImageRow.job == job).order_by(col(ImageRow.n))).all()


def count_images(session: Session) -> int:
    """How many pictures of ours there are."""
    return int(session.exec(select(func.count()).select_from(ImageRow).where(ImageRow.job != "")).one())


def counts_by_adapter(session: Session) -> dict[str, int]:
    """weight id -> how many pictures it had a part in."""
    rows = session.exec(select(MadeRow.weight_id, func.count()).group_by(MadeRow.weight_id)).all()
    return {weight_id: int(n) for weight_id, n in rows}


def made_with(session: Session, after: str = "", limit: int = 5000) -> dict[str, tuple[str, ...]]:
    """The next `limit` pictures of ours by path, after `after`: path -> weight ids of what had a part in it."""
    wanted = select(ImageRow.path, ImageRow.adapters).where(ImageRow.job != "", ImageRow.path > after)
    rows = session.exec(wanted.order_by(col(ImageRow.path)).limit(limit)).all()
    return {path: tuple(sorted(set(json.loads(used)))) for path, used in rows}


def made_with_of(session: Session, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """As `made_with`, of those of these paths (at most 900) that are pictures of ours."""
    wanted = select(ImageRow.path, ImageRow.adapters).where(ImageRow.job != "", col(ImageRow.path).in_(list(paths)))
    return {path: tuple(sorted(set(json.loads(used)))) for path, used in session.exec(wanted).all()}
