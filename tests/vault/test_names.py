"""Names we give are unmistakable in a vault."""

from __future__ import annotations

from datetime import datetime

from loravault.vault.names import image_stem


def test_names_of_pictures_follow_the_contract():
    when = datetime(2026, 11, 20, 18, 15, 3)
    assert image_stem(when, "3fa81c20@desk") == image_stem(when, "3fa81c20") == "lv-20261120-181503-3fa81c20"
