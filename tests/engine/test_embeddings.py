"""Vectors for words: where they go in a prompt, how they are learned and written, and that pictures show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from loravault.engine.adapters import load_adapter
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.embeddings import inserted, tokens_of, with_vectors
from loravault.engine.generate import Engine
from loravault.engine.training.export import write_adapter
from loravault.engine.training.networks import Network
from loravault.errors import UserError
from loravault.formats.generation import BaseRef, GenerationSpec
from tests.engine.training.layers import randomise
from tests.engine.training.plans import plan
from tests.tiny import make_adapter, use_of
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def base(tiny: BaseRef) -> Base:
    return load_base(tiny, choose_device("cpu"))


def network_of(base: Base, **changes: Any) -> Network:
    network = Network(
        base, plan(pivotal=1, **changes), generator=torch.Generator().manual_seed(1), trigger=" sks  cat "
    )
    for adapter in network.adapters.values():
        randomise(adapter)
    return network


def test_where_the_words_stand() -> None:
    """Only the whole sequence, each time it occurs, never overlapping; gradients reach the vectors once for each."""
    ids = torch.tensor([[1, 5, 6, 7, 5, 6], [5, 5, 5, 2, 6, 5]])
    states = torch.zeros(2, 6, 2)
    vectors = torch.tensor([[1.0, 1.0], [2.0, 2.0]], requires_grad=True)
    found = with_vectors(states, ids, (5, 6), vectors)
    assert found[..., 0].tolist() == [[0, 1, 2, 0, 1, 2], [0, 0, 0, 0, 0, 0]]
    found.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.tolist() == [[2, 2], [2, 2]]
    assert with_vectors(states, ids, (5, 5), vectors)[..., 0].tolist()[1] == [1, 2, 0, 0, 0, 0]
    assert with_vectors(states, ids, (9,), vectors[:1]) is states
    assert with_vectors(states, ids, tuple(range(9)), vectors) is states
    assert not states.any()


def test_they_begin_as_the_bases_own_and_are_learned(base: Base) -> None:
    """Nothing changes before the first step; a step changes what prompts with the words say, and no other prompt."""
    encoder = base.pipe.text_encoder
    own, other = (base.pipe.tokenizer(text, return_tensors="pt").input_ids for text in ("a sks cat!", "a cat sks"))
    before = encoder(own).last_hidden_state
    network = Network(base, plan(pivotal=1, te_rate=0.0), generator=torch.Generator().manual_seed(1), trigger="sks cat")
    assert torch.allclose(encoder(own).last_hidden_state, before, atol=1e-6)
    words = network.parameters()["words"]
    assert [tuple(one.shape) for one in words] == [(6, 40)]
    encoder(own).last_hidden_state.square().sum().backward()
    assert words[0].grad is not None
    assert bool(words[0].grad.any(1).all())
    with torch.no_grad():
        words[0].add_(torch.randn(words[0].shape, generator=torch.Generator().manual_seed(1)))
    assert not torch.allclose(encoder(own).last_hidden_state, before, atol=1e-2)
    with network.without():
        assert torch.equal(encoder(own).last_hidden_state, before)
        bare = encoder(other).last_hidden_state
    assert torch.equal(encoder(other).last_hidden_state, bare)
    state = network.state()
    assert torch.equal(state["words//text_encoder"], words[0].detach())
    network.detach()
    assert torch.equal(encoder(own).last_hidden_state, before)
    assert not encoder.get_input_embeddings()._forward_hooks


def test_the_file_has_them_as_bundles_do(base: Base, tmp_path: Path) -> None:
    """A1111's name for a base with one CLIP; read again exactly, and no key unused; the proof knows them."""
    network = network_of(base)
    with torch.no_grad():
        for one in network.parameters()["words"]:
            one.mul_(1.5)
    ids = base.pipe.tokenizer("sks cat", return_tensors="pt").input_ids
    live = base.pipe.text_encoder(ids).last_hidden_state
    written = write_adapter(network, base, plan(pivotal=1), tmp_path / "a.safetensors", {}, dtype=torch.float32)
    network.detach()
    bare = base.pipe.text_encoder(ids).last_hidden_state
    assert written.error < 1e-3
    assert "sks cat" in " ".join(written.remarks)
    tensors = load_file(written.path)
    assert tensors["bundle_emb.sks cat.string_to_param.*"].shape == (6, 40)
    adapter = load_adapter(use_of(written.path), base)
    assert not adapter.unused
    assert not adapter.void
    assert [one.tokens for one in adapter.embeddings] == [tokens_of(base, "text_encoder", "sks cat")]
    with inserted(base, adapter.embeddings):
        alone = base.pipe.text_encoder(ids).last_hidden_state
    assert not torch.allclose(alone, bare, atol=1e-2)
    assert not torch.allclose(live, bare, atol=1e-2)


