"""Waits for changes in the cloud: one request serves all threads that wait, however many machines there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from cloudscale.waiting import Clock, poll

T = TypeVar("T")
R = TypeVar("R")

INTERVAL = 2.0  # seconds between two requests
TICK = 1e-6  # seconds; less than the time between two lists


class Watch(Generic[T]):
    """Reads a list at most once in INTERVAL; calls in between get the same list."""

    def __init__(self, read: Callable[[], Sequence[T]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._items: Sequence[T] = ()
        self._read_at = float("-inf")

    def now(self) -> Sequence[T]:
        """The list as it is at this moment. Raises what reading raises."""
        called = self._clock.now()
        with self._lock:
            return self._items if self._read_at >= called else self._refresh()

    def until(self, find: Callable[[Sequence[T]], R | None], timeout: float) -> R | None:
        """Calls `find` with each list until it returns a value, and returns that; None after `timeout` seconds.

        Raises what reading and `find` raise.
        """
        last = self._clock.now()
        values: list[R] = []

        def step() -> bool:
            nonlocal last
            read_at, items = self._current()
            if read_at >= last:
                last = read_at + TICK
                if (value := find(items)) is not None:
                    values.append(value)
            return bool(values)

        poll(step, timeout=timeout, interval=INTERVAL / 4, clock=self._clock)
        return values[0] if values else None

    def _current(self) -> tuple[float, Sequence[T]]:
        """When the list was requested, and the list; it is read again after INTERVAL."""
        called = self._clock.now()  # before the lock: a thread that waits for a slow answer uses it, and asks no more
        with self._lock:
            if called - self._read_at >= INTERVAL:
                self._refresh()
            return self._read_at, self._items

    def _refresh(self) -> Sequence[T]:
        begun = self._clock.now()  # the answer may lack what happened after the request
        self._items = self._read()
        self._read_at = begun
        return self._items
