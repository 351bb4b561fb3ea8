"""`search`, `duplicates` and `stats`: what is asked of the door, and what a person or a script gets to see."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from loravault.cli import search as search_command
from loravault.index.search import Found, Hit, Sort
from loravault.index.search_words import Filter
from loravault.library.overview import Counted, Duplicate, Statistics, statistics

from .helpers import FakeControl, app_in, call

INK = Hit(
    key="w1-1", name="ink_[bold]outline\x1b", family="sdxl", variant="pony", network="lora",
    trigger_words=("ink style", "bold line"), weight=0.8, folder="styles/ink", rating=4.0, favourite=True, pictures=12,
    size=1000, state="ok", files=("loras/styles/ink/ink.safetensors",),
)  # fmt: skip
GONE = Hit(
    key="w1-2", name="gone", family="unknown", variant=None, network=None, trigger_words=(), weight=None, folder="",
    rating=None, favourite=False, pictures=0, size=1000, state="missing", files=("loras/gone.safetensors",),
)  # fmt: skip
COPIES = ("loras/a/ink.safetensors", "more/x.safetensors")
TWICE = Duplicate("w1-1", "ink", "loras/ink.safetensors", COPIES, 2_000_000, differ=True)


@dataclass
class Library(FakeControl):
    """A door that remembers what was searched."""

    hits: Found = field(default_factory=Found)
    twice: list[Duplicate] = field(default_factory=list)
    numbers: Statistics = field(default_factory=lambda: statistics([]))

    def search(self, text: str, filters: Sequence[Filter] = (), **options: Any) -> Found:
        self._ask("search", text, tuple(filters), options)
        return self.hits

    def duplicates(self) -> list[Duplicate]:
        return self.twice

    def statistics(self) -> Statistics:
        return self.numbers


class TestSearch:
    def test_words_are_passed_on_as_they_were_typed_a_minus_too(self, tmp_path: Path) -> None:
        """Words to leave out looked like options; `-h` inside of one asked for help."""
        control = Library()
        call(app_in(tmp_path, control), "search", "red dress", "-ghibli", '-"blue hat"', "tag:x", "--sort", "newest")
        assert control.asked == [("search", 'red dress -ghibli -"blue hat" tag:x', (), {"sort": "newest", "limit": 25})]

    def test_options_are_filters(self, tmp_path: Path) -> None:
        control = Library()
        app = app_in(tmp_path, control)
        call(app, "search", "--family", "SDXL", "--family=flux", "--rating", ">=4", "--unused", "--no-preview", "cat")
        asked = control.asked[0]
        assert asked[1] == "cat"
        assert set(asked[2]) == {
            Filter("family", "sdxl"),
            Filter("family", "flux"),
            Filter("rating", ">=4"),
            Filter("is", "unused"),
            Filter("is", "nopreview"),
        }
        call(app, "search", "--limit", "0")
        assert control.asked[1] == ("search", "", (), {"sort": "relevance", "limit": None})

    def test_an_option_that_says_nothing_is_told(self, tmp_path: Path) -> None:
        result = call(app_in(tmp_path, Library()), "search", "--rating", "many")
        assert result.code == 1
        assert "--rating 'many' says nothing; try for example --rating '>=4'." in result.err

    def test_a_script_gets_aligned_columns_with_whole_cells(self, tmp_path: Path) -> None:
        control = Library(hits=Found((INK, GONE), 7, ("Nothing has all of these words; this has some of them.",)))
        assert call(app_in(tmp_path, control), "search", "ink").out.splitlines() == [
            "NAME                  FAMILY     TRIGGER WORDS         WEIGHT  FOLDER      RATING  PICTURES",
            "ink_[bold]outline� ♥  sdxl pony  ink style, bold line  0.8     styles/ink  ★★★★    12",
            "gone (missing)        unknown",
            "Nothing has all of these words; this has some of them.",
            "2 LoRAs of 7; --limit 0 shows all.",
        ]

    def test_a_terminal_gets_a_table_in_which_a_name_is_no_markup(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        wordy = replace(GONE, trigger_words=("long " * 100,))
        app = app_in(tmp_path, Library(hits=Found((INK, wordy), 2)))
        out = _without_colours(_on_a_terminal(monkeypatch, app, "search", "ink"))
        assert "ink_[bold]ou" in out
        assert "…" in out
        assert "\x1b" not in out
        assert all(len(line) <= 80 for line in out.splitlines())
        assert len(out.splitlines()) < 20

    def test_nothing_found_is_said(self, tmp_path: Path) -> None:
        assert call(app_in(tmp_path, Library()), "search", "x").out == "Nothing was found.\n"
        near = Library(hits=Found(remarks=("Close names: ink.",)))
        assert call(app_in(tmp_path, near), "search", "x").out == "Nothing was found. Close names: ink.\n"
        both = Library(hits=Found(remarks=("`famly` is no filter.", "Close names: ink.")))
        out = call(app_in(tmp_path, both), "search", "famly:x").out
        assert out == "Nothing was found. `famly` is no filter. Close names: ink.\n"

    def test_json_has_everything(self, tmp_path: Path) -> None:
        result = call(app_in(tmp_path, Library(hits=Found((INK,), 1))), "search", "ink", "--json")
        found = json.loads(result.out)
        assert (found["query"], found["total"], found["remarks"]) == ("ink", 1, [])
        assert found["hits"][0]["trigger_words"] == ["ink style", "bold line"]
        assert found["hits"][0]["files"] == ["loras/styles/ink/ink.safetensors"]

    def test_help_is_still_to_be_had(self, tmp_path: Path) -> None:
        assert "Find LoRAs by name" in call(app_in(tmp_path), "search", "--help").out


class TestDuplicates:
    def test_the_copy_in_use_stands_first(self, tmp_path: Path) -> None:
        assert call(app_in(tmp_path, Library(twice=[TWICE])), "duplicates").out.splitlines() == [
            "NAME        FILE                                                                TO FREE",
            "ink   used  loras/ink.safetensors                                               2.0 MB",
            "      copy  loras/a/ink.safetensors (what the files say of themselves differs)",
            "      copy  more/x.safetensors (what the files say of themselves differs)",
            "1 LoRA in several places; the copies take 2.0 MB.",
        ]
        assert call(app_in(tmp_path, Library()), "duplicates").out == "No LoRA lies in several places.\n"

    def test_json(self, tmp_path: Path) -> None:
        found = json.loads(call(app_in(tmp_path, Library(twice=[TWICE])), "duplicates", "--json").out)
        assert found["freeable"] == 2_000_000
        assert found["duplicates"][0]["others"] == ["loras/a/ink.safetensors", "more/x.safetensors"]


class TestStats:
    def test_numbers_and_groups(self, tmp_path: Path) -> None:
        numbers = Statistics(
            adapters=20, files=21, bytes=10**9, by_family={"sdxl": Counted(15, 9 * 10**8), "flux": Counted(5, 10**8)},
            by_network={}, by_state={}, by_folder={f"f{n}": Counted(1, 10) for n in range(20)}, with_trigger_words=3,
            with_preview=4, hashed=5, rated=6, favourites=1, with_card=7, duplicates=1, freeable=2_000_000,
            most_used=(("ink", 12),), never_used=8, images=99,
        )  # fmt: skip
        app = app_in(tmp_path, Library(numbers=numbers))
        lines = call(app, "stats").out.splitlines()
        assert lines[:2] == ["LoRAs                 20 in 21 files, 1.0 GB", "with trigger words    3 of 20"]
        assert "rated                 6 of 20, 1 favourite" in lines
        assert "in several places     1 LoRA, the copies take 2.0 MB" in lines
        assert "sdxl    15     900 MB" in lines
        assert "5 more  5      50 bytes" in lines
        assert lines[-1] == "ink        12"
        assert json.loads(call(app, "stats", "--json").out)["by_family"]["flux"] == {"adapters": 5, "bytes": 10**8}

    def test_an_empty_library(self, tmp_path: Path) -> None:
        assert call(app_in(tmp_path, Library()), "stats").out.startswith(
            "LoRAs                 0 in 0 files, 0 bytes\n"
        )


def _on_a_terminal(monkeypatch: pytest.MonkeyPatch, app: Any, *arguments: str) -> str:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    from loravault import cli

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    assert cli.execute(list(arguments), app) == 0
    return screen.getvalue()


def _without_colours(text: str) -> str:
    import re

    return re.sub("\x1b\\[[0-9;]*m", "", text)


def test_every_order_can_be_asked_for() -> None:
    """The command names them itself, so that its help imports nothing."""
    assert set(search_command._SORTS) == set(get_args(Sort))
