"""What several tests of training take their time to make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.training.exported import Bases


@pytest.fixture(scope="package")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """One small base of each family, made when it is first asked for."""
    from tests.engine.training.exported import Bases  # imports torch

    return Bases(tmp_path_factory.mktemp("bases"))
