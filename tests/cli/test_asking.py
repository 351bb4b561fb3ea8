"""Questions at a terminal, and where there is none."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.cli.helpers import app_in, call


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("y\n", 0, "Done. Next: "),
        ("\n", 0, "Done. Next: "),
        ("n\n", 0, "Nothing was written."),
    ],
)
def test_init_asks_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, said: str
) -> None:
    app = app_in(tmp_path, set_up=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    result = call(app, "init", str(tmp_path / "vault"), "--loras", str(tmp_path / "loras"))

    assert (result.code, said in result.out) == (code, True), result
    assert (tmp_path / "vault" / "LoraVault").exists() is said.startswith("Done")


def test_without_anybody_to_ask_it_says_what_to_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script it said "Interrupted", and that what was not finished is done the next time."""
    app = app_in(tmp_path, set_up=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    result = call(app, "init", str(tmp_path / "vault"), "--loras", str(tmp_path / "loras"))

    sentence = "Nobody is there to answer, so nothing was done: add --yes if that is what you want."
    assert (result.code, result.err.strip()) == (1, f"loravault: {sentence}")
    assert not (tmp_path / "vault" / "LoraVault").exists()
