"""A scan sees every adapter once, follows links only inside the roots, and says when it could not see everything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loravault.library import scan as scan_room
from loravault.library.scan import scan, scan_named
from tests.formats import headers


def put(root: Path, *names: str) -> None:
    for name in names:
        headers.write(root / name, b"x")


def rels(root: Path, *roots: Path) -> list[str]:
    return [found.rel for found in scan("main", root, roots).found]


def test_folders_are_walked_in_order_and_other_files_are_not_reported(tmp_path: Path) -> None:
    put(tmp_path, "b.safetensors", "Styles/a.safetensors", "Styles/deep/C.SAFETENSORS", "Styles/a.png", "a.txt")
    found = scan("main", tmp_path).found
    assert [item.rel for item in found] == ["Styles/a.safetensors", "Styles/deep/C.SAFETENSORS", "b.safetensors"]
    status = (tmp_path / "b.safetensors").stat()
    last = found[-1]
    assert (last.root, last.size, last.mtime_ns, last.ino) == ("main", 1, status.st_mtime_ns, status.st_ino)


def test_hidden_files_are_left_alone_and_downloads_that_are_going_on_are_told(tmp_path: Path) -> None:
    put(
        tmp_path,
        ".hidden.safetensors",
        ".git/a.safetensors",
        "._a.safetensors",
        "x.safetensors.part",
        "y.safetensors.tmp",
    )
    put(tmp_path, "z.safetensors", "z.safetensors.aria2", "w.safetensors", "W.safetensors.crdownload", "ok.safetensors")
    assert {item.rel: item.unfinished for item in scan("main", tmp_path).found} == {
        "ok.safetensors": None,
        "w.safetensors": "W.safetensors.crdownload",
        "z.safetensors": "z.safetensors.aria2",
    }


def test_a_change_of_what_stands_beside_is_seen_and_of_what_stands_elsewhere_is_not(tmp_path: Path) -> None:
    put(tmp_path, "ink.safetensors", "ink 2.safetensors", "inka.safetensors")

    def seen() -> dict[str, str]:
        return {item.rel: item.beside for item in scan("main", tmp_path).found}

    assert seen() == {"ink.safetensors": "", "ink 2.safetensors": "", "inka.safetensors": ""}
    put(tmp_path, "INK.preview.png", "sub/ink.json")
    first = seen()
    assert first["ink.safetensors"]
    assert not first["ink 2.safetensors"]
    assert not first["inka.safetensors"]
    (tmp_path / "INK.preview.png").write_bytes(b"longer than before")
    assert seen()["ink.safetensors"] not in ("", first["ink.safetensors"])


def test_pickles_are_listed_apart_and_never_found(tmp_path: Path) -> None:
    put(tmp_path, "a.pt", "b.CKPT", "c/d.bin", "e.safetensors")
    result = scan("main", tmp_path)
    assert result.pickles == ["a.pt", "b.CKPT", "c/d.bin"]
    assert [item.rel for item in result.found] == ["e.safetensors"]
    assert result.problems == []


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


def test_links_that_lead_out_of_the_roots_are_told_if_adapters_may_lie_there(tmp_path: Path) -> None:
    """A folder that was linked from another drive was passed over without a word: its LoRAs just were not there."""
    main, outside = tmp_path / "main", tmp_path / "outside"
    put(main, "a.safetensors")
    put(outside, "b.safetensors", "note.txt")
    (main / "nas").symlink_to(outside)
    (main / "one.safetensors").symlink_to(outside / "b.safetensors")
    (main / "note.txt").symlink_to(outside / "note.txt")
    (main / "gone").symlink_to(tmp_path / "nowhere")
    found = scan("main", main)
    assert found.elsewhere == [("nas", str(outside)), ("one.safetensors", str(outside / "b.safetensors"))]
    assert found.problems == []
    assert scan("main", main, [outside]).elsewhere == []


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
        scan("main", tmp_path / "gone")


def refusing(monkeypatch: pytest.MonkeyPatch, call: str, ending: str) -> None:
    """From now on `os.<call>` refuses paths with this ending, as for a user who may not look (root may)."""
    real = getattr(os, call)

    def refuse(path: str | Path, *more: object, **options: object) -> object:
        if str(path).endswith(ending):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **options)

    monkeypatch.setattr(os, call, refuse)


def test_an_unreadable_folder_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in it must not count as deleted, and what is beside it must be seen."""
    put(tmp_path, "a.safetensors", "locked/b.safetensors")
    refusing(monkeypatch, "scandir", "locked")
    result = scan("main", tmp_path)
    assert result.problems == ['The folder "locked" cannot be read: Permission denied.']
    assert [item.rel for item in result.found] == ["a.safetensors"]
    assert result.hides("locked/b.safetensors")
    assert not result.hides("a.safetensors")
    assert not result.hides("locked2/b.safetensors")


