"""What the user decided is written where other programs look, and nothing else changes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from loravault.errors import UserError
from loravault.library import export
from loravault.library.export import UserEdits, activation_text, export_edits, export_preview, plan_json, plan_preview

EDITS = UserEdits(trigger_words=["sks", "red: sks, red dress", "coat: coat"], weight=0.7, negative="blur")


def png(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "PNG")
    return stream.getvalue()


def planned(existing: object, edits: UserEdits) -> dict[str, object] | None:
    new = plan_json(None if existing is None else json.dumps(existing).encode(), edits)
    return None if new is None else json.loads(new)


def test_a_new_file_holds_only_what_was_decided() -> None:
    assert planned(None, EDITS) == {
        "activation text": "sks || sks, red dress || coat", "preferred weight": 0.7, "negative text": "blur",
    }  # fmt: skip


def test_nothing_decided_makes_no_file() -> None:
    assert planned(None, UserEdits()) is None
    assert planned(None, UserEdits(description="", trigger_words=[], weight=0, notes="")) is None
    assert planned({}, UserEdits(notes="")) is None


def test_other_keys_stay_in_their_order() -> None:
    existing = {"sha256": "ab", "notes": "old", "vae": None, "zeta": [1, {"deep": "é"}], "activation text": "x"}
    new = plan_json(json.dumps(existing).encode(), UserEdits(trigger_words=["sks"], weight=0.5))
    assert new is not None
    assert list(json.loads(new).items()) == [
        ("sha256", "ab"), ("notes", "old"), ("vae", None), ("zeta", [1, {"deep": "é"}]), ("activation text", "sks"),
        ("preferred weight", 0.5),
    ]  # fmt: skip
    assert "é".encode() in new


def test_half_a_character_of_another_tool_stays_what_it_is() -> None:
    assert planned({"x": "\ud800"}, UserEdits(notes="é")) == {"x": "\ud800", "notes": "é"}


def test_emptied_by_the_user_is_emptied_there() -> None:
    assert planned({"notes": "old", "x": 1}, UserEdits(notes="")) == {"notes": "", "x": 1}


def test_what_says_so_already_is_not_written() -> None:
    assert planned({"preferred weight": 0.5, "x": 1.10}, UserEdits(weight=0.5)) is None


@pytest.mark.parametrize("data", [b"[]", b"", b"{", b'"x"', b"null", b'{"a": 1, "a": 2}', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_refused_in_words(tmp_path: Path, data: bytes) -> None:
    adapter = tmp_path / "ink.safetensors"
    (tmp_path / "ink.json").write_bytes(data)
    with pytest.raises(UserError, match=r"ink\.json was left alone: .*; move it away and export again\."):
        export_edits(adapter, EDITS)
    assert (tmp_path / "ink.json").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["ink.json"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), JSON), st.text(max_size=20))
def test_no_key_of_others_is_lost(existing: dict[str, object], notes: str) -> None:
    new = planned(existing, UserEdits(notes=notes))
    assert (new or existing) == {**existing, **({"notes": notes} if notes or "notes" in existing else {})}


def test_groups_become_outfits() -> None:
    assert activation_text(["sks", "hat"]) == "sks, hat"
    assert activation_text(["red: sks, red dress"]) == "sks, red dress"
    assert activation_text([]) == ""


def test_the_file_is_written_whole_and_only_when_needed(tmp_path: Path) -> None:
    adapter = tmp_path / "ink.v2.safetensors"
    adapter.write_bytes(b"weights")
    assert export_edits(adapter, EDITS)
    assert not export_edits(adapter, EDITS)
    assert export_edits(adapter, UserEdits(weight=0.9))
    assert json.loads((tmp_path / "ink.v2.json").read_bytes())["preferred weight"] == 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ink.v2.json", "ink.v2.safetensors"]
    assert adapter.read_bytes() == b"weights"


def test_the_spelling_on_the_disk_is_kept(tmp_path: Path) -> None:
    (tmp_path / "INK.json").write_text('{"x": 1}')
    export_edits(tmp_path / "ink.safetensors", EDITS)
    assert [path.name for path in tmp_path.iterdir()] == ["INK.json"]


def test_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "ink.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(UserError, match="link"):
        export_edits(tmp_path / "ink.safetensors", EDITS)


def test_an_edit_of_the_same_moment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "ink.json"
    target.write_text('{"x": 1}')
    monkeypatch.setattr(export, "fsync_file", lambda path: target.write_text('{"x": 2}'))
    with pytest.raises(UserError, match="changed while it was being written"):
        export_edits(tmp_path / "ink.safetensors", EDITS)
    assert target.read_text() == '{"x": 2}'
    assert [path.name for path in tmp_path.iterdir()] == ["ink.json"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "fsync_file", full)
    with pytest.raises(OSError, match="No space"):
        export_edits(tmp_path / "ink.safetensors", EDITS)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_into_or_beside_what_is_no_adapter(tmp_path: Path) -> None:
    for write in (lambda path: export_edits(path, EDITS), lambda path: export_preview(path, png())):
        with pytest.raises(UserError, match="no LoRA"):
            write(tmp_path / "ink.ckpt")


def test_a_preview_is_written_once_and_replaced_only_if_it_is_ours(tmp_path: Path) -> None:
    adapter = tmp_path / "ink.safetensors"
    target = tmp_path / "ink.preview.png"
    assert export_preview(adapter, png("red"))
    with Image.open(target) as image:
        image.load()
        assert image.getpixel((0, 0)) == (255, 0, 0)
    assert not export_preview(adapter, png("red"))
    assert export_preview(adapter, png("blue"))
    with Image.open(target) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)
    target.write_bytes(png("green"))  # the user's own
    assert not export_preview(adapter, png("blue"))
    assert target.read_bytes() == png("green")
    assert [path.name for path in tmp_path.iterdir()] == ["ink.preview.png"]


@pytest.mark.parametrize("name", ["ink.png", "ink.preview.webp", "ink.thumb.jpg", "INK.JPEG", "ink.preview.mp4"])
def test_no_other_picture_is_overruled(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"picture")
    assert not export_preview(tmp_path / "ink.safetensors", png())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_no_preview_does_not_hinder() -> None:
    assert plan_preview("ink.safetensors", ["ink.example.0.png", "ink.json", "ink2.png"], False) == "ink.preview.png"
    assert plan_preview("ink.safetensors", ["ink.preview.png"], False) is None
    assert plan_preview("ink.safetensors", ["ink.preview.png"], True) == "ink.preview.png"
    assert plan_preview("ink.safetensors", ["ink.preview.png", "ink.png"], True) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_only_png_is_written_under_the_name_of_png(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match="not those of a PNG"):
        export_preview(tmp_path / "ink.safetensors", data)
    assert list(tmp_path.iterdir()) == []
