"""Named places between the steps of what must survive a crash, so that tests can stop the process at each of them.

`LORAVAULT_CRASH_AT=name` kills this process with SIGKILL the first time `reach(name)` is called, `name:3` the third
time. Without the variable (and without a test's `hook`) reaching a failpoint costs one comparison.
"""

from __future__ import annotations

import os
from collections.abc import Callable

#: Every failpoint with what a crash there leaves behind. docs/durability.md tells the order in full.
NAMES: dict[str, str] = {
    "intake.recorded": "a run in the index that the note does not know: `run: true` stays the same edge",
    "job.claimed": "jobs marked as claimed that no worker has: queued again at the start",
    "job.begun": "a job marked as running whose worker left with us: queued again at the start",
    "training.planned": "a plan of a training in the index that the note does not show: delivered at the start",
    "training.made": "an adapter in the state folder, written down: taken in at the start, nothing is trained again",
    "training.pictures-durable": "pictures in the vault without a row: the second try replaces them",
    "training.chosen": "the name for an adapter is written down and not given: given at the start",
    "training.placed": "an adapter in the loras folder that the note does not name: found under the name written down",
    "job.images-durable": "pictures in the vault without a row: the second try replaces them under the same names",
    "job.images-recorded": "pictures and rows, the job not finished: answered with them at the start",
    "job.finished": "an answer in the index that the note does not show: delivered at the start",
    "deliver.before-note": "an answer in the index that the note does not show: delivered at the start",
    "deliver.after-note": "an answer in the note that the index holds for open: recognised by its region, closed",
    "deliver.after-close": "nothing",
    "write.planned": "nothing: no byte was written yet",
    "write.intent": "a ledger line without a temp",
    "write.part-created": "an empty .part file that the ledger explains: deleted",
    "write.part-written": "a .part file that the ledger explains, not yet synced: deleted",
    "write.part-synced": "a whole .part file that the ledger explains: deleted",
    "write.temp-ready": "a temp that equals the new text: deleted, the note is untouched",
    "write.checked": "the same; the note was found unchanged a moment ago",
    "write.exchanged": "the note is new; the temp holds what was displaced",
    "write.folder-synced": "the same, durable",
    "write.placed": "the same, and the ledger says so",
    "write.verified": "the displaced copy is in displaced/, the ledger does not say so yet",
    "ledger.rewritten": "a second, shorter ledger under a temp name: replaced by the next compaction",
    "move.intent": "a batch of moves in the ledger of which none was made: closed as it stands",
    "move.renamed": "some files of a batch are moved: taken back if the batch is whole, else closed as far as it came",
    "move.synced": "a batch that is made and not closed in the ledger: closed",
    "create.linked": "a new file, whole; its temp name may still exist",
    "bulk.written": "hidden temps of files that are not there yet: replaced by the next write of the same file",
    "bulk.synced": "the same, durable",
    "bulk.linked": "new files, whole; their folders may not be durable yet",
}
_reached: dict[str, int] = {}
_crash_at = os.environ.get("LORAVAULT_CRASH_AT", "")

#: Tests inside the process set this to be called with each name that is reached.
hook: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Pass the failpoint `name`; the process dies here if a test asked for it."""
    if hook is not None:
        hook(name)
    if not _crash_at:
        return
    if name not in NAMES:
        raise ValueError(f"the failpoint {name} is not in NAMES")
    _reached[name] = _reached.get(name, 0) + 1
    wanted, _, count = _crash_at.partition(":")
    if wanted == name and _reached[name] == int(count or 1):
        _die()


def _die() -> None:
    import signal  # noqa: PLC0415 - needed only in a process that is about to end

    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
