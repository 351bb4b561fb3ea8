"""One tiny base and one engine for all engine tests. Files that import torch are not even collected for quick runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loravault.formats.generation import BaseRef

if TYPE_CHECKING:
    from loravault.engine.bases import Base
    from loravault.engine.generate import Engine


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing torch takes seconds; `-m "not engine"` should not pay for it."""
    deselected = "not engine" in str(config.option.markexpr)
    return True if deselected and collection_path.name.startswith("test_") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Libraries are older than numpy 2; their deprecations are theirs. Everything else stays an error."""
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    from tests.tiny import make_base

    return make_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture(scope="module")
def tiny_base(tiny: BaseRef) -> Base:
    from loravault.engine.bases import load_base
    from loravault.engine.devices import choose_device

    return load_base(tiny, choose_device("cpu"))


@pytest.fixture(scope="session")
def engine() -> Engine:
    from loravault.engine.generate import Engine

    return Engine("cpu")
