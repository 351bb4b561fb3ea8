"""Captions as the denoiser takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loravault.engine.ends import Stopped
from loravault.engine.training.store import Store
from loravault.engine.training.texts import Texts, tokens_of, trained_encoders
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from tests.engine.training.learned import loaded
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine

CAPTIONS = ["a cat", "a much longer dog, on a sofa", ""]


def prepared(texts: Texts, captions: list[str]) -> list[int]:
    said: list[int] = []
    texts.prepare(captions, said.append, lambda: False)
    return said


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl", "sd3", "flux"])
def test_the_same_as_at_generation(tmp_path: Path, family: str) -> None:
    """What is learned with a caption is what the base is told with that prompt, and nothing without one."""
    base = loaded(make_family(tmp_path / family, family))
    texts = Texts(base, Store(tmp_path / "c"), 1)
    assert prepared(texts, CAPTIONS) == [1, 2, 3]
    found = texts.get(CAPTIONS)
    for number, caption in enumerate(CAPTIONS):
        with torch.no_grad():
            expected = base.drawer.encode(base.pipe, caption, 1, negative=not caption)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name][number : number + 1], value)
    kept = Texts(base, Store(tmp_path / "c"), 1)
    base.drawer.encode = None  # type: ignore[method-assign, assignment]
    try:
        prepared(kept, CAPTIONS)
    finally:
        del base.drawer.encode
    assert all(torch.equal(kept.get(CAPTIONS)[name], found[name]) for name in found)


def test_sdxl_learns_zeros_where_a_caption_drops_out(tmp_path: Path) -> None:
    base = loaded(make_family(tmp_path / "sdxl", "sdxl"))
    texts = Texts(base, Store(tmp_path / "c"), 1)
    prepared(texts, CAPTIONS)
    assert not texts.get([""])["prompt_embeds"].any()
    assert texts.get(["a cat"])["prompt_embeds"].any()


def test_another_encoder_or_clip_skip_reads_anew(tmp_path: Path, tiny: BaseRef) -> None:
    base = loaded(tiny)
    store = Store(tmp_path / "c")

    def files() -> int:
        return len(list((tmp_path / "c").rglob("*.safetensors")))

    prepared(Texts(base, store, 1), ["a"])
    prepared(Texts(base, store, 1), ["a"])
    assert files() == 1
    prepared(Texts(base, store, 2), ["a"])
    assert files() == 2
    with torch.no_grad():
        next(base.pipe.text_encoder.parameters()).view(-1)[0] += 1
    prepared(Texts(base, store, 1), ["a"])
    assert files() == 3
    base.pipe.tokenizer.add_tokens(["<new>"])
    prepared(Texts(base, store, 1), ["a"])
    assert files() == 4


def test_problems_are_told(tmp_path: Path, tiny: BaseRef) -> None:
    base = loaded(tiny)
    with pytest.raises(UserError, match="clip_skip 9"):
        prepared(Texts(base, Store(tmp_path / "c"), 9), ["a"])
    with pytest.raises(Stopped):
        Texts(base, Store(tmp_path / "c"), 1).prepare(["a"], lambda _done: None, lambda: True)
    with torch.no_grad():
        next(base.pipe.text_encoder.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="NaN"):
        prepared(Texts(base, Store(tmp_path / "c"), 1), ["a"])


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("sd15", ("text_encoder",)),
        ("sdxl", ("text_encoder", "text_encoder_2")),
        ("sd3", ("text_encoder", "text_encoder_2")),
        ("flux", ("text_encoder",)),
    ],
)
def test_every_clip_is_trained_and_no_t5(tmp_path: Path, family: str, expected: tuple[str, ...]) -> None:
    base = loaded(make_family(tmp_path / family, family))
    assert trained_encoders(base) == expected
    tokens = tokens_of(base, CAPTIONS)
    assert tuple(tokens) == expected
    assert all(ids.shape == (3, 77) for ids in tokens.values())
    if family == "sd15":
        states = base.pipe.text_encoder(tokens["text_encoder"][:1]).last_hidden_state
        assert torch.equal(states, base.drawer.encode(base.pipe, "a cat", 1, negative=False)["prompt_embeds"])
