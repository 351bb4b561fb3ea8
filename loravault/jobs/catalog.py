"""What there is to make pictures with, as requests ask for it: the index and the base folders behind one door."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from sqlmodel import Session

from loravault import resources
from loravault.config import VaultConfig
from loravault.formats.generation import BaseRef, VaeRef
from loravault.formats.hashes import lookup_texts
from loravault.index import adapters, troubled
from loravault.index.adapters import NamedAdapter
from loravault.index.cards import given_names
from loravault.library import bases as base_folders
from loravault.library import names
from loravault.library.hubcache import fetched_base
from loravault.requests.bases import Defaults, choose_base, choose_vae
from loravault.requests.defaults import family_defaults
from loravault.requests.model import KnownAdapter, NotFound, Several
from loravault.vault.inert import inert
from loravault.vault.mentions import folded


@dataclass(frozen=True)
class IndexCatalog:
    """A snapshot: adapters by name and hash, bases by name. Made anew when the library changed."""

    config: VaultConfig
    rows: Sequence[NamedAdapter]
    bases: Sequence[BaseRef]
    #: VAEs in the base folders.
    vaes: Sequence[VaeRef] = ()
    #: Name → why what goes by it is no usable base.
    refused: Mapping[str, str] = field(default_factory=dict)
    #: What people call the adapters.
    given: names.GivenNames = field(default_factory=names.GivenNames)
    #: Files in the roots (`root/path`) that are never opened.
    pickles: Sequence[str] = ()

    @classmethod
    def read(cls, session: Session, config: VaultConfig) -> IndexCatalog:
        """Read the index and look into the base folders."""
        shelf = base_folders.look(config.bases, resources.demo_base())
        rows, given = adapters.named_adapters(session), given_names(session)
        return cls(config, rows, shelf.usable, shelf.vaes, shelf.reasons, given, troubled.pickles(session))

    def find_adapter(self, name: str) -> KnownAdapter | Several | NotFound:
        """The adapter of this name."""
        found = names.find(name, self.rows, self.given)
        if isinstance(found, names.Ambiguous):
            return Several(found.paths)
        if isinstance(found, names.Missing):
            return NotFound(found.closest, self._left_alone(name))
        return self._known(found)

    def _left_alone(self, name: str) -> str | None:
        """That a file of this name is there and never opened; None if there is none."""
        wanted = folded(name)
        for place in self.pickles:
            path = PurePosixPath(place.partition("/")[2])
            if wanted in {folded(str(one)) for one in (path, path.name, path.with_suffix(""), path.stem)}:
                shown = inert(place)
                return f"{shown} is left alone, because opening it can run code: get it as .safetensors, or convert it."
        return None

    def find_adapter_by_hash(self, text: str) -> KnownAdapter | None:
        """The adapter whose file this hash names."""
        found = self._by_hash.find(text)
        return None if found is None or isinstance(found, names.Ambiguous) else self._known(found)

    def adapter_of(self, weight_id: str) -> KnownAdapter | None:
        """The adapter with these weights; of several files one that can be used."""
        row = self._by_weight_id.get(weight_id)
        return None if row is None else self._known(row)

    @cached_property
    def _by_hash(self) -> names.HashIndex[NamedAdapter]:
        return names.HashIndex((row for row in self.rows if row.state in ("ok", "duplicate")), _hashes)

    @cached_property
    def _by_weight_id(self) -> dict[str, NamedAdapter]:
        ordered = sorted(self.rows, key=lambda row: row.state == "ok")
        return {row.weight_id: row for row in ordered if row.weight_id}

    def find_base(self, name: str | None, families: Collection[str]) -> BaseRef | NotFound:
        """The base of this name, or one of these families."""
        defaults = Defaults(self.config.default_base or "demo", self.config.default_bases)
        found = choose_base(name, families, self.bases, defaults, self.refused)
        if not isinstance(found, NotFound):
            return found
        # Perhaps it came a moment ago: nobody watches these folders.
        shelf = self._look()
        found = choose_base(name, families, shelf.usable, defaults, shelf.reasons)
        if isinstance(found, BaseRef) or name is None:
            return found
        return fetched_base(name.strip(), os.environ) or found

    def find_vae(self, name: str) -> VaeRef | NotFound:
        """The VAE of this name."""
        found = choose_vae(name, self.vaes)
        return found if isinstance(found, VaeRef) else choose_vae(name, self._look().vaes)

    def _look(self) -> base_folders.Shelf:
        return base_folders.look(self.config.bases, resources.demo_base())

    def trigger_words(self) -> dict[str, list[str]]:
        """Every trigger word of the library → the names of the adapters that have it."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.state == "ok":
                for word in self._known(row).trigger_words:
                    found.setdefault(str(word), []).append(row.name)
        return found

    def vocabulary(self, base: BaseRef) -> frozenset[str] | None:
        """All words a base knows, if it knows only some."""
        return base_folders.vocabulary(base)

    def defaults_for(self, family: str, variant: str | None = None) -> Mapping[str, Any]:
        """Options of a family, with the VAE that the configuration names for it."""
        return {**family_defaults(family, variant), "vae": self.config.default_vaes.get(family)}

    def config_defaults(self) -> Mapping[str, Any]:
        """Options from the configuration."""
        return {
            "missing_loras": self.config.missing_loras,
            "format": self.config.image_format,
            **self.config.defaults,
        }

    def block_presets(self) -> Mapping[str, str]:
        """Names for strengths per block, from the configuration."""
        return self.config.block_presets

    @property
    def max_count(self) -> int:
        """The most pictures one block may ask for."""
        return self.config.max_count

    def _known(self, row: NamedAdapter) -> KnownAdapter:
        """With what its card says; a field that is on the card counts, even an empty one."""
        roots = {root.name: root.path for root in self.config.loras}
        card: dict[str, Any] = json.loads(row.fields or "{}")
        return KnownAdapter(
            name=row.name,
            path=str(roots.get(row.root, Path(row.root)) / row.rel),
            weight_id=row.weight_id or "",
            family=row.family,
            variant=card.get("variant", row.variant),
            trigger_words=tuple(card.get("trigger_words", json.loads(row.trigger_words)) or ()),
            state=row.state,
            reason=row.reason,
            weight=card.get("weight", row.weight),
            negative=card.get("negative", row.negative),
            base=card.get("base"),
        )


def _hashes(row: NamedAdapter) -> tuple[str, ...]:
    claims: dict[str, str] = json.loads(row.claims or "{}")
    return lookup_texts(
        sha256=row.sha256, autov1=row.autov1, autov2=row.autov2, autov3=row.autov3, blake3=row.blake3, crc32=row.crc32,
        claimed=tuple(claims.values()),
    )  # fmt: skip
