"""The names that the notes of the vault have, so that no note of ours gets one of them.

They are kept from one look to the next: comparing twenty thousand paths costs two milliseconds, making a key of each of
them fifty, and somebody waits for the card of a new file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable

from loravault.pages.cardpages import PICTURES
from loravault.vault.names import name_key

#: Every page of a gallery is in this folder of ours.
GALLERY = "Gallery"


def key_of(path: str) -> str:
    """The `name_key` of a note's stem; a file system or Obsidian holds notes of one key for notes of one name."""
    return name_key(path.rpartition("/")[2].removesuffix(".md"))


class NoteNames:
    """Keys of the names of all notes, by where they are. `note_paths` gives all notes, vault-relative."""

    def __init__(self, note_paths: Callable[[], Collection[str]], folder: str) -> None:
        self._note_paths = note_paths
        self._gallery, self._made = f"{folder}/{GALLERY}/", f"{folder}/{PICTURES}/"
        self._paths: set[str] = set()
        #: Outside the galleries; in them; of the pages there that show what an adapter made. Key -> how many notes.
        self._elsewhere: Counter[str] = Counter()
        self._pages: Counter[str] = Counter()
        self._pictures: Counter[str] = Counter()

    def look(self) -> None:
        """Take in what came and went."""
        now = set(self._note_paths())
        for path in now - self._paths:
            self._of(path)[key_of(path)] += 1
        for path in self._paths - now:
            counts, key = self._of(path), key_of(path)
            counts[key] -= 1
            if not counts[key]:
                del counts[key]
        self._paths = now

    def _of(self, path: str) -> Counter[str]:
        if not path.startswith(self._gallery):
            return self._elsewhere
        return self._pictures if path.startswith(self._made) else self._pages

    @property
    def elsewhere(self) -> Container[str]:
        """Of notes outside our galleries."""
        return self._elsewhere.keys()

    @property
    def pictures(self) -> Collection[str]:
        """Of the pages that show what an adapter made."""
        return self._pictures.keys()

    def __contains__(self, key: str) -> bool:
        """Whether a note has such a name; pages that show what an adapter made are not counted."""
        return key in self._elsewhere or key in self._pages


class TakenNames:
    """The names that no new card and no page of its pictures may have, as `name_key`s.

    A page of pictures that no card embeds is what a deleted card left: it waits for that card to be made anew. Which
    pages are embedded is looked up when a name meets one for the first time.
    """

    def __init__(self, notes: NoteNames, embedded: Callable[[], Iterable[str]]) -> None:
        """`embedded`: paths of the pages of pictures that are in use."""
        self._notes = notes
        self._taken: set[str] = set()
        #: None: not looked up yet.
        self._embedded: set[str] | None = None
        self._look_up = embedded
        #: Stem -> the last number that was tried for it. What is taken stays so.
        self.numbers: dict[str, int] = {}

    def __contains__(self, key: str) -> bool:
        if key in self._taken or key in self._notes:
            return True
        if key not in self._notes.pictures:
            return False
        if self._embedded is None:
            self._embedded = set(map(key_of, self._look_up()))
        return key in self._embedded

    def add(self, keys: Iterable[str]) -> None:
        """These are taken from now on."""
        self._taken.update(keys)
