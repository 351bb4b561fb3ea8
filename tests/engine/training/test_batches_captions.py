"""What is read in step n: captions that vary and drop out, and tokens where text encoders are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loravault.engine.bases import Base
from loravault.engine.training import batches as module
from loravault.engine.training.batches import Batches
from loravault.formats.generation import BaseRef
from tests.engine.training.learned import batches, loaded, pictures
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine

SIZES = {"a.png": (64, 64), "b.png": (64, 64), "c.png": (64, 64), "d.png": (128, 64), "e.png": (96, 48)}


@pytest.fixture(scope="module")
def base(tiny: BaseRef) -> Base:
    return loaded(tiny)


def told(found: Batches, steps: int) -> list[str]:
    return [found.caption_at(item.picture, slot) for step in range(steps) for item, slot in found.picked(step)]


def test_captions_get_trigger_and_prefix(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", {"a.png": (64, 64)})
    shown.append(replace(shown[0], caption=None))
    found = batches(base, tiny, shown, tmp_path / "c", caption_prefix="score_9", prepared=False)
    assert found.captions == ("score_9, zkx, a, one, two, three", "score_9, zkx cat")
    assert set(told(found, 10)) == set(found.captions)


def test_captions_drop_out_as_often_as_asked(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    shown = pictures(tmp_path / "p", {"a.png": (64, 64)})
    found = batches(base, tiny, shown, tmp_path / "c", caption_dropout=0.25)
    captions = told(found, 400)
    assert abs(captions.count("") - 200) < 40
    slot = next(slot for step in range(20) for item, slot in found.picked(step) if not found.caption_at(0, slot))
    batch = found.at(slot // 2)
    empty = base.drawer.encode(base.pipe, "", 1, negative=True)["prompt_embeds"]
    assert torch.equal(batch.texts["prompt_embeds"][slot % 2][None], empty)


def test_captions_that_vary_are_read_in_so_many_ways(
    tmp_path: Path, tiny: BaseRef, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn beforehand, so that the text encoder can go; as many as there is room for."""
    shown = pictures(tmp_path / "p", {"a.png": (64, 64), "b.png": (64, 64)})
    found = batches(base, tiny, shown, tmp_path / "c", shuffle=True, keep_tokens=1, steps=100)
    captions = told(found, 100)
    ways = {caption for caption in captions if "a" in caption.split(", ")}
    assert 8 < len(ways) <= module.VARIANTS
    assert all(
        way.startswith("zkx, ") and sorted(way.split(", ")) == sorted(["zkx", "a", "one", "two", "three"])
        for way in ways
    )
    few = batches(base, tiny, shown, tmp_path / "c", shuffle=True, keep_tokens=1, steps=3)
    assert len(set(told(few, 100))) <= 6
    monkeypatch.setattr(module, "_TEXT_BYTES", 5 * 2 * 77 * 40 * 4)
    scarce = batches(base, tiny, shown, tmp_path / "c", shuffle=True, keep_tokens=1, steps=100)
    assert len(set(told(scarce, 100))) <= 10


def test_while_text_encoders_are_trained_there_are_tokens(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    """Nothing is kept then, and a caption that varies may be another each time."""
    shown = pictures(tmp_path / "p", {"a.png": (64, 64)})
    found = batches(base, tiny, shown, tmp_path / "c", te_rate=1e-4, shuffle=True, tag_dropout=0.1, steps=200)
    batch = found.at(0)
    assert batch.texts == {}
    assert {name: ids.shape for name, ids in batch.tokens.items()} == {"text_encoder": (2, 77)}
    item, slot = found.picked(0)[1]
    ids = base.pipe.tokenizer(found.caption_at(item.picture, slot), padding="max_length", max_length=77).input_ids
    assert batch.tokens["text_encoder"][1].tolist() == ids
    captions = told(found, 200)
    assert len(set(captions)) > 2 * module.VARIANTS
    assert all("zkx" in caption.split(", ") for caption in captions)  # the trigger never drops out
    assert any("one" not in caption.split(", ") for caption in captions)
    assert not (tmp_path / "c" / "texts").exists()


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_of_a_t5_that_is_not_trained_the_states_are_kept(tmp_path: Path, family: str) -> None:
    ref = make_family(tmp_path / family, family)
    base = loaded(ref)
    shown = pictures(tmp_path / "p", {"a.png": (64, 64)})
    found = batches(base, ref, shown, tmp_path / "c", te_rate=1e-4, batch=1)
    batch = found.at(0)
    assert set(batch.texts) == {"prompt_embeds", "pooled_prompt_embeds"}
    assert set(batch.tokens) == ({"text_encoder", "text_encoder_2"} if family == "sd3" else {"text_encoder"})
    assert batch.latents.shape == (1, 16, 8, 8)


def test_a_learned_trigger_is_training_a_text_encoder_too(tmp_path: Path, tiny: BaseRef, base: Base) -> None:
    found = batches(base, tiny, pictures(tmp_path / "p", {"a.png": (64, 64)}), tmp_path / "c", pivotal=2)
    assert set(found.at(0).tokens) == {"text_encoder"}
