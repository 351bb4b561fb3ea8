"""The tables. A change here raises `SCHEMA`: an older file is then rebuilt, never migrated."""

from __future__ import annotations

from sqlmodel import Field, SQLModel

#: Written into `PRAGMA user_version`.
SCHEMA = 7


class AdapterRow(SQLModel, table=True):
    """One adapter file at one place."""

    __tablename__ = "adapter"

    root: str = Field(primary_key=True)
    rel: str = Field(primary_key=True)
    weight_id: str | None = Field(default=None, index=True)
    name: str = Field(index=True)
    alias: str | None = None
    size: int = 0
    mtime_ns: int = 0
    dev: int = 0
    ino: int = 0
    family: str = "unknown"
    variant: str | None = None
    network: str | None = None
    rank: int | None = None
    alpha: float | None = None
    #: JSON list of strings, in the form of the card.
    trigger_words: str = "[]"
    title: str | None = None
    preview: str | None = None
    #: `ok`, `incomplete`, `broken`, `missing` or `duplicate` (the same weights as another file that is used).
    state: str = "ok"
    reason: str | None = None
    #: JSON object: field -> where it was found.
    sources: str = "{}"
    #: JSON of `library.facts.AdapterFacts`: what metadata and sidecars say.
    facts: str = "{}"
    #: Names, sizes and times of the files that stand beside it, as a hash: a change of them is a change of it.
    beside: str = ""
    #: Hashes as Civitai defines them, lower-case hex. `hashed`: they were measured; else they are the header's claim.
    hashed: bool = False
    sha256: str | None = None
    autov1: str | None = None
    autov2: str | None = None
    autov3: str | None = None
    blake3: str | None = None
    crc32: str | None = None
    #: How many healthy scans in a row did not find the file. Two make it missing.
    unseen: int = 0


class CardRow(SQLModel, table=True):
    """One card as it was last read: the note of an adapter, or a note of the user's that was adopted as one."""

    __tablename__ = "card"

    path: str = Field(primary_key=True)
    size: int = 0
    mtime_ns: int = 0
    sha: str = ""
    #: Its `lora`, or what its `lora_file` names; None while that is unknown.
    weight_id: str | None = Field(default=None, index=True)
    #: JSON object: the user's own fields as they stand in the note; a field that is absent there is absent here.
    fields: str = "{}"
    #: JSON object: our own keys as they stand in the note.
    said: str = "{}"
    #: Its text outside our regions, for search.
    body: str = ""
    #: Why it is left alone, in words.
    problem: str | None = None
    #: What our keys in it were last known to say, as a hash: if we would say the same, nobody has to open the note.
    ours: str = ""
    #: Why our keys cannot be kept current in it, in words; it counts as a card nevertheless.
    unwritten: str | None = None


class NoteRow(SQLModel, table=True):
    """What was last read of one note that concerns us (requests, and notes that say `loravault:` but are skipped)."""

    __tablename__ = "note"

    path: str = Field(primary_key=True)
    sha: str
    dev: int = 0
    ino: int = 0
    #: `<run>@<machine>` as the note has it.
    lv_job: str | None = Field(default=None, index=True)
    #: It was once seen with `run` not ticked: a later tick is a person's.
    seen_unticked: bool = False
    #: Why the note is skipped or refused, for the dashboard.
    problem: str | None = None
    #: A ticked `cancel` has been obeyed and waits to be reset in the note.
    cancel_ack: bool = False
    #: A ticked `run` came together with `cancel` and waits to be reset in the note.
    run_ack: bool = False
    ack_message: str | None = None
    #: A write that was refused or failed: told on the dashboard, tried again when the note changes or the time comes.
    write_problem: str | None = None
    #: The properties (as a hash) whose ticked box could not be reset: it was obeyed, and is not a new wish.
    stuck_edge: str | None = None


class RunRow(SQLModel, table=True):
    """One tick: everything that one `run: true`, command or `auto` set going in one note."""

    __tablename__ = "run"

    id: str = Field(primary_key=True)
    note: str = Field(index=True)
    note_sha: str = ""
    note_dev: int = 0
    note_ino: int = 0
    created: float
    #: Set going by `run: true` in the note (not by a command or `auto`): the checkbox waits to be reset.
    ticked: bool = False
    #: The receipt (`run: false`, `lv_job`) is on disk.
    accepted: bool = False
    #: Filled when the run is over: `done`, `partial`, `failed`, `cancelled`.
    status: str | None = None
    message: str | None = None
    finished: float | None = None
    #: Everything is written into the note.
    closed: bool = Field(default=False, index=True)


