"""Questions at a terminal, and where there is none."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.cli.helpers import app_in, call


@pytest.mark.parametrize(
    ("typed", "said"), [("y\n", "Done. Next: "), ("\n", "Done. Next: "), ("n\n", "Nothing was written.")]
)
def test_init_asks_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, said: str) -> None:
    app = app_in(tmp_path, set_up=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    result = call(app, "init", str(tmp_path / "vault"), "--loras", str(tmp_path / "loras"))

    assert (result.code, said in result.out) == (0, True), result
    assert (tmp_path / "vault" / "LoraVault").exists() is said.startswith("Done")


@pytest.mark.parametrize("typed", [io.StringIO(""), io.StringIO("perhaps\n"), None])
def test_without_an_answer_it_says_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: io.StringIO | None
) -> None:
    """In a script it said "Interrupted", and that what was not finished is done the next time."""
    app = app_in(tmp_path, set_up=False)
    monkeypatch.setattr("sys.stdin", typed)
    result = call(app, "init", str(tmp_path / "vault"), "--loras", str(tmp_path / "loras"))

    sentence = "There was no answer, so nothing was done: with --yes it is done without a question."
    assert (result.code, result.err.strip()) == (1, f"loravault: {sentence}")
    assert not (tmp_path / "vault" / "LoraVault").exists()


def test_ctrl_c_at_a_question_is_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(_prompt: str) -> str:
        raise KeyboardInterrupt

    app = app_in(tmp_path, set_up=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", pressed)
    result = call(app, "init", str(tmp_path / "vault"), "--loras", str(tmp_path / "loras"))
    assert result.code == 130
    assert "Interrupted" in result.err
