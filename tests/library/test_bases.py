"""Base folders are found whatever lies beside them, and their small files are read once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from loravault.formats.generation import BaseRef
from loravault.library import basefiles
from loravault.library.bases import list_bases, look, read_base, vocabulary
from tests import checkpoint_files as files
from tests.checkpoint_files import write


def base(folder: Path, width: int = 768) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "unet" / "config.json").write_text(json.dumps({"cross_attention_dim": width}))
    return folder


def names(*folders: Path, demo: Path | None = None) -> list[str]:
    return [one.name for one in list_bases(folders, demo)]


def test_a_folder_may_be_a_base_or_hold_some_and_the_demo_comes_last(tmp_path: Path) -> None:
    one = base(tmp_path / "one")
    base(tmp_path / "many" / "b")
    base(tmp_path / "many" / "group" / "a")
    base(tmp_path / "many" / "too" / "deep" / "c")
    base(tmp_path / "many" / ".hidden")
    base(tmp_path / "many" / "unknown", width=77)
    demo = base(tmp_path / "demo-files", width=160)
    assert names(one, tmp_path / "many", tmp_path / "gone", demo=demo) == ["one", "b", "a", "demo"]


def test_a_folder_that_may_not_be_looked_at_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path.is_dir and is_file raise PermissionError: one such neighbour hid every base, or ended the daemon."""
    base(tmp_path / "good")
    base(tmp_path / "locked")
    (tmp_path / "closed").mkdir()
    real = os.stat

    def stat(path: str | Path, **options: object) -> object:
        if str(path).endswith("locked") or "closed/" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    assert names(tmp_path) == ["good"]
    assert names(tmp_path / "closed") == []


