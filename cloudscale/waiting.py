"""Waits until a check succeeds (`poll`) or until a call no longer fails (`retry`), and for no longer (`at_most`)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """A monotonic clock in seconds, and a sleep. Tests use their own."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def poll(
    look: Callable[[], T],
    *,
    timeout: float,
    interval: float | Callable[[], float] = 0.25,
    clock: Clock | None = None,
) -> T:
    """Calls `look` until it returns a true value. Returns that or, after `timeout` seconds, the last value.

    An error that `look` raises ends the wait. It is called at least once, and once more at the deadline.
    `interval`: the seconds between two calls, or what gives them after each call.
    """
    clock = clock or SystemClock()
    deadline = clock.now() + timeout
    while not (value := look()):
        left = deadline - clock.now()
        if left <= 0:
            break
        clock.sleep(min(interval() if callable(interval) else interval, left))
    return value


def retry(
    call: Callable[[], T],
    *,
    when: Callable[[Exception], bool],
    timeout: float,
    interval: float = 0.25,
    clock: Clock | None = None,
) -> T:
    """Calls `call` until it raises no error, and returns its value.

    Raises the error if `when` returns false for it, or if `timeout` seconds are over.
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


@contextlib.contextmanager
def at_most(seconds: float, end: Callable[[], object]) -> Iterator[None]:
    """Calls `end` from another thread if what is inside takes longer, for calls that have no limit of their own."""
    ending = threading.Timer(seconds, end)
    ending.daemon = True
    ending.start()
    try:
        yield
    finally:
        ending.cancel()
