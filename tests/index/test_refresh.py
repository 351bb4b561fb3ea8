"""The index follows the files: new and changed ones are read once, moved and copied ones are known again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loravault.index import adapters, refresh
from tests.formats import headers
from tests.index.library import LATER, Library


def test_new_files_are_read_and_unchanged_ones_never_again(library: Library) -> None:
    library.put("a.safetensors", "b.safetensors")
    first = library.look()
    assert (first.seen, first.read, first.changed, library.read) == (2, 2, True, ["a.safetensors", "b.safetensors"])
    second = library.look()
    assert (second.seen, second.read, second.changed, library.read) == (2, 0, False, [])


def test_a_changed_file_is_read_again_alone(library: Library) -> None:
    library.put("a.safetensors", "b.safetensors")
    library.look()
    before = library.rows()[0].weight_id
    library.put("a.safetensors", fill=9)
    library.look()
    assert library.read == ["a.safetensors"]
    assert library.rows()[0].weight_id != before


def test_a_growing_file_is_no_broken_file(library: Library) -> None:
    """A copy that is going on is looked at again; one that stays as it is is told as incomplete."""
    whole = headers.adapter(headers.lora())
    path = headers.write(library.main / "a.safetensors", whole[:-7])
    result = library.look(now=path.stat().st_mtime + 1)
    assert (result.unsettled, result.read, library.states()) == (1, 0, {})
    assert library.look(now=path.stat().st_mtime + 3).broken == 1
    assert library.states() == {"main/a.safetensors": "incomplete"}
    assert "bytes of its tensors are missing" in (library.rows()[0].reason or "")
    path.write_bytes(whole)
    library.look(now=path.stat().st_mtime + 1)
    assert library.states() == {"main/a.safetensors": "ok"}, "what is whole need not wait"


def hollow(path: Path, filled: float) -> bytes:
    """An adapter of 2 MiB whose room is reserved; so much of it is there already. Returns the whole one."""
    whole = headers.adapter(headers.lora(width=4096, rank=128, out=4096))
    at = len(whole) - int(2 * 2**20 * (1 - filled))
    headers.write(path, whole[:at] + bytes(len(whole) - at))
    return whole


@pytest.mark.parametrize("filled", [0.0, 0.4, 0.7])
def test_a_file_whose_room_is_reserved_is_no_adapter_before_it_is_filled(library: Library, filled: float) -> None:
    """A copy that reserves its room first is as long as it will be: it got a card for zeros, and then one more."""
    path = library.main / "a.safetensors"
    whole = hollow(path, filled)
    written = path.stat().st_mtime
    assert library.look(now=written + 1).unsettled == 1
    assert library.look(now=written + 5).weights == set()
    (row,) = library.rows()
    assert (row.state, row.weight_id) == ("incomplete", None)
    assert "zeros" in (row.reason or "")
    assert library.look(now=written + 35).read == 0, "it is not read again and again while it waits"
    path.write_bytes(whole)
    os.utime(path, (written + 40, written + 40))
    library.look(now=written + 43)
    assert library.states() == {"main/a.safetensors": "ok"}, "what is whole need not wait"


def test_weights_that_are_zeros_are_an_adapter_when_the_copying_must_be_over(library: Library) -> None:
    path = library.main / "a.safetensors"
    hollow(path, 0.0)
    written = path.stat().st_mtime
    library.look(now=written + 5)
    library.look(now=written + refresh.HOLLOW_S + 1)
    assert library.states() == {"main/a.safetensors": "ok"}
    assert library.look(now=written + refresh.HOLLOW_S + 31).read == 0


def test_an_old_file_of_zeros_and_a_small_one_are_adapters_at_once(library: Library) -> None:
    path = library.main / "old.safetensors"
    hollow(path, 0.0)
    headers.write(library.main / "small.safetensors", headers.adapter(headers.lora(), fill=0))
    os.utime(path, (1, 1))
    library.look(now=(library.main / "small.safetensors").stat().st_mtime + 5)
    assert set(library.states().values()) == {"ok"}


def test_a_broken_file_of_the_future_is_told_all_the_same(library: Library) -> None:
    """It counted as young for ever, and was read every few seconds."""
    path = headers.write(library.main / "a.safetensors", b"")
    os.utime(path, (LATER + 10**6, LATER + 10**6))
    assert library.look().unsettled == 0
    assert library.states() == {"main/a.safetensors": "broken"}


def test_the_same_weights_in_two_places_are_two_rows_of_one_adapter(library: Library) -> None:
    library.put("a.safetensors", "more/copy.safetensors", fill=5)
    library.look()
    first, second = library.rows()
    assert first.weight_id == second.weight_id
    assert (first.rel, second.rel) == ("a.safetensors", "copy.safetensors")
    with library.index.session() as session:
        for row in adapters.adapters(session):
            row.hashed, row.autov2, row.autov3 = False, None, None
            session.add(row)
    with library.index.session() as session:
        adapters.store_hashes(session, first.weight_id or "", ("more", "copy.safetensors"), "v2", "v3")
    told = {row.rel: (row.autov2, row.autov3) for row in library.rows()}
    assert told == {"a.safetensors": (None, "v3"), "copy.safetensors": ("v2", "v3")}, "a copy may have another header"


def test_measured_hashes_survive_a_touch_and_no_change_of_weights(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker measured them; the claim in the header of a large file must not take their place."""
    monkeypatch.setattr("loravault.library.identify.HASH_AT_ONCE_BYTES", 0)
    path = library.main / "a.safetensors"

    def write(fill: int) -> None:
        headers.write(path, headers.adapter(headers.lora(), {"sshs_model_hash": "ab" * 32}, fill=fill))

    write(1)
    library.look()
    assert (library.rows()[0].autov2, library.rows()[0].autov3) == (None, "ab" * 6)
    with library.index.session() as session:
        row = library.rows()[0]
        adapters.store_hashes(session, row.weight_id or "", ("main", row.rel), "measured2", "measured3")
    os.utime(path, (1, 1))
    library.look()
    assert (library.read, library.rows()[0].autov2, library.rows()[0].autov3) == (
        ["a.safetensors"],
        "measured2",
        "measured3",
    )
    write(2)
    library.look()
    assert (library.rows()[0].autov2, library.rows()[0].autov3) == (None, "ab" * 6)


