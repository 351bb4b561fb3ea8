"""Which file is hashed next, how fast, and how far all of them are. Pure: time is always given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from loravault.formats.hashes import FileHashes

#: A file that changed a moment ago may change again without another time (file systems count in up to 2 s).
SETTLED_S = 2.0
#: What could not be read is tried again after this long, unless it changed before.
RETRY_S = 3600.0
#: Shorter pauses than this are saved up: they would cost more than they give.
LEAST_PAUSE_S = 0.01
#: A wait that took longer than it should is made good by at most this much.
MOST_AHEAD_S = 0.25

Key = tuple[str, str]


class Priority(IntEnum):
    """How much a hash is wanted. Within one, the newest file comes first."""

    #: Pictures were made with the adapter: the next ones are to carry the hash.
    USED = 0
    NORMAL = 1


@dataclass(frozen=True)
class HashWish:
    """One file whose hashes the index lacks, as the index knows it."""

    root: str
    #: Path inside the root.
    rel: str
    path: Path
    size: int
    mtime_ns: int
    priority: Priority = Priority.NORMAL

    @property
    def key(self) -> Key:
        """The file's place."""
        return (self.root, self.rel)

    @property
    def version(self) -> tuple[int, int]:
        """What changes when its bytes do."""
        return (self.size, self.mtime_ns)


@dataclass(frozen=True)
class HashResult:
    """What came of one wish: hashes of exactly the version that was wished for, or a problem."""

    root: str
    rel: str
    size: int
    mtime_ns: int
    hashes: FileHashes | None
    #: Why there are none, in words that fit after the file's name and a colon.
    problem: str | None = None


@dataclass(frozen=True)
class HashProgress:
    """How far the files are that were wished for since there was last nothing to do."""

    done: int
    total: int
    bytes_done: int
    bytes_total: int
    #: `rel` of the file in hand.
    name: str | None
    paused: bool = False

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return self.done < self.total

    @property
    def fraction(self) -> float:
        """0 … 1, by bytes."""
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total else float(not self.busy)


@dataclass
class HashPlan:
    """The wishes that are open. Whoever shares it between threads locks it."""

    _open: dict[Key, HashWish] = field(default_factory=dict)
    _order: list[HashWish] = field(default_factory=list)
    #: The file that is being read.
    in_hand: HashWish | None = None
    #: Answered, but nobody has taken the answer yet: the index cannot know.
    _answered: dict[Key, tuple[int, int]] = field(default_factory=dict)
    #: Place -> version that failed, and when.
    _failed: dict[Key, tuple[tuple[int, int], float]] = field(default_factory=dict)
    _done: int = 0
    _bytes_done: int = 0
    _bytes_in_hand: int = 0

    def replace(self, wishes: Iterable[HashWish], now: float) -> None:
        """These are all open wishes from now on. The file in hand is put down if it is not among them.

        A file that is wished for twice is hashed once, with the higher priority; what is answered already, or failed
        not long ago in the same version, is left out.
        """
        if not self._open and self.in_hand is None:
            self._done = self._bytes_done = 0
        held, still_wanted, named = self.in_hand, False, set()
        self._open = {}
        for wish in wishes:
            named.add(wish.key)
            if held is not None and (wish.key, wish.version) == (held.key, held.version):
                still_wanted = True
            elif not self._is_settled(wish, now):
                known = self._open.get(wish.key)
                if known is None or _first(wish) < _first(known):
                    self._open[wish.key] = wish
        self._order = sorted(self._open.values(), key=_first, reverse=True)  # the next one stands last: cheap to take
        self._failed = {key: failure for key, failure in self._failed.items() if key in named}
        if not still_wanted:
            self.in_hand, self._bytes_in_hand = None, 0

    def _is_settled(self, wish: HashWish, now: float) -> bool:
        if self._answered.get(wish.key) == wish.version:
            return True
        version, when = self._failed.get(wish.key, (None, 0.0))
        return version == wish.version and now - when < RETRY_S

    def take(self, now: float) -> HashWish | float | None:
        """The wish to work on now (it is in hand then), or the seconds until one may be, or None: nothing to do.

        A file that changed within the last two seconds waits: it could be written to again within the same time stamp.
        """
        if self.in_hand is not None:
            raise ValueError("one at a time")
        wait: float | None = None
        for place in range(len(self._order) - 1, -1, -1):
            wish = self._order[place]
            age = now - wish.mtime_ns / 1e9
            if 0 <= age < SETTLED_S:
                wait = min(wait or SETTLED_S, SETTLED_S - age)
                continue
            del self._order[place]
            del self._open[wish.key]
            self.in_hand = wish
            return wish
        return wait

    def read(self, length: int) -> None:
        """So many more bytes of the file in hand went by."""
        self._bytes_in_hand += length

    def answer(self, now: float, *, failed: bool) -> None:
        """The file in hand is through, and somebody is going to take the result."""
        wish = self._put_down()
        if failed:
            self._failed[wish.key] = (wish.version, now)
        else:
            self._answered[wish.key] = wish.version
            self._failed.pop(wish.key, None)
        self._count(wish)

    def drop(self) -> None:
        """The file in hand is not there any more, or is another than the one wished for: there is no answer."""
        self._count(self._put_down())

    def put_back(self) -> None:
        """The file in hand was interrupted: it comes first again."""
        wish = self._put_down()
        if wish.key not in self._open:
            self._open[wish.key] = wish
            self._order.append(wish)

    def taken(self, keys: Iterable[Key]) -> None:
        """These answers are known to the index now."""
        for key in keys:
            self._answered.pop(key, None)

    def progress(self, *, paused: bool = False) -> HashProgress:
        """How far it is."""
        left = [*self._open.values(), *([self.in_hand] if self.in_hand else [])]
        return HashProgress(
            done=self._done,
            total=self._done + len(left),
            bytes_done=self._bytes_done + self._bytes_in_hand,
            bytes_total=self._bytes_done + sum(wish.size for wish in left),
            name=self.in_hand.rel if self.in_hand else None,
            paused=paused,
        )

    def _put_down(self) -> HashWish:
        if self.in_hand is None:
            raise ValueError("nothing is in hand")
        wish, self.in_hand, self._bytes_in_hand = self.in_hand, None, 0
        return wish

    def _count(self, wish: HashWish) -> None:
        self._done += 1
        self._bytes_done += wish.size


def _first(wish: HashWish) -> tuple[int, int, str, str]:
    """The order of work; the place decides between equals."""
    return (wish.priority, -wish.mtime_ns, wish.root, wish.rel)


@dataclass
class Pace:
    """How long to wait after so much work, so that a quiet machine stays quiet and a slow disk stays usable."""

    #: Share of the time that may be worked, above 0 … 1.
    duty: float = 1.0
    #: Bytes per second at the most; None: no limit.
    rate_limit: float | None = None
    _debt: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.duty <= 1 or (self.rate_limit is not None and self.rate_limit <= 0):
            raise ValueError("a share of the time is above 0 and at most 1, a rate above 0")

    def owe(self, length: int, worked_s: float) -> float:
        """Seconds to wait now that `length` bytes took `worked_s`; short waits are saved up until they are worth it."""
        wanted = worked_s * (1 / self.duty - 1)
        if self.rate_limit is not None:
            wanted = max(wanted, length / self.rate_limit - worked_s)
        self._debt += wanted
        return self._debt if self._debt >= LEAST_PAUSE_S else 0.0

    def paid(self, waited_s: float) -> None:
        """So long was really waited. Waiting ahead counts a little only: what was slow is not made up for in haste."""
        self._debt = max(-MOST_AHEAD_S, self._debt - waited_s)
