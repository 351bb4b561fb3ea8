"""What we write into pictures is read back without decoding them, by us and by Pillow; damage is never an exception."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from loravault.engine.imagefile import SUFFIXES, encode_image, save_image
from loravault.library.imagemeta import read_chunk
from tests.imagemeta import read_meta

INFOTEXT = "a cat, <lora:tüsch:0.8> 猫 🐈\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 1, Size: 64x40"
CHUNK = {"v": 1, "job": "3fa81c20", "adapters": [{"id": "w1-0123456789abcdef", "name": "tüsch 🐈"}], "index": 0}


def picture() -> Image.Image:
    image = Image.new("RGB", (64, 40), (200, 30, 90))
    image.putpixel((3, 3), (1, 2, 3))
    return image


def written(image_format: str, infotext: str = INFOTEXT) -> bytes:
    return encode_image(picture(), image_format=image_format, infotext=infotext, chunk=CHUNK)


@pytest.mark.parametrize("image_format", SUFFIXES)
def test_infotext_and_chunk_come_back(image_format: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"picture.{SUFFIXES[image_format]}"
    save_image(picture(), path, image_format=image_format, infotext=INFOTEXT, chunk=CHUNK)
    meta = read_meta(path)
    assert meta is not None
    assert (meta.format, meta.width, meta.height) == (image_format, 64, 40)
    assert meta.infotext == INFOTEXT
    assert meta.chunk == CHUNK
    assert read_chunk(path) == CHUNK
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no temp is left"


@pytest.mark.parametrize("image_format", ["webp", "jpeg"])
def test_other_readers_find_the_user_comment_where_a1111_puts_it(image_format: str) -> None:
    with Image.open(io.BytesIO(written(image_format))) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment == b"UNICODE\0" + INFOTEXT.encode("utf-16-be")


def test_other_readers_find_the_png_text() -> None:
    with Image.open(io.BytesIO(written("png"))) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert image.text["parameters"] == INFOTEXT
    with Image.open(io.BytesIO(written("png", "plain ascii"))) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert image.text["parameters"] == "plain ascii"


def test_a_jpeg_keeps_its_chunk_however_long_the_prompt_is(tmp_path: Path) -> None:
    """A JPEG segment holds 64 KiB; Pillow refuses more, and the picture would be lost."""
    (tmp_path / "a.jpg").write_bytes(written("jpeg", "猫" * 100_000))
    meta = read_meta(tmp_path / "a.jpg")
    assert meta is not None
    assert meta.chunk == CHUNK
    assert meta.infotext is not None
    assert set(meta.infotext) == {"猫"}
    for image_format in ("webp", "png"):
        (tmp_path / "b").write_bytes(written(image_format, "猫" * 100_000))
        whole = read_meta(tmp_path / "b")
        assert whole is not None
        assert whole.infotext == "猫" * 100_000


def test_lone_surrogates_in_a_prompt_do_not_lose_the_picture(tmp_path: Path) -> None:
    for image_format in ("webp", "jpeg"):
        (tmp_path / "a").write_bytes(written(image_format, "a \ud800 cat"))
        meta = read_meta(tmp_path / "a")
        assert meta is not None
        assert meta.infotext == "a ? cat"


@pytest.mark.parametrize("order", ["little", "big"])
def test_user_comments_of_others_are_read_in_either_byte_order(order: str, tmp_path: Path) -> None:
    """Writers disagree: the comment's byte order need not be that of the EXIF block."""
    for block in ("little", "big"):
        exif = Image.Exif()
        exif.endian = "<" if block == "little" else ">"
        codec = "utf-16-le" if order == "little" else "utf-16-be"
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "Steps: 20, 猫".encode(codec)
        picture().save(tmp_path / "a.webp", exif=exif.tobytes())
        meta = read_meta(tmp_path / "a.webp")
        assert meta is not None
        assert meta.infotext == "Steps: 20, 猫"
        assert meta.chunk is None


def test_compressed_png_text_is_read_and_bounded(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("parameters", "Steps: 20 猫", zip=True)
    picture().save(tmp_path / "a.png", pnginfo=info)
    meta = read_meta(tmp_path / "a.png")
    assert meta is not None
    assert meta.infotext == "Steps: 20 猫"
    bomb = b"parameters\0\0" + zlib.compress(b"x" * 50_000_000)
    chunk = struct.pack(">L", len(bomb)) + b"zTXt" + bomb + struct.pack(">L", zlib.crc32(b"zTXt" + bomb))
    plain = written("png")
    (tmp_path / "b.png").write_bytes(plain[:33] + chunk + plain[33:])
    meta = read_meta(tmp_path / "b.png")
    assert meta is not None
    assert meta.infotext is not None
    assert len(meta.infotext) <= 4 << 20


def test_sizes_of_every_kind_of_webp(tmp_path: Path) -> None:
    for options in ({"lossless": True}, {"quality": 50}, {"lossless": True, "exif": b"MM\0*\0\0\0\x08\0\0\0\0\0\0"}):
        picture().save(tmp_path / "a.webp", **options)
        meta = read_meta(tmp_path / "a.webp")
        assert meta is not None
        assert (meta.width, meta.height) == (64, 40)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + b"\0" * 30, b"<svg/>", b"\x89PNG", b"RIFF\0\0\0\0WAVE"])
def test_other_files_are_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(data)
    assert read_meta(tmp_path / "x.png") is None


def test_what_is_no_file_is_nothing(tmp_path: Path) -> None:
    assert read_meta(tmp_path) is None
    assert read_meta(tmp_path / "gone.png") is None


def test_a_file_whose_chunks_lie_about_their_length_is_read_quickly(tmp_path: Path) -> None:
    for head in (b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xfftEXt", b"RIFF\0\0\0\0WEBPEXIF\xff\xff\xff\xff"):
        (tmp_path / "a").write_bytes(head + b"\0" * 1000)
        meta = read_meta(tmp_path / "a")
        assert meta is not None
        assert (meta.infotext, meta.chunk) == (None, None)


FILES = {image_format: written(image_format) for image_format in SUFFIXES}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_never_an_exception(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere and with bytes changed anywhere: something or nothing is read, and never raised."""
    damaged = bytearray(FILES[data.draw(st.sampled_from(sorted(FILES)))])
    for _ in range(data.draw(st.integers(0, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a").write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    read_meta(tmp_path / "a")
