"""A checkpoint that is one file is the same base as its folder; what is missing or not known is said, never made up."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from loravault.engine.bases import Base, load_base, signature
from loravault.engine.bases import single_file as module
from loravault.engine.devices import Device, choose_device
from loravault.engine.generate import Engine
from loravault.errors import UserError
from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.formats.samplers import SAMPLERS
from loravault.resources import base_parts
from tests import original
from tests.tiny_families import make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

#: Family → the name of its configuration, and what makes its folder of the width by which it is recognised.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd15": ("sd15", {"width": 768}),
    "sd2": ("sd2", {"width": 1024}),
    "sdxl": ("sdxl", {"widths": (768, 1280)}),
    "sd3": ("sd3-medium", {}),
    "flux": ("flux-dev", {}),
    "chroma": ("chroma", {}),
}
CPU = choose_device("cpu")

Made = Callable[[str], BaseRef]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Folders that are bases, and at the same time the configurations of the files made of them."""
    root = tmp_path_factory.mktemp("parts")
    made: dict[str, BaseRef] = {}

    def get(family: str) -> BaseRef:
        if family not in made:
            config, options = KINDS[family]
            made[family] = make_family(root / "configs" / config, family, **options)
        return made[family]

    return get


@contextmanager
def configs_of(folder: BaseRef) -> Iterator[None]:
    before = module.base_parts
    module.base_parts = lambda: Path(folder.path).parents[1]  # type: ignore[assignment]
    try:
        yield
    finally:
        module.base_parts = before  # type: ignore[assignment]


def file_of(folder: BaseRef, path: Path, **options: Any) -> BaseRef:
    original.single_file(Path(folder.path), path, folder.family, **options)
    return BaseRef(name=path.stem, path=str(path), family=folder.family)


def load(ref: BaseRef, folder: BaseRef, device: Device = CPU) -> Base:
    with configs_of(folder):
        return load_base(ref, device)


def changed(ref: BaseRef, change: Callable[[dict[str, torch.Tensor]], object], **metadata: str) -> None:
    tensors = load_file(ref.path)
    change(tensors)
    save_file(tensors, ref.path, metadata=metadata)


@pytest.mark.parametrize("family", KINDS)
def test_a_file_is_the_same_base_as_its_folder(family: str, folders: Made, tmp_path: Path, engine: Engine) -> None:
    """Every tensor of every part, the scheduler, and the picture."""
    folder = folders(family)
    ref = file_of(folder, tmp_path / "mine.safetensors")
    ours, theirs = load(ref, folder), load_base(folder, CPU)
    for name, part in theirs.drawer.parts.items():
        if part.library != "tokenizer":
            found, wanted = getattr(ours.pipe, name).state_dict(), getattr(theirs.pipe, name).state_dict()
            assert found.keys() == wanted.keys()
            assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    assert ours.layers == theirs.layers
    values: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "cfg": 3.0, "sampler": "Euler", "seeds": (7,)}
    pictures = []
    for base in (ref, folder):
        spec = GenerationSpec(base=base, prompt="a red cat", negative="blur", image_format="png", **values)
        with configs_of(folder):
            (image,) = engine.generate(spec, tmp_path / "out").images
        pictures.append(np.asarray(Image.open(image.path)))
    if family == "sd2":  # its kind of prediction is told from the file, and is another than the folder's
        assert ours.scheduler_config["prediction_type"] == "epsilon"
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("family", ["flux", "sd3", "chroma", "sdxl"])
def test_a_file_that_is_only_the_denoiser_takes_the_rest_from_elsewhere(
    family: str, folders: Made, tmp_path: Path
) -> None:
    folder = folders(family)
    ref = file_of(folder, tmp_path / "half.safetensors", only_denoiser=True)
    with pytest.raises(UserError, match=r"“half” cannot be loaded: the file lacks .*vae, text_encoder"):
        load(ref, folder)
    whole = load_base(folder, CPU)
    places = tuple(
        (name, str(Path(folder.path) / name)) for name in whole.drawer.parts if name != whole.drawer.denoiser
    )
    base = load(replace(ref, parts=places), folder)
    for name in ("vae", "text_encoder", whole.drawer.denoiser):
        found, wanted = getattr(base.pipe, name).state_dict(), getattr(whole.pipe, name).state_dict()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert len(signature(replace(ref, parts=places))) > len(signature(ref)) == 1


