"""The time that each phase of a launch took. Machines run in parallel, so for each phase the slowest counts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Phases:
    def __init__(self) -> None:
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._spent: dict[str, dict[str, float]] = {}

    @contextlib.contextmanager
    def timed(self, phase: str, machine: str = "") -> Iterator[None]:
        """Adds the time inside the block to a phase, and to `machine` if one is given."""
        start = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                spent = self._spent.setdefault(phase, {})
                spent[machine] = spent.get(machine, 0) + time.monotonic() - start

    def __str__(self) -> str:
        parts = []
        for phase, spent in self._spent.items():
            machine, longest = max(spent.items(), key=lambda item: item[1])
            parts.append(f"{phase} {longest:.1f} s" + (f" ({machine})" if len(spent) > 1 else ""))
        return f"Time: {', '.join(parts)}; in all {time.monotonic() - self._start:.1f} s"
