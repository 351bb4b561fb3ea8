"""The orders that one worker holds and has not answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loravault.errors import UserError
from loravault.formats.generation import GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.formats.training import TrainingSpec
from loravault.jobs import protocol


@dataclass
class Order:
    """One job on its way to the worker, or with it."""

    id: str
    #: The message, as it is sent.
    line: bytes
    sent: bool = False
    #: The worker is at it.
    begun: bool = False
    cancelled_at: float | None = None


def order(
    job_id: str,
    spec: GenerationSpec,
    out_dir: Path,
    *,
    stem: str | None = None,
    provenance: Provenance | None = None,
    originals: Path | None = None,
    alone: bool = False,
    background: bool = False,
) -> Order:
    """A job as an order. Image n is written to `out_dir/<stem>-<n>.<ext>` (n from 1; the default stem is the job id).

    `alone`: with no other; `background`: after everything else. Raises `UserError` if a path cannot be said in JSON.
    """
    message = protocol.Job(
        id=job_id,
        spec=spec,
        out_dir=str(out_dir),
        stem=stem or job_id,
        provenance=provenance or Provenance(job=job_id),
        originals=str(originals) if originals else None,
        alone=alone,
        background=background,
    )
    return Order(job_id, _encoded(message))


def training_order(job_id: str, spec: TrainingSpec, out_dir: Path, provenance: Provenance) -> Order:
    """A training as an order. Raises `UserError` if a path cannot be said in JSON."""
    message = protocol.Train(id=job_id, spec=spec, out_dir=str(out_dir), provenance=provenance)
    return Order(job_id, _encoded(message))


def _encoded(message: protocol.Job | protocol.Train) -> bytes:
    try:
        return protocol.encode(message)
    except protocol.ProtocolError as error:
        raise UserError(f"The name of a file of this job is not readable text; rename it ({error}).") from error


class OrderWindow:
    """Every order without an answer, oldest first."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def __iter__(self) -> Iterator[Order]:
        return iter(tuple(self._orders.values()))

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._orders

    def get(self, job_id: str) -> Order | None:
        """The order of this job, while it has no answer."""
        return self._orders.get(job_id)

    def add(self, orders: Iterable[Order]) -> None:
        """Hold these. Raises `RuntimeError` if one is held already."""
        for one in orders:
            if one.id in self._orders:
                raise RuntimeError(f"the job {one.id} has no answer yet")
            self._orders[one.id] = one

    def answered(self, job_id: str) -> None:
        """It has its answer."""
        self._orders.pop(job_id, None)

    def clear(self) -> list[Order]:
        """Hold none any more; returns what was held."""
        orders = list(self._orders.values())
        self._orders.clear()
        return orders

    def unsent(self) -> list[Order]:
        """Those that the worker does not know of."""
        return [one for one in self._orders.values() if not one.sent]

    @property
    def leading(self) -> str | None:
        """The job that is worked on, else the one whose turn it is."""
        begun = (one.id for one in self._orders.values() if one.begun)
        return next(begun, None) or next(iter(self._orders), None)

    def due_cancel(self) -> float | None:
        """When the first cancel was asked for that has no answer."""
        times = [one.cancelled_at for one in self._orders.values() if one.cancelled_at is not None]
        return min(times, default=None)
