"""Kinds of pictures by their bytes, and pictures inside metadata."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from loravault.formats.pictures import HEAD, MAX_EMBEDDED, STILLS, embedded_picture, holds_picture, media_kind


def picture(form: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("form", "kind"),
    [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "bmp"), ("TIFF", "tiff")],
)
def test_real_pictures(form: str, kind: str) -> None:
    assert media_kind(picture(form)[:HEAD]) == kind


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "mp4"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "mp4"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "heic"),
        (b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1f", "webm"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (b"\xff\x0a\xfa\x1f", "jxl"),
        (b"<html>", None),
        (b"{}", None),
        (b"BM is how this text begins", None),
        (b"", None),
    ],
)
def test_other_beginnings(head: bytes, kind: str | None) -> None:
    assert media_kind(head) == kind


@given(st.binary(max_size=HEAD))
def test_no_bytes_raise(head: bytes) -> None:
    media_kind(head)


def test_embedded_pictures_in_all_forms() -> None:
    for form in ("PNG", "JPEG", "WEBP"):
        data = picture(form)
        text = base64.b64encode(data).decode()
        wrapped = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
        for value in (text, wrapped, f"data:image/jpeg;base64,{text}", json.dumps([text, "x"]), text.rstrip("=")):
            assert embedded_picture(value) == data
            assert holds_picture(value)


@pytest.mark.parametrize(
    "value",
    [
        None, 5, "", "None", "[]", "[1]", "[", "data:image/png;base64,", "data:text/html;base64,PGI+PGI+PGI+PGI+PGI+",
        base64.b64encode(b"no picture at all, but long enough").decode(), "é" * 40,
        "iVBORw0KGgo" + "A" * (MAX_EMBEDDED + 1),
        base64.b64encode(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41").decode(),
    ],
)  # fmt: skip
def test_what_is_no_still_picture_is_none(value: Any) -> None:
    assert not holds_picture(value)
    assert embedded_picture(value) is None


@given(st.text(max_size=300) | st.text('iVBORw0KGgoA=\n["', max_size=300))
def test_no_text_raises(value: str) -> None:
    data = embedded_picture(value)
    assert data is None or media_kind(data[:HEAD]) in STILLS
