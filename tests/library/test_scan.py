"""A scan sees every adapter once, follows links only inside the roots, and says when it could not see everything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loravault.library.scan import scan, scan_root
from tests.formats import headers


def put(root: Path, *names: str) -> None:
    for name in names:
        headers.write(root / name, b"x")


def rels(root: Path, *roots: Path) -> list[str]:
    return [found.rel for found in scan_root("main", root, roots)]


def test_folders_are_walked_in_order_and_other_files_are_not_reported(tmp_path: Path) -> None:
    put(tmp_path, "b.safetensors", "Styles/a.safetensors", "Styles/deep/C.SAFETENSORS", "Styles/a.png", "a.txt")
    found = list(scan_root("main", tmp_path))
    assert [item.rel for item in found] == ["Styles/a.safetensors", "Styles/deep/C.SAFETENSORS", "b.safetensors"]
    status = (tmp_path / "b.safetensors").stat()
    last = found[-1]
    assert (last.root, last.size, last.mtime_ns, last.ino) == ("main", 1, status.st_mtime_ns, status.st_ino)


def test_hidden_files_and_downloads_that_are_going_on_are_left_alone(tmp_path: Path) -> None:
    put(
        tmp_path,
        ".hidden.safetensors",
        ".git/a.safetensors",
        "._a.safetensors",
        "x.safetensors.part",
        "y.safetensors.tmp",
    )
    put(tmp_path, "z.safetensors", "z.safetensors.aria2", "w.safetensors", "W.safetensors.crdownload", "ok.safetensors")
    assert rels(tmp_path) == ["ok.safetensors"]


def test_pickles_are_listed_apart_and_never_found(tmp_path: Path) -> None:
    put(tmp_path, "a.pt", "b.CKPT", "c/d.bin", "e.safetensors")
    result = scan("main", tmp_path)
    assert result.pickles == ["a.pt", "b.CKPT", "c/d.bin"]
    assert [item.rel for item in result.found] == ["e.safetensors"]
    assert result.complete


def test_links_inside_the_roots_are_followed_and_others_are_not(tmp_path: Path) -> None:
    main, other, outside = tmp_path / "main", tmp_path / "other", tmp_path / "outside"
    put(main, "a.safetensors")
    put(other, "b.safetensors")
    put(outside, "secret.safetensors")
    (main / "linked").symlink_to(other)
    (main / "one.safetensors").symlink_to(other / "b.safetensors")
    (main / "away").symlink_to(outside)
    (main / "away.safetensors").symlink_to(outside / "secret.safetensors")
    (main / "dangling.safetensors").symlink_to(tmp_path / "nowhere.safetensors")
    assert rels(main) == ["a.safetensors"]
    assert rels(main, other) == ["a.safetensors", "linked/b.safetensors"]  # one.safetensors is the same file


def test_a_root_that_is_a_link_itself_is_scanned(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.safetensors")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert rels(tmp_path / "root") == ["a.safetensors"]


def test_a_sibling_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    """`loras-private` begins like `loras`: a comparison of texts without the separator let it in."""
    put(tmp_path / "loras", "a.safetensors")
    put(tmp_path / "loras-private", "b.safetensors")
    (tmp_path / "loras" / "p").symlink_to(tmp_path / "loras-private")
    assert rels(tmp_path / "loras") == ["a.safetensors"]


def test_loops_end(tmp_path: Path) -> None:
    put(tmp_path, "a/b/c.safetensors")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    assert rels(tmp_path) == ["a/b/c.safetensors"]


def test_hard_links_and_links_to_a_file_are_one_file_under_its_real_path(tmp_path: Path) -> None:
    put(tmp_path, "z.safetensors")
    (tmp_path / "a.safetensors").symlink_to(tmp_path / "z.safetensors")
    os.link(tmp_path / "z.safetensors", tmp_path / "y.safetensors")
    assert rels(tmp_path) == ["y.safetensors"]


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "a.safetensors")
    assert rels(tmp_path) == []


def test_a_name_that_is_not_text_is_passed_over(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"bad\xff.safetensors")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system knows only text")
    put(tmp_path, "é.safetensors")
    assert rels(tmp_path) == ["é.safetensors"]


def test_a_root_that_is_gone_is_not_an_empty_root(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        list(scan_root("main", tmp_path / "gone"))


def test_an_unreadable_folder_makes_the_scan_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else everything in it would count as deleted."""
    put(tmp_path, "a.safetensors", "locked/b.safetensors")
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = scan("main", tmp_path)
    assert not result.complete
    assert result.problems == ['The folder "locked" cannot be read: Permission denied.']
    with pytest.raises(OSError, match="locked"):
        list(scan_root("main", tmp_path))