class JobRow(SQLModel, table=True):
    """One block of one run, or one training."""

    __tablename__ = "job"

    #: `generate` or `train`.
    kind: str = "generate"

    id: str = Field(primary_key=True)
    run: str = Field(index=True)
    seq: int
    note: str
    #: None: the answer belongs to the whole note and goes to its end.
    block_hash: str | None
    ordinal: int
    first_line: str
    fingerprint: str
    #: Its answer is a part of one callout, together with the other jobs of its run and block.
    sheet: bool = False
    #: Weight id of the adapter for which its picture is to stand, and whether the user named that adapter.
    stands_for: str = ""
    named: bool = False
    #: Nobody waits for it: it starts when nothing else does.
    background: bool = False
    #: JSON of a `GenerationSpec` or, of a training, of a `TrainingSpec`; empty for what was refused.
    spec: str = ""
    #: JSON list of sentences that belong into the result.
    remarks: str = "[]"
    #: Base (16 hex digits), then adapters (16): a worker that has them loaded goes on with jobs of the same.
    setup: str = ""
    #: Jobs that are alike can be drawn together as far as their adapters allow it.
    alike: str = ""
    #: How many pictures it asks for.
    count: int = 1
    #: `queued`, `claimed` (a worker has it and is not at it yet), `running`, `done`, `failed`, `cancelled`.
    state: str = Field(default="queued", index=True)
    #: How often a worker was at it.
    attempts: int = 0
    #: How many of the attempts ended because we did, by a crash: not the fault of the job or its worker.
    interrupted: int = 0
    cancel: bool = False
    created: float
    finished: float | None = None
    #: How long making the pictures took.
    seconds: float = 0.0
    #: JSON list: the lines of the callout that answers the block.
    answer: str | None = None
    #: JSON list: vault-relative paths of the pictures, in the order of the seeds.
    pictures: str = "[]"
    delivered: bool = Field(default=False, index=True)
    #: Of a training: the folder below the loras folder; JSON list of the lines of its first answer, and whether that is
    #: in the note; its steps, the step it is at, and the one that a try before this one had come to.
    category: str = ""
    plan: str | None = None
    plan_delivered: bool = False
    steps: int = 0
    now_at: int = 0
    reached: int = 0


class ImageRow(SQLModel, table=True):
    """One picture that was made, as its own chunk tells it."""

    __tablename__ = "image"

    path: str = Field(primary_key=True)
    job: str = Field(index=True)
    block_hash: str = ""
    fingerprint: str = ""
    seed: int = 0
    n: int = 0
    #: JSON list of weight ids.
    adapters: str = "[]"
    base: str = ""
    #: Weight id of the adapter that it was made to stand for; if the user `named` it, the picture goes before others.
    stands_for: str = Field(default="", index=True)
    named: bool = False
    size: int = 0
    mtime_ns: int = 0


class CoverRow(SQLModel, table=True):
    """The cover of an adapter, or why it has none."""

    __tablename__ = "cover"

    weight_id: str = Field(primary_key=True)
    #: Vault-relative; None if there is none.
    path: str | None = None
    #: 16 hex digits of what it was made from and how: another one means another look.
    source_key: str = ""
    #: What it was made from, in words for people.
    source: str = ""
    #: What was wrong with pictures that were tried, in words.
    problem: str | None = None


class MadeRow(SQLModel, table=True):
    """An adapter had a part in a picture."""

    __tablename__ = "made"

    weight_id: str = Field(primary_key=True)
    image: str = Field(primary_key=True, index=True)


class CommandRow(SQLModel, table=True):
    """What the command line asks of the daemon that holds the vault."""

    __tablename__ = "command"

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    #: JSON object.
    args: str = "{}"
    created: float
    #: `new`, `taken`, `done`, `failed`.
    state: str = "new"
    #: JSON object.
    reply: str = "{}"


class AutoRow(SQLModel, table=True):
    """A block that `auto` has met: at the baseline, or because it ran."""

    __tablename__ = "auto"

    note: str = Field(primary_key=True)
    fingerprint: str = Field(primary_key=True)


class FactRow(SQLModel, table=True):
    """Single facts: when the baseline was taken, how far the running job is."""

    __tablename__ = "fact"

    key: str = Field(primary_key=True)
    value: str
