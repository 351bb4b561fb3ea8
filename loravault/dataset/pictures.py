"""Decoding the pictures of a person: whole or refused in words, upright, in sRGB.

Whatever a file holds, two rules make RGB of it: what is transparent is shown on white, and of what moves the first
frame is taken. Only the worker's child calls this: a decoder may crash, and then it costs the child.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from loravault.formats.pictures import HEAD, VIDEOS, media_kind

#: More pixels, or a larger file, are refused by the header before anything is decoded: at most about 1 GB of memory.
MAX_PIXELS = 128_000_000
MAX_BYTES = 256 << 20
#: Shorter sides than this hold nothing to learn.
MIN_SIDE = 32
#: Stands in the key of every latent: changes whenever the same file would become other pixels.
VERSION = "white-1"

#: A remark of a picture.
ON_WHITE = "what is transparent is shown on white"

#: By its bytes (`formats.pictures`) → what Pillow calls it. MPO is what some phones call a JPEG.
_FORMATS = {
    "jpeg": ("JPEG", "MPO"), "png": ("PNG",), "webp": ("WEBP",), "bmp": ("BMP", "DIB"), "gif": ("GIF",),
    "avif": ("AVIF",), "heic": ("HEIF",),
}  # fmt: skip
_PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Bmp", "Gif", "Avif")
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class NotUsable(Exception):  # noqa: N818 - a state of one picture, told in words
    """Why a picture is not learned from, as half a sentence: "it is damaged (…)"."""


@dataclass(frozen=True)
class Decoded:
    """A picture in memory, upright."""

    #: RGB, RGBA where something is transparent, or CMYK with a profile.
    image: Image.Image
    #: Pixels of the whole picture; `image` may be a smaller one of it.
    size: tuple[int, int]
    #: Its own colour space; None: sRGB.
    profile: ImageCms.ImageCmsProfile | None
    #: Half sentences for the person.
    remarks: tuple[str, ...]

    def cut(self, scaled: tuple[int, int], crop: tuple[int, int], size: tuple[int, int]) -> Decoded:
        """`size` pixels of the picture from `crop` on, after it was scaled to `scaled` (Lanczos)."""
        across, down = self.image.width / scaled[0], self.image.height / scaled[1]
        left, top = crop
        right, bottom = (left + size[0]) * across, (top + size[1]) * down
        # What rounding adds beyond the edge is refused by Pillow.
        box = (left * across, top * down, min(right, self.image.width), min(bottom, self.image.height))
        return replace(self, image=self.image.resize(size, Image.Resampling.LANCZOS, box=box), size=size)

    def rgb(self) -> Image.Image:
        """sRGB, what is transparent on white."""
        image = _in_srgb(self.image, self.profile)
        if image.mode != "RGBA":
            return image.convert("RGB")
        paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, image).convert("RGB")

    def opacity(self) -> Image.Image | None:
        """L, white where it is opaque; None: everywhere."""
        return self.image.getchannel("A") if self.image.mode == "RGBA" else None

    def brightness(self) -> Image.Image:
        """L: what a mask says."""
        return self.rgb().convert("L")


def read_bytes(path: str | Path) -> bytes:
    """The whole file. Raises `NotUsable`."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe would be to wait for whoever writes into it
            raise NotUsable("it is no file")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotUsable("it is not there any more") from None
    except OSError as error:
        raise NotUsable(f"it cannot be read ({error.strerror or error})") from error
    if len(data) > MAX_BYTES:
        raise NotUsable(f"its file is larger than {MAX_BYTES >> 20} MiB")
    if not data:
        raise NotUsable("its file is empty")
    return data


def decode(data: bytes, *, least: int = 0) -> Decoded:
    """The picture in the bytes of a file. Raises `NotUsable`.

    `least`: a smaller one with sides of so many pixels will do, where the format has it; 0: the whole.
    """
    kind = media_kind(data[:HEAD])
    if kind in VIDEOS:
        raise NotUsable("it is a film, and only still pictures are learned from")
    if kind not in _FORMATS:
        known = "JPEG, PNG, WebP, BMP, GIF, AVIF or HEIC"
        raise NotUsable(f"it is no picture that can be read ({known})" + (f" but a {kind.upper()}" if kind else ""))
    with warnings.catch_warnings(), _in_words():
        warnings.simplefilter("ignore")
        return _decoded(_opened(data, kind), least)


