"""The index knows our pictures from their chunks; a doubt about one picture costs that one, about all of them none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlmodel import select

from loravault.engine.imagefile import save_image
from loravault.engine.inscription import chunk_of
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from loravault.formats.outcome import MadeImage, Provenance
from loravault.index import images
from loravault.index import refresh_images as room
from loravault.index.database import Index
from loravault.index.refresh_images import forget_lost_images, refresh_images
from loravault.index.tables import ImageRow, JobRow
from loravault.jobs.publishing import image_row

CHUNK = {"v": 1, "job": "3fa81c20", "block": "b" * 16, "fingerprint": "f1", "index": 1, "seed": 7}


class Gallery:
    """A vault with `LoraVault/Images/2026-07`, and an index."""

    def __init__(self, home: Path) -> None:
        self.vault = home / "vault"
        self.home = self.vault / "LoraVault" / "Images"
        self.month = self.home / "2026-07"
        self.month.mkdir(parents=True)
        self.place = home / "state"
        self.index = Index(self.place / "index.sqlite")
        self.troubles: dict[str, str] = {}

    def paint(self, name: str, chunk: dict[str, Any] | None = None) -> Path:
        """A picture of ours."""
        picture = Image.new("RGB", (8, 8))
        save_image(
            picture, self.month / name, image_format="webp", infotext="", chunk=CHUNK if chunk is None else chunk
        )
        return self.month / name

    def look(self) -> int:
        return refresh_images(self.index, self.vault, "LoraVault", self.troubles)

    def rows(self) -> list[ImageRow]:
        """What is known of our pictures."""
        with self.index.session() as session:
            return list(session.exec(select(ImageRow).where(ImageRow.job != "").order_by(ImageRow.path)).all())

    def names(self) -> list[str]:
        return [row.path.rpartition("/")[2] for row in self.rows()]


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    made = Gallery(tmp_path)
    yield made
    made.index.close()


def test_what_the_chunk_says_is_what_was_recorded_when_the_picture_was_made(gallery: Gallery) -> None:
    """Other keys were read than the engine writes: after a rebuild no row had its block, number, adapters or base."""
    spec = GenerationSpec(
        prompt="a red cat",
        base=BaseRef(name="demo", path="/bases/demo", family="demo"),
        adapters=(AdapterUse(name="ink", path="/x/ink.st", weight_id="w1-0123456789abcdef", te=1.0, unet=0.5),),
        seeds=(41, 42),
        width=64,
        height=64,
        steps=4,
        cfg=5.0,
        sampler="Euler a",
    )
    job = JobRow(
        id="3fa81c20",
        run="3fa8",
        seq=0,
        note="a.md",
        block_hash="b" * 16,
        ordinal=0,
        first_line="",
        fingerprint="f1",
        created=1,
    )
    provenance = Provenance(job=job.id, block_hash=job.block_hash or "", fingerprint=job.fingerprint)
    path = gallery.paint("lv-1-2.webp", chunk_of(spec, 1, provenance, {"torch": "2"}))
    made = MadeImage(path=str(path), index=1, seed=42, width=8, height=8)
    recorded = image_row(job, spec, made, path.relative_to(gallery.vault).as_posix(), path)
    assert gallery.look() == 1
    assert [row.model_dump() for row in gallery.rows()] == [recorded.model_dump()]
    with gallery.index.session() as session:
        assert images.images_of_adapter(session, "w1-0123456789abcdef") == [recorded.path]
        assert images.fingerprints_of_jobs(session, [job.id]) == {job.id: "f1"}


def test_a_deleted_index_knows_every_picture_again(gallery: Gallery) -> None:
    for number in range(5):
        gallery.paint(f"lv-{number}.webp")
    gallery.look()
    before = [row.model_dump() for row in gallery.rows()]
    gallery.index.close()
    for file in gallery.place.iterdir():
        file.unlink()
    gallery.index = Index(gallery.place / "index.sqlite")
    assert gallery.look() == 5
    assert [row.model_dump() for row in gallery.rows()] == before


STRANGE: list[dict[str, Any]] = [
    {"seed": 2**63},
    {"seed": -(2**64)},
    {"index": 10**30},
    {"seed": "7"},
    {"job": "\ud800"},
    {"fingerprint": "\udfff"},
    {"base": {"name": "\ud800"}},
    {"block": ["b"]},
    {"job": None},
    {"adapters": 7},
    {"base": "demo"},
]


def test_a_strange_chunk_costs_only_its_picture(gallery: Gallery) -> None:
    """A seed of 2⁶³ or a lone surrogate went to the database, which raised, at every look."""
    gallery.paint("lv-1.webp")
    for number, chunk in enumerate(STRANGE):
        gallery.paint(f"lv-2-{number}.webp", {**CHUNK, **chunk})
    gallery.paint("lv-3.webp", {**CHUNK, "adapters": [7, {"id": 7}, {"id": "\ud800"}]})
    assert gallery.look() == 2
    assert gallery.names() == ["lv-1.webp", "lv-3.webp"]
    assert json.loads(gallery.rows()[1].adapters) == [], "what is no weight id names no LoRA"


def test_a_name_that_is_not_text_costs_only_its_picture(gallery: Gallery) -> None:
    gallery.paint("lv-1.webp")
    try:
        os.rename(gallery.paint("lv-2.webp"), gallery.month / os.fsdecode(b"lv-caf\xe9.webp"))
    except OSError:
        pytest.skip("this file system knows only text")
    assert gallery.look() == 1


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), PermissionError(13, "Permission denied")])
@pytest.mark.parametrize("call", ["os.stat", "builtins.open"])
def test_a_picture_that_goes_or_is_locked_costs_only_itself(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError
) -> None:
    """It was deleted between the listing and the stat. Nothing is concluded: the next look tries again."""
    for number in (1, 2, 3):
        gallery.paint(f"lv-{number}.webp")
    real = os.stat if call == "os.stat" else open

    def refuse(path: Any, *more: Any, **options: Any) -> Any:
        if str(path).endswith("lv-2.webp"):
            raise error
        return real(path, *more, **options)

    with monkeypatch.context() as locked:
        locked.setattr(call, refuse)
        assert gallery.look() == 2
    assert gallery.look() == 3


def test_pictures_of_others_are_read_once_and_counted_never(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five thousand of them were opened again every thirty seconds."""
    reads: list[Path] = []
    real = room.read_chunk
    monkeypatch.setattr(room, "read_chunk", lambda path: reads.append(path) or real(path))
    gallery.paint("lv-1.webp")
    other = gallery.paint("lv-2.webp", {"some": "other tool"})
    assert [gallery.look(), gallery.look(), gallery.look()] == [1, 1, 1]
    assert len(reads) == 2
    other.unlink()
    gallery.paint("lv-2.webp")
    assert gallery.look() == 2
    assert len(reads) == 3
    with gallery.index.session() as session:
        assert images.count_images(session) == 2