def test_parts_may_be_single_files_too(folders: Made, tmp_path: Path) -> None:
    """As people keep them for other programs: the encoders and the VAE each in a file."""
    folder = folders("flux")
    ref = file_of(folder, tmp_path / "half.safetensors", only_denoiser=True)
    places = {"text_encoder": original.clip, "text_encoder_2": original.t5, "vae": original.vae}
    for name, convert in places.items():
        tensors = convert(original.weights(Path(folder.path) / name))
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors")
    parts = tuple((name, str(tmp_path / f"{name}.safetensors")) for name in places)
    base, whole = load(replace(ref, parts=parts), folder), load_base(folder, CPU)
    for name in places:
        found, wanted = getattr(base.pipe, name).state_dict(), getattr(whole.pipe, name).state_dict()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    os.truncate(tmp_path / "vae.safetensors", 2000)
    with pytest.raises(UserError, match=r"“half” cannot be loaded: of its vae in vae\.safetensors, "):
        load(replace(ref, parts=parts), folder)


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("part", ["denoiser", "vae", "text_encoder"])
def test_a_tensor_that_is_missing_is_not_made_up(family: str, part: str, folders: Made, tmp_path: Path) -> None:
    folder = folders(family)
    ref = file_of(folder, tmp_path / "torn.safetensors")
    wanted = {
        "denoiser": "model.diffusion_model.",
        "vae": "first_stage_model.decoder.mid",
        "text_encoder": ("cond_stage_model", "conditioner.embedders.0", "text_encoders."),
    }[part]
    telling = (
        "input_blocks.0.0.weight",
        "img_in.weight",
        "key_norm.scale",
        "adaLN_modulation",
        "guidance",
        "attn2.to_k",
    )

    def tear(tensors: dict[str, torch.Tensor]) -> None:
        names = sorted(name for name in tensors if name.startswith(wanted) and name.endswith("weight"))
        names = [name for name in names if not any(word in name for word in telling)]
        del tensors[names[len(names) // 2]]

    changed(ref, tear)
    with pytest.raises(UserError, match="The base “torn” cannot be loaded: ") as caught:
        load(ref, folder)
    assert "\n" not in caught.value.message


def test_velocity_is_told_by_markers_metadata_or_the_weights_of_sd2(folders: Made, tmp_path: Path) -> None:
    folder = folders("sdxl")
    ref = file_of(folder, tmp_path / "noob.safetensors")
    assert load(ref, folder).scheduler_config["prediction_type"] == "epsilon"
    changed(ref, lambda tensors: None, **{"modelspec.prediction_type": "v"})
    assert load(ref, folder).scheduler_config["prediction_type"] == "v_prediction"
    changed(ref, lambda tensors: tensors.update(v_pred=torch.tensor([]), ztsnr=torch.tensor([])))
    config = load(ref, folder).scheduler_config
    assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == ("v_prediction", True)
    folder = folders("sd2")
    ref = file_of(folder, tmp_path / "sd2.safetensors")
    name = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    for spread, prediction in ((0.01, "epsilon"), (0.2, "v_prediction")):
        changed(ref, lambda tensors, spread=spread: tensors.update({name: torch.tensor([spread, -spread])}))
        assert load(ref, folder).scheduler_config["prediction_type"] == prediction


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_velocity_with_a_last_step_of_noise_alone_is_drawn_by_every_sampler(
    sampler: str, folders: Made, tmp_path: Path, engine: Engine
) -> None:
    """The betas reach an infinite sigma, which some samplers would divide by."""
    folder = folders("sd15")
    copy = tmp_path / "v"
    shutil.copytree(folder.path, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    ours = {**json.loads(path.read_text()), "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    path.write_text(json.dumps(ours))
    values: dict[str, Any] = {"width": 64, "height": 64, "steps": 4, "cfg": 3.0, "sampler": sampler, "seeds": (7,)}
    pictures = set()
    for base in (folder, replace(folder, name="v", path=str(copy))):
        outcome = engine.generate(GenerationSpec(base=base, prompt="a cat", image_format="png", **values), tmp_path)
        assert outcome.warnings == ()
        pictures.add(np.asarray(Image.open(outcome.images[0].path)).tobytes())
    assert len(pictures) == 2


def test_what_is_no_base_is_named(folders: Made, tmp_path: Path) -> None:
    folder = folders("sd15")
    ref = file_of(folder, tmp_path / "mine.safetensors")

    def refusal() -> str:
        with pytest.raises(UserError) as caught:
            load(ref, folder)
        return caught.value.message

    first = "model.diffusion_model.input_blocks.0.0.weight"
    changed(ref, lambda tensors: tensors.update({first: torch.zeros(32, 9, 3, 3)}))
    assert refusal() == "The base “mine” cannot be loaded: its UNet reads 9 channels: it is for inpainting or editing."
    save_file(original.vae(original.weights(Path(folder.path) / "vae")), ref.path)
    assert refusal() == "The base “mine” cannot be loaded: it is only a vae."
    os.truncate(ref.path, 5000)
    assert "the download is incomplete" in refusal()
    os.unlink(ref.path)
    assert "is not where it was" in refusal()


def test_half_precision_is_kept_in_memory_as_such(folders: Made, tmp_path: Path) -> None:
    folder = folders("flux")
    ref = file_of(folder, tmp_path / "mine.safetensors")
    base = load(ref, folder, Device(torch.device("cpu"), torch.float16, "cpu"))
    kinds = {tensor.dtype for name in base.drawer.models for tensor in getattr(base.pipe, name).parameters()}
    assert kinds == {torch.bfloat16}


def test_plain_fp8_is_read(folders: Made, tmp_path: Path) -> None:
    """As most people have Flux.1; what cannot be read is named."""
    folder = folders("flux")
    ref = file_of(folder, tmp_path / "mine.safetensors")
    whole = load(ref, folder).denoiser.state_dict()

    def shrink(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("model.diffusion_model.")]:
            tensors[name] = tensors[name].to(torch.float8_e4m3fn)

    changed(ref, shrink)
    small = load(ref, folder).denoiser.state_dict()
    assert {tensor.dtype for tensor in small.values()} == {torch.float32}
    assert all(torch.equal(small[name], tensor.to(torch.float8_e4m3fn).float()) for name, tensor in whole.items())
    changed(ref, lambda tensors: tensors.update({"model.diffusion_model.img_in.scale_weight": torch.ones(1)}))
    with pytest.raises(UserError, match="fp8 with scales beside them, which is not read yet"):
        load(ref, folder)


def test_our_configurations_are_those_of_their_families() -> None:
    """Every one makes a pipeline's parts, and CLIP and T5 know their words."""
    import diffusers
    import transformers

    from loravault.engine.families import FAMILIES

    names = sorted(path.name for path in (base_parts() / "configs").iterdir())
    assert names == [
        "chroma", "flux-dev", "flux-schnell", "sd15", "sd2", "sd3-medium", "sd3.5-large", "sd3.5-medium", "sdxl"
    ]  # fmt: skip
    with torch.device("meta"):
        for name in names:
            folder = base_parts() / "configs" / name
            drawer = FAMILIES[json.loads((folder / "model_index.json").read_text())["_class_name"]]
            for part, kind in drawer.parts.items():
                if kind.library == "diffusers" and part != "vae":
                    model = getattr(diffusers, kind.kind)
                    size = sum(one.numel() for one in model.from_config(model.load_config(folder / part)).parameters())
                    assert size > 8e8
                elif kind.library == "transformers":
                    config = transformers.AutoConfig.from_pretrained(folder / part)
                    assert config.vocab_size in (49408, 32128)
    clip = transformers.CLIPTokenizer.from_pretrained(base_parts() / "tokenizers" / "clip")
    assert clip("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    t5 = transformers.T5TokenizerFast.from_pretrained(base_parts() / "tokenizers" / "t5")
    assert t5("a photo of a cat").input_ids == [3, 9, 1202, 13, 3, 9, 1712, 1]
