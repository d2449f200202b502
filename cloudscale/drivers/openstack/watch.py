"""What is in the cloud as it changes: one request for all who wait, however many machines there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from cloudscale.waiting import Clock, poll

T = TypeVar("T")
R = TypeVar("R")

INTERVAL = 2.0  # seconds between two requests


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
        return self._since(self._clock.now())

    def _since(self, moment: float) -> Sequence[T]:
        with self._lock:
            now = self._clock.now()
            if self._read_at < moment or now - self._read_at >= INTERVAL:
                self._seen = self._read()
                self._read_at = now  # when it was asked: what happened since may be missing
            return self._seen

    def until(self, found: Callable[[Sequence[T]], R | None], timeout: float) -> R | None:
        """Waits for what `found` sees in the list; None where it has not come in `timeout` seconds.

        Raises what reading and `found` raise.
        """
        begun = self._clock.now()
        values: list[R] = []

        def step() -> bool:
            if (value := found(self._since(begun))) is not None:
                values.append(value)
            return bool(values)

        poll(step, timeout=timeout, interval=INTERVAL, clock=self._clock)
        return values[0] if values else None
