"""Folders that are no base, or not a whole one, are told in words; pickles stay closed; the hub is never asked."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loravault.engine.bases import load_base, signature
from loravault.engine.bases.parts import in_words
from loravault.engine.devices import choose_device, images_at_once, is_out_of_memory, usable_processors
from loravault.errors import UserError
from loravault.formats.generation import BaseRef

pytestmark = pytest.mark.engine


@pytest.fixture
def copy(tiny: BaseRef, tmp_path: Path) -> BaseRef:
    shutil.copytree(tiny.path, tmp_path / "copy")
    return replace(tiny, name="copy", path=str(tmp_path / "copy"))


def refusal(ref: BaseRef) -> str:
    with pytest.raises(UserError) as caught:
        load_base(ref, choose_device("cpu"))
    assert "\n" not in caught.value.message
    assert "“copy”" in caught.value.message
    return caught.value.message


def test_a_base_that_is_not_there(copy: BaseRef) -> None:
    assert "is not where it was" in refusal(replace(copy, path=copy.path + "x"))


def test_a_folder_that_is_no_diffusers_folder(copy: BaseRef) -> None:
    os.unlink(Path(copy.path) / "model_index.json")
    assert "is not a diffusers folder: model_index.json is missing" in refusal(copy)
    (Path(copy.path) / "model_index.json").write_text("{")
    assert "model_index.json is unreadable" in refusal(copy)
    (Path(copy.path) / "model_index.json").write_text("[]")
    assert "holds no object" in refusal(copy)


def test_another_pipeline_is_named(copy: BaseRef) -> None:
    (Path(copy.path) / "model_index.json").write_text(json.dumps({"_class_name": "FluxFillPipeline"}))
    assert "is a FluxFillPipeline; this version draws with StableDiffusionPipeline, " in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_part_that_is_missing(copy: BaseRef, part: str) -> None:
    shutil.rmtree(Path(copy.path) / part)
    assert f"is incomplete: its folder {part} is missing" in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_as_pickle_are_never_opened(copy: BaseRef, part: str) -> None:
    (weights,) = (Path(copy.path) / part).glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    assert "as a pickle, which is never opened" in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_tensor_that_is_missing_is_not_made_up(copy: BaseRef, part: str) -> None:
    """The libraries would fill it with random numbers and only log it."""
    (weights,) = (Path(copy.path) / part).glob("*.safetensors")
    tensors = load_file(weights)
    name = sorted(tensors)[3]
    del tensors[name]
    save_file(tensors, weights, metadata={"format": "pt"})
    assert f"its {part} lacks 1 tensors" in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_were_cut_short(copy: BaseRef, part: str) -> None:
    (weights,) = (Path(copy.path) / part).glob("*.safetensors")
    os.truncate(weights, weights.stat().st_size // 2)
    text = refusal(copy)
    assert f"cannot be loaded: of its {part}, " in text
    assert "the download is incomplete" in text


def test_a_folder_with_half_precision_files_only(copy: BaseRef) -> None:
    for part in ("unet", "vae", "text_encoder"):
        (weights,) = (Path(copy.path) / part).glob("*.safetensors")
        weights.rename(weights.with_name(weights.stem + ".fp16.safetensors"))
    base = load_base(copy, choose_device("cpu"))
    assert base.pipe.unet.dtype == torch.float32
    assert base.pixels_per_latent == 8


def test_weights_in_several_files(copy: BaseRef) -> None:
    """Large models are; a file that is missing, or that lies elsewhere, is named."""
    whole = load_base(copy, choose_device("cpu")).pipe.unet
    folder = Path(copy.path) / "unet"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    whole.save_pretrained(folder, max_shard_size="300KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    again = load_base(copy, choose_device("cpu")).pipe.unet.state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in whole.state_dict().items())
    os.truncate(shards[1], shards[1].stat().st_size // 2)
    assert "of its unet, " in refusal(copy)
    shards[1].unlink()
    assert f"is incomplete: unet/{shards[1].name} is missing" in refusal(copy)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(index.read_text().replace(shards[1].name, "../../other.safetensors"))
    assert "index.json names '../../other.safetensors'" in refusal(copy)


def test_memory_that_runs_out_while_a_base_is_loaded_is_no_fault_of_the_base() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"), in_words("mine"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(UserError, match="The base “mine” cannot be loaded: size mismatch"), in_words("mine"):
        raise RuntimeError("size\nmismatch")


def test_devices_are_named_or_refused() -> None:
    assert choose_device("cpu").name.startswith("cpu (")
    for wish in ("tpu", *([] if torch.cuda.is_available() else ["cuda", "cuda:1"])):
        with pytest.raises(UserError):
            choose_device(wish)
    assert 1 <= usable_processors() <= (os.cpu_count() or 1)


def test_batches_shrink_with_the_size() -> None:
    assert images_at_once(128, 128, on_cpu=True) == 4
    assert images_at_once(512, 512, on_cpu=True) == 1
    assert images_at_once(512, 512, on_cpu=False) == 8
    assert images_at_once(1024, 1024, on_cpu=False) == 2
    assert images_at_once(8192, 8192, on_cpu=False) == 1


def test_memory_errors_of_torch_are_recognised() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_file_that_is_overwritten_in_place_changes_no_base_in_memory(copy: BaseRef) -> None:
    """The libraries map their files: what a sync tool wrote into one was drawn with, without a word."""
    base = load_base(copy, choose_device("cpu"))
    before = base.pipe.unet.conv_in.weight.clone()
    (path,) = (Path(copy.path) / "unet").glob("*.safetensors")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\x11" * (size - size // 2))
        file.seek(8 + int.from_bytes(path.read_bytes()[:8], "little"))
        file.write(b"\x11" * 4096)
    assert torch.equal(base.pipe.unet.conv_in.weight, before)
    assert all(bool(torch.isfinite(one).all()) for one in base.pipe.unet.parameters())


def test_a_link_to_nowhere_is_a_part_that_is_missing(copy: BaseRef) -> None:
    """The Hub's cache is full of links: a file that was deleted there was called a bug of ours."""
    (path,) = (Path(copy.path) / "unet").glob("*.safetensors")
    path.unlink()
    path.symlink_to(path.with_name("gone"))
    assert signature(copy)
    with pytest.raises(UserError, match="unet"):
        load_base(copy, choose_device("cpu"))
