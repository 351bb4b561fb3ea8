"""Every family draws through the real code: the bare pipeline's picture, whatever the batch; what is wrong is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from loravault.engine.bases import load_base
from loravault.engine.devices import Device, choose_device
from loravault.engine.generate import Engine
from loravault.errors import UserError
from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.formats.samplers import FLOW_FAMILIES
from tests.tiny_families import MAKERS, make_family

pytestmark = [
    pytest.mark.engine,
    # Chroma still takes a module from where diffusers will move it from.
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

Bases = Callable[..., BaseRef]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    made: dict[tuple[Any, ...], BaseRef] = {}

    def get(family: str, **options: Any) -> BaseRef:
        key = (family, *sorted(options.items()))
        if key not in made:
            made[key] = make_family(tmp_path_factory.mktemp("bases") / f"my-{family}", family, **options)
        return made[key]

    return get


def spec(base: BaseRef, **more: Any) -> GenerationSpec:
    values: dict[str, Any] = {
        "prompt": "a red cat", "negative": "", "seeds": (7,), "width": 64, "height": 48, "steps": 2, "cfg": 3.0,
        "sampler": "Euler", "image_format": "png",
    }  # fmt: skip
    return GenerationSpec(base=base, **{**values, **more})


def pixels(engine: Engine, wanted: GenerationSpec, folder: Path) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(Image.open(image.path)) for image in engine.generate(wanted, folder).images]


def bare(base: BaseRef, **call: Any) -> np.ndarray[Any, Any]:
    """The picture of diffusers alone, with its own noise and its own prompt."""
    index = json.loads((Path(base.path) / "model_index.json").read_text())
    absent = {name: None for name, value in index.items() if value == [None, None]}
    pipe = getattr(diffusers, index["_class_name"]).from_pretrained(
        base.path, local_files_only=True, use_safetensors=True, **absent
    )
    pipe.set_progress_bar_config(disable=True)
    if base.family in ("sd15", "sd2", "sdxl"):
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
            pipe.scheduler.config, timestep_spacing="linspace", clip_sample=False
        )
    generator = torch.Generator("cpu").manual_seed(7)
    image = pipe(prompt="a red cat", width=64, height=48, num_inference_steps=2, generator=generator, **call).images[0]
    return np.asarray(image)


@pytest.mark.parametrize(
    ("family", "call"),
    [
        ("sd2", {"guidance_scale": 3.0, "negative_prompt": "blur"}),
        ("sdxl", {"guidance_scale": 3.0, "negative_prompt": "blur"}),
        ("sdxl", {"guidance_scale": 3.0}),
        ("sd3", {"guidance_scale": 3.0, "negative_prompt": "blur"}),
        ("flux", {"guidance_scale": 3.0}),
        ("chroma", {"guidance_scale": 3.0, "negative_prompt": "blur"}),
        ("flux2", {"guidance_scale": 3.0}),
        ("z-image", {"guidance_scale": 2.0, "negative_prompt": "blur"}),
        ("qwen-image", {"true_cfg_scale": 3.0, "negative_prompt": "blur"}),
    ],
)
def test_the_picture_is_that_of_the_bare_pipeline(
    engine: Engine, bases: Bases, tmp_path: Path, family: str, call: dict[str, Any]
) -> None:
    """Bit by bit: our noise is the pipeline's, packed as it packs, and nothing of ours is in between.

    Z-Image counts its guidance from zero, ours is one more.
    """
    base = bases(family)
    ours = pixels(engine, spec(base, negative=call.get("negative_prompt", "")), tmp_path)[0]
    assert np.array_equal(ours, bare(base, **call))


@pytest.mark.parametrize("family", MAKERS)
def test_the_noise_is_that_of_the_pipeline(bases: Bases, family: str) -> None:
    """Also where it never reaches the pipeline as such: with a picture that is not square."""
    base = load_base(bases(family), choose_device("cpu"))
    pipe, drawer = base.pipe, base.drawer
    ours = drawer.noise(pipe, (96, 32), [torch.Generator("cpu").manual_seed(3)])
    config = base.denoiser.config
    packed = family in ("flux", "chroma", "flux2", "qwen-image")
    channels = config.in_channels // 4 if packed else config.in_channels
    generator = torch.Generator("cpu").manual_seed(3)
    theirs = pipe.prepare_latents(1, channels, 32, 96, torch.float32, torch.device("cpu"), generator)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    if family == "flux2":  # it packs given latents too
        ours = pipe._pack_latents(ours)
    assert torch.equal(ours, theirs / (pipe.scheduler.init_noise_sigma if drawer.denoiser == "unet" else 1))


@pytest.mark.parametrize("family", MAKERS)
def test_an_image_does_not_depend_on_its_batch(engine: Engine, bases: Bases, tmp_path: Path, family: str) -> None:
    wanted = spec(bases(family), seeds=(11, 12, 13))
    many = pixels(engine, wanted, tmp_path / "many")
    alone = pixels(engine, replace(wanted, seeds=(12,)), tmp_path / "one")[0]
    assert np.abs(many[1].astype(int) - alone.astype(int)).max() <= 1
    assert not np.array_equal(many[0], many[1])


@pytest.mark.parametrize("family", MAKERS)
def test_prompts_negatives_and_guidance_matter_where_they_should(
    engine: Engine, bases: Bases, tmp_path: Path, family: str
) -> None:
    base = bases(family)

    def made(**more: Any) -> bytes:
        return pixels(engine, spec(base, **more), tmp_path)[0].tobytes()

    plain = made()
    assert made(prompt="a blue dog") != plain
    assert made(cfg=5.0) != plain
    assert (made(negative="blur") != plain) == (family != "flux")
    assert made() == plain


@pytest.mark.parametrize(
    ("family", "options", "values", "warnings"),
    [
        ("flux", {}, {"negative": "blur"}, ["The negative prompt had no effect: Flux.1 has its guidance built in"]),
        ("flux", {"guidance": False}, {"cfg": 1.0}, []),
        (
            "flux",
            {"guidance": False},
            {"cfg": 3.5},
            ["cfg 3.5 had no effect: Flux.1 schnell is drawn without guidance."],
        ),
        (
            "flux2",
            {"distilled": True},
            {"negative": "blur"},
            ["The negative prompt had no effect: this base is distilled and drawn without guidance."],
        ),
        ("sdxl", {}, {"negative": "blur", "cfg": 1.0}, ["The negative prompt had no effect: with cfg 1 or less"]),
        ("z-image", {}, {"clip_skip": 2}, ["clip_skip 2 had no effect"]),
        ("sd3", {}, {"clip_skip": 2}, []),
    ],
)
def test_what_has_no_effect_is_told(  # noqa: PLR0917
    engine: Engine,
    bases: Bases,
    tmp_path: Path,
    family: str,
    options: dict[str, Any],
    values: dict[str, Any],
    warnings: list[str],
) -> None:
    found = engine.generate(spec(bases(family, **options), **values), tmp_path).warnings
    assert len(found) == len(warnings)
    assert all(one.startswith(start) for one, start in zip(found, warnings, strict=True))


@pytest.mark.parametrize("family", sorted(FLOW_FAMILIES))
def test_flow_models_are_drawn_with_flow_samplers_only(
    engine: Engine, bases: Bases, tmp_path: Path, family: str
) -> None:
    with pytest.raises(UserError, match="“DDIM” cannot draw with this base, a flow model: Euler can"):
        engine.generate(spec(bases(family), sampler="DDIM"), tmp_path)
    with pytest.raises(UserError, match="both must be multiples of 16"):
        engine.generate(spec(bases(family), width=72), tmp_path)


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_clip_skip_counts_from_the_layer_before_the_last(
    engine: Engine, bases: Bases, tmp_path: Path, family: str
) -> None:
    """1 and 2 are the same, because these bases never saw the last layer; 3 is one further."""
    one, two, three = (pixels(engine, spec(bases(family), clip_skip=skip), tmp_path)[0] for skip in (1, 2, 3))
    assert one.tobytes() == two.tobytes() != three.tobytes()
    with pytest.raises(UserError, match="clip_skip 4 is not possible: this base's text encoder has 3 layers"):
        engine.generate(spec(bases(family), clip_skip=4), tmp_path)


def test_sd3_draws_without_its_t5(engine: Engine, bases: Bases, tmp_path: Path) -> None:
    """Ten gigabytes that many leave out."""
    base = bases("sd3", with_t5=False)
    assert np.array_equal(pixels(engine, spec(base), tmp_path)[0], bare(base, guidance_scale=3.0))


@pytest.mark.parametrize(("family", "room"), [("sdxl", 75), ("sd3", 255), ("flux", 511), ("z-image", None)])
def test_a_long_prompt_is_cut_and_told(
    engine: Engine, bases: Bases, tmp_path: Path, family: str, room: int | None
) -> None:
    """A language model's prompt stands in a form, which takes some of its tokens."""
    outcome = engine.generate(spec(bases(family), prompt="x" * 1100, steps=1), tmp_path)
    assert outcome.warnings[0].startswith("The prompt is too long: it has 1100 tokens and this base reads ") or (
        outcome.warnings[0].startswith("The prompt is too long: it has 1101 tokens")
    )
    if room is not None:
        assert f"this base reads {room}; not read: “xxx" in outcome.warnings[0]
    else:
        assert "this base reads 4" in outcome.warnings[0]