def test_an_unreadable_file_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.safetensors", "b.safetensors")
    real = scan_room.look_at

    def refuse(item: os.DirEntry[str] | str) -> os.stat_result:
        if os.fspath(item).endswith("b.safetensors"):
            raise PermissionError(13, "Permission denied")
        return real(item)

    monkeypatch.setattr(scan_room, "look_at", refuse)
    result = scan("main", tmp_path)
    assert result.problems == ['The file "b.safetensors" cannot be looked at: Permission denied.']
    assert [item.rel for item in result.found] == ["a.safetensors"]
    assert result.hides("b.safetensors")


def test_a_link_into_a_root_that_is_offline_hides_what_it_showed(tmp_path: Path) -> None:
    """The drive of the other root is unplugged: what was seen through the link is not gone."""
    main, other = tmp_path / "main", tmp_path / "other"
    put(main, "a.safetensors")
    (main / "linked").symlink_to(other / "sub")
    assert scan("main", main, [other]).hides("linked/b.safetensors")
    other.mkdir()
    assert not scan("main", main, [other]).hides("linked/b.safetensors"), "now the link leads nowhere, and that is sure"


def test_a_bin_and_what_systems_keep_on_a_drive_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "lost+found/a.safetensors", "$RECYCLE.BIN/S-1/b.safetensors", "System Volume Information/c", "d.pt")
    result = scan("main", tmp_path)
    assert (result.found, result.pickles, result.problems) == ([], ["d.pt"], [])


def test_numbers_of_a_network_file_system_fit_into_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE and SMB give inodes of 64 unsigned bits; SQLite holds 63. Two such files stay two."""
    put(tmp_path, "a.safetensors", "b.safetensors")
    real = scan_room.look_at

    def strange(item: os.DirEntry[str] | str) -> os.stat_result:
        status = real(item)
        inode = 2**64 - 1 - ord(Path(item).name[0])
        return os.stat_result((status.st_mode, inode, 2**63, *status[3:]), {"st_mtime_ns": 2**64})  # type: ignore[arg-type]

    monkeypatch.setattr(scan_room, "look_at", strange)
    found = scan("main", tmp_path).found
    assert [item.ino for item in found] == [-1 - ord("a"), -1 - ord("b")]
    assert [(item.dev, item.mtime_ns) for item in found] == [(-(2**63), 2**63 - 1)] * 2


def test_what_is_named_is_found_as_a_whole_scan_finds_it(tmp_path: Path) -> None:
    """The quick look after an event; a sidecar names its adapter."""
    put(
        tmp_path,
        "top.safetensors",
        "a/ink.safetensors",
        "a/ink.v2.safetensors",
        "a/other.safetensors",
        "b/c.safetensors",
    )
    (tmp_path / "a" / "ink.preview.png").write_bytes(b"a picture")
    whole = {item.rel: item for item in scan("main", tmp_path).found}
    named = scan_named(
        "main", tmp_path, ["a/ink.preview.png", "top.safetensors", "a/gone.safetensors", "nowhere/x.json"]
    )
    assert named == [whole["top.safetensors"], whole["a/ink.safetensors"], whole["a/ink.v2.safetensors"]]


def test_what_is_named_through_a_link_or_out_of_the_root_is_left_to_a_whole_scan(tmp_path: Path) -> None:
    main, outside = tmp_path / "main", tmp_path / "outside"
    put(outside, "secret.safetensors")
    put(main, "a.safetensors", "real/b.safetensors")
    (main / "linked").symlink_to(main / "real")
    (main / "one.safetensors").symlink_to(outside / "secret.safetensors")
    put(main, ".stversions/old.safetensors", "a/.git/x.safetensors", "lost+found/y.safetensors")  # no scan enters these
    names = ["linked/b.safetensors", "one.safetensors", "../outside/secret.safetensors", ".hidden.safetensors"]
    names += [".stversions/old.safetensors", "a/.git/x.safetensors", "lost+found/y.safetensors"]
    assert scan_named("main", main, names) == []
    (tmp_path / "root").symlink_to(main)
    assert [item.rel for item in scan_named("main", tmp_path / "root", ["real/b.safetensors"])] == [
        "real/b.safetensors"
    ]
