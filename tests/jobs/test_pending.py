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


def test_a_note_of_which_nothing_is_begun_says_what_it_waits_for() -> None:
    values = {"run": "r", "note": "n", "block_hash": None, "fingerprint": "", "created": 0.0}
    jobs = [JobRow(seq=n, id=str(n), ordinal=n, **values) for n in range(2)]
    run = RunRow(id="r", note="n", created=0.0)
    pending = Pending("n", None, [run], {"r": jobs})
    assert waiting_message(pending, "training my-cat, 40 min") == "waiting behind training my-cat, 40 min"
    assert waiting_message(pending) == "2 blocks to make"
    jobs[0].state = "running"
    assert waiting_message(pending, "training my-cat, 40 min") == "2 blocks to make"
