"""Another VAE decodes in place of the base's own, and the base is neither loaded again nor changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from loravault.engine.generate import Engine
from loravault.errors import UserError
from loravault.formats.generation import BaseRef, GenerationSpec, VaeRef
from tests import original
from tests.imagemeta import read_meta
from tests.tiny import make_base
from tests.tiny_families import kl_vae, make_family

pytestmark = pytest.mark.engine


def drawn(engine: Engine, base: BaseRef, vae: VaeRef | None, folder: Path) -> bytes:
    values: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "cfg": 3.0, "sampler": "Euler", "seeds": (7,)}
    spec = GenerationSpec(base=base, prompt="a red cat", vae=vae, image_format="png", **values)
    (image,) = engine.generate(spec, folder).images
    if vae is not None:
        meta = read_meta(Path(image.path))
        assert meta is not None
        assert f"VAE: {vae.name}" in str(meta)
    return np.asarray(Image.open(image.path)).tobytes()


def saved(folder: Path, path: Path, *, reshaped: bool, prefix: str = "") -> VaeRef:
    tensors = original.weights(folder)
    found = original.vae(tensors) if reshaped else tensors
    save_file({prefix + key: tensor.clone() for key, tensor in found.items()}, path)
    return VaeRef(name=path.stem, path=str(path))


def test_a_file_or_folder_takes_the_place_of_the_vae(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """In all layouts that are about; the base in memory stays the same, and its own VAE comes back."""
    torch.manual_seed(9)
    kl_vae(tmp_path / "other", 4)
    plain = drawn(engine, tiny, None, tmp_path)
    assert engine._loaded is not None
    base = engine._loaded.base
    refs = [
        VaeRef(name="other", path=str(tmp_path / "other")),
        saved(tmp_path / "other", tmp_path / "a.safetensors", reshaped=True),
        saved(tmp_path / "other", tmp_path / "b.safetensors", reshaped=True, prefix="first_stage_model."),
        saved(tmp_path / "other", tmp_path / "c.safetensors", reshaped=False),
    ]
    pictures = {drawn(engine, tiny, ref, tmp_path) for ref in refs}
    assert len(pictures) == 1
    assert pictures != {plain}
    assert drawn(engine, tiny, None, tmp_path) == plain
    assert engine._loaded.base is base


def test_a_vae_that_was_replaced_is_read_again(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    pictures = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        kl_vae(tmp_path / str(seed), 4)
        ref = saved(tmp_path / str(seed), tmp_path / "mine.safetensors", reshaped=True)
        os.utime(ref.path, ns=(seed, seed))
        pictures.add(drawn(engine, tiny, ref, tmp_path))
    assert len(pictures) == 2


def test_a_vae_folder_whose_file_was_replaced_is_read_again(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """Writing into a folder changes nothing about the folder: the old VAE went on drawing."""
    pictures = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        kl_vae(tmp_path / str(seed), 4)
        target = tmp_path / "mine"
        target.mkdir(exist_ok=True)
        for file in (tmp_path / str(seed)).iterdir():
            (target / file.name).write_bytes(file.read_bytes())
            os.utime(target / file.name, ns=(seed, seed))
        pictures.add(drawn(engine, tiny, VaeRef(name="mine", path=str(target)), tmp_path))
    assert len(pictures) == 2


def test_a_vae_of_another_scale_is_told(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """One of SDXL on a base of SD 1 gave wrong colours without a word."""
    kl_vae(tmp_path / "other", 4)
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.5}))
    values: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "cfg": 3.0, "sampler": "Euler", "seeds": (7,)}
    ref = VaeRef(name="other", path=str(tmp_path / "other"))
    made = engine.generate(GenerationSpec(base=tiny, prompt="a red cat", vae=ref, **values), tmp_path)
    assert any("“other” has another scale (0.5)" in sentence for sentence in made.warnings)
    assert not engine.generate(GenerationSpec(base=tiny, prompt="a red cat", **values), tmp_path).warnings


def test_a_file_that_says_that_it_is_of_another_family_is_told(engine: Engine, tmp_path: Path) -> None:
    """A file has no configuration, so its scale is not known: SDXL's on a base of SD 1 passed without a word."""
    base = make_base(tmp_path / "base")
    of_sd15 = BaseRef(name="base", path=base.path, family="sd15")
    named = saved(Path(base.path) / "vae", tmp_path / "sdxl_vae.safetensors", reshaped=True)
    plain = saved(Path(base.path) / "vae", tmp_path / "mine.safetensors", reshaped=True)
    values: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "cfg": 3.0, "sampler": "Euler", "seeds": (7,)}

    def warned(ref: VaeRef) -> tuple[str, ...]:
        return engine.generate(GenerationSpec(base=of_sd15, prompt="a cat", vae=ref, **values), tmp_path).warnings

    told = "The VAE “sdxl_vae” is one for sdxl, by its name, and the base is sd15: colours may be wrong."
    assert told in warned(named)
    assert not any("VAE" in sentence for sentence in warned(plain))


def test_a_vae_that_does_not_fit_is_told_and_the_next_picture_is_not_disturbed(engine: Engine, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    plain = drawn(engine, base, None, tmp_path)
    kl_vae(tmp_path / "wide", 16)
    flux = make_family(tmp_path / "flux", "flux")
    cases = [
        (VaeRef(name="wide", path=str(tmp_path / "wide")), "“wide” cannot be used: it has 16 channels"),
        (saved(tmp_path / "wide", tmp_path / "w.safetensors", reshaped=True), "and the base “base” has 4"),
        (VaeRef(name="gone", path=str(tmp_path / "gone")), "“gone” is not where it was"),
    ]
    original.single_file(Path(flux.path), tmp_path / "flux.safetensors", "flux")
    cases.append((VaeRef(name="flux", path=str(tmp_path / "flux.safetensors")), "“flux” cannot be used: it is no VAE"))
    for ref, words in cases:
        with pytest.raises(UserError, match=words):
            drawn(engine, base, ref, tmp_path)
    torn = saved(Path(base.path) / "vae", tmp_path / "torn.safetensors", reshaped=True)
    os.truncate(torn.path, 3000)
    with pytest.raises(UserError, match="The VAE “torn” cannot be loaded: of its VAE, "):
        drawn(engine, base, torn, tmp_path)
    assert drawn(engine, base, None, tmp_path) == plain
    shutil.rmtree(base.path)
