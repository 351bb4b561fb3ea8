"""Reads what lies beside an adapter, and puts it together with what its header says.

Only names of the folder's listing are ever opened: nothing is looked for that is not there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from loravault.formats import plain
from loravault.formats.captions import caption_sets
from loravault.formats.claims import Claim
from loravault.formats.header_claims import declared, trained
from loravault.formats.sidecars import (
    MAX_BYTES,
    NOTE_ENDING,
    TEXT_ENDINGS,
    Context,
    Sidecar,
    read_note,
    read_sidecar,
    split_note,
)
from loravault.formats.training_facts import training_facts
from loravault.library.beside import beside_of, ending_of
from loravault.library.facts import AdapterFacts, put_together
from loravault.library.previews import media_beside
from loravault.vault.walk import is_text
from loravault.vault.yamlread import YamlProblem, read_mapping

#: Sidecars in the order in which they are believed where their rank is the same.
ORDER = (
    ".json", ".metadata.json", ".swarm.json", ".safetensors.rgthree-info.json", ".civitai.info", ".cm-info.json",
    ".api_info.json", NOTE_ENDING, *TEXT_ENDINGS,
)  # fmt: skip


def read_facts(
    path: Path, rel: str, metadata: Mapping[str, str], beside: Sequence[str] | None = None, size: int | None = None
) -> AdapterFacts:
    """Everything that metadata and sidecars say about the adapter at `path` (`rel` inside its root).

    `beside`: names in its folder, all of them or only its own (`beside.group`); read from the disk if None. `size` in
    bytes lets hashes be recognised that were of an earlier file. Never raises for bad sidecars: they become warnings.
    """
    listing = _listing(path.parent) if beside is None else beside
    names = [name for name in beside_of(path.name, listing) if is_text(name)]
    claims: list[Claim] = []
    warnings: list[str] = []
    for name, sidecar in _sidecars(path, rel, names, Context(path.name, size)):
        claims += sidecar.claims
        if sidecar.problem:
            warnings.append(f"{name} {sidecar.problem}.")
    sets = caption_sets(metadata)
    claims += (*declared(metadata), *trained(metadata, sets))
    media = media_beside(path.parent, path.name, names)
    folder = PurePosixPath(rel).parent
    return put_together(
        claims,
        training=training_facts(metadata, sets),
        stills=[str(folder / name) for name in media.stills],
        videos=[str(folder / name) for name in media.videos],
        warnings=warnings,
    )


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _sidecars(path: Path, rel: str, names: Sequence[str], context: Context) -> Iterator[tuple[str, Sidecar]]:
    known = {ending: place for place, ending in enumerate(ORDER)}
    found = [(known[ending], name, ending) for name in names if (ending := ending_of(name, path.name)) in known]
    for _, name, ending in sorted(found):
        shown = plain.cut_line(name) or ending
        try:
            data = _read(path.with_name(name), path, rel)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield shown, Sidecar(problem=f"cannot be read ({error.strerror or error})")
            continue
        if data is not None:
            yield shown, _note(shown, data) if ending == NOTE_ENDING else read_sidecar(shown, ending, data, context)


def _read(file: Path, path: Path, rel: str) -> bytes | None:
    """The bytes of a sidecar, at most one more than are read; None for what is no file of this library."""
    mode = os.lstat(file).st_mode
    if stat.S_ISLNK(mode):
        # A link could bring any text of this machine into a note: it has to stay in the root, or with the adapter.
        target = os.path.realpath(file)
        homes = [_root(path, rel), os.path.dirname(os.path.realpath(path))]
        if not any(target.startswith(home.rstrip(os.sep) + os.sep) for home in homes):
            return None
        mode = os.stat(target).st_mode
    if not stat.S_ISREG(mode):  # opening a named pipe would wait for ever
        return None
    with open(file, "rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _root(path: Path, rel: str) -> str:
    return os.path.realpath(path.parents[len(PurePosixPath(rel).parts) - 1])


def _note(name: str, data: bytes) -> Sidecar:
    if len(data) > MAX_BYTES:
        return Sidecar(problem=f"is larger than {MAX_BYTES // 2**20} MiB and was not read")
    front, body = split_note(data)
    try:
        properties = read_mapping(front) if front.strip() else {}
    except YamlProblem as problem:
        return Sidecar(problem=f"cannot be read: its properties are not valid ({problem.reason})")
    return read_note(name, properties, body)
