"""A small library to resolve requests against, with the rules of the real one (names, bases) behind it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from loravault.formats.generation import BaseRef, VaeRef
from loravault.formats.hashes import names_file
from loravault.library import names
from loravault.requests.bases import Defaults, choose_base, choose_vae
from loravault.requests.defaults import family_defaults
from loravault.requests.model import KnownAdapter, NotFound, Refusal, Resolved, Several
from loravault.requests.parse import parse_request
from loravault.requests.resolve import resolve_block
from loravault.vault.note import parse_note

DEMO = BaseRef(name="demo", path="/bases/demo", family="demo")
SD = BaseRef(name="dreamshaper_8", path="/bases/dreamshaper_8", family="sd15")


@dataclass(frozen=True)
class Entry:
    """An adapter of the test library, with the place that its name is looked up by."""

    adapter: KnownAdapter
    rel: str
    hashes: tuple[str, ...] = ()
    root: str = "main"
    alias: str | None = None

    @property
    def name(self) -> str:
        return self.adapter.name

    @property
    def state(self) -> str:
        return self.adapter.state

    @property
    def weight_id(self) -> str | None:
        return self.adapter.weight_id or None


def entry(name: str, family: str = "demo", folder: str = "", hashes: tuple[str, ...] = (), **more: Any) -> Entry:
    rel = f"{folder}/{name}.safetensors".lstrip("/")
    weight_id = more.pop("weight_id", f"w1-{name}-{folder}")
    adapter = KnownAdapter(name=name, path=f"/loras/{rel}", weight_id=weight_id, family=family, **more)
    return Entry(adapter, rel, hashes)


LIBRARY = (
    entry("ink_outline", folder="Styles", hashes=("aaaaaaaaaaaa",), trigger_words=("ink outline",)),
    entry("ink_wash", folder="Styles", trigger_words=("ink wash", "sepia")),
    entry("ink 2"),
    entry("doll", trigger_words=("sks doll", "red dress: red dress, lace")),
    entry("wardrobe", trigger_words=("summer: sks, summer hat", "winter: sks, winter coat")),
    entry("cat", folder="Old"),
    entry("cat", folder="New"),
    entry("ghibli", family="sdxl"),
    entry("photo", family="sd15"),
    entry("riddle", family="unknown"),
    entry("torn", weight_id="", state="broken", reason="it ends inside its header"),
    entry("away", state="missing"),
    entry("carded", weight=0.6, negative="blurry", base="dreamshaper_8", family="sd15"),
)


@dataclass(frozen=True)
class Library:
    """The catalog."""

    entries: tuple[Entry, ...] = LIBRARY
    bases: tuple[BaseRef, ...] = (SD, DEMO)
    default: str | None = "demo"
    by_family: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    vaes: tuple[VaeRef, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    words: frozenset[str] | None = None
    max_count: int = 64
    presets: Mapping[str, str] = field(default_factory=dict)

    def block_presets(self) -> Mapping[str, str]:
        return self.presets

    def find_adapter(self, name: str) -> KnownAdapter | Several | NotFound:
        found = names.find(name, self.entries)
        if isinstance(found, names.Ambiguous):
            return Several(found.paths)
        return NotFound(found.closest) if isinstance(found, names.Missing) else found.adapter

    def find_adapter_by_hash(self, text: str) -> KnownAdapter | None:
        return next((one.adapter for one in self.entries if names_file(text, one.hashes)), None)

    def find_base(self, name: str | None, families: Collection[str]) -> BaseRef | NotFound:
        defaults = Defaults(self.default, self.by_family)
        return choose_base(name, families, self.bases, defaults, self.reasons)

    def vocabulary(self, base: BaseRef) -> frozenset[str] | None:
        return self.words if base.family == "demo" else None

    def find_vae(self, name: str) -> VaeRef | NotFound:
        return choose_vae(name, self.vaes)

    def defaults_for(self, family: str, variant: str | None = None) -> Mapping[str, Any]:
        return family_defaults(family, variant)

    def config_defaults(self) -> Mapping[str, Any]:
        return self.config


def outcome(block: str, properties: str = "", catalog: Library | None = None) -> Resolved | Refusal:
    """What the first block of a note comes to."""
    text = f"---\nloravault: generate\n{properties}\n---\n\n```prompt\n{block}\n```\n"
    request = parse_request(parse_note(text.encode()))
    assert request is not None
    return resolve_block(request, request.blocks[0], catalog or Library())


def resolved(block: str, properties: str = "", catalog: Library | None = None) -> Resolved:
    found = outcome(block, properties, catalog)
    assert isinstance(found, Resolved), found.messages
    return found


def refused(block: str, properties: str = "", catalog: Library | None = None) -> tuple[str, ...]:
    found = outcome(block, properties, catalog)
    assert isinstance(found, Refusal), found
    return found.messages
