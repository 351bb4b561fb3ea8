"""Pictures and captions in the layouts of the usual trainers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from loravault.dataset.folder import Found, Row, from_rows, read_folder
from loravault.dataset.sidecars import Table, one_line, read_table


def lay(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def captions(found: Found) -> dict[str, str | None]:
    return {picture.name: picture.caption for picture in found.pictures}


def reasons(found: Found) -> dict[str, str]:
    return {one.name: one.reason for one in found.skipped}


def test_a_plain_folder_in_its_natural_order(tmp_path: Path) -> None:
    lay(
        tmp_path, {"b10.jpg": "", "b9.PNG": "", "a.webp": "", "sub/c.avif": "", "notes.md": "", "model.safetensors": ""}
    )
    found = read_folder(tmp_path, name="cats")
    assert list(captions(found)) == ["cats/a.webp", "cats/b9.PNG", "cats/b10.jpg", "cats/sub/c.avif"]
    assert found.pictures[0].path == str(tmp_path / "a.webp")
    assert found.skipped == ()
    assert found.uncaptioned == tuple(captions(found))


def test_captions_in_text_files(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "a.jpg": "", "a.txt": "a cat\non a sofa", "a.caption": "not this",
            "b.jpg": "", "b.caption": "\ufeffa dog",
            "c.jpg": "", "c.jpg.txt": "named whole",
            "d.v2.png": "", "d.v2.txt": "dots",
            "e.png": "", "e.txt": "",
            "f.png": "", "f.txt": "кот".encode("utf-16"),
            "g.png": "", "g.txt": "café".encode("cp1252"),
            "h.png": "",
        },
    )  # fmt: skip
    assert captions(read_folder(tmp_path)) == {
        "a.jpg": "a cat, on a sofa", "b.jpg": "a dog", "c.jpg": "named whole", "d.v2.png": "dots", "e.png": "",
        "f.png": "кот", "g.png": "café", "h.png": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1girl\nsolo\r\nhat\n", "1girl, solo, hat"),
        ("A cat sits.\n\n It looks up.", "A cat sits. It looks up."),
        ("a,\nb", "a, b"),
        ("tab\there \x00\x1b[31m", "tab here [31m"),
        ("", ""),
    ],
)
def test_several_lines_become_one(text: str, expected: str) -> None:
    assert one_line(text) == expected


def test_kohyas_folders(tmp_path: Path) -> None:
    """Repeats and words from the folder's name; the words only where there is no caption; dates are no repeats."""
    lay(
        tmp_path,
        {
            "10_sks cat/a.jpg": "", "10_sks cat/b.jpg": "", "10_sks cat/b.txt": "sofa",
            "3_/c.jpg": "", "2024_summer/d.jpg": "", "0_off/e.jpg": "",
            "reg/2_cat/r.jpg": "", "Regularisation/s.jpg": "",
        },
    )  # fmt: skip
    found = read_folder(tmp_path)
    assert [(one.name, one.repeats, one.caption, one.regularisation) for one in found.pictures] == [
        ("3_/c.jpg", 3, None, False),
        ("10_sks cat/a.jpg", 10, "sks cat", False),
        ("10_sks cat/b.jpg", 10, "sofa", False),
        ("2024_summer/d.jpg", 1, None, False),
        ("reg/2_cat/r.jpg", 2, "cat", True),
        ("Regularisation/s.jpg", 1, None, True),
    ]
    assert reasons(found) == {"0_off/e.jpg": "its folder says 0 times"}
    assert found.uncaptioned == ("3_/c.jpg", "2024_summer/d.jpg")


def test_a_numbered_folder_itself(tmp_path: Path) -> None:
    folder = lay(tmp_path / "4_zkx", {"a.jpg": ""})
    assert [(one.repeats, one.caption) for one in read_folder(folder).pictures] == [(4, "zkx")]


def test_the_table_of_diffusers(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.jpg", "text": "one"},
        {"file_name": "./sub/a.jpg", "caption": "two"},
        {"file_name": "sub\\b.jpg", "prompt": "three"},
        {"file_name": "c.jpg", "text": "from the table"},
        {"file_name": "d.jpg"},
        {"file_name": 7, "text": "x"},
        ["no object"],
    ]
    lines = "\n".join(map(json.dumps, rows)) + "\n\n"
    lay(tmp_path, {"metadata.jsonl": lines, "c.txt": "from the file"})
    lay(tmp_path, dict.fromkeys(("a.jpg", "sub/a.jpg", "sub/b.jpg", "c.jpg", "d.jpg"), ""))
    assert captions(read_folder(tmp_path)) == {
        "a.jpg": "one", "c.jpg": "from the file", "d.jpg": None, "sub/a.jpg": "two", "sub/b.jpg": "three",
    }  # fmt: skip


