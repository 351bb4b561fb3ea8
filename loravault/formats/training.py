"""The values that describe an adapter to be trained: what a training request becomes, what the engine takes and gives.

A request says little; what it leaves open is decided when the pictures have been looked at (`training_plan`), in the
worker, because only there pictures of users are decoded. So a spec holds wishes, and a plan holds numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from loravault.formats.generation import BaseRef, GenerationSpec, VaeRef
from loravault.formats.outcome import MadeImage

Subject = Literal["character", "style", "object", "concept"]
Algorithm = Literal["lora", "locon", "loha", "lokr", "dylora", "ia3"]
Optimizer = Literal["adamw", "adamw8bit", "adafactor", "prodigy"]
Schedule = Literal["constant", "cosine"]
Precision = Literal["fp32", "bf16", "fp16"]
Quantised = Literal["none", "int8", "nf4"]
Naming = Literal["kohya", "diffusers"]


@dataclass(frozen=True, kw_only=True)
class TrainingPicture:
    """One picture to learn from, as it was found; nothing of it has been decoded."""

    #: Absolute.
    path: str
    #: What its owner calls it: relative to the vault or the dataset folder. For messages and metadata, never opened.
    name: str
    #: As its owner wrote it; None: there is none.
    caption: str | None = None
    #: How often it is seen in one epoch.
    repeats: int = 1
    #: Absolute path of a picture whose white counts and whose black does not; None: everything counts.
    mask: str | None = None
    #: It shows the class and not the subject: weighted by `prior_weight`, and without the trigger.
    regularisation: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingWishes:
    """What the person asked for; None: decide it."""

    steps: int | None = None
    algorithm: Algorithm | None = None
    rank: int | None = None
    alpha: float | None = None
    #: Of 3×3 convolutions; 0: they are left alone.
    conv_rank: int | None = None
    #: Only the queries, keys, values and outputs of the attention: smaller and quicker, and learns less.
    attention_only: bool = False
    conv_alpha: float | None = None
    rslora: bool = False
    dora: bool = False
    #: Of a LoKr; -1: the pair nearest to the square root.
    factor: int | None = None
    #: Of the UNet or transformer.
    learning_rate: float | None = None
    #: Of the text encoders; 0: they are left alone.
    te_rate: float | None = None
    #: Learn the trigger's embedding along, as so many vectors; 0: do not.
    pivotal: int = 0
    #: Sides in pixels of the squares whose areas the pictures are trained at.
    resolutions: tuple[int, ...] | None = None
    batch: int | None = None
    accumulation: int | None = None
    #: Cards that learn together, each with a batch of its own; 0: all there are.
    gpus: int | None = None
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    #: Steps in which the rate rises to its height.
    warmup: int | None = None
    #: Gamma; 0: off.
    min_snr: float | None = None
    noise_offset: float | None = None
    #: Weight of a regularisation picture's loss.
    prior_weight: float | None = None
    #: Share of the pictures that is held to what the base says without the trigger; 0: none.
    preserve: float | None = None
    #: Longest gradient; 0: any.
    clip: float | None = None
    #: Decay of the average of the weights that is published; 0: none.
    ema: float | None = None
    precision: Precision | None = None
    quantised: Quantised | None = None
    #: Whether activations are computed twice to save memory.
    checkpointing: bool | None = None
    flip: bool | None = None
    #: Whether squares are cut out at random; else the whole picture in its bucket.
    crops: bool | None = None
    #: How many checkpoints there are, the last one included.
    checkpoints: int | None = None
    #: How many pictures are held back to measure with; 0: none.
    validation: int | None = None
    caption_dropout: float | None = None
    #: Whether the parts of a caption between commas change places.
    shuffle: bool | None = None
    #: Parts at the beginning that stay where they are.
    keep_tokens: int | None = None
    #: Share of a caption's parts that are left out each time.
    tag_dropout: float | None = None
    #: As A1111 counts: 1 = last layer of the text encoder.
    clip_skip: int | None = None
    caption_prefix: str = ""
    seed: int | None = None
    naming: Naming = "kohya"


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """An adapter that is asked for."""

    base: BaseRef
    vae: VaeRef | None = None
    #: The file's name without its extension, and `ss_output_name`.
    name: str
    subject: Subject = "character"
    #: Put in front of every caption that lacks it; empty: none.
    trigger: str = ""
    #: Learned for the subject even if a caption is empty: "cat". Empty: not known.
    class_word: str = ""
    pictures: tuple[TrainingPicture, ...]
    wishes: TrainingWishes = field(default_factory=TrainingWishes)
    #: What is drawn with every checkpoint, and once with the base alone: the adapter is put in by the engine.
    samples: tuple[GenerationSpec, ...] = ()
    #: Strings that go into the file as they are: `modelspec.author`, `modelspec.license`, …
    metadata: tuple[tuple[str, str], ...] = ()
    #: Absolute folder that is ours and outlives the process: where a run that was interrupted goes on.
    state_dir: str
    #: Absolute folder for latents and encoded captions; shared by all trainings.
    cache_dir: str
    #: Absolute folder of the model that describes pictures without a caption; None: they stay without one.
    captioner: str | None = None
    #: Whether it could be used when this was asked for: one that comes back later begins nothing anew by itself.
    captioner_was_there: bool = True


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """What was found when one picture was decoded."""

    name: str
    #: Pixels, upright; 0 if it cannot be read.
    width: int = 0
    height: int = 0
    #: SHA-256 of the file.
    sha256: str = ""
    #: Why it is not used, in words; None: it is.
    problem: str | None = None
    #: What is to be known of it although it is used, half sentences: "only its first frame is used".
    remarks: tuple[str, ...] = ()
    #: Share of its surface that is of one even colour, 0 … 1: large in drawings, small in photos.
    flat: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The pictures of a training, looked at."""

    pictures: tuple[LookedAt, ...]
    #: 1 - mean likeness of two pictures, 0 … 1, and how it was measured, in words.
    diversity: float = 0.0
    measure: str = ""
    #: Names of two pictures that are nearly the same, each pair once.
    alike: tuple[tuple[str, str], ...] = ()

    @property
    def usable(self) -> int:
        """How many can be learned from."""
        return sum(one.problem is None for one in self.pictures)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Every number of a training. Fields that a wish has too mean the same."""

    steps: int
    algorithm: Algorithm
    rank: int
    alpha: float
    conv_rank: int
    conv_alpha: float
    attention_only: bool = False
    rslora: bool
    dora: bool
    factor: int
    learning_rate: float
    te_rate: float
    pivotal: int
    resolutions: tuple[int, ...]
    batch: int
    accumulation: int
    optimizer: Optimizer
    schedule: Schedule
    warmup: int
    min_snr: float
    noise_offset: float
    prior_weight: float
    preserve: float = 0.0
    clip: float
    ema: float
    precision: Precision
    quantised: Quantised
    checkpointing: bool
    flip: bool
    crops: bool
    checkpoints: int
    validation: int
    caption_dropout: float
    shuffle: bool
    keep_tokens: int
    caption_prefix: str
    seed: int
    naming: Naming
    tag_dropout: float = 0.0
    clip_skip: int = 1
    #: Cards that learn together; `batch` is that of each.
    gpus: int = 1
    #: How each number that nobody asked for was found, in sentences for the note.
    reasons: tuple[str, ...] = ()
    #: What the person should know before it starts, in sentences.
    warnings: tuple[str, ...] = ()

    @property
    def images_seen(self) -> int:
        """Pictures that are looked at altogether, repeats counted."""
        return self.steps * self.batch * self.accumulation * self.gpus


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a training will cost, said before it starts."""

    seconds: float
    #: Of the device.
    bytes: int
    #: Whether the seconds come from an earlier training of this kind on this device.
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Described:
    """Pictures that nobody wrote anything under, described by a model."""

    #: What the model is called.
    by: str
    #: How many they are, of how many that can be used.
    count: int
    usable: int
    #: Names of pictures, each with what was said of it: the first ones.
    captions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The first answer: nothing has been trained yet."""

    survey: Survey
    plan: TrainingPlan
    forecast: Forecast
    #: (width, height, pictures) of every bucket.
    buckets: tuple[tuple[int, int, int], ...] = ()
    #: None: none was.
    described: Described | None = None
    #: What came up before the plan was made, in sentences.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """How far it is."""

    #: Steps that are done, of `steps`.
    step: int
    steps: int
    #: Smoothed.
    loss: float
    learning_rate: float
    seconds_left: float
    #: How long the next silence may be.
    deadline_s: float


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An adapter as it was after some steps."""

    step: int
    #: Absolute; the last one is the adapter itself.
    path: str
    #: Held-out pictures at fixed noise; None: none were held out.
    validation: float | None = None
    #: In the order of the spec's samples; empty if nothing was drawn.
    samples: tuple[MadeImage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """A trained adapter, durably on disk and proven to read back."""

    prepared: Prepared
    #: The last one is what is published.
    checkpoints: tuple[Checkpoint, ...]
    #: The samples without the adapter.
    base_samples: tuple[MadeImage, ...] = ()
    #: (step, loss), raw.
    losses: tuple[tuple[int, float], ...] = ()
    #: (step, loss of the pictures that were held back); the one at step 0 is the base alone.
    validation: tuple[tuple[int, float], ...] = ()
    #: Training alone, all its parts together if it was interrupted.
    seconds: float = 0.0
    #: Of the device; of the process on the CPU.
    peak_bytes: int = 0
    warnings: tuple[str, ...] = ()
