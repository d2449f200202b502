"""What is in the cloud as it changes: one request for all who wait, however many machines there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from cloudscale.waiting import Clock, poll

T = TypeVar("T")
R = TypeVar("R")

INTERVAL = 2.0  # seconds between two requests
TICK = 1e-6  # seconds: two lists are further apart


class Watch(Generic[T]):
    """Reads a list at most once in INTERVAL; who asks in between gets the same list."""

    def __init__(self, read: Callable[[], Sequence[T]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: Sequence[T] = ()
        self._read_at = float("-inf")

    def now(self) -> Sequence[T]:
        """All of it as it is at this moment. Raises what reading raises."""
        moment = self._clock.now()
        with self._lock:
            return self._seen if self._read_at >= moment else self._renewed()

    def until(self, found: Callable[[Sequence[T]], R | None], timeout: float) -> R | None:
        """Waits for what `found` sees in a list, shown each list once; None where it has not come in `timeout` seconds.

        Raises what reading and `found` raise.
        """
        last = self._clock.now()
        values: list[R] = []

        def step() -> bool:
            nonlocal last
            read_at, seen = self._current()
            if read_at >= last:
                last = read_at + TICK
                if (value := found(seen)) is not None:
                    values.append(value)
            return bool(values)

        poll(step, timeout=timeout, interval=INTERVAL / 4, clock=self._clock)
        return values[0] if values else None

    def _current(self) -> tuple[float, Sequence[T]]:
        """The list, read anew when it is time, and when it was asked for."""
        called = self._clock.now()  # before the lock: who waits for a slow answer takes that, and asks no more
        with self._lock:
            if called - self._read_at >= INTERVAL:
                self._renewed()
            return self._read_at, self._seen

    def _renewed(self) -> Sequence[T]:
        begun = self._clock.now()  # what happens after the question may be missing in the answer
        self._seen = self._read()
        self._read_at = begun
        return self._seen
