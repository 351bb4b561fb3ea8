"""Pictures of strangers: what is made of good ones, and that a bad one costs only itself."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from loravault.library import decode
from loravault.library.decode import Order, Small
from loravault.library.imagemeta import read_chunk
from loravault.library.thumbnailer import DIED, Thumbnailer
from tests.imagemeta import read_meta


@contextmanager
def thumbnailer(**settings: Any) -> Iterator[Thumbnailer]:
    made = Thumbnailer(**settings)
    try:
        yield made
    finally:
        made.close()


def answers(made: Thumbnailer, count: int) -> dict[int, Small]:
    found: dict[int, Small] = {}
    give_up = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < give_up, found
        found |= {answer.id: answer for answer in made.answers()}
        time.sleep(0.005)
    return found


def small(*sources: str | bytes, **settings: Any) -> list[Small]:
    """What the process makes of these, without a process."""
    decode.load_decoders()
    orders = [Order(n, one if isinstance(one, str) else None, **settings) for n, one in enumerate(sources)]
    with warnings.catch_warnings(action="ignore"):  # as the process does
        return [
            decode.obey(order, b"" if order.path else bytes(one)) for order, one in zip(orders, sources, strict=True)
        ]


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def opened(answer: Small) -> Image.Image:
    assert answer.problem is None
    image = Image.open(io.BytesIO(answer.data))
    image.load()
    return image


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return Image.frombytes(mode, (width, height), os.urandom(width * height * len(mode)))


def halves(width: int, height: int) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width, height // 2))
    return image


def png_head(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is as large as this."""
    head = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(b"\0" * 1000)) + part(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "AVIF"])
