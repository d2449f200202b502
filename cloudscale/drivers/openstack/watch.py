"""Waits for changes in the cloud: one request serves all threads that wait, however many machines there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from cloudscale.waiting import Clock, poll

T = TypeVar("T")
R = TypeVar("R")

INTERVAL = 2.0  # seconds between two requests


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
        """Waits for a list in which `find` finds something true, and returns that; None after `timeout` seconds.

        Each list was requested after this call. Raises what reading and `find` raise.
        """
        called = self._clock.now()

        def look() -> R | None:
            read_at, items = self._current()
            return find(items) if read_at >= called else None

        return poll(look, timeout=timeout, interval=INTERVAL / 4, clock=self._clock)

    @property
    def latest(self) -> Sequence[T]:
        """The list that was read last."""
        with self._lock:
            return self._items

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