def test_the_table_of_kohya(tmp_path: Path) -> None:
    """Names without ending or absolute paths; a caption is followed by the tags."""
    table = {
        "a": {"caption": "a cat", "tags": "sofa, lamp"},
        str(tmp_path / "b.jpg"): {"tags": ["x", "y"]},
        "c.jpg": {"caption": "whole name"},
        "d": {"train_resolution": [512, 512]},
        "e": "bare text",
    }
    lay(
        tmp_path,
        {"metadata.json": json.dumps(table), **dict.fromkeys(("a.png", "b.jpg", "c.jpg", "d.jpg", "e.jpg"), "")},
    )
    assert captions(read_folder(tmp_path)) == {
        "a.png": "a cat, sofa, lamp", "b.jpg": "x, y", "c.jpg": "whole name", "d.jpg": None, "e.jpg": "bare text",
    }  # fmt: skip


def test_the_nearest_table_counts(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "metadata.json": json.dumps({"sub/a": "far", "b": "far"}), "sub/a.jpg": "", "sub/b.jpg": "",
            "sub/metadata.jsonl": '{"file_name": "a.jpg", "text": "near"}',
        },
    )  # fmt: skip
    assert captions(read_folder(tmp_path)) == {"sub/a.jpg": "near", "sub/b.jpg": None}


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"a": NaN', "\xff\xfe"])
def test_a_table_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    lay(tmp_path, {"metadata.json": content, "a.jpg": ""})
    found = read_folder(tmp_path)
    assert captions(found) == {"a.jpg": None}
    assert reasons(found)["metadata.json"].startswith("its captions are not used: it is no JSON")


@pytest.mark.parametrize("content", ["7", "null", '[1, "a", {"file_name": "a.jpg"}]', '{"a": [1]}'])
def test_a_table_of_something_else_has_no_captions(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(content)
    assert isinstance(read_table(path), Table)
    lay(tmp_path, {"a.jpg": ""})
    assert captions(read_folder(tmp_path)) == {"a.jpg": None}


def test_a_caption_that_is_a_book_is_told(tmp_path: Path) -> None:
    lay(tmp_path, {"a.jpg": "", "a.txt": "x" * 70_000})
    found = read_folder(tmp_path)
    assert captions(found) == {"a.jpg": None}
    assert reasons(found) == {"a.jpg": "its caption is not used: it is longer than 64 KiB"}


def test_masks_of_both_kinds(tmp_path: Path) -> None:
    names = ("a.jpg", "a-masklabel.png", "b.jpg", "mask/b.jpg", "s/c.jpg", "s/masks/c.png", "s/d.jpg", "mask/s/d.png")
    lay(tmp_path, dict.fromkeys((*names, "e.jpg", "e-condlabel.png"), ""))
    found = read_folder(tmp_path)
    inner = {one.name: one.mask and str(Path(one.mask).relative_to(tmp_path)) for one in found.pictures}
    assert inner == {
        "a.jpg": "a-masklabel.png", "b.jpg": "mask/b.jpg", "e.jpg": None, "s/c.jpg": "s/masks/c.png",
        "s/d.jpg": "mask/s/d.png",
    }  # fmt: skip
    assert list(reasons(found)) == ["e-condlabel.png"]


def test_a_folder_of_masks_that_belong_to_nothing_is_told(tmp_path: Path) -> None:
    """Somebody may collect Venetian masks."""
    lay(tmp_path, {"masks/harlequin.jpg": "", "a.jpg": ""})
    found = read_folder(tmp_path)
    assert list(captions(found)) == ["a.jpg"]
    assert reasons(found) == {"masks/": "its pictures are taken for masks, and no picture has one there"}


def test_transparency_as_a_mask(tmp_path: Path) -> None:
    lay(tmp_path, {"a.png": "", "b.png": "", "b-masklabel.png": ""})
    assert [one.mask for one in read_folder(tmp_path, alpha_masks=True).pictures] == [
        str(tmp_path / "a.png"), str(tmp_path / "b-masklabel.png")
    ]  # fmt: skip


def test_what_is_not_learned_from_is_told_with_the_reason(tmp_path: Path) -> None:
    lay(tmp_path, dict.fromkeys((".hidden.jpg", "._a.jpg", "film.mp4", "scan.tiff", "a.jpg"), ""))
    lay(tmp_path, dict.fromkeys((".git/x.jpg", "@eaDir/x.jpg", "Thumbs/x.jpg", ".DS_Store", "Thumbs.db"), ""))
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "pipe.jpg").mkdir()
    found = read_folder(tmp_path)
    assert list(captions(found)) == ["a.jpg"]
    assert reasons(found) == {
        ".git/": "it is hidden", ".hidden.jpg": "it is hidden", "._a.jpg": "it is hidden",
        "@eaDir/": "it holds thumbnails", "Thumbs/": "it holds thumbnails",
        "film.mp4": "it is a film, and only still pictures are learned from",
        "scan.tiff": "it is no picture that is read (save it as PNG or JPEG)", "gone.jpg": "it is not there",
    }  # fmt: skip


