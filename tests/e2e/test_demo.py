"""`loravault demo` as a stranger runs it: real daemon, real worker, real pictures; and what it must not touch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from loravault import demo, resources
from loravault.vault.answers import strip_ours
from loravault.vault.note import parse_note
from tests.imagemeta import read_meta

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[demo.DemoFolder, str, Path]:
    """One run for all tests here: its folder, what it printed, and the home it should not have touched."""
    place = tmp_path_factory.mktemp("demo")
    home = place / "home"
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "LORAVAULT_"))}
    done = subprocess.run(
        [sys.executable, "-m", "loravault", "demo", "d"],
        cwd=place,
        env={**env, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    folder = demo.DemoFolder(place / "d")
    log = folder.log.read_text("utf-8") if folder.log.is_file() else ""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    return folder, done.stdout, home


def notes(folder: demo.DemoFolder) -> list[str]:
    return list(demo.requests_in(folder.vault))


def test_every_request_is_done_and_every_picture_it_names_is_there(demo_run: tuple[demo.DemoFolder, str, Path]) -> None:
    folder, out, _ = demo_run
    for rel in notes(folder):
        note = parse_note((folder.vault / rel).read_bytes())
        assert note.frontmatter is not None
        properties = note.frontmatter.properties
        assert (properties["run"], properties["lv_status"]) == (False, "done")
        cover = folder.vault / str(properties["lv_cover"]).strip("[]")
        with Image.open(cover) as picture:
            picture.load()
            assert picture.size == (128, 128)
        assert str(folder.vault / rel) in out


def test_the_pictures_carry_how_they_were_made(demo_run: tuple[demo.DemoFolder, str, Path]) -> None:
    folder, *_ = demo_run
    pictures = demo.pictures_in(demo.config_of(folder))
    metas = [read_meta(picture) for picture in pictures]

    assert len(pictures) == 14, "six, two samples of the training, six with what it made"
    assert all(meta is not None and meta.infotext and meta.chunk for meta in metas)
    assert sum("<lora:ink_outline" in (meta.infotext or "") for meta in metas if meta is not None) >= 1


def test_no_other_note_has_changed_by_a_byte(demo_run: tuple[demo.DemoFolder, str, Path]) -> None:
    folder, *_ = demo_run
    asked = set(notes(folder))
    for source in resources.example_vault().rglob("*"):
        rel = source.relative_to(resources.example_vault()).as_posix()
        if source.is_file() and rel not in asked:
            assert (folder.vault / rel).read_bytes() == source.read_bytes(), rel


def test_in_the_requests_only_our_keys_and_results_are_new(demo_run: tuple[demo.DemoFolder, str, Path]) -> None:
    folder, *_ = demo_run
    for rel in notes(folder):
        before = (resources.example_vault() / rel).read_bytes()
        assert strip_ours((folder.vault / rel).read_bytes()) == strip_ours(before), rel


def test_nothing_is_left_running_and_nothing_half_written(demo_run: tuple[demo.DemoFolder, str, Path]) -> None:
    folder, *_ = demo_run
    ours = [p for p in psutil.process_iter(["cmdline"]) if str(folder.vault) in " ".join(p.info["cmdline"] or [])]

    assert ours == []
    assert [path for path in folder.vault.rglob(".*") if path.name != ".obsidian"] == []


def test_the_users_own_folders_are_not_touched(demo_run: tuple[demo.DemoFolder, str, Path]) -> None:
    _, _, home = demo_run
    ours = [path for path in home.rglob("*") if "loravault" in path.name.lower()]
    assert ours == []