def test_every_kind_of_picture_becomes_a_small_webp(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"  # what a file is called says nothing about what it is
    path.write_bytes(encoded(halves(1500, 1000), kind))
    [answer] = small(str(path))
    image = opened(answer)

    assert (image.format, image.size, (answer.width, answer.height)) == ("WEBP", (512, 341), (512, 341))
    red, _, blue = image.convert("RGB").getpixel((10, 10))  # type: ignore[misc]
    assert red > 200
    assert blue < 100


def test_a_picture_that_is_small_already_keeps_its_size() -> None:
    [answer] = small(encoded(halves(128, 96), "PNG"))
    assert opened(answer).size == (128, 96)


def test_a_cover_of_a_photograph_has_some_tens_of_kilobytes() -> None:
    photo = noise(64, 96).resize((1600, 2400), Image.Resampling.BICUBIC)
    [answer] = small(encoded(photo, "JPEG"))
    assert answer.width == 341
    assert len(answer.data) < 60_000


def test_the_same_picture_gives_the_same_bytes_in_another_process() -> None:
    data = encoded(noise(700, 600), "PNG")
    with thumbnailer() as made:
        made.order(data, chunk="{}")
        assert answers(made, 1)[1].data == small(data, chunk="{}")[0].data


def test_the_digest_is_of_the_picture_and_not_of_what_is_said_about_it() -> None:
    one, other = encoded(halves(60, 60), "PNG"), encoded(halves(60, 62), "PNG")
    found = [*small(one, chunk='{"source":"a"}'), *small(one, other, chunk='{"source":"b"}'), *small(one, blur=True)]
    digests = [answer.digest for answer in found]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert all(len(digest) == 8 for digest in digests)


def test_only_our_own_chunk_is_in_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera with a serial number"
    comment = encoded(halves(80, 80), "JPEG", exif=exif, comment=b"secret")
    [answer] = small(comment, chunk='{"v":1,"cover":"w1-0123456789abcdef"}')
    path = tmp_path / "c.webp"
    path.write_bytes(answer.data)

    assert read_chunk(path) == {"v": 1, "cover": "w1-0123456789abcdef"}
    meta = read_meta(path)
    assert meta is not None
    assert (meta.width, meta.height, meta.infotext) == (80, 80, None)
    assert b"camera" not in answer.data
    assert b"secret" not in answer.data
    assert b"EXIF" not in small(comment)[0].data


@pytest.mark.parametrize(("orientation", "size"), [(1, (90, 60)), (3, (90, 60)), (6, (60, 90)), (8, (60, 90))])
def test_a_photograph_is_turned_upright(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    [answer] = small(encoded(halves(90, 60), "JPEG", exif=exif))
    image = opened(answer).convert("RGB")

    assert image.size == size
    red_at = {1: (45, 5), 3: (45, 55), 6: (55, 45), 8: (5, 45)}[orientation]
    assert image.getpixel(red_at)[0] > 200  # type: ignore[index]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animated_picture_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    [answer] = small(encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100))
    image = opened(answer)
    assert getattr(image, "n_frames", 1) == 1
    assert image.convert("RGB").getpixel((20, 15))[0] > 200  # type: ignore[index]


def test_what_can_be_seen_through_stays_so_and_odd_modes_are_read() -> None:
    grey16 = Image.new("I;16", (50, 50), 40_000)
    cmyk = Image.new("CMYK", (50, 50), (0, 255, 255, 0))
    palette = halves(50, 50).convert("P")
    clear = encoded(Image.new("RGBA", (50, 50), (255, 0, 0, 0)), "PNG")
    found = small(clear, encoded(grey16, "PNG"), encoded(cmyk, "JPEG"), encoded(palette, "PNG"))
    clear_image, grey_image, cmyk_image, palette_image = map(opened, found)

    assert clear_image.getpixel((5, 5))[3] == 0  # type: ignore[index]
    assert abs(grey_image.convert("L").getpixel((5, 5)) - 156) < 4  # type: ignore[operator]
    assert cmyk_image.getpixel((5, 5))[0] > 200  # type: ignore[index]
    assert palette_image.getpixel((5, 5))[0] > 200  # type: ignore[index]


def test_a_blurred_picture_shows_colours_but_no_shapes() -> None:
    fine = Image.new("L", (512, 512))
    fine.putdata([255 * ((x // 8 + y // 8) % 2) for y in range(512) for x in range(512)])
    sharp, blurred = small(encoded(fine, "PNG")), small(encoded(fine, "PNG"), blur=True)

    def contrast(answer: Small) -> int:
        low, high = opened(answer).convert("L").getextrema()
        return int(high) - int(low)  # type: ignore[arg-type]

    assert contrast(sharp[0]) > 200
    assert contrast(blurred[0]) < 40
    assert opened(blurred[0]).size == (512, 512)
    assert len(blurred[0].data) < len(sharp[0].data)


def broken_jpeg() -> bytes:
    return encoded(noise(400, 400), "JPEG")[:9000]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda: png_head(30_000, 30_000), "more than 64 million pixels"),
        (lambda: png_head(8_001, 8_001), "8001 × 8001 pixels, and at most 64 million"),
        (lambda: png_head(2**31 - 1, 1), "pixels"),
        (lambda: png_head(0, 0), "it is"),
        (lambda: png_head(2000, 2000), "it is damaged"),
        (broken_jpeg, "it is damaged"),
        (lambda: b"<html>404</html>", "it is no picture"),
        (lambda: b"", "it is no picture"),
        (lambda: b"GIF89a", "it is"),
        (lambda: b"\0\0\0\x18ftypmp42" + b"\0" * 100, "it is a video"),
        (lambda: b"\x1a\x45\xdf\xa3" + b"\0" * 100, "it is a video"),
        # a photograph of an iPhone is in the box of an MP4, and was told to be a film
        (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100, "it is no picture"),
        (lambda: encoded(noise(8, 8), "TIFF"), "it is no picture"),
    ],
)  # fmt: skip
def test_a_bad_picture_is_told_and_the_next_one_is_made(data: Callable[[], bytes], says: str) -> None:
    bad, good = small(data(), encoded(halves(60, 60), "PNG"))
    assert says in (bad.problem or "")
    assert good.problem is None


def test_a_file_that_is_none_or_gone_or_unspeakable_is_told(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")
    Path(odd).write_bytes(encoded(halves(20, 20), "PNG"))
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(decode.MAX_BYTES + 1)
    found = small(str(fifo), str(tmp_path / "gone.png"), str(huge), str(tmp_path), odd)

    assert [answer.problem for answer in found] == [
        "it is not a file",
        "it cannot be read (No such file or directory)",
        "it is 64 MiB, and at most 64 are read",
        "it is not a file",
        None,
    ]


def its_thread_lives() -> bool:
    """Other tests may have left threads of their own."""
    return any(thread.name == "thumbnails" for thread in threading.enumerate())


def test_one_process_serves_a_batch_and_leaves_when_nothing_comes() -> None:
    data = encoded(halves(60, 60), "PNG")
    with thumbnailer(idle_s=0.2) as made:
        assert made.pid is None
        made.order(data)
        answers(made, 1)
        first = made.pid
        made.order(data)
        answers(made, 1)
        assert made.pid == first
        give_up = time.monotonic() + 30
        while made.pid is not None or its_thread_lives():
            assert time.monotonic() < give_up
            time.sleep(0.01)
        made.order(data)
        assert answers(made, 1)[3].problem is None


# ---- processes that misbehave: the real loop around a decoder that does

EVIL = """
import os, sys, time
from pathlib import Path
from loravault.library import decode

real = decode.small_picture

def evil(file, order):
    word = file.read(8)
    file.seek(0)
    if word == b"hang....":
        time.sleep(3600)
    if word == b"spin....":
        while True:
            pass
    if word == b"crash...":
        os.kill(os.getpid(), 11)
    if word == b"once....":
        marker = Path(os.environ["MARKER"])
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return decode.Small(order.id, digest="01234567", data=b"webp")
    if word == b"memory..":
        return decode.Small(order.id, data=b"x" * len(bytearray(decode.MEMORY_BYTES)))
    if word == b"write...":
        Path(os.environ["MARKER"]).write_bytes(b"x" * 10)
    return real(file, order)

decode.small_picture = evil
decode.CPU_S = 0
decode.main()
"""


def misbehaving() -> list[str]:
    return [sys.executable, "-c", EVIL]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (b"hang....", "took longer than 1.5 s and was stopped"),
        (b"crash...", DIED),
        (b"memory..", "needs more memory"),
        (b"write...", "it is damaged"),
    ],
)
def test_what_a_picture_does_to_the_process_is_only_its_own_problem(
    word: bytes, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    monkeypatch.setenv("MARKER", str(marker))
    good = encoded(halves(60, 60), "PNG")
    with thumbnailer(command=misbehaving(), deadline_s=1.5) as made:
        numbers = [made.order(data) for data in (good, word, good)]
        found = answers(made, 3)
    assert [found[number].problem is None for number in numbers] == [True, False, True]
    assert says in (found[numbers[1]].problem or "")
    assert not marker.exists() or marker.stat().st_size == 0, "the process may not write"


def test_a_decoder_that_never_ends_is_ended_by_the_kernel() -> None:
    with thumbnailer(command=misbehaving(), deadline_s=30.0) as made:
        number = made.order(b"spin....")
        began = time.monotonic()
        assert answers(made, 1)[number].problem == DIED
    assert time.monotonic() - began < 20


def test_a_process_that_was_killed_by_chance_costs_its_picture_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    with thumbnailer(command=misbehaving()) as made:
        number = made.order(b"once....")
        assert answers(made, 1)[number].data == b"webp"


def test_a_command_that_cannot_start_is_told() -> None:
    with thumbnailer(command=["/nowhere/python"]) as made:
        number = made.order(b"x")
        assert "could not be started (No such file" in (answers(made, 1)[number].problem or "")


def test_closing_does_not_wait_for_a_hung_picture() -> None:
    with thumbnailer(command=misbehaving(), deadline_s=60) as made:
        made.order(b"hang....")
        made.order(b"hang....")
        give_up = time.monotonic() + 10
        while made.pid is None:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert made.answers() == []


def test_whoever_orders_pictures_does_not_load_pillow() -> None:
    """The daemon's memory: Pillow belongs to the process that decodes."""
    code = "import sys, loravault.library.thumbnailer; print([name for name in sys.modules if name.startswith('PIL')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
