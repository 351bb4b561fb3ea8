"""Entries are made of rows: whatever was stored as JSON is read back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loravault.index.database import Index
from loravault.index.library import card_paths, entries
from loravault.index.tables import AdapterRow, CardRow

ONE = "w1-0123456789abcdef"


@pytest.mark.parametrize("value", [1, 0.5, 10**30, float("inf"), "\ud83d", "水墨\u2028", ["a", None, {"b": True}]])
def test_facts_are_what_was_stored(tmp_path: Path, value: Any) -> None:
    """Numbers without bounds and half characters are rare, but strangers wrote them; they cost no entry."""
    index = Index(tmp_path / "index.sqlite")
    with index.session() as session:
        facts = json.dumps({"notes": value})
        session.add(AdapterRow(root="loras", rel="a.safetensors", name="a", weight_id=ONE, facts=facts, hashed=True))
        found = entries(session)  # in the same transaction: what waits to be written counts
    index.close()
    assert [(entry.facts["notes"], entry.hashed) for entry in found] == [(value, True)]


def test_of_two_cards_the_first_by_path_counts_and_one_that_is_left_alone_does_not(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite")
    with index.session() as session:
        session.add(AdapterRow(root="loras", rel="a.safetensors", name="a", weight_id=ONE))
        session.add(CardRow(path="A.md", weight_id=ONE, problem="left alone", fields='{"rating": 1}'))
        session.add(CardRow(path="C.md", weight_id=ONE, fields='{"rating": 3}'))
        session.add(CardRow(path="B.md", weight_id=ONE, fields='{"rating": 2}'))
        assert [(entry.card, entry.rating) for entry in entries(session)] == [("B.md", 2)]
        assert entries(session, only=["w1-ffffffffffffffff"]) == []
        assert card_paths(session, [ONE]) == {ONE: "B.md"}
        assert entries(session, with_cards=False)[0].card is None
    index.close()
