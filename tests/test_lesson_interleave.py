"""A race that can happen does happen; without one, no order of steps shows any."""

from threading import Lock

import pytest

from studyguide_course.exercises.interleave import Stuck, interleavings


class Counter:
    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.count = 0
        self.lock = Lock()

    def add(self) -> None:
        if "tile" not in self.seen:
            self.seen.add("tile")
            self.count += 1

    def add_locked(self) -> None:
        with self.lock:
            self.add()

    def keep_the_lock(self) -> None:
        self.lock.acquire()


def test_race_is_found_and_its_line_is_named() -> None:
    runs = [(it.count, line) for it, line in interleavings(Counter, Counter.add, Counter.add)]
    assert (2, 'self.seen.add("tile")') in runs


def test_no_order_of_steps_breaks_what_is_locked() -> None:
    runs = list(interleavings(Counter, Counter.add_locked, Counter.add_locked))
    assert len(runs) > 3
    assert {it.count for it, _ in runs} == {1}


def test_threads_that_wait_for_ever_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studyguide_course.exercises.interleave.STUCK_S", 0.1)
    with pytest.raises(Stuck):
        list(interleavings(Counter, Counter.keep_the_lock, Counter.keep_the_lock))


def test_error_of_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(interleavings(Counter, lambda it: it.add(), lambda it: 1 / 0))
