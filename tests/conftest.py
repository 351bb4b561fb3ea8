"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no bug: time limits belong to pytest-timeout, not to single examples.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
