"""Which picture stands for an adapter."""

from __future__ import annotations

from typing import Any

from loravault.library.covers import (
    Rendered,
    Seen,
    Source,
    cover_name,
    covered_by,
    in_words,
    is_blurred,
    source_key,
    sources,
)
from loravault.library.entry import Entry, Place

ID = "w1-0123456789abcdef"


def entry(preview: str | None = None, nsfw: int = 0, **facts: Any) -> Entry:
    return Entry(
        weight_id=ID, name="ink", places=(Place("loras", "Styles/ink.safetensors", "ok", 1, 1),), state="ok",
        family="demo", variant=None, network="lora", rank=4, alpha=None, title=None, trigger_words=(),
        preview=preview, nsfw=nsfw, facts=facts,
    )  # fmt: skip


def kinds(found: tuple[Source, ...]) -> list[str]:
    return [source.kind for source in found]


def test_a_picture_beside_the_file_goes_before_an_embedded_one_before_a_rendered_one() -> None:
    full = entry(stills=["Styles/ink.preview.png", "Styles/ink.png"], embedded_preview="modelspec.thumbnail")
    found = sources(full, Rendered("LoraVault/Images/a.webp"))
    assert kinds(found) == ["beside", "beside", "embedded", "made"]
    assert [source.where for source in found[:2]] == ["Styles/ink.preview.png", "Styles/ink.png"]


def test_a_picture_that_was_made_for_an_adapter_by_name_goes_before_all() -> None:
    found = sources(entry("Styles/ink.png"), Rendered("LoraVault/Images/a.webp", named=True))
    assert kinds(found) == ["made", "beside"]


def test_the_same_file_is_tried_once() -> None:
    assert len(sources(entry("Styles/ink.png", stills=["Styles/ink.png"]), None)) == 1


def test_an_adapter_may_have_none() -> None:
    assert sources(entry(), None) == ()
    assert sources(entry(videos=["ink.mp4"]), None) == ()


def seen(where: str = "a/ink.png", size: int = 10, mtime: int = 5) -> Seen:
    return Seen(Source("beside", where), size, mtime)


def test_the_key_changes_with_the_picture_and_the_blur_and_not_with_the_folder() -> None:
    key = source_key([seen()], blur=False)
    others = [
        source_key([seen(size=11)], blur=False),
        source_key([seen(mtime=6)], blur=False),
        source_key([seen("a/ink.jpg")], blur=False),
        source_key([seen(), seen("b.png")], blur=False),
        source_key([seen()], blur=True),
    ]
    assert len({key, *others}) == 6
    assert source_key([seen("moved/ink.png")], blur=False) == key
    assert len(key) == 16


def test_a_name_that_is_no_text_has_a_key() -> None:
    assert len(source_key([seen("a/\udcff.png")], blur=False)) == 16


def test_what_is_above_the_level_is_blurred_and_unknown_is_shown() -> None:
    assert [is_blurred(entry(nsfw=level), 2) for level in (0, 1, 2, 4, 8, 16, 32)] == [False] * 3 + [True] * 4


def test_the_name_of_a_cover_tells_its_adapter() -> None:
    name = cover_name(ID, "89abcdef")
    assert name == "lv-cover-0123456789abcdef-89abcdef.webp"
    assert covered_by(f"LoraVault/Images/Covers/{name}") == ID
    assert covered_by("lv-20260101-000000-3fa81c20-1.webp") is None
    assert covered_by(name + ".bak") is None


def test_problems_name_the_picture_as_people_know_it() -> None:
    told = in_words(
        [(Source("beside", "a/ink.png"), "it is damaged"), (Source("embedded", "modelspec.thumbnail"), "no")]
    )
    assert told == "ink.png: it is damaged; the picture in its metadata (modelspec.thumbnail): no"
    assert in_words([]) is None
