"""Covers on disk: made once, renamed when the picture changes, blurred by level, found again without an index."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlmodel import select

from loravault.daemon import Daemon
from loravault.index import covers, images
from loravault.index.tables import AdapterRow, CoverRow, ImageRow
from loravault.keeping.covers import CoverKeeper
from loravault.library.imagemeta import read_chunk
from tests.keeping.world import picture
from tests.world import World


class Kept:
    """A world whose adapters were indexed, and a keeper of covers over it."""

    def __init__(self, world: World, daemon: Daemon) -> None:
        self.world = world
        self.ctx = daemon.ctx
        self.daemon = daemon
        self.changed: set[str] = set()
        self.keeper = CoverKeeper(self.ctx, on_changed=self.changed.update)

    def keep(self, *names: str) -> None:
        """Look at these adapters (all for none) until nothing is left to do."""
        self.changed.clear()
        self.keeper.library_changed({self.id(name) for name in names} if names else None)
        self.settle()

    def settle(self) -> None:
        give_up = time.monotonic() + 30
        self.keeper.step(0.5)
        while self.keeper.waiting:
            assert time.monotonic() < give_up
            self.keeper.step(0.5)
            time.sleep(0.005)

    def rows(self) -> dict[str, AdapterRow]:
        with self.ctx.index.session() as session:
            return {row.name: row for row in session.exec(select(AdapterRow)).all()}

    def id(self, name: str) -> str:
        return str(self.rows()[name].weight_id)

    def cover(self, name: str) -> CoverRow | None:
        weight_id = self.id(name)
        with self.ctx.index.session() as session:
            return covers.covers(session, [weight_id]).get(weight_id)

    def path(self, name: str) -> Path:
        row = self.cover(name)
        assert row is not None
        assert row.path is not None, row.problem
        return self.world.vault / row.path

    def facts(self, name: str, **facts: Any) -> None:
        with self.ctx.index.session() as session:
            for row in session.exec(select(AdapterRow).where(AdapterRow.name == name)):
                row.facts = json.dumps(facts)
                session.add(row)

    def refresh(self) -> None:
        self.daemon.refresh()


@contextmanager
def kept(world: World, **settings: Any) -> Iterator[Kept]:
    from dataclasses import replace

    world.config = replace(world.config, **settings)
    daemon = world.daemon()
    try:
        daemon.refresh()
        one = Kept(world, daemon)
        try:
            yield one
        finally:
            one.keeper.close()
    finally:
        daemon.close()


def on_disk(world: World) -> Sequence[str]:
    return sorted(path.name for path in (world.vault / "LoraVault" / "Images").rglob("lv-cover-*"))


def colour(path: Path) -> str:
    with Image.open(path) as image:
        red, green, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    return max((red, "red"), (green, "green"), (blue, "blue"))[1]


def beside(world: World, name: str, wanted: str, size: tuple[int, int] = (900, 600)) -> Path:
    path = world.loras / name
    path.write_bytes(picture(wanted, size))
    return path


def test_a_picture_beside_an_adapter_becomes_its_cover(world: World) -> None:
    world.adapter("ink.safetensors")
    world.adapter("bare.safetensors")
    beside(world, "ink.preview.png", "red")
    with kept(world) as one:
        one.keep()
        path, weight_id = one.path("ink"), one.id("ink")
        row = one.cover("ink")
        assert one.cover("bare") is None
        assert one.changed == {weight_id}

    assert row is not None
    assert path.parent == world.vault / "LoraVault/Images/Covers"
    assert path.name.startswith(f"lv-cover-{weight_id.removeprefix('w1-')}-")
    assert (row.source, row.problem) == ("ink.preview.png", None)
    assert read_chunk(path) == {"v": 1, "cover": weight_id, "source": row.source_key}
    with Image.open(path) as image:
        assert image.size == (512, 341)
    assert colour(path) == "red"


def test_nothing_is_done_twice(world: World) -> None:
    world.adapter("ink.safetensors")
    beside(world, "ink.png", "red")
    with kept(world) as one:
        one.keep()
        before = one.path("ink").stat()
        one.keep()
        assert one.changed == set()
        assert one.keeper._thumbnailer._number == 1
        assert one.path("ink").stat().st_mtime_ns == before.st_mtime_ns


def test_another_picture_has_another_name_and_the_old_one_stays(world: World) -> None:
    world.adapter("ink.safetensors")
    path = beside(world, "ink.png", "red")
    with kept(world) as one:
        one.keep()
        first = one.path("ink")
        path.write_bytes(picture("blue"))
        one.keep("ink")
        second = one.path("ink")
        assert one.changed == {one.id("ink")}

    assert first != second
    assert colour(second) == "blue"
    assert first.exists(), "a note may name it: `clean --images` knows"


def test_the_same_picture_with_another_time_changes_nothing_in_the_vault(world: World) -> None:
    world.adapter("ink.safetensors")
    path = beside(world, "ink.png", "red")
    with kept(world) as one:
        one.keep()
        first = one.path("ink").stat()
        os.utime(path, (1, 1))
        one.keep()
        assert one.path("ink").stat().st_mtime_ns == first.st_mtime_ns
    assert len(on_disk(world)) == 1


def test_covers_are_recognised_without_an_index_and_without_decoding(world: World) -> None:
    for n in range(3):
        world.adapter(f"a{n}.safetensors")
        beside(world, f"a{n}.png", "red", (100 + n, 100))
    with kept(world) as one:
        one.keep()
        before = {name: one.path(name) for name in ("a0", "a1", "a2")}
    for path in world.config.state_dir.glob("index.sqlite*"):
        path.unlink()

    with kept(world) as one:
        one.keep()
        assert {name: one.path(name) for name in before} == before
        assert one.keeper._thumbnailer._number == 0, "nothing was decoded"
        assert one.changed == {one.id(name) for name in before}


def test_a_cover_that_was_deleted_comes_back(world: World) -> None:
    world.adapter("ink.safetensors")
    beside(world, "ink.png", "red")
    with kept(world) as one:
        one.keep()
        one.path("ink").unlink()
        one.keeper._listed_at = float("-inf")
        one.keep()
        assert one.path("ink").exists()


def test_a_bad_picture_is_told_once_and_the_next_is_taken(world: World) -> None:
    world.adapter("ink.safetensors")
    beside(world, "ink.png", "red")
    (world.loras / "ink.preview.png").write_bytes(b"<html>404</html>")
    with kept(world) as one:
        one.facts("ink", stills=["ink.preview.png", "ink.png"])
        one.keep()
        row = one.cover("ink")
        assert row is not None
        assert row.problem is not None
        assert row.problem.startswith("ink.preview.png: it is no picture")
        assert row.source == "ink.png"
        assert colour(one.path("ink")) == "red"
        tried = one.keeper._thumbnailer._number
        one.keep()
        assert one.keeper._thumbnailer._number == tried, "not again until the file changes"


def test_an_adapter_whose_only_picture_is_bad_has_none_until_the_file_changes(world: World) -> None:
    world.adapter("ink.safetensors")
    path = world.loras / "ink.png"
    path.write_bytes(picture("red")[:-40])
    with kept(world) as one:
        one.keep()
        row = one.cover("ink")
        assert row is not None
        assert row.path is None
        assert "ink.png: it is damaged" in (row.problem or "")
        weight_id = one.id("ink")
        with one.ctx.index.session() as session:
            assert list(covers.problems(session)) == [weight_id]
        path.write_bytes(picture("green"))
        one.keep()
        assert colour(one.path("ink")) == "green"
        assert not one.cover("ink").problem  # type: ignore[union-attr]


def test_a_film_is_told(world: World) -> None:
    world.adapter("ink.safetensors")
    with kept(world) as one:
        one.facts("ink", videos=["ink.preview.mp4"])
        one.keep()
        row = one.cover("ink")
        assert row is not None
        assert row.problem == "ink.preview.mp4: it is a video, and covers are made from still pictures"
        one.keep()
        assert one.changed == set()


def test_a_picture_in_the_metadata_is_used(world: World) -> None:
    data = base64.b64encode(picture("green", (200, 100))).decode()
    world.adapter("ink.safetensors", **{"modelspec.thumbnail": f"data:image/png;base64,{data}"})
    with kept(world) as one:
        one.facts("ink", embedded_preview="modelspec.thumbnail")
        one.keep()
        assert colour(one.path("ink")) == "green"
        row = one.cover("ink")
        assert row is not None
        assert "metadata" in row.source


def test_covers_above_the_level_are_blurred_and_made_anew_when_the_level_changes(world: World) -> None:
    world.adapter("ink.safetensors")
    stripes = Image.new("RGB", (400, 400))
    stripes.putdata([(255, 255, 255) if x // 10 % 2 else (0, 0, 0) for _ in range(400) for x in range(400)])
    buffer = io.BytesIO()
    stripes.save(buffer, "PNG")
    (world.loras / "ink.png").write_bytes(buffer.getvalue())

    def contrast(path: Path) -> int:
        with Image.open(path) as image:
            low, high = image.convert("L").getextrema()
        return int(high) - int(low)  # type: ignore[arg-type]

    names = []
    for level, blurred in (("PG-13", True), ("X", False), ("none", True), ("all", False)):
        with kept(world, cover_level=level) as one:
            one.facts("ink", nsfw=8)
            one.keep()
            assert (contrast(one.path("ink")) < 128) is blurred, level
            names.append(one.path("ink").name)
    assert names[0] == names[2] != names[1] == names[3]
    assert len(on_disk(world)) == 2


def make_image(one: Kept, rel: str, wanted: str, name: str, *, named: bool = False) -> None:
    path = one.world.vault / rel
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(wanted))
    weight_id = one.id(name)
    with one.ctx.index.session() as session:
        row = ImageRow(path=rel, job="j" + rel[-7], stands_for=weight_id, named=named, adapters="[]")
        images.remember_image(session, row)
    one.ctx.covers_due.add(weight_id)
    one.settle()


def test_a_rendered_preview_covers_what_has_no_picture_and_what_was_named(world: World) -> None:
    world.adapter("bare.safetensors")
    world.adapter("ink.safetensors")
    beside(world, "ink.png", "red")
    with kept(world) as one:
        one.keep()
        make_image(one, "LoraVault/Images/lv-20260101-000000-aaaaaaaa-1.webp", "blue", "bare")
        make_image(one, "LoraVault/Images/lv-20260101-000000-aaaaaaab-1.webp", "blue", "ink")
        assert (colour(one.path("bare")), colour(one.path("ink"))) == ("blue", "red")
        make_image(one, "LoraVault/Images/lv-20260102-000000-aaaaaaac-1.webp", "green", "ink", named=True)
        assert colour(one.path("ink")) == "green"
        make_image(one, "LoraVault/Images/lv-20260103-000000-aaaaaaad-1.webp", "green", "bare")
        assert colour(one.path("bare")) == "green", "the newest counts"


def test_an_adapter_whose_files_went_away_keeps_its_cover(world: World) -> None:
    world.adapter("ink.safetensors")
    beside(world, "ink.png", "red")
    with kept(world) as one:
        one.keep()
        before = one.path("ink")
        (world.loras / "ink.png").unlink()
        one.keep()
        assert one.path("ink") == before
        with one.ctx.index.session() as session:
            for row in session.exec(select(AdapterRow)).all():
                row.state = "missing"
                session.add(row)
        one.keep()
        assert one.path("ink") == before


def test_a_vault_that_cannot_be_written_is_told_and_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.adapter("ink.safetensors")
    beside(world, "ink.png", "red")
    with kept(world) as one:
        create_many = one.ctx.writer.create_many
        monkeypatch.setattr(one.ctx.writer, "create_many", no_space)
        one.keeper.library_changed()
        give_up = time.monotonic() + 20
        while "covers" not in one.ctx.troubles:
            assert time.monotonic() < give_up
            one.keeper.step(0.1)
            time.sleep(0.01)
        assert "No space left" in one.ctx.troubles["covers"]
        assert one.cover("ink") is None, "nobody names what is not there"
        monkeypatch.setattr(one.ctx.writer, "create_many", create_many)
        one.keeper._not_before = 0.0
        one.settle()
        assert one.path("ink").exists()
        assert "covers" not in one.ctx.troubles


def no_space(_items: object) -> list[str]:
    raise OSError(28, "No space left on device")


def test_the_keeper_never_waits_for_a_picture(world: World) -> None:
    for n in range(20):
        world.adapter(f"a{n}.safetensors")
        beside(world, f"a{n}.png", "red", (100 + n, 100))
    with kept(world) as one:
        one.keep("a0")  # imports, connections
        one.keeper.library_changed()
        began = time.monotonic()
        one.keeper.step(0.05)
        assert time.monotonic() - began < 1.0
        assert one.keeper.waiting >= 19
        one.settle()
    assert len(on_disk(world)) == 20
