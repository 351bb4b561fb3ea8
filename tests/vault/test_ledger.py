"""The ledger keeps every whole record, whatever a crash did to its last line."""

from __future__ import annotations

import json
import stat

import pytest

from loravault.errors import UserError
from loravault.vault.ledger import Ledger


def test_records_come_back_in_order_with_their_version(tmp_path):
    ledger = Ledger(tmp_path / "state" / "ledger.jsonl")
    assert list(ledger.read()) == []
    ledger.append({"op": "write", "path": "é\n.md"})
    ledger.append({"op": "placed"})
    assert list(ledger.read()) == [{"v": 1, "op": "write", "path": "é\n.md"}, {"v": 1, "op": "placed"}]
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


def test_a_line_cut_at_any_byte_loses_only_itself(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append({"n": 1})
    whole = ledger.path.read_bytes()
    line = json.dumps({"v": 1, "n": 2}).encode()
    for cut in range(len(line)):
        ledger.path.write_bytes(whole + line[:cut])
        ledger.append({"n": 3})
        assert [r["n"] for r in ledger.read()] == [1, 3], cut


@pytest.mark.parametrize("junk", [b"\xff\xfe\n", b"7\n", b"[]\n", b"null\n", b"\n\n", b"[" * 5000 + b"\n"])
def test_junk_is_skipped(tmp_path, junk):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_bytes(junk)
    ledger.append({"n": 1})
    assert [r["n"] for r in ledger.read()] == [1]


def test_a_ledger_of_a_newer_version_is_refused(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_bytes(b'{"v": 2, "op": "write"}\n')
    with pytest.raises(UserError, match="newer loravault"):
        list(ledger.read())


def test_several_records_are_written_at_once_and_none_makes_no_file(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append_many([])
    assert not ledger.path.exists()
    ledger.append_many({"op": "x", "n": number} for number in range(3))
    assert [record["n"] for record in ledger.read()] == [0, 1, 2]
