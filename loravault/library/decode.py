"""Small pictures from pictures of strangers, made in a process of its own: `python -m loravault.library.decode`.

A decoder fed with a stranger's file may hang, crash or eat the memory. Here that costs this process and this picture;
`library/thumbnailer.py` starts it, feeds it and buries it. Orders come on stdin, answers go to stdout, each as a line
of JSON followed by as many bytes as it says. The end of stdin means: leave.

Pillow is imported by the process only, never by whoever imports this module for its words.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import stat
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from loravault import osdep
from loravault.formats.pictures import HEAD, VIDEOS, media_kind

if TYPE_CHECKING:
    from PIL.Image import Image

#: Longest side of what comes out, in pixels: a cover costs a phone 1 MB once it is decoded.
SIDE = 512
QUALITY = 82
#: A picture with more pixels, or a larger file, is refused by its header, before anything is decoded.
MAX_PIXELS = 64_000_000
MAX_BYTES = 64 << 20
#: What one picture may cost: processor seconds, and address space of the whole process.
CPU_S = 30
MEMORY_BYTES = 1536 << 20
#: Longest side that a blurred picture keeps of itself, in pixels: shapes and colours, nobody's face.
BLUR_SIDE = 14

#: Format -> the module of Pillow that knows it. MPO is what some phones call a JPEG; AVIF is not in every build.
_PLUGINS = {"PNG": "Png", "JPEG": "Jpeg", "MPO": "Mpo", "WEBP": "WebP", "GIF": "Gif", "AVIF": "Avif"}
_CHANGES = hashlib.blake2b(f"{SIDE} {QUALITY} {BLUR_SIDE} 1".encode(), digest_size=4).hexdigest()
_EXIF_IFD, _MAKER_NOTE = 0x8769, 0x927C
_MAKER = b"loravault\0"
_LONGEST_LINE = 1 << 20

NOT_A_PICTURE = "it is no picture that can be read (PNG, JPEG, WebP, GIF or AVIF)"
A_VIDEO = "it is a video, and covers are made from still pictures"


@dataclass(frozen=True)
class Order:
    """One picture to be made small: from a file, or from the bytes that follow the order."""

    id: int
    path: str | None
    blur: bool = False
    #: Written into what comes out, as our chunk of it.
    chunk: str = ""
    #: A PNG for other programs instead of a WebP; without a chunk.
    png: bool = False


@dataclass(frozen=True)
class Small:
    """What came of an order: the bytes of a WebP (or PNG) file, or why there are none."""

    id: int
    #: Half a sentence that fits behind the name of the file and a colon.
    problem: str | None = None
    #: 8 hex digits that change when the picture does.
    digest: str = ""
    width: int = 0
    height: int = 0
    data: bytes = b""


class NotDecoded(Exception):  # noqa: N818 - a state of one picture, told in words
    """Why a picture is left alone."""


def maker_version() -> str:
    """8 hex digits that change when pictures are made small in another way."""
    return _CHANGES


# ---- what both sides of the pipe need


class Pipe(Protocol):
    """A stream that is read or written in order."""

    def readline(self, size: int = -1, /) -> bytes:
        """One line."""

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes."""


def frame(head: dict[str, Any], body: bytes) -> bytes:
    """A message: one line of JSON, then the bytes it announces. Names that are no text survive as ASCII escapes."""
    return json.dumps({**head, "bytes": len(body)}).encode("ascii") + b"\n" + body


