"""Names of adapters are read again for those that changed only, and are what a reading of all would give."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.index import cards as rows
from loravault.keeping.cardmemory import CardMemory
from loravault.keeping.cardreading import CardReading
from loravault.vault.ledger import Ledger
from tests.index.test_hinted import EVENTS, Loras


@settings(max_examples=25)
@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_places_that_are_read_bit_by_bit_are_those_there_are(tmp_path_factory, rounds) -> None:
    home: Path = tmp_path_factory.mktemp("places")
    loras = Loras(home)
    reading = CardReading(loras.index, CardMemory(Ledger(home / "ledger.jsonl")))
    for events in rounds:
        for name, fill in events:
            if fill:
                loras.put(name, fill)
            else:
                (loras.root.path / name).unlink(missing_ok=True)
        names = [name for name, _ in events]
        for look in (lambda names=names: loras.hint(*names), loras.look, loras.look):
            reading.library_changed(look().weights)
            with loras.index.session() as session:
                assert reading.places == rows.adapter_places(session)
    loras.index.close()
