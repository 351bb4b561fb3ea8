"""The settings of `config.toml` and what each may be: one table, one check per setting."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

DEFAULT_FOLDER = "LoraVault"

#: `cover_level` -> the highest level of Civitai's that is shown as it is. `all` blurs nothing.
COVER_LEVELS: Mapping[str, int] = {"none": 0, "PG": 1, "PG-13": 2, "R": 4, "X": 8, "XXX": 16, "all": 1 << 30}


@dataclass(frozen=True)
class Root:
    """A folder with adapters. The name, not the path, is what cards remember."""

    name: str
    path: Path


class NotThis(Exception):  # noqa: N818 - caught by config.parse
    """The value is not one of those allowed; the text completes the sentence that names the key."""


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(raw: Any) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float) or not low <= raw <= high:
            raise NotThis(f"must be a number from {low:g} to {high:g}, not {raw!r}")
        return float(raw)

    return check


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise NotThis(f"must be a whole number from {low} to {high}, not {raw!r}")
        return int(raw)

    return check


def _choice(*allowed: str) -> Callable[[Any], str]:
    def check(raw: Any) -> str:
        if raw not in allowed:
            raise NotThis(f"must be one of {', '.join(allowed)}, not {raw!r}")
        return str(raw)

    return check


def _matching(pattern: str, what: str) -> Callable[[Any], str]:
    def check(raw: Any) -> str:
        if not isinstance(raw, str) or not re.fullmatch(pattern, raw):
            raise NotThis(f"must be {what}, not {raw!r}")
        return str(raw)

    return check


def _switch(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise NotThis(f"must be true or false, not {raw!r}")
    return raw


def _path(raw: Any) -> Path:
    path = Path(raw).expanduser() if isinstance(raw, str) and raw.strip() else None
    if path is None or not path.is_absolute():
        raise NotThis(f"must be a full path, not {raw!r}")
    return path


def _paths(raw: Any) -> tuple[Path, ...]:
    if not isinstance(raw, list):
        raise NotThis(f"must be a list of full paths, not {raw!r}")
    return tuple(_path(item) for item in raw)


def _root(name: str, raw: Any) -> Root:
    try:
        return Root(name, _path(raw))
    except NotThis as reason:
        if name not in SHARED:
            raise
        # a line that was added at the end of the file belongs to the table above it
        raise NotThis(f"has `{name}` below its heading: move that line above the first [heading]") from reason


def _roots(raw: Any) -> tuple[Root, ...]:
    if not isinstance(raw, Mapping):
        raise NotThis('must be a table of names and full paths: loras = { styles = "…" }')
    roots = tuple(_root(str(name), path) for name, path in raw.items())
    for root in roots:
        if not re.fullmatch(ROOT_NAME, root.name):
            raise NotThis(f"has a root named {root.name!r}: letters, digits, blanks, '-', '_' and '.' only")
    twice = _first_repeated(same_path(root.path) for root in roots)
    if twice is not None:
        raise NotThis(f"names {twice} twice")
    return roots


def _folder(raw: Any) -> str:
    parts = raw.split("/") if isinstance(raw, str) else [""]
    if any(
        not part.strip() or part.startswith(".") or re.search(r'[\\:*?"<>|#^\[\]\x00-\x1f]', part) for part in parts
    ):
        raise NotThis(f"must be a folder inside the vault that Obsidian shows, such as {DEFAULT_FOLDER!r}, not {raw!r}")
    return "/".join(parts)


def _defaults(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise NotThis("must be a table of request options")
    problems = []
    checked = {}
    for key, value in raw.items():
        check = _REQUEST_OPTIONS.get(key)
        try:
            if check is None:
                raise NotThis(unknown(key, _REQUEST_OPTIONS))
            checked[str(key)] = check(value)
        except NotThis as reason:
            problems.append(str(reason) if check is None else f"`{key}` {reason}")
    if problems:
        raise NotThis(f"has problems: {', '.join(problems)}")
    return checked


def _by_family(what: str) -> Callable[[Any], Mapping[str, str]]:
    def check(raw: Any) -> Mapping[str, str]:
        if not isinstance(raw, Mapping) or not all(isinstance(value, str) and value.strip() for value in raw.values()):
            raise NotThis(f'must be a table of families and names of {what}: {{ sdxl = "…" }}')
        from loravault.formats.families import FAMILY_TITLES  # noqa: PLC0415 - only for those who set it

        for family in raw:
            if family not in FAMILY_TITLES:
                near = difflib.get_close_matches(str(family), FAMILY_TITLES, n=1)
                raise NotThis(
                    f"names the family {family!r}, which there is not"
                    + (f" (did you mean {near[0]!r}?)" if near else "")
                )
        return MappingProxyType({str(family): value.strip() for family, value in raw.items()})

    return check


def _block_presets(raw: Any) -> Mapping[str, str]:
    if not isinstance(raw, Mapping) or not all(isinstance(value, str) for value in raw.values()):
        raise NotThis('must be a table of names and texts: { FACE = "in=0.2 out=1" }')
    from loravault.formats.block_weights import problem_of_preset  # noqa: PLC0415 - only for those who set it

    for name, text in raw.items():
        if trouble := problem_of_preset(str(name), text):
            raise NotThis(f"has {name!r}, which {trouble}")
    return MappingProxyType({str(name): text.strip() for name, text in raw.items()})


_DEVICE = _matching(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, cuda, cuda:<number> or mps")
_ONE_OF_SEVERAL = _matching(r"cpu|mps|cuda:\d{1,3}", "cpu, mps or cuda:<number> in a list")


def _devices(raw: Any) -> str | tuple[str, ...]:
    """One, or several with a worker each."""
    if not isinstance(raw, list):
        found: str = _DEVICE(raw)
        return found
    several = tuple(_ONE_OF_SEVERAL(one) for one in raw)
    if not several or len(set(several)) < len(several):
        raise NotThis('must name each device once: ["cuda:0", "cuda:1"]')
    return several if len(several) > 1 else several[0]


#: What a root may be called: it stands in front of a colon or slash in cards, so nothing that could be either.
ROOT_NAME = r"[\w][\w .-]{0,63}"

_Check = Callable[[Any], Any]
_REQUEST_OPTIONS: dict[str, _Check] = {
    "cfg": _number(0, 100),
    "clip_skip": _whole(1, 12),
    "count": _whole(1, 1000),
    "negative": _matching(r"[^\n]*", "one line of text"),
    "sampler": _matching(r"\S.*", "the name of a sampler"),
    "size": _matching(r"[1-9]\d{1,4}\s*[x×]\s*[1-9]\d{1,4}", "as 512x768"),
    "steps": _whole(1, 1000),
}
#: May stand at the top of the file or in a vault's table.
SHARED: dict[str, _Check] = {
    "adapter_memory_mb": _whole(0, 1_000_000),
    "adapters": _choice("auto", "merge", "slots"),
    "block_presets": _block_presets,
    "captioner": _path,
    "cards": _switch,
    "compile": _switch,
    "cover_level": _choice(*COVER_LEVELS),
    "defaults": _defaults,
    "device": _devices,
    "dtype": _choice("auto", "float32", "float16", "bfloat16"),
    "default_base": _matching(r"\S.*", "the name of a base"),
    "default_bases": _by_family("bases"),
    "default_vaes": _by_family("VAEs"),
    "bases": _paths,
    "export": _choice("none", "a1111"),
    "galleries": _switch,
    "grace_s": _number(0, 60),
    "hashing": _switch,
    "idle_exit_s": _number(0, 86_400),
    "image_format": _choice("webp", "png", "jpeg"),
    "images": _choice("loravault", "obsidian"),
    "machine": _matching(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}", "letters, digits and '-', at most 40"),
    "max_count": _whole(1, 1000),
    "missing_loras": _choice("fail", "skip"),
    "network": _switch,
    "offload": _choice("auto", "none", "models", "layers"),
    "originals": _path,
    "read_quiet_s": _number(0, 600),
    "rescan_s": _number(0.1, 86_400),
    "result_cap": _whole(1, 1000),
    "thumbnail_width": _whole(48, 512),
    "datasets": _paths,
    "training_yields": _switch,
    "together_s": _number(0, 3600),
    "write_quiet_s": _number(0, 600),
}
#: Only in a vault's table.
OWN: dict[str, _Check] = {"folder": _folder, "loras": _roots}
#: Every setting but the vault's path, for `loravault config`.
SETTINGS: tuple[str, ...] = ("folder", "loras", *sorted(SHARED))


def unknown(key: str, allowed: Iterable[str]) -> str:
    """Say that there is no such setting, with the nearest one there is."""
    near = difflib.get_close_matches(key, list(allowed), n=1)
    return f"`{key}` is not a setting" + (f" (did you mean `{near[0]}`?)" if near else "")


def same_path(path: Path) -> str:
    """One spelling for all ways to name a folder; never fails for one that is gone."""
    return os.path.normcase(os.path.realpath(path))


def _first_repeated(items: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((item for item in items if item in seen or seen.add(item)), None)  # type: ignore[func-returns-value]
