"""Keeps the galleries current: plans what a change concerns, writes the pages whose bytes changed, in slices.

Disposable. What was planned last is held in memory, so a change costs the galleries it is in and nothing else; after a
start every page is compared with the disk once. A page or `.base` file that is not as we wrote it is the user's.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from loravault import resources
from loravault.collecting import without_collecting
from loravault.errors import UserError
from loravault.index import covers as cover_rows
from loravault.index import images, library
from loravault.index.chunks import chunks
from loravault.jobs.context import Context, log
from loravault.keeping.notenames import GALLERY, NoteNames
from loravault.pages import bases, galleries, own
from loravault.pages.collection import EMBEDDED, Held, Key, Shown
from loravault.pages.galleries import Page, View
from loravault.vault.paths import PathRefused, inside
from loravault.vault.safewrite import NoteChanged

#: While things change, the pages are brought up to date at most `BURST` times in so many seconds.
BURST, BURST_S = 3, 10.0
#: After trouble with reading or writing (seconds).
PAUSE_S = 60.0
#: Adapters and pictures that are looked up at a time.
ADAPTERS, PICTURES = 250, 2000
#: New pages that are written together, so that the disk is waited for once.
TOGETHER = 1500


class GalleryKeeper:
    """Call `library_changed` and `images_changed` when the index has changed, and `step` in every tick."""

    def __init__(
        self,
        ctx: Context,
        *,
        may_remove: Callable[[], bool] = lambda: True,
        names: NoteNames | None = None,
        made: Callable[[str], Shown | None] = lambda _weight_id: None,
    ) -> None:
        """`may_remove`: all roots are there, so what is not in the index is gone. `names`: of the vault's notes; a page
        of ours takes no other note's. `made`: an adapter as the index would tell it, if somebody has that at hand."""
        self._ctx = ctx
        self._may_remove = may_remove
        self._names = names
        self._made = made
        self._view = View(ctx.config.folder, ctx.config.vault.name, ctx.config.thumbnail_width)
        self._held = Held(self._view)
        self._templates = resources.templates()
        #: None: everything, and every page is compared with the disk.
        self._adapters: set[str] | None = None
        self._pictures: set[str] | None = None
        self._again: set[Key] = set()
        #: Notes that are not there any more: pages of ours among them are made anew in the next round.
        self._gone: set[str] = set()
        self._round: Iterator[None] | None = None
        self._begun: deque[float] = deque(maxlen=BURST)
        self._not_before = float("-inf")
        #: Gallery -> its pages as they were planned last, by path.
        self._planned: dict[Key, dict[str, Page]] = {}
        self._new: list[tuple[str, bytes, Key | None]] = []
        #: Pages of ours that are planned no more and could not be taken away yet.
        self._stale: set[str] = set()
        #: While everything is looked at: the pages that were there when that began.
        self._present: set[str] | None = None
        #: Vault-relative folder -> where it really is.
        self._homes: dict[str, Path] = {}
        #: Path -> a sentence, for every file that would be ours but is the user's.
        self.notices: dict[str, str] = {}

    # ---- what happens outside

    def library_changed(self, weight_ids: Collection[str] | None = None) -> None:
        """These adapters, their cards or covers changed; None: anything may have, also the files on disk."""
        if weight_ids is None:
            self._adapters = self._pictures = None
        elif self._adapters is not None:
            self._adapters |= set(weight_ids)

    def images_changed(self, paths: Collection[str] | None = None) -> None:
        """The index has these pictures now, or has them no more; None: any."""
        if paths is None:
            self._pictures = None
        elif self._pictures is not None:
            self._pictures |= set(paths)

    def notes_gone(self, rels: Collection[str]) -> None:
        """These notes are there no more. A page of ours among them comes back, also one that was the user's."""
        ours = f"{self._ctx.config.folder}/{GALLERY}/"
        self._gone.update(rel for rel in rels if rel.startswith(ours))

    def step(self, budget_s: float) -> bool:
        """Work for about so long. True: call again soon, more is waiting. Trouble is told in `troubles`."""
        clock = self._ctx.steady
        if self._round is None:
            if not self.is_due:
                return False
            self._begun.append(clock())
            self._round = self._bring_up_to_date()
        end = clock() + budget_s
        try:
            with without_collecting():
                for _ in self._round:
                    if clock() >= end:
                        return True
        except DatabaseError:
            self._start_over()
            raise
        except (OSError, UserError) as error:
            self._start_over()
            self._not_before = clock() + PAUSE_S
            reason = error.message if isinstance(error, UserError) else (error.strerror or str(error))
            self._ctx.troubles["galleries"] = (
                f"The galleries cannot be brought up to date ({reason}); it is tried again."
            )
            return False
        except BaseException:
            self._start_over()
            self._not_before = clock() + PAUSE_S
            raise
        self._round = None
        self._ctx.troubles.pop("galleries", None)
        return False

    @property
    def is_behind(self) -> bool:
        """Whether pages are still to be brought up to date, now or when the next round is due."""
        untold = (self._adapters, self._pictures)
        return self._round is not None or None in untold or any((*untold, self._again, self._gone))

    @property
    def is_due(self) -> bool:
        """Whether a step would bring pages up to date now."""
        now = self._ctx.steady()
        in_bounds = len(self._begun) < BURST or now - self._begun[0] >= BURST_S
        return self.is_behind and in_bounds and now >= self._not_before

    def _start_over(self) -> None:
        """A round that ended halfway is made again from the beginning."""
        self._round = None
        self._new.clear()
        self._planned.clear()
        self._present = None
        self._adapters = self._pictures = None

    # ---- one round

    def _bring_up_to_date(self) -> Iterator[None]:
        """Every part yields where it may be interrupted."""
        adapters, pictures = self._adapters, self._pictures
        self._adapters, self._pictures = set(), set()
        everything = adapters is None
        self._homes.clear()
        self._forget_gone()
        if self._names is not None:
            self._names.look()
            self._held.taken = self._names.elsewhere
        yield from self._look_up_adapters(adapters)
        yield from self._look_up_pictures(pictures)
        changed = self._held.take_changed() | self._again
        self._again = set()
        if everything:
            changed |= self._held.all_keys() | set(self._planned)
            self._planned.clear()
            self._present = self._listing()
        for key in sorted(changed):
            try:
                yield from self._keep(key)
            except (DatabaseError, OSError, UserError):
                raise
            except Exception as error:  # costs this gallery, not the others
                log.exception("a bug: the gallery by %s %r cannot be made", *key)
                self._ctx.troubles["bug.galleries"] = (
                    f"A gallery by {key[0]} cannot be made: a bug in loravault ({type(error).__name__})."
                )
        yield from self._write_new()
        if everything:
            self._keep_bases()
            self._stale |= (self._present or set()) - {path for pages in self._planned.values() for path in pages}
            self._present = None
        yield from self._remove_stale()

    def _forget_gone(self) -> None:
        """The galleries of pages that are gone are planned and compared with the disk anew."""
        gone, self._gone = self._gone, set()
        keys = [key for key, pages in self._planned.items() if not gone.isdisjoint(pages)] if gone else []
        for key in keys:
            self._look_again(key)

    def _look_up_adapters(self, wanted: set[str] | None) -> Iterator[None]:
        if wanted is None:
            with self._ctx.index.session() as session:
                wanted = {*library.all_weight_ids(session), *self._held.weight_ids}
        for asked in chunks(sorted(wanted), ADAPTERS):
            made = {weight_id: shown for weight_id in asked if (shown := self._made(weight_id)) is not None}
            for weight_id, shown in made.items():
                self._held.put(weight_id, shown)
            if len(made) == len(asked):
                yield
                continue
            some = [weight_id for weight_id in asked if weight_id not in made]
            with self._ctx.index.session() as session:
                found = library.entries(session, only=some)
                rows = cover_rows.covers(session, some)
            self._held.put_entries(found, some, {weight_id: row.path for weight_id, row in rows.items() if row.path})
            yield
        if wanted:
            self._held.settle_pages()
            yield

    def _look_up_pictures(self, wanted: set[str] | None) -> Iterator[None]:
        if wanted is not None:
            for some in chunks(sorted(wanted)):
                with self._ctx.index.session() as session:
                    found = images.made_with_of(session, some)
                self._held.put_pictures(found, some)
                yield
            return
        unseen = self._held.pictures
        after = ""
        while True:
            with self._ctx.index.session() as session:
                found = images.made_with(session, after, PICTURES)
            if not found:
                break
            after = max(found)
            unseen -= set(found)
            self._held.put_pictures(found, ())
            yield
        self._held.put_pictures({}, unseen)

    def _keep(self, key: Key) -> Iterator[None]:
        """One gallery: plan it, write what differs from the last plan, note the pages it has no more."""
        wanted = self._ctx.config.galleries or key[0] == EMBEDDED
        planned = {page.path: page for page in self._held.plan(key)} if wanted else {}
        before = self._planned.get(key, {})
        self._stale |= set(before) - set(planned)
        self._stale -= set(planned)
        for path, page in planned.items():
            if before.get(path) != page:
                self._put(path, galleries.render(page, self._view, self._templates), own.is_ours, key)
                if len(self._new) >= TOGETHER:
                    yield from self._write_new()
            yield
        self._planned.pop(key, None)
        if planned and key not in self._again:
            self._planned[key] = planned

    def _keep_bases(self) -> None:
        config = self._ctx.config
        if not config.galleries:
            return
        for name in bases.NAMES:
            data = bases.render(name, config.folder, self._templates, in_folder=config.images == "loravault")
            self._put(f"{config.folder}/{name}", data, bases.is_ours, None)
        for _ in self._write_new():
            pass

    # ---- files

    def _put(self, rel: str, new: bytes, is_ours: Callable[[bytes], bool], key: Key | None) -> None:
        """Write a file of ours if it is not as it should be. One that is the user's is left alone and told."""
        absent = self._present is not None and key is not None and rel not in self._present
        try:
            old = None if absent else self._read(rel)
        except PathRefused as error:  # a link that leads out of the vault
            self._leave(rel, error.message)
            return
        except OSError as error:  # a folder of that name, a file that may not be read: costs this page
            self._leave(rel, f"{rel} cannot be read ({error.strerror or error}), so it stays as it is.")
            return
        if old is None:
            self._new.append((rel, new, key))
            return
        if old == new:
            self.notices.pop(rel, None)
            return
        if not is_ours(old):
            self._leave(
                rel, f"{rel} was changed by you, so it stays as it is; delete or rename it to get a current one."
            )
            return
        self.notices.pop(rel, None)
        try:
            self._ctx.writer.write_own(rel, new, old)
        except NoteChanged:
            self._look_again(key)

    def _write_new(self) -> Iterator[None]:
        """The pages that are not there yet, a number of them at a time."""
        waiting, self._new = self._new, []
        for some in chunks(waiting, TOGETHER):
            refused: dict[str, str] = {}
            taken = set(self._ctx.writer.create_many(((rel, data) for rel, data, _ in some), refused))
            for rel, _, key in some:
                if rel in refused:  # costs this page; the next look at all of them tries again
                    self._leave(rel, f"{rel} cannot be made: {refused[rel]}")
                elif rel in taken and not (self._ctx.config.vault / rel).exists():
                    self._leave(rel, f"{rel} is a link that leads nowhere, so nothing is written there.")
                elif rel in taken:  # it appeared just now: whose it is, the next round sees
                    self._look_again(key)
                else:
                    self.notices.pop(rel, None)
            yield

    def _look_again(self, key: Key | None) -> None:
        """Something came between: compare this gallery with the disk in the next round."""
        if key is None:
            self._adapters = self._pictures = None
            return
        self._again.add(key)
        self._planned.pop(key, None)

    def _leave(self, rel: str, sentence: str) -> None:
        if self.notices.get(rel) != sentence:
            log.info("%s", sentence)
        self.notices[rel] = sentence

    def _read(self, rel: str) -> bytes | None:
        folder, _, name = rel.rpartition("/")
        home = self._homes.get(folder)
        if home is None:
            home = self._homes[folder] = inside(self._ctx.config.vault, rel).parent
        try:
            return (home / name).read_bytes()
        except FileNotFoundError:
            return None

    def _listing(self) -> set[str]:
        """Every note in the folder of the galleries."""
        vault = self._ctx.config.vault
        found = set()
        for at, folders, names in os.walk(vault / self._ctx.config.folder / GALLERY):
            folders[:] = [name for name in folders if not name.startswith(".")]
            here = os.path.relpath(at, vault).replace(os.sep, "/")
            found |= {f"{here}/{name}" for name in names if name.endswith(".md") and not name.startswith(".")}
        return {unicodedata.normalize("NFC", rel) for rel in found}  # some file systems spell names their own way

    def _remove_stale(self) -> Iterator[None]:
        """Take away pages that nothing plans, if they are as we wrote them; not while a root is away."""
        if not self._stale or not self._may_remove():
            return
        for rel in sorted(self._stale):
            self._stale.discard(rel)
            self.notices.pop(rel, None)
            with contextlib.suppress(IsADirectoryError, NotADirectoryError, PermissionError, PathRefused):
                data = self._read(rel)
                if data is None or not own.is_ours(data):
                    if data is not None and b"\nlv_sum: " in data[:65536]:
                        self._leave(
                            rel, f"{rel} was changed by you, so it stays, although there is no such gallery now."
                        )
                    continue
                path = inside(self._ctx.config.vault, rel)
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
            yield
