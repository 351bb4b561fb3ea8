"""What writing displaced is kept for a while, and nothing else is touched."""

from __future__ import annotations

from loravault.vault import displaced as displaced_room
from loravault.vault.displaced import KEEP_S, Displaced


def test_pruning_never_deletes_what_loravault_did_not_put_there(tmp_path, monkeypatch):
    """A large file of a person's in the folder counted, and went first."""
    monkeypatch.setattr(displaced_room, "KEEP_BYTES", 10)
    (tmp_path / "not ours").write_bytes(b"x" * 100)
    (tmp_path / "20991231-000000-0-a.md").write_bytes(b"x")
    Displaced(tmp_path, lambda: 1.7e9).prune()
    assert len(list(tmp_path.iterdir())) == 2


def test_displaced_copies_are_kept_for_a_week(tmp_path):
    clock = [1_700_000_000.0]
    kept = Displaced(tmp_path / "d", lambda: clock[0])
    for name in ("a.md", "dir/b.md"):
        (tmp_path / "x").write_bytes(b"x")
        kept.keep(tmp_path / "x", name)
        clock[0] += KEEP_S - 10
    (tmp_path / "d" / "not ours").write_bytes(b"x")
    kept.prune()
    assert sorted(p.name[18:] or p.name for p in (tmp_path / "d").iterdir()) == sorted(
        ["b.md", "not ours"[18:] or "not ours"]
    )
