"""The findings of `doctor`, as they come in: calls with a deadline, whose results and errors become rows."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from cloudscale.errors import CloudscaleError
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.model import Finding, Outcome
from cloudscale.progress import Advance

T = TypeVar("T")

LATE = "Check that it is up, and the network; or wait longer with --timeout."
LEAST = 0.3  # seconds for a call, however little time is left
WARNING = "Warning: "


class Notes:
    """In the place of the progress: what a stage of a launch says becomes a part of the findings."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def say(self, text: str) -> None:
        self._lines.put(text)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        yield lambda done, of: None

    def take(self) -> list[str]:
        """What was said since the last time."""
        lines = []
        with contextlib.suppress(queue.Empty):
            while True:
                lines.append(self._lines.get_nowait())
        return lines


class Findings:
    """What was found so far, and the time that is left: `seconds` for all."""

    def __init__(self, seconds: float) -> None:
        self.rows: list[Finding] = []
        self.notes = Notes()
        self._deadline = time.monotonic() + seconds

    def ask(self, calls: Mapping[str, Callable[[], T]], patience: float) -> dict[str, Outcome[T]]:
        """Calls all of them at once. What does not end within `patience` seconds has failed; all errors are ours."""
        limit = max(min(patience, self._deadline - time.monotonic()), LEAST)
        outcomes = fan_out(lambda name: calls[name](), calls, width=MACHINES_WIDTH, patience=limit)
        return {outcome.target: _with_own_error(outcome) for outcome in outcomes}

    def ask_user(self, check: str, call: Callable[[], T]) -> Outcome[T]:
        """Calls something that asks the user: here, where Ctrl-C ends it, and in no time of the others."""
        start = time.monotonic()
        try:
            outcome = Outcome(check, call())
        except Exception as error:
            outcome = Outcome(check, error=error)
        self._deadline += time.monotonic() - start
        return _with_own_error(outcome)

    def look(self, check: str, call: Callable[[], T], describe: Callable[[T], str], patience: float) -> Outcome[T]:
        """Calls it, and adds what came of it. `describe`: what to say where all is well; "" for nothing."""
        (outcome,) = self.ask({check: call}, patience).values()
        self.add(check, outcome, describe, self.notes.take())
        return outcome

    def add(self, check: str, outcome: Outcome[T], describe: Callable[[T], str], said: Iterable[str] = ()) -> None:
        """Adds what came of a call, and what was `said` meanwhile."""
        for line in said:
            if line.startswith(WARNING):
                self.warn(check, line.removeprefix(WARNING))
        if isinstance(outcome.error, CloudscaleError):
            self.fail(check, outcome.error)
        elif text := describe(outcome.get()):
            self.well(check, "\n".join([text, *(line for line in said if not line.startswith(WARNING))]))

    @property
    def together(self) -> list[Finding]:
        """The rows, those of one check together."""
        order = [*dict.fromkeys(row.check for row in self.rows)]
        return sorted(self.rows, key=lambda row: order.index(row.check))

    def well(self, check: str, finding: str) -> None:
        self.rows.append(Finding(check, "ok", finding))

    def warn(self, check: str, finding: str, remedy: str = "") -> None:
        self.rows.append(Finding(check, "warning", finding, remedy))

    def fail(self, check: str, error: CloudscaleError) -> None:
        """Adds an error, unless an earlier check has met the same."""
        if error.message not in {row.finding for row in self.rows}:
            self.rows.append(Finding(check, "wrong", error.message, error.remedy))

    def skip(self, check: str, why: str) -> None:
        self.rows.append(Finding(check, "unknown", why))


def _with_own_error(outcome: Outcome[T]) -> Outcome[T]:
    error = outcome.error
    if error is None or isinstance(error, CloudscaleError):
        return outcome
    if isinstance(error, TimeoutError):
        return Outcome(outcome.target, error=CloudscaleError(f"{outcome.target}: {error}.", LATE))
    return Outcome(outcome.target, error=CloudscaleError(f"{outcome.target}: {error!r}"))
