"""What we train and what we call it, against kohya's own scripts: the same modules, every name the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

import diffusers
import pytest
import torch

from loravault.engine.training.networks.targets import BLOCKS, CONVOLUTIONS, layers_in
from loravault.formats.normal import kohya_spellings
from tests.formats.derive import MODELS
from tests.formats.normal import bases

pytestmark = pytest.mark.engine

#: Base → how many modules sd-scripts 0.10.1 trains in its UNet or transformer, and SHA256 of their sorted names (as
#: `tests/engine/training/sd_scripts.py` prints them, one on a line), first 16 digits.
KOHYA = {
    "sd15": (192, "bdfc29d0bf3d9ac6"),
    "sd15 with convolutions": (278, "620b9a8905915e25"),
    "sdxl": (722, "5d819b833e27947d"),
    "sdxl with convolutions": (788, "6eaed2d7a4528e0a"),
    "flux": (304, "c82a2ed51989fc40"),
    "sd3 medium": (237, "bf58b75ffd83bb20"),
    "sd3 3.5-medium": (263, "360827f16dd643c9"),
    "sd3 3.5-large": (377, "174cfdf665f8e2c4"),
}


@cache
def ours(wish: str) -> Sequence[str]:
    """The names of the modules that we train, sorted; of a model without weights."""
    base = wish.removesuffix(" with convolutions")
    family, _, variant = base.partition(" ")
    class_name, numbers = MODELS[family, variant or None]
    component = bases.denoiser(base)
    with torch.device("meta"):
        model = getattr(diffusers, class_name)(**numbers)
    blocks = BLOCKS | CONVOLUTIONS if base != wish else BLOCKS
    trained = {layer.path for layer in layers_in(component, model, blocks)}
    spellings = kohya_spellings(bases.layers(base), family)
    return sorted(
        one.name
        for one in spellings
        if any(place.component == component and place.module in trained for place in one.places)
    )


@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
@pytest.mark.parametrize("wish", KOHYA)
def test_the_modules_and_names_of_sd_scripts(wish: str) -> None:
    found = ours(wish)
    assert (len(found), hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]) == KOHYA[wish]


@pytest.mark.skipif("SD_SCRIPTS" not in os.environ, reason="SD_SCRIPTS names no checkout of kohya-ss/sd-scripts")
@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
@pytest.mark.parametrize("wish", KOHYA)
def test_the_scripts_themselves_say_so(wish: str) -> None:
    """Their own models and their own rule, run; for a newer version than the one the numbers above are of."""
    command = [sys.executable, "-m", "tests.engine.training.sd_scripts", os.environ["SD_SCRIPTS"], wish]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert sorted(json.loads(said.stdout)) == ours(wish)
