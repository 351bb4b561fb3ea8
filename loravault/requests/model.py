"""The values a request is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from loravault.formats.generation import AdapterUse, BaseRef, VaeRef
from loravault.formats.prompt_block import PromptBlock

#: The kinds of requests there will be; those of `BUILT` can be run.
KINDS = ("generate", "train", "dataset", "preview", "merge", "fetch")
BUILT = frozenset({"generate", "preview", "train"})

#: What may be set in the properties of a note and in `#|` lines.
OPTIONS = (
    "base",
    "loras",
    "negative",
    "seed",
    "count",
    "size",
    "steps",
    "cfg",
    "sampler",
    "clip_skip",
    "vae",
    "triggers",
    "format",
    "again",
    "missing_loras",
)

#: The largest whole number that Obsidian keeps.
MAX_SEED = 2**53 - 1


@dataclass(frozen=True)
class Block:
    """One ```prompt block of a note."""

    #: Index into `Note.fences`.
    fence_index: int
    block_hash: str
    #: The n-th block with this hash, from 0.
    ordinal: int
    parsed: PromptBlock
    #: Why a result cannot be put below this block, in words; None if it can.
    container_problem: str | None = None

    @property
    def first_line(self) -> str:
        """The first line of the prompt, by which people recognise it; at most 80 characters."""
        line = self.parsed.prompt.partition("\n")[0].strip()
        return line if len(line) <= 80 else f"{line[:79]}…"


@dataclass(frozen=True)
class Request:
    """A note that asks for something."""

    kind: str
    run: bool
    cancel: bool
    auto: bool
    #: `lv_job` and `lv_status` as the note holds them.
    job: str | None
    status: str | None
    blocks: tuple[Block, ...]
    #: Defaults for every block: the properties that are options, by their key in `OPTIONS`; empty ones left out.
    options: Mapping[str, Any]
    #: Every property that is not empty, keys in snake_case: kinds with keys of their own read them.
    properties: Mapping[str, Any] = field(default_factory=dict)
    #: What is wrong with the whole note, in words. It is the answer of every block.
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KnownAdapter:
    """An adapter as the library knows it."""

    name: str
    #: Absolute path.
    path: str
    #: Empty if the file is broken.
    weight_id: str
    family: str
    #: `pony`, `dev`, …; None if it is not known.
    variant: str | None = None
    trigger_words: tuple[str, ...] = ()
    #: `ok`, `broken`, `missing`.
    state: str = "ok"
    #: Why it is broken.
    reason: str | None = None
    #: What its card says: the weight to use if none is given, a negative prompt to add, the base it likes best.
    weight: float | None = None
    negative: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class NotFound:
    """Nothing goes by this name."""

    #: The names that come closest, best first.
    closest: tuple[str, ...] = ()
    #: Why what goes by this name cannot be used, as a sentence.
    reason: str | None = None


@dataclass(frozen=True)
class Several:
    """Several things go by this name."""

    #: What to write instead, one each.
    paths: tuple[str, ...]


class Catalog(Protocol):
    """What there is to make pictures with."""

    def find_adapter(self, name: str) -> KnownAdapter | Several | NotFound:
        """The adapter of this name."""

    def find_adapter_by_hash(self, text: str) -> KnownAdapter | None:
        """The adapter whose file this hash names, of whatever kind the hash is."""

    def find_base(self, name: str | None, families: Collection[str]) -> BaseRef | NotFound:
        """The base of this name; without a name one of these families; of any family if none is given."""

    def find_vae(self, name: str) -> VaeRef | NotFound:
        """The VAE of this name."""

    def vocabulary(self, base: BaseRef) -> frozenset[str] | None:
        """All words a base knows, in lower case; None if there is no such limit."""

    def defaults_for(self, family: str, variant: str | None = None) -> Mapping[str, Any]:
        """Options for a family where nobody says otherwise; `defaults.family_defaults` has them."""

    def config_defaults(self) -> Mapping[str, Any]:
        """Options from the configuration: what stands under `defaults`, `missing_loras` and `format`."""

    def block_presets(self) -> Mapping[str, str]:
        """Names of the user's own for strengths per block, and what they stand for."""

    @property
    def max_count(self) -> int:
        """The most pictures one block may ask for."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A block that can be run: everything that decides the pictures but seeds that are still to be drawn."""

    base: BaseRef
    prompt: str
    written_prompt: str
    negative: str
    #: Of the first picture; the next have the next numbers. None = to be drawn.
    seed: int | None
    count: int
    width: int
    height: int
    steps: int
    cfg: float
    sampler: str
    clip_skip: int
    adapters: tuple[AdapterUse, ...]
    #: None = the base's own.
    vae: VaeRef | None = None
    image_format: str
    again: str
    #: 16 hex digits; equal requests have equal ones.
    fingerprint: str
    #: What is worth knowing about the result, in words.
    warnings: tuple[str, ...] = ()
    #: LoRAs that were left out because no file of that name is there, as far as is known.
    absent: tuple[str, ...] = ()

    @property
    def seeds_fixed(self) -> bool:
        """Whether running it again would give the same pictures."""
        return self.seed is not None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A block that cannot be run, with everything that is wrong with it."""

    #: One sentence each.
    messages: tuple[str, ...]
    #: Changes when the block, its options or what is wrong change, so that it is not refused twice in the same words.
    fingerprint: str
    warnings: tuple[str, ...] = field(default=())
    #: LoRAs it names of which no file is there, as far as is known.
    absent: tuple[str, ...] = field(default=())
    #: There is no base for it, as far as is known.
    no_base: bool = False
