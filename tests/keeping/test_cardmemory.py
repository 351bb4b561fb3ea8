"""What the ledger remembers of cards survives the index and the shortening of the ledger."""

from __future__ import annotations

from pathlib import Path

from loravault.keeping.cardmemory import CardMemory
from loravault.vault import recovery
from loravault.vault.ledger import Ledger

A, B, C = (f"w1-{number:016x}" for number in range(3))


def told(memory: CardMemory) -> list[object]:
    def of(key: str) -> tuple[object, ...]:
        return memory.may_make(key), memory.is_deleted(key), memory.blank(key), memory.cover_was_filled(key)

    return [of(key) for key in (A, B, C)]


def test_everything_is_known_again_after_a_restart_and_after_compaction(tmp_path: Path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    memory = CardMemory(ledger)
    memory.made({A: ("weight",), B: ("weight",), C: ()}, {C})
    memory.filled_covers([A])
    memory.deleted([B, C])
    memory.back(C)
    assert told(memory) == [
        (False, False, ("weight",), True),
        (False, True, ("weight",), False),
        (False, False, (), True),
    ]
    assert told(CardMemory(ledger)) == told(memory)
    for number in range(50):
        ledger.append({"op": "write", "id": str(number)})
        ledger.append({"op": "verified", "id": str(number)})
    monkeypatch.setattr(recovery, "COMPACT_BYTES", 10)
    recovery.compact(ledger, 0.0)
    assert ledger.size() < 1000
    assert told(CardMemory(ledger)) == told(memory)


def test_a_card_that_is_asked_for_again_is_as_if_it_had_never_been(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    memory = CardMemory(ledger)
    memory.made({A: ("weight",)}, {A})
    memory.deleted([A])
    memory.wanted([A])
    assert told(memory)[0] == told(CardMemory(ledger))[0] == (True, False, (), False)


def test_what_was_the_users_is_known_after_a_deletion_and_forgotten_with_a_new_card(tmp_path: Path):
    """A card that was deleted may come back from the trash; one that is asked for anew is ours alone."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    memory = CardMemory(ledger)
    memory.adopted(A, ("rank", "state"), {"rank"})
    memory.adopted(A, None, {"rank"})
    memory.adopted(B, None, ())
    assert len(list(ledger.read())) == 1, "what is known is not written again, nor what is no adoption"
    memory.deleted([A])
    memory.back(A)
    assert (memory.had(A), memory.theirs(A)) == (("rank", "state"), {"rank"})
    memory.adopted(A, None, ())
    assert (CardMemory(ledger).had(A), CardMemory(ledger).theirs(A)) == (("rank", "state"), set())
    memory.wanted([A])
    assert memory.had(A) is CardMemory(ledger).had(A) is None


def test_a_card_is_remembered_in_few_bytes(tmp_path: Path):
    """Ten thousand cards are a matter of every start."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    CardMemory(ledger).made({f"w1-{number:016x}": ("weight", "rating") for number in range(1000)}, ())
    assert ledger.size() < 30 * 1000


def test_records_of_others_and_nonsense_say_nothing(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append_many(
        [{"op": "cards"}, {"op": "cards", "lora": 7}, {"op": "moved", "lora": A}, {"op": "card-back", "lora": B}]
    )
    assert told(CardMemory(ledger)) == [(True, False, (), False)] * 3
    assert CardMemory(ledger).all == set()
