"""Reading ahead: the next job finds its adapters in memory; what is wrong is told to it, and nothing grows or races."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loravault.engine import cache as cache_module
from loravault.engine.ahead import ReadingAhead
from loravault.engine.bases import Base, load_base
from loravault.engine.cache import AdapterShelf
from loravault.engine.devices import choose_device
from loravault.engine.generate import Engine
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, BaseRef
from tests.engine.test_generate import pixels, replaced, spec
from tests.tiny import make_adapter, make_base, use_of

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def base(tiny: BaseRef) -> Base:
    return load_base(tiny, choose_device("cpu"))


def adapters(folder: Path, count: int) -> list[AdapterUse]:
    for number in range(count):
        make_adapter(folder / f"{number}.safetensors", seed=number)
    return [use_of(folder / f"{number}.safetensors") for number in range(count)]


def counted(reads: list[tuple[str, str]], *, delay_s: float = 0.0) -> Any:
    """The real reading, which notes what is read by which thread."""
    real = cache_module.load_adapter

    def load(use: AdapterUse, *more: Any) -> Any:
        reads.append((Path(use.path).stem, threading.current_thread().name))
        time.sleep(delay_s)
        return real(use, *more)

    return load


def test_the_adapters_of_the_next_job_are_read_while_this_one_is_drawn(tiny: BaseRef, tmp_path: Path) -> None:
    uses = adapters(tmp_path, 3)
    engine, reads = Engine("cpu"), []
    with replaced(cache_module, "load_adapter", counted(reads)):
        engine.expect([spec(tiny, adapters=(uses[1],)), spec(tiny, adapters=(uses[1], uses[2]))])
        engine.generate(spec(tiny, adapters=(uses[0],)), tmp_path)
        engine._ahead.wait()
        ahead = engine.generate(spec(tiny, adapters=(uses[1], uses[2])), tmp_path)
    assert [name for name, _ in reads] == ["0", "1", "2"]
    assert [thread for _, thread in reads[1:]] == ["reading ahead"] * 2
    usual = Engine("cpu").generate(spec(tiny, adapters=(uses[1], uses[2])), tmp_path / "usual")
    assert pixels(ahead)[0].tobytes() == pixels(usual)[0].tobytes()


def test_nothing_is_read_ahead_for_another_base(tiny: BaseRef, tmp_path: Path) -> None:
    """It would have to be read for that one."""
    uses = adapters(tmp_path, 2)
    other = make_base(tmp_path / "other", seed=3)
    engine, reads = Engine("cpu"), []
    with replaced(cache_module, "load_adapter", counted(reads)):
        engine.expect([spec(other, adapters=(uses[1],))])
        engine.generate(spec(tiny, adapters=(uses[0],)), tmp_path)
        engine._ahead.wait()
    assert [name for name, _ in reads] == ["0"]


def test_an_error_is_told_when_the_job_runs_and_once(tiny: BaseRef, tmp_path: Path) -> None:
    uses = adapters(tmp_path, 2)
    bad = replace(uses[1], weight_id="w1-" + "0" * 16)
    engine = Engine("cpu")
    engine.expect([spec(tiny, adapters=(bad,))])
    assert not engine.generate(spec(tiny, adapters=(uses[0],)), tmp_path).warnings
    engine._ahead.wait()
    with pytest.raises(UserError, match="is another one by now"):
        engine.generate(spec(tiny, adapters=(bad,)), tmp_path)
    assert engine.generate(spec(tiny, adapters=(uses[1],)), tmp_path).images


def test_a_file_is_read_once_although_two_want_it_at_the_same_time(base: Base, tmp_path: Path) -> None:
    (use,) = adapters(tmp_path, 1)
    shelf, reads, got = AdapterShelf(base), [], []
    with replaced(cache_module, "load_adapter", counted(reads, delay_s=0.1)):
        threads = [threading.Thread(target=lambda: got.append(shelf.get(use))) for _ in range(4)]
        threads.append(threading.Thread(target=shelf.fetch, args=(use,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(reads) == 1
    assert len(got) == 4
    assert len(set(map(id, got))) == 1


def test_a_failure_of_who_reads_first_does_not_hang_who_waits(base: Base, tmp_path: Path) -> None:
    (use,) = adapters(tmp_path, 1)
    shelf, real, calls = AdapterShelf(base), cache_module.load_adapter, []

    def fails_once(*args: Any) -> Any:
        calls.append(1)
        time.sleep(0.1)
        if len(calls) == 1:
            raise ValueError("a bug")
        return real(*args)

    with replaced(cache_module, "load_adapter", fails_once):
        ahead = ReadingAhead()
        ahead.want(shelf, [use])
        while not calls:
            time.sleep(0.005)
        assert shelf.get(use) is shelf.get(use)
        ahead.wait()
    assert len(calls) == 2


def test_what_is_drawn_with_makes_no_room_for_what_is_read_ahead(base: Base, tmp_path: Path) -> None:
    uses = adapters(tmp_path, 4)
    size = AdapterShelf(base).get(uses[0]).bytes
    shelf = AdapterShelf(base, limit=3 * size)
    drawn = [shelf.get(use) for use in uses[:2]]
    shelf.hold(one.key for one in drawn)
    for use in (uses[2], uses[3], uses[2]):
        shelf.fetch(use)
        assert shelf.bytes <= 3 * size
    assert [shelf.get(use) for use in uses[:2]] == drawn
    full = AdapterShelf(base, limit=2 * size)
    full.hold(one.key for one in [full.get(use) for use in uses[:2]])
    reads: list[tuple[str, str]] = []
    with replaced(cache_module, "load_adapter", counted(reads)):
        full.fetch(uses[2])
    assert reads == [], "there is no room beside them, so it is not even read"


def test_a_base_that_is_let_go_of_is_not_kept_by_the_reader(tiny: BaseRef, tmp_path: Path) -> None:
    """The next base would find the device full."""
    uses = adapters(tmp_path, 3)
    engine, reads = Engine("cpu"), []
    other = make_base(tmp_path / "other", seed=3)
    with replaced(cache_module, "load_adapter", counted(reads, delay_s=0.05)):
        engine.expect([spec(tiny, adapters=tuple(uses))])
        engine.generate(spec(tiny), tmp_path)
        assert engine._loaded is not None
        gone = weakref.ref(engine._loaded.base.denoiser)
        engine.generate(spec(other), tmp_path)
    gc.collect()
    assert gone() is None
