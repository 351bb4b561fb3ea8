"""Templates, hidden folders, conflict copies and foreign formats are never taken for requests."""

from __future__ import annotations

import json
import os

import pytest

from loravault.vault.ignore import IgnoreRules, conflict_original, content_reason
from loravault.vault.note import parse_note


def vault(root, core="Meta/Templates/", templater="T", config=".obsidian"):
    plugin = root / config / "plugins" / "templater-obsidian"
    plugin.mkdir(parents=True)
    (root / config / "app.json").write_text("{}")
    (root / config / "templates.json").write_text(json.dumps({"folder": core}))
    (plugin / "data.json").write_text(json.dumps({"templates_folder": templater}))
    return root


@pytest.mark.parametrize("config", [".obsidian", ".obsidian-work"])
def test_template_folders_are_read_from_the_vaults_own_settings(tmp_path, config):
    rules = IgnoreRules.read(vault(tmp_path, config=config))
    assert "templates of Obsidian" in rules.reason("Meta/Templates/a.md")
    assert "templates of Templater" in rules.reason("T/deep/a.md")
    assert "our own templates" in rules.reason("LoraVault/Templates/New picture.md")
    assert rules.reason("Meta/Templates.md") is None
    assert rules.reason("Templates2/a.md") is None
    assert rules.reason("LoraVault/a.md") is None
    assert rules.skip_folder("T")
    assert rules.skip_folder(".git/x")
    assert not rules.skip_folder("")
    assert not rules.skip_folder("Meta")


@pytest.mark.parametrize(
    "content", ["", "not json", "[]", '{"folder": 7}', '{"folder": "/"}', '{"folder": ""}', "[" * 100_000]
)
def test_broken_settings_say_nothing(tmp_path, content):
    (tmp_path / ".obsidian").mkdir()
    (tmp_path / ".obsidian" / "templates.json").write_text(content)
    assert IgnoreRules.read(tmp_path).reason("a.md") is None
    assert IgnoreRules.read(tmp_path / "nowhere").reason("a.md") is None


@pytest.mark.parametrize(
    ("rel", "word"),
    [
        (".obsidian/a.md", "hidden folder"),
        (".trash/a.md", "trash"),
        ("x/.stversions/a.md", "hidden folder"),
        (".lv-1.md", "hidden file"),
        ("._a.md", "hidden"),
        ("~$a.md", "hidden"),
        ("a.md~", "hidden"),
        ("a.tmp", "hidden"),
        ("4913", "hidden"),
        ("~syncthing~a.md.tmp", "hidden"),
        ("a.txt", "not a Markdown"),
        ("a.md.icloud", "hidden"),
        ("conflict-files-obsidian-git.md", "conflicts"),
    ],
)
def test_places_and_names_that_hold_no_request(rel, word):
    assert word in IgnoreRules().reason(rel)


@pytest.mark.parametrize(
    "name",
    [
        "Cat.sync-conflict-20261120-181503-ABCDEF7",
        "Cat (Conflicted copy phone 202611201815)",
        "Cat (Conflicted copy)",
        "Cat (Ada's conflicted copy 2026-11-20)",
        "Cat (conflicted copy 2026-11-20 181503)",
        "Cat (loravault conflict 20261120-181503)",
        "Cat (loravault conflict 20261120-181503-2)",
        "Cat (In Konflikt stehende Kopie von Ada 2026-11-20)",
        "Cat_conflict-copy",
        "Cat.conflicted",
        "Cat (SFConflict ada@x.org 2026-11-20-18-15-03)",
        "Cat_20261120_181503_Conflict",
        "Cat-conflict-20261120-181503",
    ],
)
def test_conflict_copies_are_known_by_their_names(name):
    assert conflict_original(f"dir/{name}.md") == "dir/Cat.md"


@pytest.mark.parametrize("name", ["Cat 2", "Cat (1)", "Cat_2", "Cat-LAPTOP7QF", "Cat-LAPTOP-2"])
def test_everyday_names_are_conflict_copies_only_of_a_sibling_with_the_same_job(name):
    note = parse_note(b"---\nlv_job: 3fa81c20@desk\n---\n")
    jobs = {"dir/Cat.md": "3fa81c20@desk"}
    assert conflict_original(f"dir/{name}.md", jobs.get, note) == "dir/Cat.md"
    assert conflict_original(f"dir/{name}.md", {"dir/Cat.md": "other"}.get, note) is None
    assert conflict_original(f"dir/{name}.md", {}.get, note) is None
    assert conflict_original(f"dir/{name}.md", jobs.get, parse_note(b"---\nrun: true\n---\n")) is None
    assert conflict_original(f"dir/{name}.md") is None


@pytest.mark.parametrize("name", ["Cat", "A conflict in Rome", "2026-11-20", "Conflicted copy", "X-ray"])
def test_ordinary_names_are_no_conflict_copies(name):
    assert conflict_original(f"{name}.md", lambda rel: None, parse_note(b"---\nlv_job: x\n---\n")) is None


@pytest.mark.parametrize(
    ("front", "word"),
    [
        ("excalidraw-plugin: parsed", "Excalidraw"),
        ("kanban-plugin: board", "Kanban"),
        ("loravault: generate\nrun: '{{run}}'", "`run`"),
        ("loravault: '<% tp.x %>'", "`loravault`"),
        ("lv_job: '{{x}}'", "`lv_job`"),
    ],
)
def test_foreign_formats_and_unfilled_templates_are_left_alone(front, word):
    note = parse_note(f"---\n{front}\n---\n".encode())
    assert word in content_reason(note)
    assert IgnoreRules.content_reason(note) == content_reason(note)


def test_placeholders_in_the_users_own_keys_are_their_business():
    assert content_reason(parse_note(b"---\nloravault: generate\ntitle: '{{title}}'\n---\n{{date}}\n")) is None
    assert content_reason(parse_note(b"text")) is None


def test_a_hidden_folder_that_may_not_be_looked_into_says_nothing(tmp_path, monkeypatch):
    """`.Trashes` at the top of a volume belongs to root; Path.is_file raised PermissionError and nothing started."""
    (tmp_path / ".Trashes").mkdir()
    root = vault(tmp_path)
    real = os.stat

    def stat(path, **options):
        if ".Trashes/" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert "templates of Obsidian" in IgnoreRules.read(root).reason("Meta/Templates/a.md")
