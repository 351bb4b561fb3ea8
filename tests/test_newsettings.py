"""A `config.toml` that changes under a running daemon: its owner is told, and nothing else happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loravault.config import load
from loravault.newsettings import NewSettings
from tests.world import World


class Home:
    """A vault that is set up, and the file that says so."""

    def __init__(self, home: Path) -> None:
        self.vault = home / "vault"
        (self.vault / ".obsidian").mkdir(parents=True)
        self.env = {"LORAVAULT_CONFIG_DIR": str(home / "config"), "LORAVAULT_STATE_DIR": str(home / "state")}
        self.file = home / "config" / "config.toml"
        self.file.parent.mkdir()
        self.time = 1_000_000_000
        self.says("")

    def says(self, settings: str) -> None:
        """The file, saved a second later than the last time."""
        self.file.write_text(f'[[vault]]\npath = "{self.vault.as_posix()}"\n{settings}')
        self.time += 1
        os.utime(self.file, (self.time, self.time))

    def looked_after(self) -> NewSettings:
        return NewSettings(load(self.vault, self.env), self.env)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_nothing_is_said_of_a_file_that_stays(home: Home) -> None:
    settings = home.looked_after()
    assert settings.sentence() is None
    home.says("# a remark, and nothing else")
    assert settings.sentence() is None


def test_new_settings_wait_for_the_next_start_and_can_be_taken_back(home: Home) -> None:
    settings = home.looked_after()
    home.says('device = "cpu"')
    said = "config.toml was changed; its new settings hold as soon as `loravault watch` is ended and started again."
    assert [settings.sentence(), settings.sentence()] == [said, said]
    home.says("")
    assert settings.sentence() is None


def test_what_is_wrong_is_said_before_the_next_start_fails(home: Home) -> None:
    """A slip in the file showed only when the daemon was started the next time: days later."""
    settings = home.looked_after()
    home.says('devise = "cpu"')
    told = settings.sentence()
    assert told is not None
    assert told.startswith("config.toml was changed, and the settings from before hold: ")
    assert "did you mean `device`" in told


@pytest.mark.parametrize(
    "slip",
    ['device = "cpu"\ndevice = "cpu"', "[vault.loras]\na = '/x'\na = '/y'", "[vault.loras]\na.b = 1\na = 2", "x ="],
)
def test_a_file_that_is_no_toml_is_told_for_as_long_as_it_is_none(home: Home, slip: str) -> None:
    """A key that is there twice was a bug on the dashboard, then nothing, and a traceback at the next start."""
    settings = home.looked_after()
    home.says(slip)
    told = settings.sentence()
    assert told is not None
    assert "cannot be read as TOML" in told
    assert settings.sentence() == told


def test_a_file_that_is_gone_or_half_written_does_not_send_anybody_to_init(home: Home) -> None:
    settings = home.looked_after()
    home.file.write_text("")
    told = settings.sentence()
    assert told == "config.toml does not name this vault any more; the settings from before hold while this runs."
    home.file.unlink()
    assert settings.sentence() == told
    home.says("")
    assert settings.sentence() is None


def test_the_dashboard_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    world = World(tmp_path)
    daemon = world.daemon()
    try:
        daemon.rescan()
        assert "config" not in daemon.ctx.troubles
        home.says('device = "cuda:x"')
        daemon.rescan()
        assert "`device`" in daemon.ctx.troubles["config"]
    finally:
        daemon.close()
