"""A path is quiet since its last observed change, whatever the clock does."""

from __future__ import annotations

from loravault.vault.gates import SettleTracker


def test_quiet_time_grows_until_something_changes():
    tracker = SettleTracker()
    tracker.observe("a.md", (10, 1), 100.0)
    tracker.observe("a.md", (10, 1), 103.0)
    assert tracker.quiet_for("a.md", 104.0) == 4.0
    tracker.observe("a.md", (11, 1), 104.0)
    assert tracker.quiet_for("a.md", 105.0) == 1.0


def test_a_file_that_is_gone_or_forgotten_was_never_quiet():
    tracker = SettleTracker()
    tracker.observe("a.md", (1,), 1.0)
    tracker.observe("b.md", (1,), 1.0)
    tracker.observe("a.md", None, 2.0)
    tracker.forget("b.md")
    tracker.forget("never.md")
    assert (tracker.quiet_for("a.md", 9.0), tracker.quiet_for("b.md", 9.0), len(tracker)) == (0.0, 0.0, 0)


def test_a_clock_that_was_set_back_starts_the_quiet_time_again_instead_of_freezing_it():
    tracker = SettleTracker()
    tracker.observe("a.md", (1,), 1000.0)
    assert tracker.quiet_for("a.md", 10.0) == 0.0
    tracker.observe("a.md", (1,), 10.0)
    assert tracker.quiet_for("a.md", 15.0) == 5.0
