"""Several jobs in one call of the denoiser: each gets the picture it would get alone, and its own end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from loravault.engine import batch as batch_module
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.generate import Engine
from loravault.engine.wish import End, Wish
from loravault.errors import UserError
from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.formats.outcome import GenerationOutcome, Provenance, StepReport
from tests.engine.test_generate import pixels, replaced, spec
from tests.imagemeta import read_meta
from tests.tiny import make_adapter, use_of
from tests.tiny_families import MAKERS, make_family

pytestmark = [
    pytest.mark.engine,
    # Chroma still takes a module from where diffusers will move it from.
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

Pixels = np.ndarray[Any, Any]


class Asked:
    """Some wishes and what became of them, in the order in which they were told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ends: dict[str, End] = {}
        self.steps: list[tuple[str, StepReport]] = []
        self.cancelled: Callable[[str], bool] = lambda _name: False

    def together(self, engine: Engine, *specs: GenerationSpec, folders: Sequence[Path] = ()) -> list[End]:
        """The ends of jobs called a, b, c …"""
        names = "abcdefgh"[: len(specs)]
        places = folders or [self._folder] * len(specs)
        engine.generate_together([self._wish(*one) for one in zip(names, specs, places, strict=True)])
        assert sorted(self.ends) == list(names), "each is told its end"
        return [self.ends[name] for name in names]

    def _wish(self, name: str, wanted: GenerationSpec, folder: Path) -> Wish:
        def end(what: End) -> None:
            assert name not in self.ends, "once"
            self.ends[name] = what

        return Wish(
            spec=wanted,
            out_dir=folder,
            stem=name,
            provenance=Provenance(job=name, fingerprint=name * 16),
            on_step=lambda report: self.steps.append((name, report)),
            cancelled=lambda: self.cancelled(name),
            on_end=end,
        )


def drawn(end: End) -> list[Pixels]:
    assert isinstance(end, GenerationOutcome), end
    return pixels(end)


def same(one: Pixels, other: Pixels) -> bool:
    """At most one step of 255 apart: other shapes of a batch change the order of sums."""
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= 1)


def counting(calls: list[int]) -> Callable[..., torch.Tensor]:
    """The real drawing, which notes how many pictures each call has."""
    real = batch_module.draw_latents

    def counted(*args: Any, seeds: Sequence[int], **more: Any) -> torch.Tensor:
        calls.append(len(seeds))
        return real(*args, seeds=seeds, **more)

    return counted


PROMPTS = ("a red cat", "dogs", "", "a very long sentence about a lighthouse and the sea behind it, in the evening")
NEGATIVES = ("", "blur", "text, watermark and a signature", "x")
#: Which prompts with how many seeds are drawn together.
COMPOSITIONS = [((0, 1), (1, 1)), ((3, 2), (0, 1)), ((2, 1), (3, 1), (0, 1), (1, 1)), ((1, 3), (2, 3))]


@pytest.mark.parametrize("family", MAKERS)
def test_a_picture_is_the_same_in_any_company(tmp_path: Path, family: str) -> None:
    """Prompts of other lengths, other negatives, other counts: at most 1/255 from the picture that is drawn alone."""
    base = make_family(tmp_path / "base", family)
    engine = Engine("cpu")

    def asked(number: int, count: int) -> GenerationSpec:
        return GenerationSpec(
            base=base, prompt=PROMPTS[number], negative=NEGATIVES[number], width=64, height=48, steps=2, cfg=3.0,
            sampler="Euler", image_format="png", seeds=tuple(10 * number + n for n in range(count)),
        )  # fmt: skip

    alone = {n: pixels(engine.generate(asked(n, 3), tmp_path / "alone")) for n in range(4)}
    alone_one = {n: pixels(engine.generate(asked(n, 1), tmp_path / "one"))[0] for n in range(4)}
    assert all(same(alone[n][0], alone_one[n]) for n in range(4))
    assert len({alone_one[n].tobytes() for n in range(4)}) == 4
    for composition in COMPOSITIONS:
        calls: list[int] = []
        with replaced(batch_module, "draw_latents", counting(calls)):
            ends = Asked(tmp_path / "together").together(engine, *[asked(*one) for one in composition])
        for (number, count), end in zip(composition, ends, strict=True):
            assert all(same(found, alone[number][n]) for n, found in enumerate(drawn(end))), (composition, number)
            assert len(drawn(end)) == count
        pictures = sum(count for _, count in composition)
        assert calls == [min(4, pictures - done) for done in range(0, pictures, 4)], "as many at once as there may be"