def test_a_first_start_works_in_slices(library: Library) -> None:
    """A large library kept the daemon from everything else until its last header was read."""
    library.put(*(f"{letter}.safetensors" for letter in "abc"), "more/d.safetensors")
    read: list[str] = []
    for _ in range(3):
        assert library.look(budget_s=0.0).unfinished
        assert len(library.read) == 1, "every slice gets on, and none takes more than its time"
        read += library.read
    last = library.look(budget_s=0.0)
    read += library.read
    assert not last.unfinished
    assert read == ["a.safetensors", "b.safetensors", "c.safetensors", "d.safetensors"]
    assert not library.look(budget_s=0.0).unfinished


def test_numbers_of_a_network_file_system_are_stored_and_compared(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inode of 2⁶³ or more, or a time after 2262, raised OverflowError at every look."""
    library.put("a.safetensors", "b.safetensors")
    real = os.stat

    def stat(path: str | Path, **options: object) -> object:
        status = real(path, **options)  # type: ignore[arg-type]
        if not os.fspath(path).endswith(".safetensors"):
            return status
        return os.stat_result((status.st_mode, 2**64 - status.st_ino, 2**64 - 1, *status[3:]), {"st_mtime_ns": 2**65})

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr("loravault.library.scan.look_at", stat)
    assert library.look().read == 2
    assert library.look().read == 0


def test_a_moved_file_is_known_again_without_being_hashed(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reorganising folders cost a night of hashing in other tools, and their cards."""
    monkeypatch.setattr("loravault.library.identify.HASH_AT_ONCE_BYTES", 0)
    library.put("a.safetensors", "b.safetensors", "c.safetensors", "d.safetensors", "e.safetensors")
    library.look()
    with library.index.session() as session:
        for row in adapters.adapters(session):
            row.hashed, row.sha256 = True, f"sha of {row.rel}"
            session.add(row)
    (library.main / "Styles").mkdir()
    for name in "abcd":  # most of the library at once, and one of them into another root
        home = library.roots[1].path if name == "d" else library.main / "Styles"
        (library.main / f"{name}.safetensors").rename(home / f"new {name}.safetensors")
    result = library.look()
    assert result.troubles == {}, "moving is not losing"
    assert library.states() == {
        "main/Styles/new a.safetensors": "ok",
        "main/Styles/new b.safetensors": "ok",
        "main/Styles/new c.safetensors": "ok",
        "main/e.safetensors": "ok",
        "more/new d.safetensors": "ok",
    }
    assert all(row.hashed and row.sha256 for row in library.rows())
    assert library.look().changed is False


def test_copies_are_told_and_the_oldest_is_used_then_the_first_by_place(library: Library) -> None:
    library.put("b.safetensors", "a.safetensors", "more/c.safetensors", "A later copy.safetensors", fill=5)
    library.put("other.safetensors", fill=6)
    for old in (library.main / "a.safetensors", library.main / "b.safetensors", *library.main.parent.glob("more/c.*")):
        os.utime(old, (1000, 1000))
    library.look()
    assert library.states() == {
        "main/A later copy.safetensors": "duplicate",
        "main/a.safetensors": "ok",
        "main/b.safetensors": "duplicate",
        "main/other.safetensors": "ok",
        "more/c.safetensors": "duplicate",
    }
    assert [row.reason for row in library.rows() if row.rel == "c.safetensors"] == [
        "the same weights as main/a.safetensors"
    ]
    (library.main / "a.safetensors").unlink()
    library.look()
    assert library.states()["main/b.safetensors"] == "ok", "a copy that is used again is no duplicate"
    assert "main/a.safetensors" not in library.states(), "a copy that went is not missed"


def test_a_file_that_is_being_downloaded_is_incomplete_whatever_it_holds(library: Library) -> None:
    library.put("a.safetensors")
    (library.main / "a.safetensors.part").write_bytes(b"")
    library.look()
    assert library.states() == {"main/a.safetensors": "incomplete"}
    (library.main / "a.safetensors.part").unlink()
    library.look()
    assert library.states() == {"main/a.safetensors": "ok"}


def test_a_changed_file_beside_an_adapter_is_a_change_of_it(library: Library) -> None:
    library.put("a.safetensors", "a.v2.safetensors")
    library.look()
    (library.main / "a.json").write_text('{"activation text": "sks"}')
    library.look()
    assert library.read == ["a.safetensors"]
    (library.main / "A.V2.preview.png").write_bytes(b"\x89PNG")
    library.look()
    assert library.read == ["a.safetensors", "a.v2.safetensors"], "its name also begins with that of the other"
    library.look()
    assert library.read == []


def test_pickles_are_told_by_name(library: Library) -> None:
    (library.main / "old.pt").write_bytes(b"\x80\x02")
    assert library.look().pickles == {"main": ("old.pt",), "more": ()}