def test_only_pictures_of_our_naming_are_looked_at(gallery: Gallery) -> None:
    save_image(Image.new("RGB", (8, 8)), gallery.month / "cat.webp", image_format="webp", infotext="", chunk=CHUNK)
    (gallery.month / "lv-1.txt").write_text("x")
    (gallery.month / "lv-2.webp").mkdir()
    os.mkfifo(gallery.month / "lv-3.webp")
    assert gallery.look() == 0


def test_a_picture_that_was_deleted_is_forgotten(gallery: Gallery) -> None:
    for number in range(4):
        gallery.paint(f"lv-{number}.webp")
    gallery.look()
    (gallery.month / "lv-0.webp").unlink()
    assert gallery.look() == 3
    assert gallery.names() == ["lv-1.webp", "lv-2.webp", "lv-3.webp"]
    assert gallery.troubles == {}


def test_a_folder_that_is_gone_forgets_nothing(gallery: Gallery) -> None:
    """Rule 5: a folder that a sync had not yet brought back made every picture unknown."""
    gallery.paint("lv-0.webp")
    gallery.look()
    gallery.home.rename(gallery.vault / "elsewhere")
    assert gallery.look() == 1
    assert "is not there" in gallery.troubles["images"]
    (gallery.vault / "elsewhere").rename(gallery.home)
    assert gallery.look() == 1
    assert gallery.troubles == {}


def test_a_sudden_loss_forgets_nothing_until_told(gallery: Gallery) -> None:
    paths = [gallery.paint(f"lv-{number}.webp") for number in range(5)]
    for number in range(20):
        gallery.paint(f"lv-other-{number}.webp", {})
    gallery.look()
    for path in paths[:3]:
        path.unlink()
    gallery.paint("lv-new.webp")
    assert gallery.look() == 6, "what is new is recorded all the same"
    assert "3 of 5 pictures" in gallery.troubles["images"]
    with gallery.index.session() as session:
        forget_lost_images(session, gallery.vault)
    assert gallery.look() == 3
    assert gallery.troubles == {}


def test_a_folder_that_may_not_be_looked_into_forgets_nothing(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.paint("lv-0.webp")
    gallery.look()
    real_stat, real_scandir = os.stat, os.scandir

    def refuse(real: Any) -> Any:
        def call(path: Any, *more: Any, **options: Any) -> Any:
            if "2026-07" in str(path):
                raise PermissionError(13, "Permission denied")
            return real(path, *more, **options)

        return call

    monkeypatch.setattr(os, "stat", refuse(real_stat))
    monkeypatch.setattr(os, "scandir", refuse(real_scandir))
    assert gallery.look() == 1
    assert gallery.names() == ["lv-0.webp"]


def test_the_first_argument_list_still_serves(gallery: Gallery) -> None:
    gallery.paint("lv-0.webp")
    assert refresh_images(gallery.index, gallery.vault, "LoraVault") == 1