def read_frame(stream: Pipe) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None at the end. Raises `ValueError` for anything that is none."""
    line = stream.readline(_LONGEST_LINE)
    if not line:
        return None
    head = json.loads(line)
    if not isinstance(head, dict) or not isinstance(size := head.pop("bytes", None), int) or not 0 <= size <= MAX_BYTES:
        raise ValueError("not a message")
    body = stream.read(size)
    if len(body) != size:
        raise ValueError("half a message")
    return head, body


# ---- the process


def main() -> None:
    """Answer orders until stdin ends."""
    osdep.parent_death_signal()
    osdep.lower_thread_priority()
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not become half an answer
    warnings.simplefilter("ignore")
    load_decoders()
    osdep.limit_process(MEMORY_BYTES)
    while (message := read_frame(orders)) is not None:
        head, body = message
        osdep.limit_cpu(CPU_S)
        done = obey(Order(**head), body)
        answer = asdict(done)
        data = answer.pop("data")
        answers.write(frame(answer, data))
        answers.flush()


def load_decoders() -> None:
    """Import Pillow as far as it is needed, and tell it what is too much."""
    import PIL.Image  # noqa: PLC0415 - in this process only

    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    for plugin in _PLUGINS.values():
        with contextlib.suppress(ImportError):
            importlib.import_module(f"PIL.{plugin}ImagePlugin")


def obey(order: Order, body: bytes) -> Small:
    """Make one picture small. Whatever goes wrong with it is an answer."""
    import PIL.Image  # noqa: PLC0415

    try:
        with contextlib.ExitStack() as stack:
            file: BinaryIO = io.BytesIO(body) if order.path is None else stack.enter_context(_open(order.path))
            return small_picture(file, order)
    except NotDecoded as reason:
        return Small(order.id, problem=str(reason))
    except MemoryError:
        return Small(order.id, problem="decoding it needs more memory than one picture may use")
    except PIL.Image.DecompressionBombError:
        return Small(order.id, problem=f"it has more than {MAX_PIXELS // 10**6} million pixels")
    except Exception as error:  # decoders raise whatever they like for damaged files
        said = " ".join(str(error).split())[:120] or type(error).__name__
        return Small(order.id, problem=f"it is damaged ({said})")


def _open(path: str) -> BinaryIO:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise NotDecoded("it is not a file")
        if status.st_size > MAX_BYTES:
            raise NotDecoded(f"it is {status.st_size >> 20} MiB, and at most {MAX_BYTES >> 20} are read")
        return open(path, "rb")
    except OSError as error:
        raise NotDecoded(f"it cannot be read ({error.strerror or error})") from error


def small_picture(file: BinaryIO, order: Order) -> Small:
    """Decode the first frame, turn it upright, make it at most `SIDE` pixels long, forget where it came from."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    if media_kind(file.read(HEAD)) in VIDEOS:
        raise NotDecoded(A_VIDEO)
    file.seek(0)
    try:
        image: Image.Image = Image.open(file, formats=[name for name in _PLUGINS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise NotDecoded(NOT_A_PICTURE) from None
    if image.width * image.height > MAX_PIXELS:
        most = f"at most {MAX_PIXELS // 10**6} million are decoded"
        raise NotDecoded(f"it has {image.width} × {image.height} pixels, and {most}")
    small = _reduced(image)
    if order.blur:
        small = _blurred(small)
    pixels = f"{small.mode} {small.size} ".encode() + small.tobytes()
    return Small(
        order.id,
        digest=hashlib.blake2b(pixels, digest_size=4).hexdigest(),
        width=small.width,
        height=small.height,
        data=_png(small) if order.png else _encoded(small, order.chunk),
    )


def _reduced(image: Image) -> Image:
    from PIL import Image, ImageOps  # noqa: PLC0415

    if image.mode == "P" or image.mode.startswith("I"):
        image = _plain(image)  # neither indices nor 16-bit greys can be averaged
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    with contextlib.suppress(Exception):  # orientation that cannot be read turns nothing
        image = ImageOps.exif_transpose(image)
    return _plain(image)


def _plain(image: Image) -> Image:
    """RGB, or RGBA where something is transparent."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    see_through = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    wanted = "RGBA" if see_through else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _blurred(image: Image) -> Image:
    """So few pixels that nothing can be brought back, spread smoothly over the old size."""
    from PIL import Image  # noqa: PLC0415

    tiny = image.copy()
    tiny.thumbnail((BLUR_SIDE, BLUR_SIDE), Image.Resampling.BOX)
    return tiny.resize(image.size, Image.Resampling.BICUBIC)


def _png(image: Image) -> bytes:
    from PIL import Image  # noqa: PLC0415

    buffer = io.BytesIO()
    Image.frombytes(image.mode, image.size, image.tobytes()).save(buffer, "PNG")
    return buffer.getvalue()


def _encoded(image: Image, chunk: str) -> bytes:
    from PIL import Image  # noqa: PLC0415

    exif = Image.Exif()
    if chunk:
        exif[_EXIF_IFD] = {_MAKER_NOTE: _MAKER + chunk.encode("ascii", "backslashreplace")}
    clean = Image.frombytes(image.mode, image.size, image.tobytes())  # pixels only: no profile, no comment
    buffer = io.BytesIO()
    clean.save(buffer, "WEBP", quality=QUALITY, method=4, exif=exif.tobytes() if chunk else b"")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
