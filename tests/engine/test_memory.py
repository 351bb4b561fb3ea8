"""What is tried when memory runs out: it always ends, nothing is tried twice, and slower ways are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.engine.memory import LARGE_TILE, OFFLOADS, SMALL_TILE, Offload, Thrift, plan

pytestmark = pytest.mark.engine

PHASES = ("load", "LoRAs", "prompt", "draw", "decode")
CARD = "cuda (Some Card)"

sides = st.integers(1, 600).map(lambda units: 8 * units)
sizes = st.tuples(sides, sides)
plans = st.builds(plan, sizes, st.integers(1, 64), st.sampled_from(Offload))


@given(plans, sizes, st.sampled_from(Offload), st.data())
def test_it_always_ends_and_never_tries_the_same_twice(
    first: Thrift, size: tuple[int, int], most: Offload, data: st.DataObject
) -> None:
    """Whatever fails in whatever order: each way is new, none is laxer than the one before, and there are few."""
    tried, now = [first], first
    for _ in range(100):
        following = now.less(data.draw(st.sampled_from(PHASES)), size, most)
        if following is None:
            break
        assert following not in tried
        assert following.together <= now.together
        assert following.offload in (now.offload, min(now.offload + 1, most))
        tried.append(following)
        now = following
    else:
        pytest.fail("it never gave up")
    assert len(tried) <= 1 + 6 + 1 + 2


@given(plans, sizes, st.sampled_from(PHASES))
def test_without_a_card_nothing_is_offloaded(first: Thrift, size: tuple[int, int], phase: str) -> None:
    following = first.less(phase, size, Offload.NONE)
    assert following is None or following.offload is first.offload


def test_each_phase_is_helped_by_what_it_needs() -> None:
    """Fewer pictures do not help a decoder, which has one at a time; tiles do not help where a model does not fit."""
    start = plan((1024, 1024), 4, Offload.NONE)
    assert start == Thrift(4, 0, Offload.NONE)
    assert start.less("draw", (1024, 1024), Offload.LAYERS) == Thrift(2, 0, Offload.NONE)
    assert start.less("decode", (1024, 1024), Offload.LAYERS) == Thrift(4, SMALL_TILE, Offload.NONE)
    for phase in ("load", "LoRAs", "prompt"):
        assert start.less(phase, (1024, 1024), Offload.LAYERS) == Thrift(4, 0, Offload.MODELS)
    alone = Thrift(1, SMALL_TILE, Offload.MODELS)
    for phase in PHASES:
        assert alone.less(phase, (1024, 1024), Offload.LAYERS) == Thrift(1, SMALL_TILE, Offload.LAYERS)
        assert Thrift(1, SMALL_TILE, Offload.LAYERS).less(phase, (1024, 1024), Offload.LAYERS) is None


def test_a_picture_of_one_tile_is_not_decoded_in_tiles() -> None:
    assert plan((512, 512), 1, Offload.NONE).less("decode", (512, 512), Offload.MODELS) == Thrift(1, 0, Offload.MODELS)


def test_large_pictures_are_decoded_in_tiles_from_the_start_and_no_others() -> None:
    assert plan((1536, 1536), 1, Offload.NONE).tile == 0
    assert plan((2048, 2048), 1, Offload.NONE).tile == LARGE_TILE
    assert plan((2048, 2048), 1, Offload.NONE).less("decode", (2048, 2048), Offload.NONE) == Thrift(
        1, SMALL_TILE, Offload.NONE
    )


def test_what_a_result_says() -> None:
    """Slower or different: told. Fewer at once: no one notices. Tiles from the start used to be silent."""
    tiles = "Decoded in tiles of 1024 pixels, as all pictures above 1536×1536, which may differ a little in tone."
    start = plan((2048, 2048), 4, Offload.NONE)
    assert start.sentence(start, CARD, (2048, 2048)) == tiles
    assert Thrift(1, LARGE_TILE, Offload.NONE).sentence(start, CARD, (2048, 2048)) == tiles
    assert Thrift(1, LARGE_TILE, Offload.MODELS).sentence(start, CARD, (2048, 2048)) == (
        "cuda (Some Card) has too little memory for 2048×2048: "
        f"drawn with one model at a time on the card, which is slower. {tiles}"
    )
    small = plan((512, 512), 4, Offload.NONE)
    assert small.sentence(small, CARD, (512, 512)) is None
    assert Thrift(1, 0, Offload.NONE).sentence(small, CARD, (512, 512)) is None
    both = Thrift(1, SMALL_TILE, Offload.LAYERS).sentence(start, CARD, (2048, 2048))
    assert both is not None
    assert "one layer at a time" in both
    assert "tiles of 512 pixels" in both
    wished = plan((512, 512), 1, Offload.MODELS)
    assert wished.sentence(wished, CARD, (512, 512)) is None


def test_the_words_of_the_config_are_those_of_the_engine() -> None:
    from loravault.engine.devices import DTYPES
    from loravault.settings import SHARED

    for word in OFFLOADS:
        assert SHARED["offload"](word) == word
    for word in ("auto", *DTYPES):
        assert SHARED["dtype"](word) == word
