"""Leaving a vault: what is ours and as we wrote it goes into the vault's trash, what somebody wrote stays.

Planned first without touching anything, then carried out. The state folder and the entry in `config.toml` go last, so
that what was interrupted can be done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loravault import osdep, resources
from loravault.config import VaultConfig, config_file, write_config
from loravault.errors import UserError
from loravault.holding import take_lock
from loravault.keeping.batches import VAULT, Move, in_trash
from loravault.keeping.trash import Trash
from loravault.library.covers import covered_by
from loravault.library.imagemeta import is_made_here
from loravault.pages import bases, own
from loravault.settings import same_path
from loravault.untouched import WRITTEN, Cards, without_ours
from loravault.vault.ledger import Ledger
from loravault.vault.mentions import pictures_in, read_mentions
from loravault.vault.note import MAX_NOTE_BYTES, might_be_request
from loravault.vault.safewrite import VaultWriter
from loravault.vault.walk import StatKey, stat_key, walk_notes

_IMAGES = (".webp", ".png", ".jpg", ".jpeg")
#: What is looked into, of all that lies in our folder.
_TEXTS = (".md", ".base")


@dataclass(frozen=True)
class Leaving:
    """One file of ours that goes."""

    rel: str
    #: `page`, `base`, `template`, `card`, `cover` or `picture`.
    kind: str
    #: What it was when it was looked at.
    key: StatKey

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.key[0]


@dataclass(frozen=True)
class UninstallPlan:
    """What goes, what stays and why, and what is changed in notes."""

    config: VaultConfig
    go: tuple[Leaving, ...]
    #: Notes whose intact results and properties of ours go -> (as it is, as it will be).
    notes: Mapping[str, tuple[bytes, bytes]]
    stay: tuple[tuple[str, str], ...]
    state: Path
    config_file: Path
    #: What was asked for, so that it can be looked at again.
    results: bool = False
    images: bool = False

    @property
    def size(self) -> int:
        """Bytes of the files that go."""
        return sum(one.size for one in self.go)


@dataclass(frozen=True)
class Uninstalled:
    """What was done. `finished`: nothing had to be left undone, so configuration and state are gone too."""

    #: Vault-relative folder in the trash.
    trash: str
    moved: int
    notes: int
    stayed: tuple[tuple[str, str], ...]
    finished: bool


def plan_uninstall(
    config: VaultConfig, env: Mapping[str, str], *, results: bool = False, images: bool = False
) -> UninstallPlan:
    """Look at everything and decide; changes nothing."""
    look = _Look(config, Cards(config))
    look.our_folder()
    if results:
        look.results()
    look.pictures(made=images)
    look.roots()
    return UninstallPlan(
        config,
        tuple(sorted(look.go, key=lambda one: one.rel)),
        look.notes,
        tuple(sorted(look.stay)),
        config.state_path,
        config_file(env),
        results,
        images,
    )


@dataclass
class _Look:
    """One look at a vault; what goes and what stays piles up."""

    config: VaultConfig
    cards: Cards
    go: list[Leaving] = field(default_factory=list)
    stay: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    #: Digests of the texts that will not be there any more.
    _gone: set[bytes] = field(default_factory=set)

    def our_folder(self) -> None:
        """Pages, `.base` files, templates and cards."""
        templates = {path.name: path.read_bytes() for path in (resources.templates() / "notes").glob("*.md")}
        for rel, path in _files(self.config.own_folder, self.config.vault):
            folder, _, name = rel.rpartition("/")
            suffix = os.path.splitext(name)[1].lower()
            if suffix in _IMAGES and name.startswith("lv-"):
                continue
            if suffix not in _TEXTS:
                self.stay.append((rel, "it is no file that we make"))
                continue
            try:
                key, data = _read(path)
            except OSError as error:
                self.stay.append((rel, f"it cannot be read ({error.strerror or error})"))
                continue
            if suffix == ".md" and own.is_ours(data):
                self._goes(rel, "page", key, data)
            elif suffix == ".base" and bases.is_ours(data):
                self._goes(rel, "base", key, data)
            elif folder == f"{self.config.folder}/Templates" and templates.get(name) == data.replace(b"\r\n", b"\n"):
                self._goes(rel, "template", key, data)
            elif suffix == ".md" and (reason := self.cards.why_it_stays(rel, data)) is None:
                self._goes(rel, "card", key, data)
            else:
                self.stay.append((rel, reason if suffix == ".md" and reason else WRITTEN))

    def results(self) -> None:
        """Intact results and properties of ours in notes of the user's, those that were adopted as cards among them."""
        going = {one.rel for one in self.go}
        for seen in walk_notes(self.config.vault, lambda _: False):
            if seen.rel in going:
                continue
            with contextlib.suppress(OSError):
                _, data = _read(self.config.vault / seen.rel)
                if not might_be_request(data) and b"^lv-" not in data and b"lv_" not in data:
                    continue
                new = without_ours(data)
                if new is None:
                    self.stay.append((seen.rel, "its results could not be taken out without touching something else"))
                elif (new := self.cards.without_added(new)) != data:
                    self.notes[seen.rel] = (data, new)
                    self._gone.add(_digest(data))

    def pictures(self, *, made: bool) -> None:
        """Covers, and with `made` all pictures of ours, that nothing embeds which stays."""
        gone = self._gone
        mentions = read_mentions(self.config.vault, lambda data: _digest(data) in gone)
        left = mentions.embedded.union(*(pictures_in(new) for _, new in self.notes.values()))
        for rel, path in _files(self.config.vault, self.config.vault):
            name = rel.rpartition("/")[2]
            if not name.startswith("lv-") or not name.lower().endswith(_IMAGES):
                continue
            cover = covered_by(name) is not None and rel.startswith(f"{self.config.folder}/Images/Covers/")
            if not cover and not is_made_here(path):
                if rel.startswith(f"{self.config.folder}/"):
                    self.stay.append((rel, "it does not say that we made it"))
            elif not cover and not made:
                self.stay.append((rel, "it is a picture of yours (--images)"))
            elif mentions.problems:
                self.stay.append((rel, f"{mentions.problems[0]}, so it is not known whether something shows it"))
            elif name.rpartition(".")[0].lower() in left:
                self.stay.append((rel, "a note that stays shows it"))
            elif (key := stat_key(path)) is not None:
                self.go.append(Leaving(rel, "cover" if cover else "picture", key))

    def roots(self) -> None:
        """What `clean` threw away in the roots stays there."""
        for root in self.config.loras:
            trash = root.path / ".loravault-trash"
            if trash.is_dir():
                why = "`clean` threw it away; delete it yourself, or with `loravault clean --trash` before you go"
                self.stay.append((str(trash), why))

    def _goes(self, rel: str, kind: str, key: StatKey, data: bytes) -> None:
        self.go.append(Leaving(rel, kind, key))
        self._gone.add(_digest(data))