@pytest.mark.parametrize("family", MAKERS)
def test_a_base_knows_the_shape_of_every_layer(bases: Bases, family: str) -> None:
    """Denoiser and text encoders, with linear layers, convolutions, norms and embeddings; nothing of the VAE."""
    base = load_base(bases(family), choose_device("cpu"))
    kinds = {type(module).__name__ for module in base.modules.values()}
    assert "Linear" in kinds
    assert any("Norm" in kind for kind in kinds)
    assert any("Embedding" in kind for kind in kinds)
    assert {component for component, _ in base.layers} == set(base.drawer.models)
    for (component, path), shape in base.layers.items():
        assert tuple(getattr(base.pipe, component).get_submodule(path).weight.shape) == shape


def test_half_precision_is_bfloat16_where_float16_overflows(bases: Bases) -> None:
    half = Device(torch.device("cpu"), torch.float16, "cpu")
    assert load_base(bases("flux"), half).pipe.transformer.dtype == torch.bfloat16
    assert load_base(bases("sdxl"), half).pipe.unet.dtype == torch.float16


def test_a_prompt_is_read_once(engine: Engine, bases: Bases, tmp_path: Path) -> None:
    wanted = spec(bases("flux"))
    engine.generate(wanted, tmp_path)
    assert engine._loaded is not None
    reads = []
    handle = engine._loaded.base.pipe.text_encoder_2.register_forward_hook(lambda *_: reads.append(1))
    engine.generate(replace(wanted, seeds=(9,)), tmp_path)
    engine.generate(replace(wanted, prompt="another"), tmp_path)
    handle.remove()
    assert len(reads) == 1
