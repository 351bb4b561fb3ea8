"""`init`: what it says before, what is there after, and that it changes nothing a person has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault import firstrun, osdep, resources
from loravault.config import load
from loravault.errors import AlreadyRunning, UserError
from loravault.firstrun import InitPlan, carry_out, name_roots, plan_init
from loravault.settings import OWN, Root
from loravault.vault.note import parse_note

from .cli.helpers import app_in, call
from .cli.test_commands import safetensors


def surroundings(folder: Path) -> dict[str, str]:
    return {"LORAVAULT_CONFIG_DIR": str(folder / "conf"), "LORAVAULT_STATE_DIR": str(folder / "state")}


def fresh(folder: Path) -> dict[str, str]:
    """A vault with one note, a folder with one adapter, and where configuration and state go."""
    (folder / "vault").mkdir()
    (folder / "vault" / "Mine.md").write_bytes(b"mine\r\n")
    (folder / "loras" / "deep").mkdir(parents=True)
    (folder / "loras" / "deep" / "x.safetensors").write_bytes(safetensors({}, {"a": (2, 3)}))
    return surroundings(folder)


def plan(folder: Path, env: dict[str, str]) -> InitPlan:
    return plan_init(folder / "vault", loras=[folder / "loras"], env=env)


def everything(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_planning_writes_nothing(tmp_path: Path) -> None:
    env = fresh(tmp_path)
    before = everything(tmp_path)

    found = plan(tmp_path, env)

    assert everything(tmp_path) == before
    assert (found.adapters, found.again) == (1, False)
    assert [rel for rel, _ in found.notes] == [
        "LoraVault/Templates/New picture.md",
        "LoraVault/Templates/Picture with a LoRA.md",
        "LoraVault/Templates/Previews.md",
        "LoraVault/Templates/Train a LoRA.md",
    ]


def test_what_was_announced_is_what_appears(tmp_path: Path) -> None:
    env = fresh(tmp_path)
    before = everything(tmp_path / "vault")

    found = plan(tmp_path, env)
    carry_out(found, env)

    assert everything(tmp_path / "vault") == before | dict(found.notes)
    assert load(tmp_path / "vault", env).loras == (Root("loras", tmp_path / "loras"),)


def test_a_file_that_several_folders_show_is_one_and_links_that_lead_out_are_told(tmp_path: Path) -> None:
    """Folders inside each other made 15 files of 12, and LoRAs linked from another drive were not mentioned at all."""
    fresh(tmp_path)
    app = app_in(tmp_path, set_up=False)
    safe = (tmp_path / "loras" / "deep" / "x.safetensors").read_bytes()
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "far.safetensors").write_bytes(safe)
    (tmp_path / "loras" / "nas").symlink_to(tmp_path / "nas")
    os.link(tmp_path / "loras" / "deep" / "x.safetensors", tmp_path / "loras" / "y.safetensors")
    roots = ["--loras", str(tmp_path / "loras"), "--loras", str(tmp_path / "loras" / "deep")]

    result = call(app, "init", "--dry-run", *roots, str(tmp_path / "vault"))
    assert "LoRAs: 1 file," in result.out
    assert f"loras/nas -> {tmp_path / 'nas'}" in result.out

    more = ["--loras", str(tmp_path / "nas")]
    result = call(app, "init", "--dry-run", *roots, *more, str(tmp_path / "vault"))
    assert "LoRAs: 2 files," in result.out
    assert "->" not in result.out


def test_again_adds_a_root_and_leaves_an_edited_template_alone(tmp_path: Path) -> None:
    env = fresh(tmp_path)
    carry_out(plan(tmp_path, env), env)
    edited = tmp_path / "vault" / "LoraVault" / "Templates" / "New picture.md"
    edited.write_text("my own\n", "utf-8")
    (tmp_path / "more").mkdir()

    again = plan_init(tmp_path / "vault", loras=[tmp_path / "more"], env=env)
    carry_out(again, env)

    assert again.again
    assert again.notes == ()
    assert edited.read_text("utf-8") == "my own\n"
    assert [root.name for root in load(tmp_path / "vault", env).loras] == ["loras", "more"]


def test_while_a_daemon_runs_it_is_refused(tmp_path: Path) -> None:
    env = fresh(tmp_path)
    found = plan(tmp_path, env)
    lock = osdep.lock_file(found.config.state_dir / "lock")
    assert lock is not None

    try:
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
            carry_out(found, env)
    finally:
        lock.release()

    assert not (tmp_path / "vault" / "LoraVault").exists()


def test_what_cannot_work_is_refused_in_words(tmp_path: Path) -> None:
    env = fresh(tmp_path)
    (tmp_path / "file").touch()
    for arguments, part in (
        ({"vault": tmp_path / "gone", "loras": [tmp_path]}, "There is no folder at"),
        ({"vault": tmp_path / "file", "loras": [tmp_path]}, "is not a folder"),
        ({"vault": tmp_path / "vault", "loras": []}, "--loras"),
        ({"vault": tmp_path / "vault", "loras": [tmp_path / "gone"]}, "plug its drive in"),
        ({"vault": tmp_path / "vault", "loras": [tmp_path], "folder": ".dot"}, "--folder must be a folder inside"),
    ):
        with pytest.raises(UserError, match=part):
            plan_init(env=env, **arguments)  # type: ignore[arg-type]


def test_a_read_only_vault_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = fresh(tmp_path)
    # root may write everywhere: the operating system is asked, and here it says no
    monkeypatch.setattr(firstrun.os, "access", lambda *_: False)

    with pytest.raises(UserError, match="read-only"):
        plan(tmp_path, env)


class TestRootNames:
    def test_two_folders_of_one_name_are_told_apart(self) -> None:
        names = [root.name for root in name_roots((), [Path("/a/Lora"), Path("/b/lora"), Path("/c/Lora")])]

        assert names == ["Lora", "lora 2", "Lora 3"]

    def test_a_known_folder_keeps_its_name(self, tmp_path: Path) -> None:
        before = (Root("mine", tmp_path),)

        assert name_roots(before, [tmp_path / "x" / ".."]) == before

    @given(st.lists(st.text(min_size=1, max_size=30).filter(lambda t: "/" not in t and "\0" not in t), max_size=4))
    @settings(max_examples=50)
    def test_every_name_is_one_the_configuration_takes(self, folders: list[str]) -> None:
        """Emoji, dots, quotes, blanks: whatever a folder is called, `init` finds a name that `load` accepts."""
        roots = name_roots((), [Path("/r") / str(i) / name for i, name in enumerate(folders)])

        assert OWN["loras"]({root.name: str(root.path) for root in roots}) == roots


class TestCommand:
    def test_the_whole_way(self, tmp_path: Path) -> None:
        fresh(tmp_path)
        app = app_in(tmp_path, set_up=False)
        app.cwd = tmp_path

        result = call(app, "init", "vault", "--loras", "loras", "--yes")

        assert result.code == 0
        assert "LoRAs: 1 file" in result.out
        assert "Will appear in LoraVault/: 4 notes" in result.out
        assert (tmp_path / "vault" / "LoraVault" / "Templates" / "New picture.md").is_file()

    def test_dry_run_writes_nothing(self, tmp_path: Path) -> None:
        fresh(tmp_path)
        app = app_in(tmp_path, set_up=False)
        app.cwd = tmp_path
        before = everything(tmp_path)

        result = call(app, "init", "vault", "--loras", "loras", "--dry-run")

        assert result.code == 0
        assert result.out.endswith("Nothing was written (--dry-run).\n")
        assert everything(tmp_path) == before

    def test_the_folders_of_another_program(self, tmp_path: Path) -> None:
        fresh(tmp_path)
        for rel in ("models/checkpoints", "models/loras", "models/embeddings"):
            (tmp_path / "ComfyUI" / rel).mkdir(parents=True)
        app = app_in(tmp_path, set_up=False)
        app.cwd = tmp_path

        result = call(app, "init", "vault", "--ui", "ComfyUI", "--yes")

        assert "Also found, not used yet: embeddings in" in result.out
        found = load(tmp_path / "vault", app.env)
        assert found.loras == (Root("loras", tmp_path / "ComfyUI/models/loras"),)
        assert found.bases == (tmp_path / "ComfyUI/models/checkpoints",)


def test_the_forecast_counts_cards_and_the_pictures_that_become_covers(tmp_path: Path) -> None:
    env = fresh(tmp_path)
    for name in ("x.preview.png", "x.json", "y.png"):  # y has no adapter
        (tmp_path / "loras" / "deep" / name).write_bytes(b"")
    found = plan(tmp_path, env)
    assert (found.library_notes, found.previews) == (3, 1)
    assert found.library_bytes > 40_000
    off = firstrun.replace(found, config=firstrun.replace(found.config, cards=False, galleries=False))
    assert off.library_notes == 0


def test_templates_hold_properties_that_obsidian_shows_and_no_comments_that_it_would_drop() -> None:
    """Obsidian writes properties anew when one is changed in its window; a YAML comment would be gone then."""
    for template in (resources.templates() / "notes").glob("*.md"):
        note = parse_note(template.read_bytes())
        front = note.frontmatter
        assert front is not None
        assert front.problem is None, template.name
        assert b"#" not in note.data[front.yaml_start : front.yaml_end], template.name
        assert front.get("loravault") in ("generate", "preview", "train")
        assert front.get("run") is False
