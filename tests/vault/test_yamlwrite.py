"""Properties of notes that we make from nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loravault.vault.note import parse_note
from loravault.vault.yamlwrite import EMPTY, SAFE_INTEGER, property_block, property_lines

_TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["true", "Null", "~", "no", "1e3", "0x1F", "12:30", "2026-11-20", "a: b", "- a", "a #b", 'say "x"', "\\", "[[a|b]]",
     "it's \"x\"", "...", "---", "?", "\u2028", "\ufeff"]
)  # fmt: skip
_VALUE = (
    _TEXT
    | st.booleans()
    | st.integers(-SAFE_INTEGER, SAFE_INTEGER)
    | st.lists(_TEXT, max_size=3).map(tuple)
    | st.just(EMPTY)
)


@given(st.dictionaries(st.sampled_from(["lora", "size_mb", "tags", "lora_file", "A-b"]), _VALUE))
def test_a_block_is_its_lines_and_reads_back_as_it_was_meant(properties: dict[str, Any]) -> None:
    block = property_block(properties)
    assert block == "".join(f"{line}\n" for key, value in properties.items() for line in property_lines(key, value))
    front = parse_note(f"---\n{block}---\n".encode()).frontmatter
    assert front is not None
    assert not front.problem
    meant = {key: None if value is EMPTY else list(value) if isinstance(value, tuple) else value
             for key, value in properties.items()}  # fmt: skip
    assert dict(front.properties) == meant


def test_a_number_that_obsidian_would_round_is_written_as_text() -> None:
    """2**53 is the first: hypothesis found that the property above had asked for it as a number."""
    assert property_block({"lora": SAFE_INTEGER}) == "lora: 9007199254740991\n"
    assert property_block({"lora": SAFE_INTEGER + 1}) == 'lora: "9007199254740992"\n'
