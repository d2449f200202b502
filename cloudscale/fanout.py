"""One bounded parallel map: every outcome is kept, in the order of the input."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from cloudscale.model import Outcome, Outcomes

T = TypeVar("T")
R = TypeVar("R")

WIDTH = 16
MACHINES_WIDTH = 256  # for work that is the machines' own, not this computer's


def fan_out(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    name: Callable[[T], str] = str,
    width: int = WIDTH,
) -> Outcomes[R]:
    """Calls `function` on every item, at most `width` at a time, and returns their outcomes in order.

    Ctrl-C stops the wait at once: the workers are daemon threads, so the interpreter does not wait
    for a call that hangs.
    (concurrent.futures joins its threads at exit, which is why it is not used here.)
    """
    work = list(items)
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[int, Outcome[R]]] = queue.SimpleQueue()
    for index in range(len(work)):
        todo.put(index)

    def worker() -> None:
        while True:
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            item = work[index]
            try:
                outcome = Outcome(name(item), function(item))
            except Exception as error:
                outcome = Outcome(name(item), error=error)
            except BaseException as error:  # whatever it is, the caller is not left waiting
                outcome = Outcome(name(item), error=RuntimeError(f"the worker ended: {error!r}"))
            finished.put((index, outcome))

    results: dict[int, Outcome[R]] = {}
    try:
        for _ in range(min(width, len(work))):
            threading.Thread(target=worker, daemon=True).start()
        while len(results) < len(work):
            index, outcome = finished.get()
            results[index] = outcome
    except BaseException:
        while not todo.empty():  # nothing new is begun after an interrupt
            try:
                todo.get_nowait()
            except queue.Empty:
                break
        raise
    return Outcomes(results[index] for index in range(len(work)))
