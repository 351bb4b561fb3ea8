"""Which picture stands for an adapter: by its bytes, in the order that other programs use."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from loravault.formats.pictures import embedded_picture
from loravault.library.facts import AdapterFacts
from loravault.library.previews import Preview, media_beside, preview_of
from loravault.library.sidecars import read_facts

JPEG, WEBP, GIF = b"\xff\xd8\xff\xe0" + bytes(60), b"RIFF\0\0\0\0WEBPVP8 " + bytes(50), b"GIF89a" + bytes(60)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
MP4, AVIF = b"\0\0\0\x20ftypisom\0\0\2\0isom" + bytes(40), b"\0\0\0\x1cftypavif\0\0\0\0avif" + bytes(40)


def beside(folder: Path, files: dict[str, bytes]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    media = media_beside(folder, "x.safetensors", list(files))
    return media.stills, media.videos


@pytest.mark.parametrize(
    ("files", "stills", "videos"),
    [
        ({"x.thumb.jpg": JPEG, "x.png": PNG, "x.preview.png": PNG}, ("x.preview.png", "x.png", "x.thumb.jpg"), ()),
        ({"x.jpg": JPEG, "x.webp": WEBP}, ("x.webp", "x.jpg"), ()),
        # Civitai Helper writes every preview under the name `.preview.png`
        ({"x.preview.png": JPEG}, ("x.preview.png",), ()),
        ({"x.preview.png": MP4, "x.thumb.jpg": JPEG}, ("x.thumb.jpg",), ("x.preview.png",)),
        ({"x.preview.mp4": GIF}, ("x.preview.mp4",), ()),
        ({"x.preview.png": b"<html>404</html>", "x.png": b"", "x.gif": GIF}, ("x.gif",), ()),
        ({"x.preview.avif": AVIF, "x.jpg": JPEG}, ("x.jpg", "x.preview.avif"), ()),
        ({"x.example.10.png": PNG, "x.example.2.png": PNG, "x.thumb.webp": WEBP},
         ("x.thumb.webp", "x.example.2.png", "x.example.10.png"), ()),
        ({"x.txt": PNG, "x.json": PNG}, (), ()),
        ({"X.PREVIEW.PNG": PNG}, ("X.PREVIEW.PNG",), ()),
    ],
)  # fmt: skip
def test_order_and_kind(
    tmp_path: Path, files: dict[str, bytes], stills: tuple[str, ...], videos: tuple[str, ...]
) -> None:
    assert beside(tmp_path, files) == (stills, videos)


def test_what_is_gone_or_no_file_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    assert media_beside(tmp_path, "x.safetensors", ["x.png", "x.jpg"]).stills == ()


def test_a_file_beside_comes_before_the_embedded_picture(tmp_path: Path) -> None:
    metadata = {"modelspec.thumbnail": "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()}
    path = tmp_path / "x.safetensors"
    bare = read_facts(path, "x.safetensors", metadata)
    assert preview_of(bare) == Preview(key="modelspec.thumbnail")
    assert embedded_picture(metadata[bare.embedded_preview]) == JPEG
    (tmp_path / "x.png").write_bytes(PNG)
    assert preview_of(read_facts(path, "x.safetensors", metadata)) == Preview(rel="x.png")
    assert preview_of(AdapterFacts(videos=("x.mp4",))) is None


def test_the_cover_that_the_editor_of_additional_networks_embedded(tmp_path: Path) -> None:
    metadata = {"ssmd_cover_images": f'["{base64.b64encode(PNG).decode()}", "x"]', "modelspec.thumbnail": "broken"}
    facts = read_facts(tmp_path / "x.safetensors", "x.safetensors", metadata)
    assert facts.embedded_preview == "ssmd_cover_images"
    assert embedded_picture(metadata[facts.embedded_preview]) == PNG


def test_the_longest_name_is_no_error(tmp_path: Path) -> None:
    """`<250 letters>.preview.webp` is too long for the file system: asking for it must not raise."""
    name = f"{'x' * 243}.safetensors"
    (tmp_path / name).touch()
    assert read_facts(tmp_path / name, name, {}) == AdapterFacts()
    assert media_beside(tmp_path, name, [f"{'x' * 243}.preview.webp"]).stills == ()
