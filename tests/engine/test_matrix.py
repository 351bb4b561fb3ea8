"""Every algorithm × every spelling of the keys × families: the formula is applied, in the right rows, and no more."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from loravault.engine.adapters import load_adapter, names_of
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from tests.engine.matrix import TE, UNET, Cell, cell, output_of
from tests.engine.matrix_rows import ALGORITHMS, LAYERS, SPELLINGS, Algorithm
from tests.tiny import use_of
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    folder = tmp_path_factory.mktemp("matrix")
    return {family: load_base(make_family(folder / family, family), choose_device("cpu")) for family in LAYERS}


@pytest.mark.parametrize("family", LAYERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_what_is_applied_is_the_formula_in_every_spelling(
    bases: dict[str, Base], family: str, algorithm: Algorithm, tmp_path: Path
) -> None:
    """From a file on disk through normaliser and algorithms to the weights; what is taken out leaves no trace.

    Of a sample of the cells also what the denoiser computes; `benchmarks/matrix.py` compares it in all of them.
    """
    found: dict[str, Cell] = {}
    for spelling in SPELLINGS:
        if family in spelling.families:
            sampled = zlib.crc32(f"{family} {algorithm.name} {spelling.who}".encode()) % 8 == 0
            one = cell(bases[family], family, algorithm, spelling, tmp_path, outputs=sampled)
            found |= {} if one is None else {spelling.who: one}
    assert all(result.wrong == () for result in found.values()), found
    assert all(result.error < 1e-5 for result in found.values()), found
    assert all(result.output < min(1e-5, 1e-2 * result.effect) for result in found.values()), found
    assert found or 4 in algorithm.dimensions or algorithm.name == "norm"


def test_what_is_sampled_of_the_outputs_is_something(bases: dict[str, Base], tmp_path: Path) -> None:
    """An adapter that is applied at another strength is seen in the output, far above the limit."""
    for family, base in bases.items():
        found = cell(base, family, ALGORITHMS[0], SPELLINGS[0], tmp_path)
        assert found is not None
        assert found.output < 1e-5
        assert found.effect > 1e-3
        path = tmp_path / "adapter.safetensors"  # as the cell has left it
        adapter = load_adapter(use_of(path), base, names_of(base))
        patcher = Patcher(base.modules)
        patcher.apply([Strength(adapter, TE, UNET)])
        right = output_of(base)
        patcher.apply([Strength(adapter, TE, UNET * 1.01)])
        wrong = output_of(base)
        patcher.restore()
        assert float((wrong - right).norm() / right.norm()) > 3e-5


def test_no_cell_is_empty_that_should_not_be(bases: dict[str, Base], tmp_path: Path) -> None:
    """A matrix of comparisons that compare nothing is green, too."""
    lora = ALGORITHMS[0]
    counts = {
        (family, spelling.who): result.layers
        for family in ("sd15", "sdxl", "flux")
        for spelling in SPELLINGS
        if family in spelling.families
        and (result := cell(bases[family], family, lora, spelling, tmp_path, outputs=False)) is not None
    }
    assert counts["sd15", "kohya"] == 10
    assert counts["sdxl", "kohya"] == 12
    assert counts["flux", "kohya"] == 17
    assert counts["flux", "XLabs"] == 7
    assert counts["sdxl", "diffusers, old"] == 2
    assert min(counts.values()) >= 2
