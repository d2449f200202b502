"""Waiting for what takes time: until something is there, or until something works."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Time in seconds that only goes forward, and a way to let some pass. Tests inject their own."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def poll(look: Callable[[], T], *, timeout: float, interval: float = 0.25, clock: Clock | None = None) -> T:
    """Calls `look` until it returns something true; returns that or, after `timeout` seconds, what it returned last.

    A look that finds a failure raises, which ends the wait. It is called at least once, and once
    more at the deadline.
    """
    clock = clock or SystemClock()
    deadline = clock.now() + timeout
    while not (found := look()):
        left = deadline - clock.now()
        if left <= 0:
            break
        clock.sleep(min(interval, left))
    return found


def retry(
    call: Callable[[], T],
    *,
    when: Callable[[Exception], bool],
    timeout: float,
    interval: float = 0.25,
    clock: Clock | None = None,
) -> T:
    """Calls `call` until it raises nothing, and returns its value.

    Raises its error where `when` says that trying again is of no use, and its last one after `timeout` seconds.
    """
    clock = clock or SystemClock()
    deadline = clock.now() + timeout
    while True:
        try:
            return call()
        except Exception as error:
            left = deadline - clock.now()
            if left <= 0 or not when(error):
                raise
        clock.sleep(min(interval, left))
