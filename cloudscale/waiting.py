"""One polling loop for everything that takes time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Time in seconds that only goes forward, and a way to let some pass. Tests inject their own."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def poll(step: Callable[[], bool], *, timeout: float, interval: float = 0.25, clock: Clock | None = None) -> bool:
    """Calls `step` until it returns True; False when `timeout` seconds have passed first.

    A step that finds a failure state raises, which ends the wait. It is called at least once, and
    once more at the deadline.
    """
    clock = clock or SystemClock()
    deadline = clock.now() + timeout
    while not step():
        left = deadline - clock.now()
        if left <= 0:
            return False
        clock.sleep(min(interval, left))
    return True
