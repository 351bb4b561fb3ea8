"""Attention by plain products gives what torch's fused attention gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from loravault.engine.bases import load_base
from loravault.engine.devices import choose_device
from loravault.engine.training import attention
from loravault.engine.training.attention import SmallAttention, small_attention
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("most", [0, 20, 512])
def test_the_same_is_said_with_the_same_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Wherever the line is drawn between few and many places; afterwards the UNet attends as before."""
    monkeypatch.setattr(attention, "MOST", most)
    unet = load_base(make_family(tmp_path / "sd15", "sd15"), choose_device("cpu")).denoiser.requires_grad_(False)
    words = torch.randn(2, 77, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
    found = []
    for swapped in (False, True):
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2), requires_grad=True)
        if swapped:
            with small_attention(unet):
                assert {type(one) for one in unet.attn_processors.values()} == {SmallAttention}
                said = unet(x, 500, words, return_dict=False)[0]
        else:
            said = unet(x, 500, words, return_dict=False)[0]
        said.square().sum().backward()
        found.append((said.detach(), x.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert {type(one) for one in unet.attn_processors.values()} == {AttnProcessor2_0}


def test_a_transformer_is_left_alone() -> None:
    """And so is a model that knows nothing of processors."""
    model = torch.nn.Linear(1, 1)
    with small_attention(model):
        assert model(torch.zeros(1)).shape == (1,)
