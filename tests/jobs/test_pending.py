"""What waits to be said in a note, from rows alone."""

from __future__ import annotations

from loravault.index.tables import JobRow, RunRow
from loravault.jobs.pending import Pending, waiting_message


def test_the_message_of_a_waiting_training_is_told() -> None:
    values = {"id": "a", "kind": "train", "run": "r", "note": "n", "first_line": "training my-cat", "steps": 750}
    job = JobRow(seq=0, block_hash=None, ordinal=0, fingerprint="", created=0.0, **values)
    run = RunRow(id="r", note="n", created=0.0)
    assert waiting_message(Pending("n", None, [run], {"r": [job]})) == (
        "training my-cat, 750 steps; the dashboard shows how far it is"
    )