# --- carrying it out -------------------------------------------------------------------------------------------------


def carry_out(plan: UninstallPlan, env: Mapping[str, str]) -> Uninstalled:
    """Do it. Raises `AlreadyRunning` beside a daemon: what is removed under it would be made again."""
    state = plan.config.state_dir
    lock = take_lock(plan.config)
    try:
        ledger = Ledger(state / "ledger.jsonl")
        trash = Trash(plan.config, ledger)
        trash.recover()
        batch = trash.new_batch()
        stayed, rewritten = _rewrite(plan, ledger, batch)
        going, changed = _look_again(plan, env)
        stayed += changed
        moves = [Move(VAULT, one.rel, in_trash(VAULT, one.rel, batch)) for one in going]
        moved = trash.carry_out("uninstall", moves, whole=False, batch=batch)
        stayed += [(move.source, why) for move, why in moved.stayed]
        _remove_empty(plan.config.own_folder)
    finally:
        lock.release()
    if not stayed:
        _forget(plan, env)
    where = in_trash(VAULT, "", batch).rstrip("/")
    return Uninstalled(where, len(moved.moves), rewritten, tuple(stayed), not stayed)


def _look_again(plan: UninstallPlan, env: Mapping[str, str]) -> tuple[list[Leaving], list[tuple[str, str]]]:
    """Of what was listed: what still is to go and has not changed since, and the rest with the reason.

    While the list was read, somebody may have written into a card or shown a picture in a note.
    """
    now = plan_uninstall(plan.config, env, results=plan.results, images=plan.images)
    still, why = {one.rel for one in now.go}, dict(now.stay)
    going: list[Leaving] = []
    stayed: list[tuple[str, str]] = []
    for one in plan.go:
        key = stat_key(plan.config.vault / one.rel)
        if key is None:
            stayed.append((one.rel, "it is not there any more"))
        elif one.rel in still and key == one.key:
            going.append(one)
        else:
            stayed.append((one.rel, f"changed since it was listed{f': {why[one.rel]}' if one.rel in why else ''}"))
    return going, stayed


