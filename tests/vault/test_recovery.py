"""What a crash left is brought to its end at the next start, and the ledger stays short."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from loravault.vault.displaced import Displaced
from loravault.vault.safewrite import VaultWriter
from tests.vault.scene import broken, sha


def test_recovery_decides_by_content_and_tells_what_nobody_can_explain(scene):
    ledger = scene.writer.ledger
    for number, content in enumerate((b"new", b"base", b"an edit", None)):
        ident = f"{number:08x}"
        record = {"op": "write", "id": ident, "path": "sub/note.md", "temp": f"sub/.lv-{ident}.tmp"}
        ledger.append({**record, "base": sha(b"base"), "new": sha(b"new")})
        if content is not None:
            (scene.root / "sub").mkdir(exist_ok=True)
            (scene.root / f"sub/.lv-{ident}.tmp").write_bytes(content)
    (scene.root / "sub/.lv-00000003.part").write_bytes(b"ne")
    (scene.root / "sub/.lv-ffffffff.tmp").write_bytes(b"whose?")
    sentences = scene.restart().recover()
    assert [s for s in sentences if "merge the two" in s]
    assert [s for s in sentences if ".lv-ffffffff.tmp" in s]
    assert (scene.displaced(), scene.conflicts(), len(sentences)) == ([b"base"], [b"an edit"], 2)
    assert [f for f in scene.files() if ".lv-" in f] == ["sub/.lv-ffffffff.tmp"]
    assert len(scene.restart().recover()) == 1, "told once more, and nothing else is left to do"


def test_what_recovery_cannot_settle_does_not_keep_the_daemon_from_starting(scene, monkeypatch):
    """One temp that could not be read, or one conflict copy that failed, and every start ended in a traceback."""
    for number in (1, 2, 3):
        ident = f"{number:08x}"
        record = {"op": "write", "id": ident, "path": f"n{number}.md", "temp": f".lv-{ident}.tmp"}
        scene.writer.ledger.append({**record, "base": sha(b"base"), "new": sha(b"new")})
        (scene.root / f".lv-{ident}.tmp").write_bytes(b"an edit" if number < 3 else b"base")
    (scene.root / ".lv-own-77.tmp").write_bytes(b"page")
    real = Path.read_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: broken() if self.name == ".lv-00000001.tmp" else real(self))
        patch.setattr(VaultWriter, "keep_conflict", broken)
        patch.setattr(Displaced, "keep", broken)
        sentences = scene.restart().recover()
    assert len(sentences) == 4
    assert all("No space left" in sentence for sentence in sentences)
    assert len([f for f in scene.files() if ".lv-" in f]) == 4
    assert len(scene.restart().recover()) == 2, "the next start brings it to its end: two conflict copies"
    assert (scene.conflicts(), scene.displaced()) == ([b"an edit"] * 2, [b"page", b"base"])


def grown(scene) -> list[dict]:
    """A ledger of over 1 MiB with one open write and records of kinds that this module does not know."""
    ledger = scene.writer.ledger
    kept = [
        {"v": 1, "op": "tombstone", "path": "a.md"},
        {"v": 1, "op": "write", "id": "open", "path": "o.md", "base": "x", "new": "y"},
        {"v": 1, "op": "move", "id": "id-of-a-write", "to": "b.md"},
        {"v": 1, "kind": "no op at all"},
    ]
    ops = (b'{"v":1,"op":"%s","id":"%%d"}\n' % op for op in (b"write", b"placed", b"verified"))
    done = b"".join(line % n for line in ops for n in range(6000))
    ledger.path.parent.mkdir(exist_ok=True)
    ledger.path.write_bytes(done + b"".join(json.dumps(r).encode() + b"\n" for r in kept) + done + b'{"torn')
    return kept


def test_a_ledger_over_a_mebibyte_is_compacted_and_keeps_what_still_matters(scene):
    """It was never shortened and read as a whole at each start."""
    kept = grown(scene)
    assert scene.writer.prune() == []
    assert list(scene.writer.ledger.read()) == kept
    assert stat.S_IMODE(scene.writer.ledger.path.stat().st_mode) == 0o600
    assert scene.restart().recover() == []
    assert [r.get("op") for r in scene.writer.ledger.read()][-1] == "recovered"
    grown(scene)
    scene.restart().recover()
    assert scene.writer.ledger.size() < 1000, "the start compacts too"


def test_a_crash_or_a_full_disk_while_compacting_leaves_the_old_ledger(scene, at_failpoint):
    grown(scene)
    before = scene.writer.ledger.path.read_bytes()
    at_failpoint("ledger.rewritten", broken)
    (sentence,) = scene.writer.prune()
    assert "No space left" in sentence
    assert scene.writer.ledger.path.read_bytes() == before
    assert scene.writer.prune() == []
    assert scene.writer.ledger.size() < 1000
    assert sorted(p.name for p in scene.state.iterdir()) == ["ledger.jsonl"]


def test_recovery_finds_a_temp_whose_folder_was_renamed(scene):
    (scene.root / "old").mkdir()
    (scene.root / "old/n.md").write_bytes(b"base")
    scene.writer.replace("old/n.md", b"base", b"new")
    os.rename(scene.root / "old", scene.root / "moved")
    assert scene.restart().recover() == []
    assert (scene.files(), scene.displaced()) == (["moved/n.md", "note.md"], [b"base"])
