"""A scene of each kind, and something that happens at a failpoint."""

from __future__ import annotations

import pytest

from loravault import failpoints
from tests.vault.scene import Scene


@pytest.fixture(params=[True, False], ids=["exchange", "replace"])
def scene(request, tmp_path):
    return Scene(tmp_path, can_exchange=request.param)


@pytest.fixture
def at_failpoint():
    """Run something once when a failpoint is reached."""

    def arm(name, action):
        fired = []

        def hook(reached):
            if reached == name and not fired:
                fired.append(True)
                action()

        failpoints.hook = hook

    yield arm
    failpoints.hook = None
