"""From a parsed note to a request."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from loravault.formats.prompt_block import option_key, parse_block
from loravault.requests.model import BUILT, KINDS, OPTIONS, Block, Request
from loravault.vault.note import Fence, Frontmatter, Note

#: Kinds that are ours but no requests.
_NOT_REQUESTS = frozenset({"card", "gallery", "dashboard", "page"})
_TRUE = frozenset({"true", "yes", "on"})


def parse_request(note: Note) -> Request | None:
    """What the note asks for; None if it is no request (no `loravault:`, a page of ours, unreadable properties)."""
    front = note.frontmatter
    if note.text_problem or front is None or front.problem:
        return None
    kind = front.get("loravault")
    name = option_key(str(kind)) if kind is not None else ""
    if not name or name in _NOT_REQUESTS:
        return None
    problem = _kind_problem(name)
    return Request(
        kind=name,
        run=_switch(front.get("run")),
        cancel=_switch(front.get("cancel")),
        auto=_switch(front.get("auto")),
        job=_text(front.get("lv_job")),
        status=_text(front.get("lv_status")),
        blocks=tuple(_block(fence) for fence in note.prompts),
        options=_options(front),
        properties={option_key(str(key)): value for key, value in front.properties.items() if value not in (None, "")},
        problems=(problem,) if problem else (),
    )


def _kind_problem(name: str) -> str | None:
    if name in BUILT:
        return None
    *first, last = [f"`loravault: {kind}`" for kind in KINDS if kind in BUILT]
    built = f"{', '.join(first)} and {last}"
    if name in KINDS:
        return f'Requests of the kind "{name}" are not built yet in this version; {built} are.'
    near = difflib.get_close_matches(name, KINDS, n=1, cutoff=0.6)
    hint = f'; did you mean "{near[0]}"?' if near else f"; this version answers {built}."
    return f'There is no kind of request called "{name[:40]}"{hint}'


def _switch(value: Any) -> bool:
    """A checkbox; people who type also write yes or on, which YAML 1.2 reads as text."""
    return value is True or (isinstance(value, str) and value.strip().lower() in _TRUE)


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, Mapping | list) else str(value).strip() or None


def _options(front: Frontmatter) -> dict[str, Any]:
    """The properties that are options. All others are the user's own and none of our business."""
    found = {option_key(str(key)): value for key, value in front.properties.items()}
    return {key: found[key] for key in OPTIONS if found.get(key) is not None}


def _block(fence: Fence) -> Block:
    return Block(
        fence_index=fence.index,
        block_hash=fence.block_hash,
        ordinal=fence.ordinal,
        parsed=parse_block(fence.body),
        container_problem=_container_problem(fence),
    )


def _container_problem(fence: Fence) -> str | None:
    if fence.container == "list":
        return (
            "This block stands inside a list, where a result cannot be put below it: "
            "move it out of the list, to the left margin."
        )
    if fence.container == "quote":
        return (
            "This block stands inside a quote or callout, where a result cannot be put below it: "
            "move it out of the quote."
        )
    if not fence.closed:
        return "This block has no end: put a line of three backticks below the prompt."
    return None