def test_links_that_turn_in_a_circle_end(tmp_path: Path) -> None:
    lay(tmp_path, {"a.jpg": "", "sub/b.jpg": ""})
    (tmp_path / "sub" / "again").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    found = read_folder(tmp_path)
    assert list(captions(found)) == ["a.jpg", "sub/b.jpg"]
    assert reasons(found)["sub/again/"] == "it is a link to a folder above it"
    assert "loop.jpg" in reasons(found)


def test_links_out_of_the_roots_are_not_followed(tmp_path: Path) -> None:
    """Neither to pictures nor to what would become a caption, and so part of the adapter's file."""
    outside = lay(tmp_path / "home", {"x.jpg": "", "diary.txt": "secret", "metadata.jsonl": "{}", "m.png": ""})
    inside = lay(tmp_path / "vault" / "cats", {"a.jpg": "", "b.jpg": ""})
    for link, target in (
        ("x.jpg", "x.jpg"),
        ("a.txt", "diary.txt"),
        ("metadata.jsonl",) * 2,
        ("b-masklabel.png", "m.png"),
    ):
        (inside / link).symlink_to(outside / target)
    (inside / "all").symlink_to(outside)
    found = read_folder(inside, roots=[tmp_path / "vault"])
    assert captions(found) == {"a.jpg": None, "b.jpg": None}
    assert [one.mask for one in found.pictures] == [None, None]
    assert {name: reason for name, reason in reasons(found).items() if "leads out of here" not in reason} == {}
    assert set(reasons(found)) == {"a.jpg", "all/", "metadata.jsonl", "x.jpg"}
    assert len(read_folder(inside).pictures) == 5  # without roots every link counts
    rows = [Row(str(inside / "a.jpg"), "a.jpg")]
    assert captions(from_rows(rows, roots=[tmp_path / "vault"])) == {"a.jpg": None}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    lay(tmp_path, {"a.jpg": "", "sub/b.jpg": ""})
    (tmp_path / "a.jpg").chmod(0)
    (tmp_path / "sub").chmod(0)
    found = read_folder(tmp_path)
    (tmp_path / "sub").chmod(0o700)
    assert found.pictures == ()
    assert set(reasons(found)) == {"a.jpg", "sub/"}


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    """The worker is told of pictures in JSON."""
    with open(os.fsencode(tmp_path) + b"/a\xff.jpg", "wb"):
        pass
    found = read_folder(tmp_path)
    assert found.pictures == ()
    assert reasons(found) == {"a?.jpg": "its name is no text: rename it"}


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_folder(tmp_path / "nowhere")


# ---- from a note


def test_the_rows_of_a_note(tmp_path: Path) -> None:
    """In its order, each picture once, with its first caption; else what lies beside the picture."""
    lay(tmp_path, {"a.jpg": "", "b.jpg": "", "b.txt": "beside", "c.jpg": "", "c-masklabel.png": "", "note.md": ""})

    def row(name: str, caption: str | None = None) -> Row:
        return Row(str(tmp_path / name), name, caption)

    found = from_rows(
        [row("c.jpg"), row("b.jpg"), row("a.jpg", "  "), row("a.jpg", "a cat"), row("a.jpg", "again"), row("no.jpg"),
         row("note.md"), row("b.jpg", "late")]
    )  # fmt: skip
    assert captions(found) == {"c.jpg": None, "b.jpg": "beside", "a.jpg": "a cat"}
    assert found.pictures[0].mask == str(tmp_path / "c-masklabel.png")
    assert reasons(found) == {"no.jpg": "it is not there", "note.md": "it is no picture that is read"}
