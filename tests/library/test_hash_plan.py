"""Which file is hashed next, and how fast: decided without a thread, a file or a clock."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.library.hash_plan import RETRY_S, HashPlan, HashProgress, HashWish, Pace, Priority

NOW = 1_000_000.0


def wish(
    rel: str, age: float = 100.0, size: int = 10, priority: Priority = Priority.NORMAL, root: str = "r"
) -> HashWish:
    return HashWish(root, rel, Path("/", root, rel), size, int((NOW - age) * 1e9), priority)


def plan_of(*wishes: HashWish) -> HashPlan:
    plan = HashPlan()
    plan.replace(wishes, NOW)
    return plan


def order(plan: HashPlan) -> list[str]:
    found = []
    while isinstance(taken := plan.take(NOW), HashWish):
        found.append(taken.rel)
        plan.answer(NOW, failed=False)
    return found


def test_what_is_used_comes_first_then_the_newest_then_by_place() -> None:
    used = wish("used", age=900, priority=Priority.USED)
    assert order(plan_of(wish("old", 800), wish("b", 50), wish("a", 50), used)) == ["used", "a", "b", "old"]


def test_a_file_wished_for_twice_is_hashed_once_with_the_higher_priority() -> None:
    plan = plan_of(wish("new", 10), wish("x"), wish("x", priority=Priority.USED), wish("x"))
    assert order(plan) == ["x", "new"]


def test_equal_paths_in_two_roots_are_two_files() -> None:
    assert len(order(plan_of(wish("x", root="a"), wish("x", root="b")))) == 2


def test_a_new_list_replaces_the_old_one() -> None:
    plan = plan_of(wish("a"), wish("b"))
    plan.replace([wish("c")], NOW)
    assert order(plan) == ["c"]


def test_the_file_in_hand_goes_on_if_it_is_still_wanted_and_is_put_down_if_not() -> None:
    plan = plan_of(wish("a"), wish("b"))
    taken = plan.take(NOW)
    assert isinstance(taken, HashWish)
    plan.replace([wish("a"), wish("b")], NOW)
    assert plan.in_hand is taken
    assert plan.progress().total == 2
    plan.replace([wish("a", size=11), wish("b")], NOW)
    assert plan.in_hand is None
    assert order(plan) == ["a", "b"]


def test_what_is_answered_is_not_done_again_before_the_answer_could_be_stored() -> None:
    """The index learns of a result only when it is taken; a change of the library in between wished for it again."""
    plan = plan_of(wish("a"))
    assert order(plan) == ["a"]
    plan.replace([wish("a")], NOW)
    assert order(plan) == []
    plan.replace([wish("a", size=99)], NOW)
    assert order(plan) == ["a"], "another version is another matter"
    plan.taken([("r", "a")])
    plan.replace([wish("a")], NOW)
    assert order(plan) == ["a"], "it was taken and is wished for: it could not be stored"


def test_what_failed_is_left_alone_for_a_while_unless_it_changes() -> None:
    plan = plan_of(wish("a"))
    plan.take(NOW)
    plan.answer(NOW, failed=True)
    plan.replace([wish("a")], NOW + RETRY_S - 1)
    assert order(plan) == []
    plan.replace([wish("a", age=50)], NOW + RETRY_S - 1)
    assert order(plan) == ["a"]
    plan.taken([("r", "a")])
    plan.take(NOW)
    plan.replace([wish("a")], NOW + RETRY_S)
    assert order(plan) == ["a"]


def test_a_file_that_changed_a_moment_ago_waits_and_others_do_not() -> None:
    plan = plan_of(wish("young", age=0.5), wish("old"))
    assert order(plan) == ["old"]
    assert plan.take(NOW) == pytest.approx(1.5)
    assert isinstance(plan.take(NOW + 1.5), HashWish)
    assert isinstance(plan_of(wish("future", age=-1000)).take(NOW), HashWish), "its time says nothing"


def test_an_interrupted_file_comes_first_again() -> None:
    plan = plan_of(wish("a"), wish("b"))
    plan.take(NOW)
    plan.read(5)
    assert plan.progress().bytes_done == 5
    plan.put_back()
    assert plan.progress() == HashProgress(0, 2, 0, 20, None)
    assert order(plan) == ["a", "b"]


def test_progress_counts_files_and_bytes_since_there_was_last_nothing_to_do() -> None:
    plan = plan_of(wish("a"), wish("b", size=30))
    assert (plan.progress().busy, plan.progress().fraction) == (True, 0.0)
    plan.take(NOW)
    plan.read(4)
    assert plan.progress() == HashProgress(0, 2, 4, 40, "a")
    plan.answer(NOW, failed=False)
    plan.replace([wish("b", size=30), wish("c")], NOW)
    assert plan.progress(paused=True) == HashProgress(1, 3, 10, 50, None, paused=True)
    plan.take(NOW)
    plan.drop()
    plan.take(NOW)
    plan.answer(NOW, failed=True)
    assert (plan.progress().busy, plan.progress().fraction) == (False, 1.0)
    plan.replace([wish("d")], NOW)
    assert plan.progress() == HashProgress(0, 1, 0, 10, None)
    assert HashPlan().progress().fraction == 1.0


WISHES = st.builds(
    wish,
    st.sampled_from("abcde"),
    age=st.integers(0, 9),
    size=st.integers(0, 3),
    priority=st.sampled_from(Priority),
    root=st.sampled_from("rs"),
)


@given(st.lists(st.tuples(st.lists(WISHES, max_size=8), st.sampled_from(["answer", "fail", "drop", "back", "none"]))))
def test_whatever_happens_each_open_file_is_worked_on_once_and_the_counts_add_up(
    steps: list[tuple[list[HashWish], str]],
) -> None:
    plan = HashPlan()
    for wishes, end in steps:
        plan.replace(wishes, NOW)
        progress = plan.progress()
        assert 0 <= progress.done <= progress.total
        assert progress.bytes_done <= progress.bytes_total
        if plan.in_hand is None and not isinstance(plan.take(NOW), HashWish):
            continue
        assert plan.in_hand is not None
        assert plan.in_hand.key in {one.key for one in wishes}
        if end == "back":
            plan.put_back()
        elif end == "drop":
            plan.drop()
        elif end != "none":
            plan.answer(NOW, failed=end == "fail")
    if plan.in_hand is not None:
        plan.drop()
    order(plan)
    while isinstance(plan.take(NOW + 10), HashWish):  # those that had changed a moment ago
        plan.drop()
    assert not plan.progress().busy
    assert plan.progress().bytes_done == plan.progress().bytes_total


def test_half_of_the_time_is_left_to_others() -> None:
    pace = Pace(duty=0.5)
    assert pace.owe(1, 0.004) == 0.0, "short waits are saved up"
    assert pace.owe(1, 0.006) == pytest.approx(0.010)
    pace.paid(0.010)
    assert pace.owe(1, 0.004) == 0.0


def test_a_rate_is_kept_whatever_the_disk_can_do() -> None:
    """A simulated minute of reads, each wait a little longer than asked for: the rate is met within a percent."""
    pace, clock, read = Pace(rate_limit=1000.0), 0.0, 0
    while clock < 60:
        clock += 0.01
        read += 100
        if wait := pace.owe(100, 0.01):
            clock += wait * 1.1
            pace.paid(wait * 1.1)
    assert read / clock == pytest.approx(1000, rel=0.01)


def test_a_machine_that_slept_does_not_make_up_for_it_in_haste() -> None:
    pace = Pace(rate_limit=1000.0)
    pace.owe(100, 0.0)
    pace.paid(3600.0)
    assert sum(pace.owe(100, 0.0) > 0 for _ in range(4)) >= 1


def test_without_limits_nobody_waits() -> None:
    pace = Pace()
    assert pace.owe(10**12, 100.0) == 0.0


@pytest.mark.parametrize("bad", [{"duty": 0.0}, {"duty": 1.1}, {"rate_limit": 0.0}])
def test_impossible_limits_are_a_bug_of_the_caller(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Pace(**bad)
