"""Gallery pages on disk: only what changed is written, what the user changed is left, nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import delete

from loravault.config import VaultConfig
from loravault.index import images
from loravault.index.database import Index
from loravault.index.tables import AdapterRow, CardRow, CoverRow, ImageRow, MadeRow
from loravault.jobs.context import Context
from loravault.keeping.galleries import BURST_S, GalleryKeeper
from loravault.pages import bases, own
from loravault.vault.ignore import IgnoreRules
from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import NoteChanged, VaultWriter
from tests.pages.shelves import picture, weight_id

FAMILY = "LoraVault/Gallery/Families/SDXL gallery.md"
FOLDER = "LoraVault/Gallery/Folders/Styles folder.md"
MONTH = "LoraVault/Gallery/Months/Made in 2026-11.md"
INDEX = "LoraVault/Gallery/LoRA gallery.md"
BASES = {f"LoraVault/{name}" for name in bases.NAMES}


def page_of(name: str) -> str:
    return f"LoraVault/Gallery/Adapters/{name} pictures.md"


class Scene:
    """A vault, an index whose rows the test writes, a keeper, and a clock that the test moves."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.vault = home / "vault"
        self.vault.mkdir()
        config = VaultConfig(vault=self.vault, **settings)
        writer = VaultWriter(self.vault, Ledger(home / "ledger.jsonl"), home / "displaced")
        index = Index(home / "index.sqlite")
        self.time = 1000.0
        self.ctx = Context(
            config=config,
            index=index,
            ledger=writer.ledger,
            writer=writer,
            rules=IgnoreRules(),
            steady=lambda: self.time,
        )
        self.removing = True
        self.keeper = self.new_keeper()

    def new_keeper(self) -> GalleryKeeper:
        return GalleryKeeper(self.ctx, may_remove=lambda: self.removing)

    def adapter(self, name: str, category: str = "Styles", *, card: bool = True, **changes: Any) -> None:
        row = AdapterRow(
            **{
                "root": "loras", "rel": f"{category}/{name}.safetensors", "weight_id": weight_id(name), "name": name,
                "family": "sdxl", "network": "lora", "rank": 16, **changes,
            }
        )  # fmt: skip
        with self.ctx.index.session() as session:
            session.merge(row)
            if card:
                session.merge(CardRow(path=f"LoraVault/LoRAs/{category}/{name}.md", weight_id=weight_id(name)))

    def forget(self, name: str) -> None:
        with self.ctx.index.session() as session:
            session.exec(delete(AdapterRow).where(AdapterRow.name == name))  # type: ignore[arg-type]
            session.exec(delete(CardRow).where(CardRow.weight_id == weight_id(name)))  # type: ignore[arg-type]

    def picture(self, number: int, *names: str) -> str:
        row = ImageRow(path=picture(number), job=f"job{number}", adapters=json.dumps([weight_id(n) for n in names]))
        with self.ctx.index.session() as session:
            images.remember_image(session, row)
        return row.path

    def settle(self) -> set[str]:
        """Let time pass and work until nothing waits. Returns what was written or removed."""
        before = self.state()
        self.time += BURST_S
        while self.keeper.step(1.0):
            pass
        after = self.state()
        return {path for path in before | after if before.get(path) != after.get(path)}

    def changed(self, *names: str) -> set[str]:
        self.keeper.library_changed({weight_id(name) for name in names} if names else None)
        return self.settle()

    def state(self) -> dict[str, tuple[int, int]]:
        """Every visible file by inode and time: a file that is written again is another one."""
        found = {}
        for path in self.vault.rglob("*"):
            if path.is_file():
                status = path.stat()
                found[path.relative_to(self.vault).as_posix()] = (status.st_ino, status.st_mtime_ns)
        return found

    def text(self, rel: str) -> str:
        return (self.vault / rel).read_text("utf-8")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.ctx.index.close()


