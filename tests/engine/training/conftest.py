"""What several tests of training take their time to make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from loravault.engine.training.describing import Teller
    from tests.engine.training.exported import Bases


@pytest.fixture(scope="package")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """One small base of each family, made when it is first asked for."""
    from tests.engine.training.exported import Bases  # imports torch

    return Bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="package")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small captioner."""
    from tests.tiny_captioners import make_blip

    return make_blip(tmp_path_factory.mktemp("captioners") / "tiny-blip")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that any captioner says, as it says it."""
    from loravault.engine.training.describing import Teller

    found: list[str] = []
    before = Teller.say

    def say(self: Teller, image: Image.Image) -> str:
        found.append(before(self, image))
        return found[-1]

    monkeypatch.setattr(Teller, "say", say)
    return found
