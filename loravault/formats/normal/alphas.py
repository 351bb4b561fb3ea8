"""The alphas of files that have no `alpha` tensors: diffusers keeps PEFT's configuration in the metadata instead."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_ENTRY = "lora_adapter_metadata"
_LOW_RANK = frozenset({"lora", "locon"})


class Alphas:
    """What the metadata of one file says about alphas; most say nothing."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        try:
            table = json.loads(metadata.get(_ENTRY, "{}"))
        except (ValueError, RecursionError):
            table = {}
        self._table: dict[str, Any] = table if isinstance(table, dict) else {}
        self._patterns: dict[str, dict[str, Any]] = {}

    def of(self, component: str, module: str, algorithm: str, rank: int | None) -> float | None:
        """The alpha of one module (its path with dots, without component), so that alpha / rank is the scale.

        None if the metadata does not say it, or says what is no number.
        """
        if not self._table or not rank:
            return None
        value = self._pattern(component, module)
        if value is None:
            value = self._entry(component, "lora_alpha" if algorithm in _LOW_RANK else "alpha")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        # rank-stabilised: the scale is alpha / √rank
        return float(value) * (math.sqrt(rank) if self._entry(component, "use_rslora") is True else 1.0)

    def _entry(self, component: str, name: str) -> Any:
        """An entry of the configuration of one component, or of the only one there is."""
        return self._table.get(f"{component}.{name}", self._table.get(name))

    def _pattern(self, component: str, module: str) -> Any:
        """The alpha of its own that a module has; None if it has none.

        Patterns are ends of paths. They might be regular expressions, but no trainer writes such, and a stranger's are
        not run.
        """
        patterns = self._patterns.get(component)
        if patterns is None:
            found = self._entry(component, "alpha_pattern")
            rows = found.items() if isinstance(found, dict) else ()
            patterns = {str(key).removeprefix("^").replace("\\.", "."): value for key, value in rows}
            self._patterns[component] = patterns
        while patterns:
            if module in patterns:
                return patterns[module]
            _, dot, module = module.partition(".")
            if not dot:
                break
        return None
