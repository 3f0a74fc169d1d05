"""Threads of which one runs at a time, in an order that a seed decides: every run can be repeated.

Stands in for the module `threading` in studyguide.threads. A thread hands over wherever it enters a
lock or waits; whoever waits for a notification goes on only if it was given, so a lost wake-up is
a deadlock here, and a deadlock is an error.
"""

import random
import threading
from collections.abc import Callable
from typing import Any


class Deadlock(BaseException):
    """Every thread waits for another."""


class Scheduler:
    """The stand-in: `Thread`, `Lock`, `Condition` and `Event` of one run."""

    def __init__(self, seed: int, interrupt_at: int = -1) -> None:
        self._random = random.Random(seed)
        self._baton = threading.Condition()
        self._main = threading.current_thread()
        self._running = self._main
        self._ready: dict[threading.Thread, Callable[[], bool]] = {}
        self._stuck = False
        self._until_interrupt = interrupt_at
        scheduler = self

        class Thread(threading.Thread):
            def start(self) -> None:
                scheduler._ready[self] = lambda: True
                super().start()
                scheduler.hand_over()

            def run(self) -> None:
                scheduler._wait_for_turn()
                try:
                    super().run()
                finally:
                    scheduler._leave()

            def join(self, timeout: float | None = None) -> None:
                scheduler.hand_over(lambda: self not in scheduler._ready)
                super().join()

        class Lock:
            held = False

            def __enter__(self) -> None:
                scheduler.hand_over(lambda: not self.held)
                self.held = True

            def __exit__(self, *_: object) -> None:
                self.held = False

        class Condition:
            def __init__(self, lock: Lock | None = None) -> None:
                self.lock = lock or Lock()
                self.waiting: list[threading.Thread] = []

            def __enter__(self) -> None:
                self.lock.__enter__()

            def __exit__(self, *_: object) -> None:
                self.lock.__exit__()

            def wait_for(self, predicate: Callable[[], Any]) -> None:
                me = threading.current_thread()
                while not predicate():
                    self.waiting.append(me)
                    self.lock.held = False
                    scheduler.hand_over(lambda: me not in self.waiting and not self.lock.held)
                    self.lock.held = True

            def notify(self) -> None:
                if self.waiting:
                    self.waiting.pop(scheduler._random.randrange(len(self.waiting)))

            def notify_all(self) -> None:
                self.waiting.clear()

        class Event(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                scheduler.hand_over(self.is_set)
                return True

        self.Thread, self.Lock, self.Condition, self.Event = Thread, Lock, Condition, Event

    def hand_over(self, ready: Callable[[], bool] = lambda: True) -> None:
        """Let any thread go on that can, this one included once it is `ready`."""
        me = threading.current_thread()
        self._ready[me] = ready
        self._choose()
        self._wait_for_turn()
        if me is self._main:
            self._until_interrupt -= 1
            if self._until_interrupt == 0:
                raise KeyboardInterrupt

    def _choose(self) -> None:
        with self._baton:
            able = [thread for thread, ready in self._ready.items() if ready()]
            if able:
                self._running = self._random.choice(able)
            elif self._ready:
                self._stuck = True
            self._baton.notify_all()

    def _wait_for_turn(self) -> None:
        me = threading.current_thread()
        with self._baton:
            self._baton.wait_for(lambda: self._stuck or self._running is me)
            if self._stuck:
                raise Deadlock

    def _leave(self) -> None:
        del self._ready[threading.current_thread()]
        self._choose()