def test_of_two_clips_both_learn(tmp_path: Path) -> None:
    """SDXL: `clip_l` and `clip_g`, as its embeddings are kept."""
    base = load_base(make_family(tmp_path / "xl", "sdxl"), choose_device("cpu"))
    network = network_of(base, te_rate=0.0)
    network.detach()
    write_adapter(network, base, plan(pivotal=1, te_rate=0.0), tmp_path / "a.safetensors", {})
    shapes = {name: tuple(one.shape) for name, one in load_file(tmp_path / "a.safetensors").items() if "bundle" in name}
    assert shapes == {"bundle_emb.sks cat.clip_l": (6, 32), "bundle_emb.sks cat.clip_g": (6, 40)}
    assert {one.component for one in load_adapter(use_of(tmp_path / "a.safetensors"), base).embeddings} == {
        "text_encoder",
        "text_encoder_2",
    }


def test_pictures_show_them(tiny: BaseRef, engine: Engine, tmp_path: Path) -> None:
    """A file whose only effect is its words: with the words another picture, without them or at te 0 the same."""
    path = tmp_path / "words.safetensors"
    made = make_adapter(tmp_path / "lora.safetensors", size=0.0)
    vectors = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)) * 5
    save_file({**made, "bundle_emb.sks.string_to_param.*": vectors}, path)

    def drawn(prompt: str, **options: Any) -> Any:
        spec = GenerationSpec(
            base=tiny, prompt=prompt, seeds=(1,), width=64, height=64, steps=2, cfg=1.0, sampler="Euler",
            adapters=(use_of(path, **options),) if options is not None and options.get("weight") else (),
            image_format="png",
        )  # fmt: skip
        outcome = engine.generate(spec, tmp_path)
        assert not outcome.unused_keys
        return np.asarray(Image.open(outcome.images[0].path)).astype(int)

    for prompt, same in (("a sks on a hill", False), ("a cat on a hill", True)):
        bare, with_words, without = drawn(prompt), drawn(prompt, weight=1.0), drawn(prompt, weight=1.0, te=0.0)
        assert np.array_equal(bare, without)
        assert np.array_equal(bare, with_words) is same


def test_what_does_not_fit_is_unused(base: Base, tmp_path: Path) -> None:
    """Vectors of another width, or more of them than the words have tokens: counted and told, never guessed at."""
    path = tmp_path / "a.safetensors"
    made = make_adapter(tmp_path / "b.safetensors")
    strangers = {
        "bundle_emb.sks.string_to_param.*": torch.ones(1, 40),
        "bundle_emb.abc.clip_l": torch.ones(3, 32),
        "bundle_emb.abc.clip_g": torch.ones(3, 40),
    }
    save_file({**made, **strangers}, path)
    adapter = load_adapter(use_of(path), base)
    assert set(adapter.unused) == set(strangers)
    assert not adapter.embeddings
    save_file({**made, "bundle_emb.abc.clip_l": torch.full((3, 40), float("nan"))}, path)
    with pytest.raises(UserError, match="NaN"):
        load_adapter(use_of(path), base)


@pytest.mark.parametrize("trigger", ["", " ", "sks v1.5"])
def test_a_trigger_that_cannot_be_kept_is_refused(base: Base, trigger: str) -> None:
    with pytest.raises(UserError, match="without a dot"):
        Network(base, plan(pivotal=2), generator=torch.Generator().manual_seed(1), trigger=trigger)
    assert not any("forward" in module.__dict__ for module in base.modules.values())