@contextmanager
def _in_words() -> Iterator[None]:
    """Decoders raise whatever they like for damaged files."""
    try:
        yield
    except NotUsable:
        raise
    except MemoryError:
        raise NotUsable("decoding it needs more memory than there is") from None
    except Image.DecompressionBombError:
        raise NotUsable(f"it has more than {MAX_PIXELS // 10**6} million pixels") from None
    except Exception as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise NotUsable(f"it is damaged ({said})") from error


def _opened(data: bytes, kind: str) -> Image.Image:
    _load_decoders()
    if kind == "heic" and "HEIF" not in Image.OPEN:
        raise NotUsable("it is a HEIC, which needs the package pillow-heif; or save it as JPEG")
    formats = [name for name in _FORMATS[kind] if name in Image.OPEN]
    if not formats:
        raise NotUsable(f"this installation of Pillow reads no {kind.upper()}; save it as PNG")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise NotUsable(f"it begins as a {kind.upper()} and is none, or is cut short") from None
    if image.width * image.height > MAX_PIXELS:
        raise NotUsable(
            f"it has {image.width}×{image.height} pixels; at most {MAX_PIXELS // 10**6} million are decoded"
        )
    if min(image.size) < MIN_SIDE:
        raise NotUsable(f"it has only {image.width}×{image.height} pixels")
    return image


def _load_decoders() -> None:
    if "HEIF" in Image.OPEN or _loaded:
        return
    for plugin in _PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    with contextlib.suppress(Exception):  # not installed, or not made for this Pillow
        importlib.import_module("pillow_heif").register_heif_opener()
    _loaded.append(True)


_loaded: list[bool] = []


def _decoded(image: Image.Image, least: int) -> Decoded:
    remarks = []
    # An MPO's other frames are the depth and the small copies that phones keep.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        remarks.append("only its first frame is used")
    size, profile = image.size, image.info.get("icc_profile")
    if least:
        image.draft(None, (least, least))
    image.load()
    with contextlib.suppress(Exception):  # orientation that cannot be read turns nothing
        lying = image.getexif().get(_ORIENTATION) in _LYING
        image = ImageOps.exif_transpose(image)
        size = size[::-1] if lying else size
    image = _plain(image, keep_cmyk=bool(profile))
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] == 255:
        image = image.convert("RGB")
    if image.mode == "RGBA":
        remarks.append(ON_WHITE)
    return Decoded(image, size, _profile(profile, image.mode), tuple(remarks))


def _plain(image: Image.Image, *, keep_cmyk: bool) -> Image.Image:
    """RGB, RGBA where something is transparent; CMYK only if its profile is to make RGB of it."""
    if image.mode in _DEEP_GREY:
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode == "F":
        image = image.convert("L")
    if image.mode == "CMYK" and keep_cmyk:
        return image
    bands = image.getbands()
    wanted = "RGBA" if "A" in bands or "a" in bands or "transparency" in image.info else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _profile(data: object, mode: str) -> ImageCms.ImageCmsProfile | None:
    """The colour space that has to be translated; None for sRGB, and for what cannot be read."""
    if not isinstance(data, bytes) or not data:
        return None
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = str(found.profile.xcolor_space).strip()
        named = ImageCms.getProfileDescription(found)
    except Exception:
        return None
    if space != ("CMYK" if mode == "CMYK" else "RGB") or "srgb" in named.lower():
        return None
    return found


def _in_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    if profile is None:
        return image
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image if image.mode == "CMYK" else image.convert("RGB")
    try:
        found = ImageCms.profileToProfile(colours, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception:  # a profile that claims what it cannot do
        return image
    if found is None:
        return image
    if alpha is not None:
        found.putalpha(alpha)
    return found