def test_a_base_whose_name_is_not_text_is_passed_over(tmp_path: Path) -> None:
    """It could not be stored with a job."""
    base(tmp_path / "good")
    try:
        base(tmp_path / os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("this file system knows only text")
    assert names(tmp_path) == ["good"]


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"a":' * 100_000, '{"_class_name": ["x"]}', "\udcff"])
def test_a_bad_index_is_no_base(tmp_path: Path, content: str) -> None:
    (tmp_path / "model_index.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_base(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"words": 7}', "[" * 100_000])
def test_a_bad_vocabulary_is_none(tmp_path: Path, content: str) -> None:
    ref = BaseRef(name="x", path=str(tmp_path), family="demo")
    assert vocabulary(ref) is None
    (tmp_path / "vocabulary.json").write_text(content)
    assert vocabulary(ref) is None


def test_a_vocabulary_is_read_once_per_version_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of every note asks for it."""
    reads = []
    real = basefiles.read_json
    monkeypatch.setattr(basefiles, "read_json", lambda path: reads.append(path) or real(path))
    ref = BaseRef(name="x", path=str(tmp_path), family="demo")
    path = tmp_path / "vocabulary.json"
    path.write_text('{"words": ["Red", "cat"]}')
    assert [vocabulary(ref) for _ in range(3)] == [{"red", "cat"}] * 3
    assert len(reads) == 1
    path.write_text('{"words": ["blue"]}')
    os.utime(path, ns=(1, 1))
    assert vocabulary(ref) == {"blue"}


def folder_of(folder: Path, pipeline: str, **configs: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    for part, config in configs.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))
    return folder


def test_folders_of_every_family_with_their_variants(tmp_path: Path) -> None:
    folder_of(tmp_path / "sdxl-base", "StableDiffusionXLPipeline")
    folder_of(tmp_path / "ponyDiffusionV6XL", "StableDiffusionXLPipeline")
    folder_of(tmp_path / "FLUX.1-dev", "FluxPipeline", transformer={"guidance_embeds": True})
    folder_of(tmp_path / "mine", "FluxPipeline", transformer={"guidance_embeds": False})
    folder_of(tmp_path / "sd35", "StableDiffusion3Pipeline", transformer={"num_layers": 38})
    folder_of(tmp_path / "sd35m", "StableDiffusion3Pipeline", transformer={"dual_attention_layers": [0, 1]})
    folder_of(tmp_path / "Z-Image-Turbo", "ZImagePipeline")
    folder_of(tmp_path / "FLUX.2-klein-4B", "Flux2KleinPipeline")
    folder_of(tmp_path / "qwen", "QwenImagePipeline")
    folder_of(tmp_path / "chroma", "ChromaPipeline")
    assert {one.name: (one.family, one.variant) for one in list_bases([tmp_path], None)} == {
        "sdxl-base": ("sdxl", None), "ponyDiffusionV6XL": ("sdxl", "pony"), "FLUX.1-dev": ("flux", "dev"),
        "mine": ("flux", "schnell"), "sd35": ("sd3", "3.5-large"), "sd35m": ("sd3", "3.5-medium"),
        "Z-Image-Turbo": ("z-image", "turbo"), "FLUX.2-klein-4B": ("flux2", "klein-4b"), "qwen": ("qwen-image", None),
        "chroma": ("chroma", None),
    }  # fmt: skip


def test_files_are_bases_too(tmp_path: Path) -> None:
    """Named as their files without ending, also in folders of folders; of two of one name the usable one."""
    write(tmp_path / "SDXL" / "realistic" / "juggernautXL.safetensors", files.SDXL)
    write(tmp_path / "dreamshaper_8.safetensors", files.SD15)
    write(tmp_path / "noob.v1.safetensors", {**files.SDXL, "v_pred": (0,)})
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "dreamshaper_8.ckpt").write_bytes(b"pickle")
    (tmp_path / "a" / "old.CKPT").write_bytes(b"pickle")
    write(tmp_path / "a" / "refiner.safetensors", {**files.unet(1280), "conditioner.embedders.0.model.x": (1,)})
    torn = write(tmp_path / "a" / "torn.safetensors", files.SD15)
    os.truncate(torn, torn.stat().st_size - 10)
    shelf = look([tmp_path], None)
    assert [(one.name, one.family, one.variant) for one in shelf.usable] == [
        ("dreamshaper_8", "sd15", None), ("noob.v1", "sdxl", "v-prediction"), ("juggernautXL", "sdxl", None)
    ]  # fmt: skip
    assert {one.name: (one.kind, one.state) for one in shelf.bases if one.state != "ok"} == {
        "old": ("pickle", "refused"), "refiner": ("file", "refused"), "torn": ("file", "broken")
    }  # fmt: skip
    assert "is never opened because it can run programs" in shelf.reasons["old"]
    assert "it is the SDXL refiner" in shelf.reasons["refiner"]
    assert "the download is incomplete" in shelf.reasons["torn"]


def test_a_file_takes_what_it_lacks_from_the_others(tmp_path: Path) -> None:
    write(tmp_path / "unet" / "flux-mine.safetensors", files.flux())
    one = next(iter(look([tmp_path], None).bases))
    assert (one.name, one.state) == ("flux-mine", "incomplete")
    assert one.reason == (
        "it does not hold everything: put the VAE of Flux.1 (ae.safetensors), CLIP-L (clip_l.safetensors) and "
        "T5 (t5xxl_fp16.safetensors) into one of the folders with bases"
    )
    clip = write(tmp_path / "clip" / "clip_l.safetensors", files.CLIP_L)
    t5 = write(tmp_path / "clip" / "t5xxl.safetensors", files.T5_XXL)
    write(tmp_path / "vae" / "sd3_vae.safetensors", files.VAE_16)
    assert "put the VAE of Flux.1 (ae.safetensors) into" in look([tmp_path], None).reasons["flux-mine"]
    vae = write(tmp_path / "vae" / "ae.safetensors", files.VAE_16)
    (ref,) = list_bases([tmp_path], None)
    assert ref.parts == (("vae", str(vae)), ("text_encoder", str(clip)), ("text_encoder_2", str(t5)))
    assert [one.name for one in look([tmp_path], None).vaes] == ["ae", "sd3_vae"]


def test_a_folder_lends_its_parts_to_files_of_its_family(tmp_path: Path) -> None:
    """A folder of the family comes before loose files; of another family it has what both share."""
    write(tmp_path / "half.safetensors", files.flux())
    write(tmp_path / "clip_l.safetensors", files.CLIP_L)
    lender = folder_of(tmp_path / "dev", "FluxPipeline", vae={}, text_encoder={}, text_encoder_2={}, transformer={})
    parts = {one.name: dict(one.parts) for one in list_bases([tmp_path], None)}["half"]
    assert parts == {part: str(lender / part) for part in ("vae", "text_encoder", "text_encoder_2")}
    write(tmp_path / "chroma.safetensors", files.flux(dev=False, chroma=True))
    parts = {one.name: dict(one.parts) for one in list_bases([tmp_path], None)}["chroma"]
    assert parts == {"vae": str(lender / "vae"), "text_encoder": str(lender / "text_encoder_2")}
    sd3 = write(tmp_path / "sd3.safetensors", files.SD3)
    assert {one.path: dict(one.parts) for one in list_bases([tmp_path], None)}[str(sd3)] == {
        "text_encoder_3": str(lender / "text_encoder_2")
    }


def test_vaes_are_files_and_folders_and_those_of_bases(tmp_path: Path) -> None:
    write(tmp_path / "sdxl_vae.safetensors", files.VAE)
    folder = tmp_path / "sd-vae-ft-mse"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", "latent_channels": 4}))
    folder_of(tmp_path / "xl", "StableDiffusionXLPipeline", vae={})
    shelf = look([tmp_path], None)
    assert {one.name: one.path for one in shelf.vaes} == {
        "sdxl_vae": str(tmp_path / "sdxl_vae.safetensors"), "sd-vae-ft-mse": str(folder),
        "xl": str(tmp_path / "xl" / "vae"),
    }  # fmt: skip
    assert [one.name for one in shelf.bases] == ["xl"]


def test_a_header_is_read_once_per_version_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change of the library looks at all bases again; some are on slow drives."""
    path = write(tmp_path / "a.safetensors", files.SD15)
    reads = []
    real = basefiles.read_header
    monkeypatch.setattr(basefiles, "read_header", lambda path: reads.append(path) or real(path))
    assert [one.family for _ in range(3) for one in list_bases([tmp_path], None)] == ["sd15"] * 3
    write(path, files.SDXL)
    os.utime(path, ns=(1, 1))
    assert [one.family for one in list_bases([tmp_path], None)] == ["sdxl"]
    assert len(reads) == 2
