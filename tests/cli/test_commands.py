"""Each command asks the door what it should, prints what came back, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault.cli.notes import note_in_vault
from loravault.control import JobView, RunView
from loravault.errors import UserError
from loravault.index.tables import AdapterRow

from .helpers import FakeControl, app_in, call

DONE = RunView("1a", "Pictures/A.md", "done", "2 images", ("LoraVault/Images/x-1.webp", "LoraVault/Images/x-2.webp"))
FAILED = RunView("1b", "B.md", "failed", "There is no LoRA 'inc'.")


class TestRun:
    def test_the_note_is_named_from_the_vault_and_the_pictures_are_listed(self, tmp_path: Path) -> None:
        control = FakeControl(runs=[DONE])
        app = app_in(tmp_path, control)
        (tmp_path / "vault" / "Pictures").mkdir()
        (tmp_path / "vault" / "Pictures" / "A.md").touch()

        result = call(app, "run", "Pictures/A")

        assert control.asked == [("run", "Pictures/A.md")]
        assert result.code == 0
        assert result.out.splitlines() == [
            "Pictures/A.md: done (2 images)",
            "  LoraVault/Images/x-1.webp",
            "  LoraVault/Images/x-2.webp",
        ]
        assert result.err == ""  # no bar when it is not a terminal

    def test_a_failure_is_exit_code_1_and_json_is_json(self, tmp_path: Path) -> None:
        app = app_in(tmp_path, FakeControl(runs=[FAILED]))
        (tmp_path / "vault" / "B.md").touch()

        result = call(app, "run", "B.md", "--json")

        assert result.code == 1
        assert json.loads(result.out)[0]["message"] == "There is no LoRA 'inc'."

    def test_no_such_note_asks_nothing(self, tmp_path: Path) -> None:
        control = FakeControl()
        app = app_in(tmp_path, control)
        (tmp_path / "vault" / "Castle.md").touch()

        result = call(app, "run", "Castel")

        assert (result.code, control.asked) == (1, [])
        assert "Close names: Castle." in result.err


class TestNoteInVault:
    def test_from_the_folder_one_stands_in(self, tmp_path: Path) -> None:
        (tmp_path / "v" / "a").mkdir(parents=True)
        (tmp_path / "v" / "a" / "N.md").touch()

        for given in ("N", "N.md", "a/N", "a/N.md", str(tmp_path / "v" / "a" / "N.md"), "../a/N"):
            assert note_in_vault(tmp_path / "v", tmp_path / "v" / "a", given) == "a/N.md"

    def test_a_note_outside_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "v").mkdir()
        (tmp_path / "secret.md").touch()

        with pytest.raises(UserError, match="is not in the vault"):
            note_in_vault(tmp_path / "v", tmp_path, "secret.md")

    def test_a_name_with_dots_finds_its_note(self, tmp_path: Path) -> None:
        (tmp_path / "v1.5 test.md").touch()

        assert note_in_vault(tmp_path, tmp_path, "v1.5 test") == "v1.5 test.md"

    def test_a_name_alone_finds_its_note_as_a_link_would(self, tmp_path: Path) -> None:
        """`There is no note 'A red house'. Close names: A red house.` was the first thing the demo said."""
        for rel in ("x/A red house.md", "x/Twice.md", "y/Twice.md", ".trash/A red house.md"):
            (tmp_path / rel).parent.mkdir(exist_ok=True)
            (tmp_path / rel).touch()

        assert note_in_vault(tmp_path, tmp_path, "A red house") == "x/A red house.md"
        assert note_in_vault(tmp_path, tmp_path, "a red house.md") == "x/A red house.md"
        with pytest.raises(UserError, match=r"write the path of one: x/Twice\.md, y/Twice\.md"):
            note_in_vault(tmp_path, tmp_path, "Twice")
        with pytest.raises(UserError, match="There is no note 'z/A red house'"):
            note_in_vault(tmp_path, tmp_path, "z/A red house")

    def test_a_vault_behind_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "N.md").touch()
        (tmp_path / "link").symlink_to(tmp_path / "real")

        assert note_in_vault(tmp_path / "link", tmp_path / "real", "N") == "N.md"


class TestQueue:
    def test_empty_is_said(self, tmp_path: Path) -> None:
        assert call(app_in(tmp_path, FakeControl()), "queue").out == "Nothing is running and nothing waits.\n"

    def test_columns_line_up_and_control_characters_are_inert(self, tmp_path: Path) -> None:
        jobs = [
            JobView("1", "1a", "A.md", "running", "a cat", "demo", 0.0, 0.42, "step 8 of 20"),
            JobView("23", "1a", "Long name.md", "queued", "a \x1b[31mred dog\n" + "x" * 80, "demo", 0.0),
        ]

        lines = call(app_in(tmp_path, FakeControl(jobs=jobs)), "queue").out.splitlines()

        assert len({line.index(word) for line, word in zip(lines, ("NOTE", "A.md", "Long"), strict=True)}) == 1
        assert "42%" in lines[1]
        assert "step 8 of 20" in lines[1]
        assert "\x1b" not in lines[2]
        assert lines[2].endswith("…")

    def test_json(self, tmp_path: Path) -> None:
        jobs = [JobView("1", "1a", "A.md", "running", "a cat", "demo", 1.5, 0.42)]

        found = json.loads(call(app_in(tmp_path, FakeControl(jobs=jobs, finished=[FAILED])), "queue", "--json").out)

        assert found["jobs"][0]["progress"] == 0.42
        assert found["finished"][0]["id"] == "1b"

    def test_what_finished_last_stands_below(self, tmp_path: Path) -> None:
        lines = call(app_in(tmp_path, FakeControl(finished=[DONE, FAILED])), "queue").out.splitlines()

        assert lines[:4] == ["Nothing is running and nothing waits.", "", "Finished last:", lines[3]]
        assert lines[3].split() == ["RUN", "STATUS", "NOTE", "MESSAGE"]
        assert lines[5].split(maxsplit=3) == ["1b", "failed", "B.md", "There is no LoRA 'inc'."]


def test_cancel_passes_its_target_on(tmp_path: Path) -> None:
    control = FakeControl()

    assert call(app_in(tmp_path, control), "cancel").out == "1 job cancelled.\n"
    call(app_in(tmp_path, control), "cancel", "A.md")
    call(app_in(tmp_path, control), "cancel", "--all")
    (tmp_path / "vault" / "B.md").touch()
    call(app_in(tmp_path, control), "cancel", "b")

    assert control.asked == [
        ("cancel", None, False), ("cancel", "A.md", False), ("cancel", None, True), ("cancel", "B.md", False)
    ]  # fmt: skip


def test_cancel_everything_and_one_is_a_contradiction(tmp_path: Path) -> None:
    control = FakeControl()

    assert call(app_in(tmp_path, control), "cancel", "A.md", "--all").code == 1
    assert control.asked == []


def test_cancel_as_json(tmp_path: Path) -> None:
    found = json.loads(call(app_in(tmp_path, FakeControl()), "cancel", "--json").out)

    assert found == {"message": "1 job cancelled.", "jobs": ["1a-x"]}


class TestInitAsJson:
    def test_it_tells_what_was_written(self, tmp_path: Path) -> None:
        app = app_in(tmp_path, set_up=False)
        arguments = "init", str(tmp_path / "vault"), "--loras", str(tmp_path / "loras"), "--json"

        planned = json.loads(call(app, *arguments, "--dry-run").out)
        assert (planned["written"], (tmp_path / "vault" / planned["notes"][0]).exists()) == (False, False)
        done = json.loads(call(app, *arguments, "--yes").out)

        assert done == {**planned, "written": True}
        assert all((tmp_path / "vault" / rel).is_file() for rel in done["notes"])
        assert done["loras"] == {"loras": str(tmp_path / "loras")}

    def test_a_script_is_not_asked(self, tmp_path: Path) -> None:
        app = app_in(tmp_path, set_up=False)

        result = call(app, "init", str(tmp_path / "vault"), "--loras", str(tmp_path / "loras"), "--json")

        assert (result.code, result.out) == (1, "")
        assert "--yes or --dry-run" in result.err
        assert list((tmp_path / "vault").iterdir()) == []


class TestRetryTarget:
    def test_it_is_a_note_of_the_vault_or_a_run(self, tmp_path: Path) -> None:
        control = FakeControl(runs=[DONE])
        app = app_in(tmp_path, control)
        (tmp_path / "vault" / "B.md").touch()

        for target in ("B", "1a2b3c4d", "1a2b3c4d@atelier"):
            assert call(app, "retry", target).code == 0

        assert control.asked == [("retry", "B.md"), ("retry", "1a2b3c4d"), ("retry", "1a2b3c4d@atelier")]

    @pytest.mark.parametrize("target", ["{}/out.md", "../out.md", "x" * 300, "Nobody"])
    def test_what_is_none_asks_nothing(self, tmp_path: Path, target: str) -> None:
        """A note outside was read, and a name of 300 characters ended the daemon (ENAMETOOLONG)."""
        (tmp_path / "out.md").write_text("---\nloravault: generate\n---\n")
        control = FakeControl()

        result = call(app_in(tmp_path, control), "retry", target.format(tmp_path))

        assert (result.code, control.asked) == (1, [])
        assert result.err.startswith("loravault: ")


def test_retry_tells_each_run_and_fails_if_one_fails(tmp_path: Path) -> None:
    result = call(app_in(tmp_path, FakeControl(runs=[DONE, FAILED])), "retry")

    assert result.code == 1
    assert "B.md: failed (There is no LoRA 'inc'.)" in result.out


def test_retry_without_failures_says_so(tmp_path: Path) -> None:
    result = call(app_in(tmp_path, FakeControl()), "retry")

    assert (result.code, result.out) == (0, "Nothing has failed: there is nothing to try again.\n")


def test_reindex_tells_numbers_and_troubles(tmp_path: Path) -> None:
    result = call(app_in(tmp_path, FakeControl()), "reindex")

    assert result.out == "2 LoRAs (1 broken), 3 images, 4 request notes, 0.2 s\n  loras: gone\n"


class TestConfig:
    def test_every_setting_with_its_origin(self, tmp_path: Path) -> None:
        result = call(app_in(tmp_path), "config")

        assert f'loras = {{loras = "{tmp_path / "loras"}"}}  # config.toml, this vault' in result.out
        assert "grace_s = 3.0  # default" in result.out
        assert "# result_cap is not set" in result.out

    def test_what_it_prints_can_stand_in_the_file(self, tmp_path: Path) -> None:
        app = app_in(tmp_path)
        settings = call(app, "config").out

        file = tmp_path / "conf" / "config.toml"
        file.write_text(f"[[vault]]\npath = '{tmp_path / 'vault'}'\n{settings}", "utf-8")

        after = call(app, "config")
        assert after.code == 0
        assert after.out.replace("  # default", "  # config.toml, this vault") == settings.replace(
            "  # default", "  # config.toml, this vault"
        )

    def test_json(self, tmp_path: Path) -> None:
        found = json.loads(call(app_in(tmp_path), "config", "--json").out)

        assert found["vault"] == str(tmp_path / "vault")
        assert found["settings"]["loras"] == {"loras": str(tmp_path / "loras")}
        assert found["origins"]["loras"] == "config.toml, this vault"


class TestShow:
    ROW = AdapterRow(
        root="loras", rel="styles/ink.safetensors", weight_id="w1-0123456789abcdef", name="ink", size=3_100_000,
        family="demo", network="lora", rank=8, alpha=4.0, trigger_words='["ink outline"]',
    )  # fmt: skip

    def test_by_name_from_the_vault(self, tmp_path: Path) -> None:
        lines = call(app_in(tmp_path, FakeControl(rows=[self.ROW])), "show", "ink").out.splitlines()

        assert lines == [
            "name           ink",
            "file           loras: styles/ink.safetensors (3.1 MB)",
            "id             w1-0123456789abcdef",
            "family         demo",
            "network        lora, rank 8, alpha 4",
            "trigger words  ink outline",
            "made           1 picture",
            "state          ok",
        ]

    def test_what_the_card_and_the_index_know_is_shown_too(self, tmp_path: Path) -> None:
        control = FakeControl(rows=[self.ROW])
        control.told = {
            "places": {"loras/styles/ink.safetensors": "ok", "usb/ink.safetensors": "missing"},
            "weight": 0.8, "rating": 4.0, "favourite": True, "nsfw": 2, "version": "v2", "author": "me\x1b[31m",
            "civitai_model": 7, "civitai_version": 70, "hashes": {"autov2": "0123456789"},
            "card": "LoraVault/LoRAs/ink.md", "cover_problem": "ink.png: it is damaged",
            "source": {"weight": "card"}, "warnings": ("ink.json is not valid.",),
        }  # fmt: skip

        out = call(app_in(tmp_path, control), "show", "ink").out

        assert [
            line for line in out.splitlines() if not line.startswith(("name", "file", "id", "family", "state"))
        ] == [
            "title          v2 by me�[31m",
            "also at        usb/ink.safetensors (missing)",
            "network        lora, rank 8, alpha 4",
            "trigger words  ink outline",
            "weight         0.8 (from: card)",
            "rating         4 of 5",
            "favourite      yes",
            "level          PG-13",
            "civitai        https://civitai.com/models/7?modelVersionId=70",
            "autov2         0123456789",
            "hashes         what other files claim; not measured yet",
            "no picture     ink.png: it is damaged",
            "card           LoraVault/LoRAs/ink.md",
            "made           1 picture",
            "warning        ink.json is not valid.",
        ]
        told = json.loads(call(app_in(tmp_path, control), "show", "ink", "--json").out)
        assert (told["card"], told["places"]["usb/ink.safetensors"]) == ("LoraVault/LoRAs/ink.md", "missing")

    def test_training_and_the_beginning_of_the_description_are_shown(self, tmp_path: Path) -> None:
        """Both were on the card and in `--json`, but not in what people read."""
        control = FakeControl(rows=[self.ROW])
        control.told = {
            "training": {"trainer": "sd-scripts", "module": "networks.lora", "steps": 1200, "epochs": 10},
            "description": f"Thin  lines.\n\n{'long ' * 100}\nthree\nfour\n",
        }
        lines = call(app_in(tmp_path, control), "show", "ink").out.splitlines()
        assert lines[6:11] == [
            "training       with sd-scripts · networks.lora",
            "training       length 1,200 steps · 10 epochs",
            "description    Thin lines.",
            f"description    {'long ' * 31}long…",
            "description    three …",
        ]

    def test_an_unknown_name_is_told_with_close_ones(self, tmp_path: Path) -> None:
        result = call(app_in(tmp_path, FakeControl(rows=[self.ROW])), "show", "inc")

        assert result.code == 1
        assert "The closest names are ink." in result.err

    def test_a_bare_file_needs_no_vault(self, tmp_path: Path) -> None:
        """Nothing is configured here, and no vault is above."""
        file = tmp_path / "x.safetensors"
        file.write_bytes(
            safetensors({"m": "v"}, {"lora_unet_x.lora_down.weight": (4, 8), "lora_unet_x.lora_up.weight": (8, 4)})
        )
        app = app_in(tmp_path, set_up=False)

        found = json.loads(call(app, "show", "--json", str(file)).out)

        assert (found["state"], found["rank"], found["tensors"], found["metadata"]) == ("ok", 4, 2, {"m": "v"})
        assert found["weight_id"].startswith("w1-")

    def test_a_broken_file_says_why_and_is_exit_code_1(self, tmp_path: Path) -> None:
        file = tmp_path / "x.safetensors"
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        app = app_in(tmp_path, set_up=False)

        result = call(app, "show", str(file))

        assert result.code == 1
        assert "broken: " in result.out


def safetensors(metadata: dict[str, str], shapes: dict[str, tuple[int, int]]) -> bytes:
    """A file with these F32 tensors, all zero."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, (rows, columns) in shapes.items():
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [end, end + 4 * rows * columns]}
        end += 4 * rows * columns
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)