def _rewrite(plan: UninstallPlan, ledger: Ledger, batch: str) -> tuple[list[tuple[str, str]], int]:
    """Take the results out of the notes; a copy of each note as it was goes into the trash first."""
    config = plan.config
    writer = VaultWriter(config.vault, ledger, config.state_path / "displaced", grace_s=config.grace_s)
    stayed: list[tuple[str, str]] = []
    done = 0
    for rel, (base, new) in plan.notes.items():
        try:
            copy = config.vault / in_trash(VAULT, rel, batch)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(base)
            osdep.fsync_file(copy)
            writer.replace(rel, base, new)
            done += 1
        except UserError as error:
            stayed.append((rel, error.message))
        except OSError as error:
            stayed.append((rel, f"it cannot be written to ({error.strerror or error})"))
    give_up = time.monotonic() + 12 * config.grace_s + 5
    while writer.pending_checks and time.monotonic() < give_up:
        stayed += [("", sentence) for sentence in writer.verify_due()]
        time.sleep(0.05)
    if writer.pending_checks:
        stayed.append(("", "some notes are still being written by another program; run it again"))
    return stayed, done


def _remove_empty(folder: Path) -> None:
    for at, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(at)


def _forget(plan: UninstallPlan, env: Mapping[str, str]) -> None:
    """The vault's table in `config.toml` (the whole file where nothing else is in it), then the state folder."""
    import tomlkit  # noqa: PLC0415 - only who writes the file needs it

    file = config_file(env)
    if file.exists():
        document = tomlkit.parse(file.read_text("utf-8"))
        tables = document.get("vault", [])
        for number, table in reversed(list(enumerate(tables))):
            if same_path(Path(str(table.get("path"))).expanduser()) == same_path(plan.config.vault):
                del tables[number]
        if not tables:
            document.pop("vault", None)
        if document:
            write_config(file, tomlkit.dumps(document))
        else:
            file.unlink()
    shutil.rmtree(plan.state, ignore_errors=True)


# --- looking ---------------------------------------------------------------------------------------------------------


def _files(folder: Path, vault: Path) -> Iterator[tuple[str, Path]]:
    """(vault-relative path, path) of every regular file below a folder; hidden ones and links are left out."""
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(at, name)
            if not name.startswith(".") and stat_key(path) is not None:
                yield path.relative_to(vault).as_posix(), path


def _read(path: Path) -> tuple[StatKey, bytes]:
    """A file that may be ours and what it was before it was read. Raises OSError, also for one larger than any note."""
    key = stat_key(path)
    if key is None:
        raise OSError("it is not there any more")
    with path.open("rb") as file:
        data = file.read(MAX_NOTE_BYTES + 1)
    if len(data) > MAX_NOTE_BYTES:
        raise OSError("it is larger than a note can be")
    return key, data


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
