"""A parallel map with a limit on threads. It returns all outcomes, in the order of the input."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cloudscale.model import Outcome, Outcomes

T = TypeVar("T")
R = TypeVar("R")

WIDTH = 16
MACHINES_WIDTH = 256  # for calls that only wait for work on the machines


def fan_out(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    name: Callable[[T], str] = str,
    width: int = WIDTH,
    patience: float | None = None,
) -> Outcomes[R]:
    """Calls `function` on every item, at most `width` at a time, and returns the outcomes in the order of the items.

    Ctrl-C ends the wait at once. The workers are daemon threads, so the interpreter does not wait for a call that
    hangs. (concurrent.futures joins its threads at exit and can't be used here.)

    With `patience`, a call that has not ended after so many seconds has the outcome TimeoutError, and is left alone.
    """
    work = list(items)
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[int, Outcome[R]]] = queue.SimpleQueue()
    for index in range(len(work)):
        todo.put(index)

    def worker() -> None:
        for index in _take_all(todo):
            finished.put((index, _call(function, work[index], name(work[index]))))

    results: dict[int, Outcome[R]] = {}
    deadline = None if patience is None else time.monotonic() + patience
    try:
        for _ in range(min(width, len(work))):
            threading.Thread(target=worker, daemon=True).start()
        while len(results) < len(work):
            index, outcome = finished.get(timeout=None if deadline is None else max(deadline - time.monotonic(), 0))
            results[index] = outcome
    except queue.Empty:
        list(_take_all(todo))
        late = TimeoutError(f"no answer in {patience:g} s")
        results = {at: results.get(at, Outcome(name(item), error=late)) for at, item in enumerate(work)}
    except BaseException:
        list(_take_all(todo))  # no worker starts another call after an interrupt
        raise
    return Outcomes(results[index] for index in range(len(work)))


def _call(function: Callable[[T], R], item: T, target: str) -> Outcome[R]:
    try:
        return Outcome(target, function(item))
    except Exception as error:
        return Outcome(target, error=error)
    except BaseException as error:  # such as SystemExit; without an outcome the caller would wait forever
        return Outcome(target, error=RuntimeError(f"the worker ended: {error!r}"))


def _take_all(items: queue.SimpleQueue[int]) -> Iterator[int]:
    """Takes items from a queue that several threads share, until it is empty."""
    while True:
        try:
            yield items.get_nowait()
        except queue.Empty:
            return
