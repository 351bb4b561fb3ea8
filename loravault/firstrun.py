"""Setting up a vault: what will be there is planned first, without touching anything, then carried out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loravault import resources
from loravault.config import VaultConfig, config_file, known_vaults, load, save_vault, state_home
from loravault.errors import UserError
from loravault.library.otheruis import UiFolders, find_ui
from loravault.settings import DEFAULT_FOLDER, OWN, ROOT_NAME, NotThis, Root, same_path

if TYPE_CHECKING:
    from loravault.library.scan import Scan
    from loravault.vault.safewrite import VaultWriter

TEMPLATES = "Templates"

#: What cards, covers and gallery pages are like on average, for a forecast.
USUAL_NOTE_BYTES, USUAL_COVER_BYTES, USUAL_PAGE = 2_000, 40_000, 20


@dataclass(frozen=True, kw_only=True)
class InitPlan:
    """What `init` will do, and what it found."""

    config: VaultConfig
    config_file: Path
    #: Whether the vault was set up before.
    again: bool
    #: Notes to be made: path in the vault, with `/`, and content. Notes that are there already are not among them.
    notes: tuple[tuple[str, bytes], ...]
    #: Adapter files in the roots, and their size together.
    adapters: int
    adapter_bytes: int
    #: Files in old formats that can run code when they are opened: they are left alone.
    pickles: int
    #: Links that are not followed because they lead out of the roots, and where they lead.
    elsewhere: tuple[tuple[str, str], ...]
    #: What could not be looked at, in words.
    problems: tuple[str, ...]
    #: Base models that can be used, the demo base not among them.
    bases: tuple[str, ...]
    #: The programs that were named with --ui.
    programs: tuple[UiFolders, ...]

    #: Adapters that have a picture beside them: each gets a small cover.
    previews: int = 0

    @property
    def library_notes(self) -> int:
        """About how many notes and pages will be kept for the adapters: a card and a page of pictures each."""
        notes = 2 * self.adapters if self.config.cards else 0
        pages = self.adapters // USUAL_PAGE + 1 if self.config.galleries and self.adapters else 0
        return notes + pages

    @property
    def library_bytes(self) -> int:
        """About how large those notes and the covers will be."""
        return self.library_notes * USUAL_NOTE_BYTES + self.previews * USUAL_COVER_BYTES

    @property
    def note_bytes(self) -> int:
        """Size of all notes to be made."""
        return sum(len(data) for _, data in self.notes)


def plan_init(
    vault: Path,
    *,
    loras: Sequence[Path],
    uis: Sequence[Path] = (),
    bases: Sequence[Path] = (),
    folder: str | None = None,
    env: Mapping[str, str],
) -> InitPlan:
    """Look at everything and decide; writes nothing. Raises `UserError` when it cannot work."""
    _check_vault(vault)
    before = load(vault, env) if same_path(vault) in {same_path(path) for path in known_vaults(env)} else None
    programs = tuple(find_ui(path) for path in uis)
    for path in (*loras, *bases):
        if not path.is_dir():
            raise UserError(f"There is no folder at {path}: name one that is there, or plug its drive in.")
    roots = name_roots(
        before.loras if before else (), [*loras, *(path for program in programs for path in program.loras)]
    )
    if not roots:
        raise UserError("No folder with LoRAs is known: name one with --loras, or the program that has them with --ui.")
    found_bases = _without_repeats(
        [*(before.bases if before else ()), *bases, *(path for program in programs for path in program.for_bases)]
    )
    config = replace(
        before or VaultConfig(vault=vault, state_root=state_home(env)),
        loras=roots,
        bases=found_bases,
        folder=_checked_folder(folder) if folder else before.folder if before else DEFAULT_FOLDER,
    )
    scanned = _scan(roots)
    return InitPlan(
        config=config,
        config_file=config_file(env),
        again=before is not None,
        notes=tuple(_missing_notes(config)),
        adapters=len(scanned.found),
        adapter_bytes=sum(found.size for found in scanned.found),
        pickles=len(scanned.pickles),
        elsewhere=tuple(scanned.elsewhere),
        problems=tuple(scanned.problems),
        bases=_usable_bases(found_bases),
        programs=programs,
        previews=sum(_previews(root) for root in roots) if config.cards else 0,
    )


def carry_out(plan: InitPlan, env: Mapping[str, str]) -> None:
    """Write the configuration and the notes that are missing. Nothing that is there is overwritten.

    Raises `AlreadyRunning` beside a daemon.
    """
    from loravault.holding import take_lock  # noqa: PLC0415 - planning alone needs none of this
    from loravault.vault.ledger import Ledger  # noqa: PLC0415
    from loravault.vault.safewrite import VaultWriter  # noqa: PLC0415

    state = plan.config.state_dir
    lock = take_lock(plan.config)
    try:
        save_vault(plan.config, env)
        writer = VaultWriter(plan.config.vault, Ledger(state / "ledger.jsonl"), state / "displaced")
        _write_notes(writer, plan.notes)
    finally:
        lock.release()


def _write_notes(writer: VaultWriter, notes: Iterable[tuple[str, bytes]]) -> None:
    for rel, data in notes:
        writer.create(rel, data)


def name_roots(before: Sequence[Root], paths: Iterable[Path]) -> tuple[Root, ...]:
    """Names for folders: those of `before` keep theirs, a new one is called as its folder, told apart by a number."""
    roots = list(before)
    for path in paths:
        if any(same_path(path) == same_path(root.path) for root in roots):
            continue
        stem = re.sub(r"[^\w .-]+", "-", path.name).strip("-. ")[:40] or "loras"
        if not re.fullmatch(ROOT_NAME, stem):
            stem = "loras"
        taken = {root.name.casefold() for root in roots}
        name = next(n for n in (stem, *(f"{stem} {i}" for i in range(2, 10_000))) if n.casefold() not in taken)
        roots.append(Root(name, path))
    return tuple(roots)


def _check_vault(vault: Path) -> None:
    if not vault.exists():
        raise UserError(f"There is no folder at {vault}: make it first, or open it once as a vault in Obsidian.")
    if not vault.is_dir():
        raise UserError(f"{vault} is not a folder: a vault is the folder that Obsidian opens.")
    if not os.access(vault, os.W_OK | os.X_OK):
        raise UserError(f"{vault} is read-only for you: pictures could not be written into its notes.")


def _checked_folder(folder: str) -> str:
    try:
        return str(OWN["folder"](folder))
    except NotThis as reason:
        raise UserError(f"--folder {reason}.") from reason


def _missing_notes(config: VaultConfig) -> Iterable[tuple[str, bytes]]:
    for template in sorted((resources.templates() / "notes").glob("*.md")):
        rel = f"{config.folder}/{TEMPLATES}/{template.name}"
        if not os.path.lexists(config.vault / rel):
            yield rel, template.read_bytes()


def _scan(roots: Sequence[Root]) -> Scan:
    """All roots in one `Scan`, each file once; a root that cannot be read at all is among its problems."""
    from loravault.library.scan import Scan, scan  # noqa: PLC0415

    whole, known = Scan(), set[tuple[int, int]]()
    for root in roots:
        try:
            one = scan(root.name, root.path, [other.path for other in roots])
        except OSError as error:
            whole.problems.append(f"{root.path} cannot be read: {error.strerror or error}")
            continue
        # Roots inside roots and links show one file at several places.
        whole.found += [item for item in one.found if not item.ino or (item.dev, item.ino) not in known]
        known |= {(item.dev, item.ino) for item in one.found}
        whole.pickles += [f"{root.name}/{rel}" for rel in one.pickles]
        whole.elsewhere += [(f"{root.name}/{rel}", target) for rel, target in one.elsewhere]
        whole.problems += one.problems
    return whole


def _previews(root: Root) -> int:
    """How many adapters of a root have a picture beside them, by their names alone."""
    from loravault.library.beside import MEDIA_ENDING, ending_of, group  # noqa: PLC0415

    count = 0
    for _, folders, names in os.walk(root.path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for adapter, beside in group(names).items():
            count += any(MEDIA_ENDING.fullmatch(ending_of(name, adapter)) for name in beside)
    return count


def _usable_bases(folders: Iterable[Path]) -> tuple[str, ...]:
    from loravault.library.bases import list_bases  # noqa: PLC0415

    return tuple(base.name for base in list_bases(folders, None))


def _without_repeats(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple({same_path(path): path for path in reversed(list(paths))}.values())[::-1]
