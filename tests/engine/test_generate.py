"""From a spec to files: the pictures are the pipeline's own, whatever the batch, and what is wrong is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from loravault.engine import batch as batch_module
from loravault.engine import generate as generate_module
from loravault.engine.bases import load_base
from loravault.engine.devices import choose_device
from loravault.engine.draw import decode
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.generate import Engine
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from loravault.formats.outcome import GenerationOutcome, Provenance, StepReport
from loravault.formats.samplers import SAMPLERS
from tests.imagemeta import read_meta
from tests.tiny import PARTS, make_adapter, make_base, use_of

pytestmark = pytest.mark.engine


def spec(base: BaseRef, **more: Any) -> GenerationSpec:
    values: dict[str, Any] = {
        "prompt": "a red cat",
        "negative": "blur",
        "seeds": (7,),
        "width": 64,
        "height": 64,
        "steps": 4,
        "cfg": 7.0,
        "sampler": "Euler a",
        "image_format": "png",
    }
    return GenerationSpec(base=base, **{**values, **more})


def pixels(outcome: GenerationOutcome) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(image.path)) for image in outcome.images]


def equal(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Equal up to one step of rounding in a few pixels: batches change the order of sums."""
    difference = np.abs(a.astype(int) - b.astype(int))
    return bool(difference.max() <= 1 and (difference > 0).mean() < 0.02)


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def test_strengths_per_block_decide_the_picture(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """Half of everything by its blocks is half by its weight; a block that is off is as if the file had none of it."""
    whole, less = tmp_path / "whole.safetensors", tmp_path / "less.safetensors"
    middle = [name for name in PARTS if "_mid_block_" in name]
    text = [name for name in PARTS if name.startswith("lora_te")]
    tensors = make_adapter(whole, {name: PARTS[name] for name in (*middle, *text)})
    make_adapter(less, {}, extra={name: tensor for name, tensor in tensors.items() if name.startswith("lora_te")})

    def drawn(*uses: AdapterUse) -> np.ndarray[Any, Any]:
        return pixels(engine.generate(spec(tiny, adapters=uses), tmp_path))[0]

    halves = use_of(whole, 0.8, blocks=(("BASE", 0.5), ("M00", 0.5)))
    off = use_of(whole, 0.8, blocks=(("M00", 0.0),))
    assert equal(drawn(halves), drawn(use_of(whole, 0.4)))
    assert equal(drawn(off, halves), drawn(use_of(less, 1.2), use_of(whole, 0.4, te=0)))
    assert not equal(drawn(off), drawn(use_of(whole, 0.8)))


@pytest.mark.parametrize("cfg", [7.0, 1.0])
def test_the_picture_is_that_of_the_bare_pipeline(engine: Engine, tiny: BaseRef, tmp_path: Path, cfg: float) -> None:
    """Bit by bit the same as `pipe(prompt, generator=…)`: nothing of ours is in between."""
    ours = engine.generate(spec(tiny, sampler="DDIM", cfg=cfg), tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(
        tiny.path, safety_checker=None, local_files_only=True, use_safetensors=True
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    theirs = pipe(
        "a red cat",
        negative_prompt="blur",
        width=64,
        height=64,
        num_inference_steps=4,
        guidance_scale=cfg,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    assert np.array_equal(pixels(ours)[0], np.asarray(theirs))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_does_not_depend_on_its_batch(engine: Engine, tiny: BaseRef, tmp_path: Path, sampler: str) -> None:
    """Image 3 of 5 is the image of its seed alone, also with samplers that draw noise at each step."""
    wanted = spec(tiny, sampler=sampler, seeds=(11, 12, 13, 14, 15), prompt="dogs")
    many = engine.generate(wanted, tmp_path / "many")
    assert [image.seed for image in many.images] == [11, 12, 13, 14, 15]
    for index in (0, 2, 4):
        alone = engine.generate(replace(wanted, seeds=(11 + index,)), tmp_path / "one")
        assert equal(pixels(many)[index], pixels(alone)[0])
    assert not equal(pixels(many)[0], pixels(many)[1])
    assert pixels(engine.generate(wanted, tmp_path / "again"))[3].tobytes() == pixels(many)[3].tobytes()


def test_samplers_differ_and_one_step_is_enough_for_each(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    found = {}
    for sampler in SAMPLERS:
        engine.generate(spec(tiny, sampler=sampler, steps=1), tmp_path)
        found[sampler] = pixels(engine.generate(spec(tiny, sampler=sampler, steps=6), tmp_path))[0].tobytes()
    assert len(set(found.values())) == len(SAMPLERS)


def test_an_unknown_sampler_is_told_with_the_nearest_before_anything_is_loaded(tmp_path: Path) -> None:
    nowhere = BaseRef(name="demo", path="/nowhere", family="demo")
    with pytest.raises(UserError, match=r"no sampler “Heun”; nearest: Euler, DPM\+\+ 2M"):
        Engine("cpu").generate(spec(nowhere, sampler="Heun"), tmp_path)


def test_adapters_change_the_picture_and_leave_no_trace(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    for number in range(2):
        make_adapter(tmp_path / f"a{number}.safetensors", seed=number)
    a, b = (use_of(tmp_path / f"a{number}.safetensors", 0.7) for number in range(2))
    plain = pixels(engine.generate(spec(tiny), tmp_path))[0]
    seen = {plain.tobytes()}
    for adapters in ((a,), (b,), (a, b), (replace(a, te=-0.7, unet=-0.7),), (replace(a, te=0.0),), (a, a)):
        outcome = engine.generate(spec(tiny, adapters=adapters), tmp_path)
        seen.add(pixels(outcome)[0].tobytes())
        assert [one.name for one in outcome.adapter_hashes] == list(dict.fromkeys(use.name for use in adapters))
    assert len(seen) == 7
    both = pixels(engine.generate(spec(tiny, adapters=(b, a)), tmp_path))[0]
    assert both.tobytes() == pixels(engine.generate(spec(tiny, adapters=(a, b)), tmp_path))[0].tobytes()
    assert pixels(engine.generate(spec(tiny), tmp_path))[0].tobytes() == plain.tobytes()


def test_a_failed_adapter_does_not_disturb_the_next_job(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    make_adapter(tmp_path / "good.safetensors")
    tensors = make_adapter(tmp_path / "bad.safetensors")
    good, bad = (use_of(tmp_path / f"{name}.safetensors") for name in ("good", "bad"))
    plain = pixels(engine.generate(spec(tiny), tmp_path))[0]
    tensors[next(iter(tensors))].fill_(float("nan"))
    from safetensors.torch import save_file

    save_file(tensors, bad.path)
    bad = use_of(Path(bad.path))
    with pytest.raises(UserError, match="“bad” is damaged"):
        engine.generate(spec(tiny, adapters=(good, bad)), tmp_path)
    assert pixels(engine.generate(spec(tiny), tmp_path))[0].tobytes() == plain.tobytes()


def test_an_adapter_file_that_changed_between_two_jobs_is_read_again(
    engine: Engine, tiny: BaseRef, tmp_path: Path
) -> None:
    path = tmp_path / "ink.safetensors"
    make_adapter(path, seed=1)
    first = pixels(engine.generate(spec(tiny, adapters=(use_of(path),)), tmp_path))[0]
    make_adapter(path, seed=2)
    second = pixels(engine.generate(spec(tiny, adapters=(use_of(path),)), tmp_path))[0]
    assert first.tobytes() != second.tobytes()


def test_a_base_that_was_replaced_between_two_jobs_is_loaded_again(engine: Engine, tmp_path: Path) -> None:
    ref = make_base(tmp_path / "mine", seed=1)
    first = pixels(engine.generate(spec(ref), tmp_path))[0]
    shutil.rmtree(ref.path)
    make_base(tmp_path / "mine", seed=2)
    assert pixels(engine.generate(spec(ref), tmp_path))[0].tobytes() != first.tobytes()


def test_clip_skip_counts_as_a1111_does(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """2 = the layer before the last, with the final norm (the pipeline's own clip_skip fails on transformers 5)."""
    engine.generate(spec(tiny), tmp_path)
    assert engine._loaded is not None
    encoder, model = engine._loaded.encoder, engine._loaded.base.pipe.text_encoder
    tokens = engine._loaded.base.pipe.tokenizer("a red cat", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        output = model(tokens, output_hidden_states=True)
        norm = getattr(model, "text_model", model).final_layer_norm
        assert torch.equal(encoder.encode("a red cat", 1, ())["prompt_embeds"], output.last_hidden_state)
        assert torch.equal(encoder.encode("a red cat", 2, ())["prompt_embeds"], norm(output.hidden_states[-2]))
        assert torch.equal(encoder.encode("a red cat", 3, ())["prompt_embeds"], norm(output.hidden_states[-3]))
    one, two = (pixels(engine.generate(spec(tiny, clip_skip=skip), tmp_path))[0] for skip in (1, 2))
    assert one.tobytes() != two.tobytes()
    with pytest.raises(UserError, match="clip_skip 4 is not possible: this base's text encoder has 3 layers"):
        engine.generate(spec(tiny, clip_skip=4), tmp_path)


def test_a_long_prompt_is_cut_and_the_lost_words_are_told(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """The tiny tokenizer takes one token per letter; 75 are read."""
    outcome = engine.generate(spec(tiny, prompt="x" * 75 + "lost", negative="y" * 90), tmp_path)
    assert outcome.warnings == (
        "The prompt is too long: it has 79 tokens and this base reads 75; not read: “lost”.",
        f"The negative prompt is too long: it has 90 tokens and this base reads 75; not read: “{'y' * 15}”.",
    )
    assert engine.generate(spec(tiny, prompt="x" * 75), tmp_path).warnings == ()


def test_every_step_is_reported_over_batches(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    reports: list[StepReport] = []
    phases: list[str] = []
    with replaced(generate_module, "images_at_once", lambda *_size, on_cpu: 2):
        engine.generate(
            spec(tiny, seeds=(1, 2, 3), steps=2, sampler="UniPC"),
            tmp_path,
            on_step=reports.append,
            on_phase=lambda name, deadline: phases.append(name),
        )
    seen = [(one.image, one.batch, one.images, one.step, one.steps) for one in reports]
    assert seen == [(0, 2, 3, 1, 2), (0, 2, 3, 2, 2), (2, 1, 3, 1, 2), (2, 1, 3, 2, 2)]
    assert phases == ["load", "LoRAs", "prompt", "draw", "decode", "draw", "decode"]
    assert all(one.deadline_s > 0 for one in reports)


def test_a_cancel_stops_after_the_step_it_came_in(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """…and tells what was finished; the next job is not disturbed."""
    wanted = spec(tiny, seeds=(1, 2, 3), steps=5)
    reports: list[StepReport] = []
    with replaced(generate_module, "images_at_once", lambda *_size, on_cpu: 1), pytest.raises(Stopped) as stopped:
        engine.generate(
            wanted,
            tmp_path,
            on_step=reports.append,
            cancelled=lambda: bool(reports) and (reports[-1].image, reports[-1].step) == (1, 2),
        )
    assert (reports[-1].image, reports[-1].step) == (1, 2)
    assert [image.index for image in stopped.value.images] == [0]
    assert Path(stopped.value.images[0].path).exists()
    assert len(engine.generate(wanted, tmp_path).images) == 3


def test_nan_is_told_and_the_good_images_are_kept(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    real = batch_module.draw_latents

    def spoil(*arguments: Any, **more: Any) -> torch.Tensor:
        latents = real(*arguments, **more)
        latents[1, 0, 0, 0] = float("nan")
        return latents

    with replaced(batch_module, "draw_latents", spoil):
        outcome = engine.generate(spec(tiny, seeds=(5, 6, 7)), tmp_path, stem="n")
    assert [(image.index, image.seed) for image in outcome.images] == [(0, 5), (2, 7)]
    assert outcome.warnings[0].startswith("Image 2 (seed 6) came out as NaN, so nothing was kept of it.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n-1.png", "n-3.png"]


def test_only_nan_is_a_failure_in_words(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """By a real cause: an adapter at an absurd strength."""
    make_adapter(tmp_path / "ink.safetensors", PARTS)
    use = use_of(tmp_path / "ink.safetensors", 1e30, te=0.0)
    with pytest.raises(UserError, match=r"Image 1 \(seed 7\) came out as NaN.*Lower the weights"):
        engine.generate(spec(tiny, adapters=(use,)), tmp_path)


def test_a_decoder_that_overflows_in_half_precision_is_used_in_full_precision(tiny: BaseRef) -> None:
    base = load_base(tiny, choose_device("cpu"))
    vae = base.pipe.vae
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(1e6)  # the norms behind it take that back, in fp32
    latents = torch.randn(1, 4, 8, 8)
    wanted = decode(base, latents)
    vae.to(torch.float16)
    with torch.no_grad():
        vae.decoder.conv_in.weight.nan_to_num_(posinf=6e4, neginf=-6e4)
        assert not torch.isfinite(vae.decode(latents.half() * 50, return_dict=False)[0]).all()
    found = decode(base, latents.half() * 50)
    assert wanted is not None
    assert found is not None
    assert found.shape == wanted.shape
    assert vae.dtype == torch.float16


@pytest.mark.parametrize(("value", "words"), [(0, "entirely black"), (128, "of one single colour")])
def test_a_picture_that_shows_nothing_is_told(
    engine: Engine, tiny: BaseRef, tmp_path: Path, value: int, words: str
) -> None:
    flat = np.full((64, 64, 3), value, dtype=np.uint8)
    flat[0, 0] += 2
    with replaced(batch_module, "decode", lambda _base, _latents: flat):
        outcome = engine.generate(spec(tiny), tmp_path)
    assert len(outcome.images) == 1
    assert outcome.warnings[0].startswith(f"Image 1 (seed 7) is {words}.")


def test_when_memory_runs_out_the_batch_is_halved_and_then_it_is_told(
    engine: Engine, tiny: BaseRef, tmp_path: Path
) -> None:
    real, tried = batch_module.draw_latents, []

    def limited(most: int) -> Any:
        def draw(*arguments: Any, **more: Any) -> torch.Tensor:
            tried.append(len(more["seeds"]))
            if len(more["seeds"]) > most:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
            return real(*arguments, **more)

        return draw

    with replaced(batch_module, "draw_latents", limited(1)):
        outcome = engine.generate(spec(tiny, seeds=(1, 2, 3)), tmp_path)
    assert tried == [3, 2, 1, 1, 1]
    assert [image.seed for image in outcome.images] == [1, 2, 3]
    with (
        replaced(batch_module, "draw_latents", limited(0)),
        pytest.raises(OutOfMemory, match="too little memory for one image of 64×64"),
    ):
        engine.generate(spec(tiny), tmp_path)


@pytest.mark.parametrize(("width", "height"), [(60, 64), (64, 0), (-64, 64)])
def test_sizes_that_the_base_cannot_draw(
    engine: Engine, tiny: BaseRef, tmp_path: Path, width: int, height: int
) -> None:
    with pytest.raises(UserError, match="both must be multiples of 8"):
        engine.generate(spec(tiny, width=width, height=height), tmp_path)


def test_other_sizes_than_square(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    outcome = engine.generate(spec(tiny, width=72, height=40), tmp_path)
    assert pixels(outcome)[0].shape == (40, 72, 3)


@pytest.mark.parametrize(("image_format", "suffix"), [("webp", "webp"), ("jpeg", "jpg")])
def test_files_carry_infotext_and_chunk_and_no_path(
    engine: Engine, tiny: BaseRef, tmp_path: Path, image_format: str, suffix: str
) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    use = use_of(tmp_path / "ink.safetensors", 0.5, te=0.25)
    wanted = spec(
        tiny,
        image_format=image_format,
        adapters=(use,),
        written_prompt="a red cat <lora:ink:0.25:0.5>",
        sampler="DPM++ 2M Karras",
    )
    outcome = engine.generate(
        wanted,
        tmp_path / "new" / "folder",
        stem="lv-20261120-3fa81c20",
        provenance=Provenance(job="3fa81c20", block_hash="b" * 16, fingerprint="f" * 16),
        originals=tmp_path / "originals",
    )
    (image,) = outcome.images
    assert Path(image.path).name == f"lv-20261120-3fa81c20-1.{suffix}"
    meta = read_meta(image.path)
    assert meta is not None
    assert (meta.format, meta.width, meta.height) == (image_format, 64, 64)
    (hashes,) = outcome.adapter_hashes
    assert meta.infotext is not None
    assert meta.infotext.startswith(
        "a red cat <lora:ink:0.25:0.5>\nNegative prompt: blur\nSteps: 4, Sampler: DPM++ 2M, Schedule type: Karras, "
        "CFG scale: 7, Seed: 7, Size: 64x64, Model: tiny, RNG: CPU, "
    )
    assert f'Lora hashes: "ink: {hashes.autov3}"' in meta.infotext
    assert f'Hashes: {{"lora:ink":"{hashes.autov2}"}}' in meta.infotext
    assert meta.chunk is not None
    assert (meta.chunk["v"], meta.chunk["job"], meta.chunk["fingerprint"]) == (1, "3fa81c20", "f" * 16)
    assert meta.chunk["adapters"] == [{"id": use.weight_id, "name": "ink", "te": 0.25, "unet": 0.5}]
    assert str(tmp_path) not in json.dumps(meta.chunk) + meta.infotext
    original = read_meta(tmp_path / "originals" / "lv-20261120-3fa81c20-1.png")
    assert original is not None
    assert original.infotext == meta.infotext


def test_what_was_added_to_the_prompt_is_in_the_infotext(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """Pasted elsewhere it has to give the same picture: with trigger words and adapters of the note's properties."""
    make_adapter(tmp_path / "ink.safetensors")
    use = use_of(tmp_path / "ink.safetensors", 0.5)
    wanted = spec(tiny, prompt="a red cat, sks style", written_prompt="a red cat", adapters=(use,))
    meta = read_meta(engine.generate(wanted, tmp_path).images[0].path)
    assert meta is not None
    assert meta.infotext is not None
    assert meta.infotext.startswith("a red cat, sks style <lora:ink:0.5>\n")


def test_a_folder_that_cannot_be_written_is_a_sentence(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="The picture could not be written: "):
        engine.generate(spec(tiny), tmp_path / "file")
