"""The values that come back from the engine, and what is written into a picture about its origin."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Which request a picture answers. Goes into our chunk of the image file; holds no path."""

    #: `<id>@<machine>` or the bare id: what the note calls the job.
    job: str
    #: 16 hex digits of the prompt block.
    block_hash: str = ""
    #: 16 hex digits of prompt and effective options.
    fingerprint: str = ""
    #: Weight id of the adapter that the picture is made to stand for, and whether the user named that adapter.
    stands_for: str = ""
    named: bool = False


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One denoising step is done."""

    #: Images that are already on disk.
    image: int
    #: Images that are being denoised together now.
    batch: int
    images: int
    step: int
    steps: int
    #: How many seconds may pass before the next report.
    deadline_s: float


@dataclass(frozen=True, kw_only=True)
class AdapterHashes:
    """Hashes of an adapter file as other tools know it."""

    name: str
    weight_id: str
    #: SHA-256 of the whole file, 64 hex digits, lower case.
    sha256: str
    #: First 10 digits of `sha256`.
    autov2: str
    #: First 12 digits of the SHA-256 of everything after the header.
    autov3: str


@dataclass(frozen=True, kw_only=True)
class MadeImage:
    """One picture, durably on disk."""

    #: Absolute path.
    path: str
    #: Place in the batch, from 0.
    index: int
    seed: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class GenerationOutcome:
    """What a job made, and what has to be said about it."""

    #: In the order of the seeds; an image that came out as NaN is missing here and told in `warnings`.
    images: tuple[MadeImage, ...]
    #: Sentences for the result in the note.
    warnings: tuple[str, ...] = ()
    #: From the start of the job to the last durable file.
    seconds: float = 0.0
    #: Adapter name → number of its tensors that found no place in the base.
    unused_keys: dict[str, int] = field(default_factory=dict)
    adapter_hashes: tuple[AdapterHashes, ...] = ()
