"""Housekeeping on a real vault: only what nothing speaks for goes, all of it comes back, and a plan changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loravault.daemon import Daemon
from loravault.errors import UserError
from loravault.keeping.tidy import CleanPlan, confirm_twins, same_weights
from tests.keeping.houseworld import age, beside, copy, house, plan
from tests.world import World


def approved(found: CleanPlan) -> set[tuple[str, str]]:
    return {(piece.area, piece.rel) for item in found.items for piece in item.pieces}


def names(found: CleanPlan) -> list[str]:
    return [item.name for item in found.items]


def test_duplicates_go_with_their_sidecars_and_come_back(world: World, daemon: Daemon) -> None:
    world.adapter("A/ink.safetensors")
    copy(world, "A/ink.safetensors", "B/copy.safetensors")
    beside(world, "A/ink.json", '{"kept": 1}')
    beside(world, "B/copy.json", '{"gone": 1}')
    beside(world, "B/copy.civitai.info", '{"only": "here"}')
    age(world)
    before = world.tree()
    found = plan(daemon, "duplicates")
    assert names(found) == ["loras/B/copy.safetensors"]
    assert found == confirm_twins(world.config, found)
    assert world.tree() == before

    reply = house(daemon).clean(["duplicates"], approved(found))
    assert len(reply["moved"]) == 3
    assert reply["stayed"] == []
    after = world.tree()
    assert sorted(after.values()) == sorted(before.values())
    assert after["loras/A/ink.civitai.info"] == b'{"only": "here"}', "what the kept copy lacked moved over to it"
    assert after["loras/A/ink.json"] == b'{"kept": 1}'
    assert sorted(p.name for p in world.loras.glob("[AB]/*")) == ["ink.civitai.info", "ink.json", "ink.safetensors"]
    assert plan(daemon, "duplicates", "sidecars").items == ()

    assert house(daemon).undo(None)["stayed"] == []
    assert world.tree() == before
    assert names(plan(daemon, "duplicates")) == ["loras/B/copy.safetensors"]


def test_equal_samples_are_not_equal_weights(world: World, daemon: Daemon) -> None:
    """A weight id is made from samples of the file: before anything goes all of it is compared."""
    world.adapter("a.safetensors")
    other = copy(world, "a.safetensors", "b.safetensors")
    found = plan(daemon, "duplicates")
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(bytes(data))
    confirmed = confirm_twins(world.config, found)
    assert confirmed.items == ()
    assert confirmed.stays == (
        ("loras/b.safetensors", "its weights differ somewhere from those of loras/a.safetensors"),
    )
    assert not same_weights(world.loras / "a.safetensors", other)


def test_what_cannot_be_compared_stays_and_the_reason_is_the_true_one(world: World, daemon: Daemon) -> None:
    """A file that could not be read was said to have other weights than its namesake."""
    world.adapter("a.safetensors")
    other = copy(world, "a.safetensors", "b.safetensors")
    found = plan(daemon, "duplicates")
    other.unlink()
    confirmed = confirm_twins(world.config, found)
    assert confirmed.items == ()
    assert confirmed.stays == (
        ("loras/b.safetensors", "it could not be compared with loras/a.safetensors (No such file or directory)"),
    )


def test_weights_are_equal_whatever_the_headers_say(world: World) -> None:
    one = world.adapter("x.safetensors")
    data = one.read_bytes()
    world.adapter("x.safetensors", ss_output_name="another")
    other = world.loras / "y.safetensors"
    other.write_bytes(data)
    assert same_weights(one, other)


def test_a_file_that_goes_for_two_reasons_counts_once(world: World, daemon: Daemon) -> None:
    world.adapter("a.safetensors")
    copy(world, "a.safetensors", "b.safetensors")
    age(world)
    found = plan(daemon, "duplicates", "unused")
    assert [(item.kind, [piece.rel for piece in item.pieces]) for item in found.items] == [
        ("duplicates", ["b.safetensors"]),
        ("unused", ["a.safetensors"]),
    ]
    assert found.size == 2 * (world.loras / "a.safetensors").stat().st_size


def test_a_link_is_no_duplicate(world: World, daemon: Daemon) -> None:
    one = world.adapter("A/ink.safetensors")
    (world.loras / "B").mkdir()
    os.link(one, world.loras / "B" / "ink.safetensors")
    (world.loras / "C").symlink_to(world.loras / "A")
    assert plan(daemon, "duplicates").items == ()


def test_what_changed_since_it_was_listed_stays(world: World, daemon: Daemon) -> None:
    world.adapter("a.safetensors")
    copy(world, "a.safetensors", "b.safetensors")
    shown = approved(plan(daemon, "duplicates"))
    world.note("Cat.md", "<lora:b:1>")
    reply = house(daemon).clean(["duplicates"], shown)
    assert reply["moved"] == []
    assert reply["stayed"] == [["loras/b.safetensors", "Cat.md names it"]]
    copy(world, "a.safetensors", "c.safetensors")
    (world.vault / "Cat.md").unlink()
    daemon.refresh()
    assert [move[1] for move in house(daemon).clean(["duplicates"], shown)["moved"]] == ["b.safetensors"]


def test_orphaned_sidecars_are_found_in_every_folder_but_the_hidden(world: World, daemon: Daemon) -> None:
    world.adapter("A/ink.safetensors")
    for rel in ("A/ink.civitai.info", "A/lost.civitai.info", "B/C/gone.preview.png", ".hidden/x.civitai.info"):
        beside(world, rel)
    assert names(plan(daemon, "sidecars")) == ["loras/A/lost.civitai.info", "loras/B/C/gone.preview.png"]


def test_unused_is_listed_and_moves_with_its_sidecars(world: World, daemon: Daemon) -> None:
    world.adapter("used.safetensors", rank=2)
    world.adapter("old/forgotten.safetensors", rank=8)
    world.adapter("old/aliased.safetensors", rank=3, ss_output_name="my_style")
    beside(world, "old/forgotten.preview.png", "png")
    age(world)
    world.adapter("new.safetensors", rank=16)
    world.note("Cat.md", "a <lora:used:0.7> cat in <lora:my_style:1>")
    before = world.tree()
    found = plan(daemon, "unused")
    assert names(found) == ["loras/old/forgotten.safetensors"]
    house(daemon).clean(["unused"], approved(found))
    assert [path.name for path in (world.loras / "old").iterdir()] == ["aliased.safetensors"]
    with daemon.ctx.index.session() as session:
        from loravault.index.adapters import adapter_at

        row = adapter_at(session, "loras", "old/forgotten.safetensors")
        assert row is not None
        assert row.state == "missing"
    house(daemon).undo(None)
    assert world.tree() == before


def pictures(world: World, daemon: Daemon, *prompts: str) -> list[str]:
    world.request("Cat.md", *prompts, seed=42)
    world.finish(daemon, "Cat.md")
    return sorted(path.relative_to(world.vault).as_posix() for path in world.vault.rglob("lv-*.webp"))


@pytest.mark.parametrize("keeper", ["Notes/b.md", "board.canvas", "v.base", "d.excalidraw.md", "Templates/t.md"])
def test_a_picture_that_any_file_embeds_stays(world: World, daemon: Daemon, keeper: str) -> None:
    first, second = pictures(world, daemon, "a red cat", "a blue dog")
    assert plan(daemon, "images").items == ()
    text = world.read("Cat.md").replace(first.rpartition("/")[2], "gone.webp")
    text = text.replace(second.rpartition("/")[2], "gone.webp")
    world.note("Cat.md", text)
    assert names(plan(daemon, "images")) == [first, second]
    world.note(keeper, f'{{"file": "{second}"}}')
    assert names(plan(daemon, "images")) == [first]


def test_pictures_without_our_chunk_are_never_touched(world: World, daemon: Daemon) -> None:
    (made,) = pictures(world, daemon, "a red cat")
    theirs = world.vault / made.replace("lv-2", "lv-1")
    theirs.write_bytes(b"RIFF\x04\x00\x00\x00WEBP")
    (world.vault / "Cat.md").unlink()
    found = plan(daemon, "images")
    assert names(found) == [made]
    reply = house(daemon).clean(["images"], {*approved(found), ("", theirs.relative_to(world.vault).as_posix())})
    assert [move[1] for move in reply["moved"]] == [made]
    assert theirs.exists()
    assert reply["moved"][0][2].startswith(".trash/loravault-")
    house(daemon).undo(None)
    assert (world.vault / made).exists()


def test_our_own_gallery_pages_do_not_keep_a_picture(world: World, daemon: Daemon) -> None:
    from loravault.pages import own

    (made,) = pictures(world, daemon, "a red cat")
    (world.vault / "Cat.md").unlink()
    page = own.seal(f"---\nlv: gallery\n---\n![[{made}]]\n")
    world.note("LoraVault/Gallery/All.md", page)
    assert names(plan(daemon, "images")) == [made]
    world.note("LoraVault/Gallery/All.md", page + b"my own words\n")
    assert plan(daemon, "images").items == ()


def test_covers_that_nothing_shows_go(world: World, daemon: Daemon) -> None:
    covers = world.vault / "LoraVault/Images/Covers"
    covers.mkdir(parents=True)
    used, stale, theirs = f"lv-cover-{'a' * 16}-{'1' * 8}.webp", f"lv-cover-{'a' * 16}-{'2' * 8}.webp", "my cover.webp"
    for name in (used, stale, theirs):
        (covers / name).write_bytes(b"x")
    world.note("LoraVault/LoRAs/ink.md", f'---\ncover: "[[LoraVault/Images/Covers/{used}]]"\n---\n')
    assert names(plan(daemon, "images")) == [f"LoraVault/Images/Covers/{stale}"]


def test_a_note_that_cannot_be_read_keeps_all_pictures(
    world: World, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(world, daemon, "a red cat")
    (world.vault / "Cat.md").unlink()
    world.note("locked.md", "x")
    honest = Path.open

    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == "locked.md":
            raise OSError(5, "Input/output error")
        return honest(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", refuse)
    found = plan(daemon, "images")
    assert found.items == ()
    assert found.problems == (
        "locked.md cannot be read (Input/output error), so it is not known which pictures are embedded; none of them "
        "is touched.",
    )


def test_a_picture_whose_answer_waits_stays(world: World, daemon: Daemon) -> None:
    daemon.deliverer.step = lambda: None  # type: ignore[method-assign]
    world.request("Cat.md", "a red cat", seed=42)
    world.work(daemon, lambda: bool(list(world.vault.rglob("lv-*.webp"))) and daemon.dispatcher.job is None)
    found = plan(daemon, "images")
    assert found.items == ()
    assert [why for _, why in found.stays] == ["its answer waits to be written"]


def test_the_trash_is_emptied_only_of_what_was_shown(world: World, daemon: Daemon) -> None:
    from loravault.keeping.trash import Trash

    for name in ("one", "two"):
        beside(world, f"{name}.civitai.info")
        house(daemon).clean(["sidecars"], approved(plan(daemon, "sidecars")))
    bins = Trash(world.config, daemon.ctx.ledger).binned()
    assert len(bins) == 2
    reply = house(daemon).obey("house.empty", {"approved": [[bins[0].area, bins[0].rel]]})
    assert (reply["deleted"], reply["problems"]) == (1, [])
    assert len(list((world.loras / ".loravault-trash").rglob("*.info"))) == 1


def test_an_unknown_command_is_refused_in_words(daemon: Daemon) -> None:
    with pytest.raises(UserError, match="does not know"):
        house(daemon).obey("house.paint", {})
    with pytest.raises(UserError, match="nothing called paint"):
        plan(daemon, "paint")
