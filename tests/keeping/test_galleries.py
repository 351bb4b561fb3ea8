"""Gallery pages on disk: only what changed is written, what the user changed is left, nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import delete

from loravault.index import images
from loravault.index.tables import AdapterRow, CardRow, CoverRow, ImageRow, MadeRow
from loravault.pages import bases, own
from tests.keeping.galleryscene import FAMILY, FOLDER, INDEX, MONTH, Scene, page_of
from tests.pages.shelves import weight_id

BASES = {f"LoraVault/{name}" for name in bases.NAMES}


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


def test_a_page_that_the_user_edited_and_then_deleted_comes_back(scene: Scene) -> None:
    """The notice says to delete it to get a current one, and then none came until something else changed."""
    scene.adapter("ink")
    scene.changed()
    page = scene.vault / FAMILY
    made = page.read_bytes()
    page.write_bytes(made + b"mine\n")
    assert scene.changed() == set()
    assert "was changed by you" in scene.keeper.notices[FAMILY]
    page.unlink()
    scene.keeper.notes_gone([FAMILY, "Diary.md"])
    assert scene.settle() == {FAMILY}
    assert page.read_bytes() == made
    assert scene.keeper.notices == {}
    scene.keeper.notes_gone(["Diary.md"])
    assert not scene.keeper.is_behind


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
