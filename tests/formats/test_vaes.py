"""Whose a VAE is, where only words can tell."""

from __future__ import annotations

import pytest

from loravault.formats.vaes import belongs_elsewhere, family_told


@pytest.mark.parametrize(
    ("name", "metadata", "channels", "told"),
    [
        ("sdxl_vae", {}, 4, ("sdxl", "name")),
        ("sdxl-vae-fp16-fix", {}, 4, ("sdxl", "name")),
        ("vae-ft-mse-840000-ema-pruned", {}, 4, ("sd15", "name")),
        ("kl-f8-anime2", {}, 4, ("sd15", "name")),
        ("mine", {"modelspec.architecture": "stable-diffusion-xl-v1-base/vae"}, 4, ("sdxl", "modelspec.architecture")),
        ("sdxl_vae", {"modelspec.architecture": "stable-diffusion-v1/vae"}, 4, ("sd15", "modelspec.architecture")),
        ("flux-ae", {}, 16, ("flux", "name")),
        ("sd3_vae", {}, 16, ("sd3", "name")),
        ("sdxl_vae", {}, 16, None),
        ("anything", {}, 4, None),
        ("ae", {}, 16, None),
        ("anything", {}, 32, None),
    ],
)
def test_what_a_file_says(name: str, metadata: dict[str, str], channels: int, told: tuple[str, str] | None) -> None:
    assert family_told(name, metadata, channels) == told


@pytest.mark.parametrize(
    ("name", "channels", "family", "wrong"),
    [
        ("sdxl_vae", 4, "sd15", True),
        ("sdxl_vae", 4, "sd2", True),
        ("sdxl_vae", 4, "sdxl", False),
        ("vae-ft-mse-840000", 4, "sdxl", True),
        ("vae-ft-mse-840000", 4, "sd2", False),
        ("flux-ae", 16, "chroma", False),
        ("flux-ae", 16, "sd3", True),
        ("anything", 4, "sdxl", False),
        ("sdxl_vae", 4, "demo", False),
    ],
)
def test_only_what_is_said_is_told_and_only_of_bases_of_another_scale(
    name: str, channels: int, family: str, wrong: bool
) -> None:
    words = belongs_elsewhere(name, {}, channels, family)
    assert (words is not None) == wrong
    if words:
        assert words.endswith(f", by its name, and the base is {family}: colours may be wrong")
