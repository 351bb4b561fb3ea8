"""Whatever a file holds becomes upright sRGB, or a reason in words."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from loravault.dataset import pictures
from loravault.dataset.pictures import ON_WHITE, Decoded, NotUsable, decode, read_bytes
from tests.dataset.drawn import blobs, encoded, gradient


def far(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, of 255."""
    assert one.mode == other.mode == "RGB"
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "AVIF"])
def test_every_kind_is_read(kind: str) -> None:
    options = {} if kind in ("PNG", "BMP") else {"quality": 95}
    found = decode(encoded(gradient(), kind, **options))
    assert found.size == (96, 64)
    assert found.remarks == ()
    assert far(found.rgb(), gradient()) < 3


def test_a_gif_and_its_first_frame() -> None:
    still = decode(encoded(blobs(1), "GIF"))
    assert still.remarks == ()
    assert far(still.rgb(), blobs(1)) < 12  # 256 colours
    for kind in ("GIF", "WEBP", "PNG"):
        moving = decode(encoded(blobs(1), kind, save_all=True, append_images=[blobs(2), blobs(3)]))
        assert moving.remarks == ("only its first frame is used",)
        assert far(moving.rgb(), blobs(1)) < 12


@pytest.mark.parametrize(("orientation", "turn"), [(1, None), (3, "ROTATE_180"), (6, "ROTATE_90"), (8, "ROTATE_270")])
def test_pictures_are_turned_upright(orientation: int, turn: str | None) -> None:
    """A camera on its side writes the picture as the sensor saw it, and a number."""
    seen = gradient() if turn is None else gradient().transpose(Image.Transpose[turn])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for least in (0, 16):
        found = decode(encoded(seen, "JPEG", quality=95, exif=exif), least=least)
        assert found.size == (96, 64)
        assert far(found.rgb().resize((96, 64)), gradient()) < 4


def test_a_damaged_orientation_turns_nothing() -> None:
    data = encoded(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert decode(data).size == (96, 64)


def test_what_is_transparent_is_shown_on_white() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 32, 64))
    for kind in ("PNG", "WEBP"):
        found = decode(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert found.remarks == (ON_WHITE,)
        assert found.rgb().getpixel((8, 8)) == (0, 0, 255)
        assert found.rgb().getpixel((56, 8)) == (255, 255, 255)
        opacity = found.opacity()
        assert opacity is not None
        assert (opacity.getpixel((8, 8)), opacity.getpixel((56, 8))) == (255, 0)


def test_red_behind_transparency_does_not_shine_through_when_it_is_scaled() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 31, 64))
    small = decode(encoded(image, "PNG")).cut((16, 16), (0, 0), (16, 16)).rgb()
    red, _, blue = np.asarray(small, dtype=int).transpose(2, 0, 1)
    assert (red <= blue).all()


def test_a_palette_with_transparency() -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 32, 64))
    for transparency in (0, b"\0\xff"):
        found = decode(encoded(image, "PNG", transparency=transparency))
        assert (found.rgb().getpixel((8, 8)), found.rgb().getpixel((56, 8))) == ((0, 255, 0), (255, 255, 255))


def test_an_alpha_channel_that_hides_nothing_is_none() -> None:
    found = decode(encoded(gradient().convert("RGBA"), "PNG"))
    assert found.remarks == ()
    assert found.opacity() is None


def test_sixteen_bits_of_grey_keep_their_tones() -> None:
    """Pillow's own conversion would make everything above 255 white."""
    ramp = np.linspace(0, 65535, 64)[None].repeat(64, 0).astype(np.uint16)
    found = decode(encoded(Image.fromarray(ramp), "PNG")).rgb()
    grey = np.asarray(found.convert("L"), dtype=int)[0]
    assert abs(grey - np.linspace(0, 255, 64)).max() <= 2


def test_sixteen_bits_of_colour_are_read() -> None:
    """Pillow cannot write them: made by hand."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8000, 0) * 64
    header = struct.pack(">LLBBBBB", 64, 64, 16, 2, 0, 0, 0)
    body = zlib.compress(row * 64)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    assert decode(data).rgb().getpixel((5, 5)) == (255, 128, 0)


def test_printers_colours() -> None:
    found = decode(encoded(blobs(4).convert("CMYK"), "JPEG", quality=95))
    assert far(found.rgb(), blobs(4)) < 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_modes_without_colour(mode: str) -> None:
    found = decode(encoded(blobs(4).convert("L").convert(mode), "PNG")).rgb()
    assert found.mode == "RGB"
    assert found.size == (96, 64)


def test_another_colour_space_becomes_srgb() -> None:
    """A profile whose red is our green: the picture must come out as it is meant, not as it is written."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {
        bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * struct.unpack(">L", profile[128:132])[0], 12)
    }
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    swapped = bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")
    image = Image.new("RGB", (64, 64), (250, 10, 10))
    red_, green_, _ = decode(encoded(image, "PNG", icc_profile=swapped)).rgb().getpixel((5, 5))  # type: ignore[misc]
    assert green_ > 240
    assert red_ < 60
    see_through = image.convert("RGBA")
    see_through.putalpha(0)
    found = decode(encoded(see_through, "PNG", icc_profile=swapped))
    assert found.rgb().getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200])