def test_each_picture_says_whose_it_is(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """Files, generation data, provenance and reports are each job's own."""
    asked = Asked(tmp_path)
    one, two = spec(tiny, prompt="a red cat", seeds=(1, 2)), spec(tiny, prompt="dogs", seeds=(3,))
    first, second = asked.together(engine, one, two)
    assert [len(drawn(end)) for end in (first, second)] == [2, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.png", "a-2.png", "b-1.png"]
    meta = read_meta(tmp_path / "b-1.png")
    assert meta is not None
    assert meta.infotext is not None
    assert meta.chunk is not None
    assert meta.infotext.startswith("dogs\n")
    assert "Seed: 3," in meta.infotext
    assert (meta.chunk["job"], meta.chunk["fingerprint"], meta.chunk["index"]) == ("b", "b" * 16, 0)
    seen = [(name, report.image, report.batch, report.images, report.step) for name, report in asked.steps[:4]]
    assert seen == [("a", 0, 2, 2, 1), ("b", 0, 1, 1, 1), ("a", 0, 2, 2, 2), ("b", 0, 1, 1, 2)]
    assert list(asked.ends) == ["a", "b"]


def test_a_job_is_told_its_end_before_the_rest_is_drawn(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    steps_at_end: list[int] = []
    one, two = spec(tiny, seeds=(1,)), spec(tiny, prompt="dogs", seeds=(2, 3, 4, 5, 6))
    asked.cancelled = lambda _name: bool(steps_at_end.append(len(asked.steps)) if "a" in asked.ends else False)
    asked.together(engine, one, two)
    assert steps_at_end[0] == 2 * 4, "after the first four pictures, not after all six"


def test_one_that_is_cancelled_leaves_the_others_their_pictures(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    specs = [spec(tiny, prompt=prompt, seeds=(1, 2)) for prompt in ("a red cat", "dogs", "a ship")]
    asked.cancelled = lambda name: name == "b" and len(asked.steps) >= 4
    first, second, third = asked.together(engine, *specs)
    assert isinstance(second, Stopped)
    assert second.images == ()
    for end, wanted in ((first, specs[0]), (third, specs[2])):
        usual = pixels(engine.generate(wanted, tmp_path / "usual"))
        assert all(same(*pair) for pair in zip(drawn(end), usual, strict=True))
    assert not list(tmp_path.glob("b-*"))
    assert not [1 for name, report in asked.steps if name == "b" and report.step > 3], "it reports no more"


def test_what_a_cancelled_one_had_finished_stays(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.cancelled = lambda name: name == "a" and any(report.image == 4 for _, report in asked.steps)
    first, second = asked.together(engine, spec(tiny, seeds=(1, 2, 3, 4, 5, 6)), spec(tiny, prompt="dogs"))
    assert isinstance(first, Stopped)
    assert [image.seed for image in first.images] == [1, 2, 3, 4]
    assert all(Path(image.path).is_file() for image in first.images)
    assert len(drawn(second)) == 1


def test_when_all_are_cancelled_nothing_more_is_drawn(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.cancelled = lambda _name: len(asked.steps) >= 2
    ends = asked.together(engine, spec(tiny, steps=9), spec(tiny, prompt="dogs", steps=9))
    assert all(isinstance(end, Stopped) for end in ends)
    assert len(asked.steps) == 2


def test_an_adapter_that_cannot_be_read_fails_its_own_job(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """They share what is applied; the file of one of them was taken away under its other name."""
    make_adapter(tmp_path / "ink.safetensors")
    good = use_of(tmp_path / "ink.safetensors", 0.7)
    bad = replace(good, weight_id="w1-" + "0" * 16)
    first, second = Asked(tmp_path).together(
        engine, spec(tiny, adapters=(bad,)), spec(tiny, prompt="dogs", adapters=(good,))
    )
    assert isinstance(first, UserError)
    assert "is another one by now" in first.message
    usual = pixels(engine.generate(spec(tiny, prompt="dogs", adapters=(good,)), tmp_path / "usual"))
    assert same(drawn(second)[0], usual[0])


def test_the_same_adapters_in_another_order_are_merged_once(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    for number in range(2):
        make_adapter(tmp_path / f"a{number}.safetensors", seed=number)
    a, b = (use_of(tmp_path / f"a{number}.safetensors", 0.5 + number) for number in range(2))
    calls: list[int] = []
    specs = spec(tiny, adapters=(a, b)), spec(tiny, prompt="dogs", adapters=(replace(b, name="other"), a))
    with replaced(batch_module, "draw_latents", counting(calls)):
        ends = Asked(tmp_path).together(engine, *specs)
    assert calls == [2]
    for end, wanted in zip(ends, specs, strict=True):
        assert same(drawn(end)[0], pixels(engine.generate(wanted, tmp_path / "usual"))[0])


def test_a_file_that_cannot_be_written_fails_its_own_job(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    first, second = Asked(tmp_path).together(
        engine, spec(tiny), spec(tiny, prompt="dogs"), folders=(tmp_path / "file", tmp_path / "good")
    )
    assert isinstance(first, UserError)
    assert first.message.startswith("The picture could not be written: ")
    assert len(drawn(second)) == 1


def test_nan_is_told_to_whom_it_happened(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    real = batch_module.draw_latents

    def spoil(*arguments: Any, **more: Any) -> torch.Tensor:
        latents = real(*arguments, **more)
        latents[1, 0, 0, 0] = float("nan")
        return latents

    with replaced(batch_module, "draw_latents", spoil):
        first, second = Asked(tmp_path).together(engine, spec(tiny, seeds=(5, 6)), spec(tiny, prompt="dogs"))
    assert isinstance(first, GenerationOutcome)
    assert [image.seed for image in first.images] == [5]
    assert first.warnings[0].startswith("Image 2 (seed 6) came out as NaN")
    assert isinstance(second, GenerationOutcome)
    assert second.warnings == ()


def test_each_is_warned_of_its_own_prompt(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    first, second = Asked(tmp_path).together(engine, spec(tiny), spec(tiny, prompt="x" * 75 + "lost"))
    assert isinstance(first, GenerationOutcome)
    assert isinstance(second, GenerationOutcome)
    assert (len(first.warnings), len(second.warnings)) == (0, 1)


def test_when_memory_runs_out_the_batch_is_halved_across_jobs(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    real, tried = batch_module.draw_latents, []

    def limited(*arguments: Any, **more: Any) -> torch.Tensor:
        tried.append(tuple(more["seeds"]))
        if len(more["seeds"]) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return real(*arguments, **more)

    specs = spec(tiny, seeds=(1, 2)), spec(tiny, prompt="dogs", seeds=(3,))
    with replaced(batch_module, "draw_latents", limited):
        ends = Asked(tmp_path).together(engine, *specs)
    assert tried == [(1, 2, 3), (1, 2), (1,), (2,), (3,)]
    for end, wanted in zip(ends, specs, strict=True):
        usual = pixels(engine.generate(wanted, tmp_path / "usual"))
        assert all(same(*pair) for pair in zip(drawn(end), usual, strict=True))


def test_memory_that_does_not_suffice_for_one_picture_fails_the_job_it_was_for(
    engine: Engine, tiny: BaseRef, tmp_path: Path
) -> None:
    real = batch_module.draw_latents

    def limited(*arguments: Any, **more: Any) -> torch.Tensor:
        if 3 in more["seeds"]:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return real(*arguments, **more)

    with replaced(batch_module, "draw_latents", limited):
        ends = Asked(tmp_path).together(
            engine, spec(tiny, seeds=(1, 2)), spec(tiny, prompt="dogs", seeds=(3,)), spec(tiny, seeds=(4,))
        )
    assert [type(end) for end in ends] == [GenerationOutcome, OutOfMemory, GenerationOutcome]


def test_a_bug_with_one_of_them_costs_that_one(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """Whose fault it is shows when each is drawn alone; what was finished before is not drawn again."""
    real, calls = batch_module.draw_latents, []

    def broken(*arguments: Any, **more: Any) -> torch.Tensor:
        calls.append(tuple(more["seeds"]))
        if 6 in more["seeds"]:
            raise ValueError("a bug")
        return real(*arguments, **more)

    with replaced(batch_module, "draw_latents", broken):
        first, second, third = Asked(tmp_path).together(
            engine, spec(tiny, seeds=(1, 2, 3, 4, 5)), spec(tiny, seeds=(6,)), spec(tiny, seeds=(7,))
        )
    assert len(drawn(first)) == 5
    assert isinstance(second, ValueError)
    assert len(drawn(third)) == 1
    assert calls == [(1, 2, 3, 4), (5, 6, 7), (5,), (6,), (7,)]


def test_a_base_that_cannot_be_loaded_is_told_to_all(tmp_path: Path) -> None:
    nowhere = BaseRef(name="gone", path="/nowhere", family="demo")
    ends = Asked(tmp_path).together(Engine("cpu"), spec(nowhere), spec(nowhere, prompt="dogs"))
    assert all(isinstance(end, UserError) for end in ends)


def test_pictures_keep_their_bytes_when_drawn_alone_by_the_new_path(tiny: BaseRef, tmp_path: Path) -> None:
    """`generate` is a batch of one: the same picture twice is the same file content."""
    one, two = (Engine("cpu").generate(spec(tiny), tmp_path / str(n)) for n in range(2))
    assert Image.open(one.images[0].path).tobytes() == Image.open(two.images[0].path).tobytes()
