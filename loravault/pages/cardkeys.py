"""Our keys on a card, and whose each of them is: in a note that was adopted, some were its owner's before. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from loravault.vault.inert import inert_value
from loravault.vault.properties import EMPTY
from loravault.vault.yamlwrite import PropertyValue

#: The keys that are ours.
CARD_KEYS = (
    "family", "network", "rank", "size_mb", "category", "lora_file", "copies", "civitai", "added", "state", "sha256",
    "autov2", "autov3", "lora",
)  # fmt: skip
#: Characters of a value that are told.
_TOLD = 40


class _Absent:
    """No such property."""


ABSENT = _Absent()


def found_at(present: Mapping[str, Any], key: str) -> Any:
    """What a property holds, in whatever case its name is; `ABSENT` if there is none."""
    if key in present:
        return present[key]
    return next((value for name, value in present.items() if name.casefold() == key), ABSENT)


def says(found: Any, value: PropertyValue) -> bool:
    """Whether a property holds this."""
    if isinstance(value, tuple):
        return isinstance(found, list) and found == list(value)
    if value is EMPTY:
        return found is None
    if isinstance(value, float | int) and not isinstance(value, bool):
        return isinstance(found, float | int) and not isinstance(found, bool) and found == value
    return type(found) is type(value) and found == value


def stood_there(present: Mapping[str, Any], weight_id: str, theirs: Collection[str]) -> tuple[str, ...] | None:
    """Which of our keys a note holds that is to be adopted; None if it names its adapter, or was adopted already."""
    lora = found_at(present, "lora")
    if isinstance(lora, str) and lora.strip().lower() == weight_id:
        return None
    if "lora" in theirs and _holds_other(lora, weight_id):
        return None
    return tuple([key for key in CARD_KEYS if found_at(present, key) is not ABSENT])


def held_by_owner(
    present: Mapping[str, Any], candidates: Collection[str], ours: Mapping[str, PropertyValue]
) -> dict[str, str]:
    """The candidates that hold something else than we would say -> what, on one line. `lora_file` is always ours."""
    found = {key: found_at(present, key) for key in CARD_KEYS if key in candidates and key != "lora_file"}
    return {key: _on_a_line(value) for key, value in found.items() if _holds_other(value, ours.get(key, EMPTY))}


def _holds_other(found: Any, value: PropertyValue) -> bool:
    return found is not ABSENT and found not in (None, "", []) and not says(found, value)


def _on_a_line(found: Any) -> str:
    if isinstance(found, dict):
        return "nested properties"
    return inert_value(", ".join(map(str, found)) if isinstance(found, list) else str(found), _TOLD)