def test_a_damaged_profile_is_ignored(profile: bytes) -> None:
    assert far(decode(encoded(gradient(), "PNG", icc_profile=profile)).rgb(), gradient()) == 0


def test_srgb_itself_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = decode(encoded(gradient(), "PNG", icc_profile=profile))
    assert found.profile is None
    assert far(found.rgb(), gradient()) == 0


# ---- what is refused


def reason(data: bytes) -> str:
    with pytest.raises(NotUsable) as caught:
        decode(data)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF"])
def test_a_file_that_is_cut_short_is_refused(kind: str) -> None:
    """However much of it is there; whether a half picture would be shown by others does not matter."""
    whole = encoded(blobs(1, 256, 256), kind)
    for share in (0.1, 0.5, 0.9):
        said = reason(whole[: int(len(whole) * share)])
        assert said.startswith(("it is damaged (", "it begins as a "))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_file_with_wrong_bytes_never_raises_anything_else(kind: str) -> None:
    whole = bytearray(encoded(blobs(1, 128, 128), kind))
    random = np.random.default_rng(5)
    for _ in range(60):
        broken = bytearray(whole)
        for place in random.integers(0, len(whole), 8):
            broken[place] = int(random.integers(256))
        with contextlib.suppress(NotUsable):
            assert decode(bytes(broken)).rgb().mode == "RGB"


def test_a_bomb_is_refused_by_its_header() -> None:
    """50000 × 50000 pixels of one colour are a few megabytes of file and 10 GB of memory."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))

    for side, said in ((50_000, "it has more than 128 million pixels"), (12_000, "it has 12000×12000 pixels")):
        header = chunk(b"IHDR", struct.pack(">LLBBBBB", side, side, 8, 2, 0, 0, 0))
        assert reason(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")).startswith(said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is no picture that can be read"),
        (b"a text about a cat, long enough for a header", "it is no picture that can be read"),
        (b"II*\0" + b"\0" * 60, "but a TIFF"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 60, "it is a film"),
        (b"\x89PNG\r\n\x1a\n", "it begins as a PNG and is none"),
        (encoded(gradient(96, 20), "PNG"), "it has only 96×20 pixels"),
    ],
)
def test_what_is_no_picture_is_told(data: bytes, said: str) -> None:
    assert said in reason(data)


def test_a_heic_without_its_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_loaded", [])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "OPEN", {name: opener for name, opener in Image.OPEN.items() if name != "HEIF"})
    said = reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 60)
    assert said == "it is a HEIC, which needs the package pillow-heif; or save it as JPEG"


def test_a_heic_decoder_that_is_installed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pillow-heif: registers an opener under the name that it uses."""

    class Fake(Image.Image):
        def __init__(self, file: io.BytesIO, _name: str) -> None:
            super().__init__()
            self.im, self._mode, self._size = gradient().im, "RGB", (96, 64)
            self.format = "HEIF"

    fake = types.ModuleType("pillow_heif")
    fake.register_heif_opener = lambda: Image.register_open("HEIF", Fake)  # type: ignore[attr-defined, arg-type, return-value]
    monkeypatch.setattr(pictures, "_loaded", [])
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    assert decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 60).size == (96, 64)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    for path, said in (
        (tmp_path / "empty.png", "empty"),
        (tmp_path / "no.png", "not there"),
        (tmp_path, "no file"),
        (tmp_path / "pipe.png", "no file"),
    ):
        with pytest.raises(NotUsable, match=said):
            read_bytes(path)


# ---- cutting


def test_a_cut_is_the_place_that_was_asked_for() -> None:
    """At any scale: the colours of the gradient say where a pixel came from."""
    found = decode(encoded(gradient(960, 640), "PNG"))
    cut = found.cut((480, 320), (120, 40), (64, 96))
    assert cut.size == cut.image.size == (64, 96)
    pixels = np.asarray(cut.rgb(), dtype=float)
    assert abs(pixels[..., 0].mean() / 255 * 480 - (120 + 32)) < 2
    assert abs(pixels[..., 1].mean() / 255 * 320 - (40 + 48)) < 2


def test_the_whole_of_a_picture_is_not_beyond_its_edge() -> None:
    """Scales that cannot be written exactly would ask Pillow for a sliver that is not there."""
    for side in range(33, 400, 7):
        found = Decoded(Image.new("RGB", (side, side + 3)), (side, side + 3), None, ())
        assert found.cut((64, 67), (0, 0), (64, 67)).image.size == (64, 67)


def test_sixteen_bits_of_grey_with_a_transparent_tone() -> None:
    """The tone is a number of 16 bits too."""
    ramp = np.linspace(0, 65535, 64)[None].repeat(64, 0).astype(np.uint16)
    found = decode(encoded(Image.fromarray(ramp), "PNG", transparency=65535))
    assert found.rgb().size == (64, 64)