def test_first_everything_is_written_then_nothing(scene: Scene) -> None:
    """Also after a restart: pages are compared, not written."""
    for name in ("ink", "paper"):
        scene.adapter(name)
    scene.picture(1, "ink")
    assert scene.settle() == {FAMILY, FOLDER, MONTH, INDEX, page_of("ink"), page_of("paper"), *BASES}
    assert all(own.is_ours((scene.vault / rel).read_bytes()) for rel in (FAMILY, MONTH, INDEX, page_of("ink")))
    assert not list(scene.vault.rglob(".*")), "no temps are left"
    assert scene.settle() == set()
    scene.keeper = scene.new_keeper()
    assert scene.settle() == set()
    assert scene.changed() == set()
    assert scene.keeper.notices == {}


def test_without_a_change_nothing_is_even_looked_at(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.settle()
    monkeypatch.setattr(scene.ctx, "index", None)
    scene.time += 100
    assert scene.keeper.step(1.0) is False


def test_a_change_is_written_where_it_shows(scene: Scene) -> None:
    for name in ("ink", "paper"):
        scene.adapter(name)
    scene.settle()
    scene.adapter("glow")
    assert scene.changed("glow") == {FAMILY, FOLDER, INDEX, page_of("glow")}
    scene.adapter("glow", rank=32)  # stands in text tiles
    assert scene.changed("glow") == {FAMILY, FOLDER}
    scene.adapter("glow", rank=32, size=12345)
    assert scene.changed("glow") == set()
    scene.keeper.images_changed([scene.picture(1, "glow")])
    assert scene.settle() == {MONTH, INDEX, page_of("glow")}
    scene.keeper.images_changed([scene.picture(2, "glow")])
    assert scene.settle() == {MONTH, INDEX, page_of("glow")}
    assert "2 pictures" in scene.text(page_of("glow"))


def test_a_picture_that_went_is_gone_from_the_pages(scene: Scene) -> None:
    scene.adapter("ink")
    path = scene.picture(1, "ink")
    scene.settle()
    with scene.ctx.index.session() as session:
        images.forget_image(session, path)
    scene.keeper.images_changed([path])
    assert scene.settle() == {MONTH, INDEX, page_of("ink")}
    assert not (scene.vault / MONTH).exists()
    assert "No pictures yet" in scene.text(page_of("ink"))


def test_the_cover_of_the_index_is_shown_where_the_card_names_none(scene: Scene) -> None:
    scene.adapter("ink")
    scene.settle()
    with scene.ctx.index.session() as session:
        session.add(CoverRow(weight_id=weight_id("ink"), path="LoraVault/Images/Covers/lv-cover-1.webp"))
    assert scene.changed("ink") == {FAMILY, FOLDER, INDEX}
    assert "[![[LoraVault/Images/Covers/lv-cover-1.webp|144]]](LoraVault/LoRAs/Styles/ink.md)" in scene.text(FAMILY)


@pytest.mark.parametrize("rel", [FAMILY, page_of("ink"), INDEX, "LoraVault/LoRAs.base"])
def test_a_file_the_user_changed_is_left_and_told_until_it_is_deleted(scene: Scene, rel: str) -> None:
    scene.adapter("ink")
    scene.settle()
    mine = scene.text(rel) + "\nmine\n"
    (scene.vault / rel).write_text(mine, "utf-8")
    scene.adapter("glow")
    scene.picture(1, "ink")
    scene.changed()
    assert scene.text(rel) == mine
    assert list(scene.keeper.notices) == [rel]
    (scene.vault / rel).unlink()
    assert rel in scene.changed()
    assert scene.keeper.notices == {}
    assert "mine" not in scene.text(rel)


def test_a_note_of_the_users_at_the_name_of_a_page_is_left(scene: Scene) -> None:
    note = scene.vault / page_of("ink")
    note.parent.mkdir(parents=True)
    note.write_text("my own pictures of ink")
    scene.adapter("ink")
    scene.adapter("paper")
    assert page_of("ink") not in scene.settle()
    assert note.read_text() == "my own pictures of ink"
    assert page_of("ink") in scene.keeper.notices
    assert (scene.vault / page_of("paper")).exists()


def test_a_base_of_an_older_version_is_brought_up_to_date(scene: Scene) -> None:
    scene.settle()
    base = scene.vault / "LoraVault/Images.base"
    new = base.read_bytes()
    base.write_bytes(bases.seal("views: []\n"))
    assert scene.changed() == {"LoraVault/Images.base"}
    assert base.read_bytes() == new


def test_pages_that_nothing_plans_any_more_go_if_they_are_ours(scene: Scene) -> None:
    for name in ("ink", "paper"):
        scene.adapter(name)
    scene.settle()
    kept = scene.vault / page_of("paper")
    kept.write_text(kept.read_text() + "mine")
    stray = scene.vault / "LoraVault/Gallery/My notes.md"
    stray.write_text("mine")
    scene.forget("ink")
    scene.forget("paper")
    assert scene.changed("ink", "paper") == {page_of("ink"), FAMILY, FOLDER, INDEX}
    assert kept.exists()
    assert stray.exists()
    assert list(scene.keeper.notices) == [page_of("paper")]
    assert not (scene.vault / FAMILY).parent.exists(), "a folder that is empty goes with its last page"


def test_a_page_left_over_by_an_earlier_run_goes_at_the_start(scene: Scene) -> None:
    scene.adapter("ink")
    scene.settle()
    scene.forget("ink")
    scene.keeper = scene.new_keeper()
    assert page_of("ink") in scene.settle()


def test_while_a_root_is_away_no_page_goes(scene: Scene) -> None:
    """An index that was rebuilt meanwhile knows nothing of what is on that drive."""
    scene.adapter("ink")
    scene.settle()
    scene.forget("ink")
    scene.removing = False
    scene.changed("ink")
    assert (scene.vault / page_of("ink")).exists()
    scene.removing = True
    assert page_of("ink") in scene.changed("ink")


def test_switched_off_only_what_cards_embed_is_there(tmp_path: Path) -> None:
    scene = Scene(tmp_path, galleries=False)
    scene.adapter("ink")
    scene.picture(1, "ink")
    assert scene.settle() == {page_of("ink")}
    scene.ctx.index.close()


def test_many_changes_are_collected(scene: Scene) -> None:
    """The first changes show at once; then at most three times in ten seconds."""
    scene.adapter("ink")
    scene.settle()
    scene.time += 100
    rounds = 0
    for number in range(100):
        scene.keeper.images_changed([scene.picture(number, "ink")])
        before = scene.text(MONTH) if number else ""
        while scene.keeper.step(1.0):
            pass
        rounds += scene.text(MONTH) != before
        scene.time += 0.2
    assert 3 <= rounds <= 9
    scene.settle()
    assert "100 pictures" in scene.text(MONTH)


def test_a_round_is_worked_off_in_slices(scene: Scene) -> None:
    """The daemon answers requests in between."""
    for number in range(60):
        scene.adapter(f"lora {number}")
    scene.time += 100

    def tick() -> float:
        scene.time += 0.01
        return scene.time

    scene.ctx.steady = tick
    slices = 0
    while scene.keeper.step(0.05):
        slices += 1
        assert slices < 1000
    assert slices > 5
    assert len(list((scene.vault / "LoraVault/Gallery/Adapters").iterdir())) == 60


def test_what_changes_during_a_round_is_not_lost(scene: Scene) -> None:
    for number in range(10):
        scene.adapter(f"lora {number}")
    assert scene.keeper.step(0.0)
    scene.adapter("late")
    scene.keeper.library_changed({weight_id("late")})
    scene.settle()
    scene.settle()
    assert (scene.vault / page_of("late")).exists()


def test_trouble_with_the_disk_is_told_and_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.adapter("ink")

    def full(_items: object, _refused: object = None) -> list[str]:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(scene.ctx.writer, "create_many", full)
        scene.settle()
    assert "No space left on device" in scene.ctx.troubles["galleries"]
    assert scene.settle() == set(), "not at once"
    scene.time += 60
    assert page_of("ink") in scene.settle()
    assert "galleries" not in scene.ctx.troubles


def test_after_a_rebuild_of_the_index_the_pages_are_the_same(scene: Scene, tmp_path: Path) -> None:
    """Files over app: no row id, no order of rows is in them."""
    names = [f"lora {number}" for number in range(30)]
    for name in names:
        scene.adapter(name)
    for number in range(70):
        scene.picture(number, names[number % 7], names[number % 3])
    scene.settle()
    before = {path: (scene.vault / path).read_bytes() for path in scene.state()}
    with scene.ctx.index.session() as session:
        for table in (AdapterRow, CardRow, ImageRow, MadeRow):
            session.exec(delete(table))
    for number in reversed(range(70)):
        scene.picture(number, names[number % 3], names[number % 7])
    for name in reversed(names):
        scene.adapter(name)
    scene.keeper = scene.new_keeper()
    assert scene.settle() == set()
    assert {path: (scene.vault / path).read_bytes() for path in scene.state()} == before


def test_what_is_in_the_way_of_one_page_costs_that_page(scene: Scene) -> None:
    """A folder of its name, a link that leads nowhere: told, not tried again and again."""
    (scene.vault / page_of("ink")).mkdir(parents=True)
    (scene.vault / page_of("paper")).symlink_to("nowhere.md")
    for name in ("ink", "paper", "glow"):
        scene.adapter(name)
    assert page_of("glow") in scene.settle()
    scene.settle()
    assert set(scene.keeper.notices) == {page_of("ink"), page_of("paper")}
    assert scene.settle() == set()
    assert "galleries" not in scene.ctx.troubles


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_that_cannot_be_made_costs_its_own_pages(scene: Scene, tmp_path: Path, link: bool) -> None:
    """One file in the way threw the whole round away, every minute anew."""
    (scene.vault / "LoraVault/Gallery").mkdir(parents=True)
    in_the_way = scene.vault / "LoraVault/Gallery/Families"
    if link:
        in_the_way.symlink_to(tmp_path)
    else:
        in_the_way.write_text("mine")
    scene.adapter("ink")
    written = scene.settle()
    assert {page_of("ink"), FOLDER, INDEX} <= written
    assert list(scene.keeper.notices) == [FAMILY]
    assert "LoraVault/Gallery/Families" in scene.keeper.notices[FAMILY]
    assert "galleries" not in scene.ctx.troubles
    assert scene.settle() == set()
    scene.forget("ink")
    scene.changed()
    assert "galleries" not in scene.ctx.troubles
    in_the_way.unlink()
    scene.adapter("ink")
    assert FAMILY in scene.changed()
    assert not scene.keeper.notices


def test_a_page_that_appears_while_it_is_written_is_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's file of that name is found to be none of ours, and left."""
    scene.adapter("ink")
    create_many = scene.ctx.writer.create_many

    def crossed(items: Any, refused: Any) -> list[str]:
        (scene.vault / page_of("ink")).parent.mkdir(parents=True, exist_ok=True)
        (scene.vault / page_of("ink")).write_text("somebody's")
        return create_many(items, refused)

    with monkeypatch.context() as patch:
        patch.setattr(scene.ctx.writer, "create_many", crossed)
        scene.settle()
    scene.settle()
    assert (scene.vault / page_of("ink")).read_text() == "somebody's"
    assert page_of("ink") in scene.keeper.notices


def test_a_page_that_changes_while_it_is_written_is_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync tool that brings an older page of ours at that moment is followed by the page as it should be."""
    scene.adapter("ink")
    scene.settle()
    old = (scene.vault / FAMILY).read_bytes()
    scene.adapter("glow")

    def crossed(rel: str, _new: bytes, _old: bytes | None) -> None:
        raise NoteChanged(f"{rel} was changed")

    with monkeypatch.context() as patch:
        patch.setattr(scene.ctx.writer, "write_own", crossed)
        scene.changed("glow")
    assert (scene.vault / FAMILY).read_bytes() == old
    assert FAMILY in scene.settle()
    assert "glow" in scene.text(FAMILY)


def test_a_bug_in_one_gallery_costs_that_gallery(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.adapter("ink")
    monkeypatch.setattr("loravault.pages.galleries.month_path", lambda *_: 1 / 0)
    scene.picture(1, "ink")
    assert page_of("ink") in scene.settle()
    assert "ZeroDivisionError" in scene.ctx.troubles["bug.galleries"]
