"""Two trainers at two computers, who change one course at the same moment."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Sequence

from tests.lab.running import Running
from tests.lab.tool import Result, Tool
from tests.soak.on_hosts import LAUNCH, RESET, SEATS_RESET, Class, Place, called
from tests.soak.table import Row, Table

REFUSED = "Another run is changing the course:"
WAITED = "s for its end"
LETS_GO = 60.0  # seconds after which a host no longer waits for a run that gives no sign of life


class Pair:
    """A course whose folder was copied to another computer."""

    def __init__(self, place: Place, table: Table) -> None:
        self.lesson = Class(place, place.tool("first"))
        self.other = place.tool("second")
        self._table = table

    @property
    def both(self) -> tuple[Tool, Tool]:
        return self.lesson.tool, self.other

    def copy_folder(self) -> None:
        shutil.rmtree(self.other.home / "course", ignore_errors=True)
        if (self.lesson.tool.home / "course").exists():
            shutil.copytree(self.lesson.tool.home / "course", self.other.home / "course")

    def at_once(self, what: str, *commands: Sequence[str]) -> None:
        """Each at its computer, at the same moment. One is done and the other waits or is refused; then all converges.

        Of two that were both done, the later one has waited.
        """
        self.copy_folder()
        runs = [Running(tool, *words) for tool, words in zip(self.both, commands, strict=True)]
        done = [run.result() for run in runs]
        problems = ["a traceback" for result in done if "Traceback" in result.err]
        refused = [result for result in done if result.code == 1 and REFUSED in result.err]
        waited = [result for result in done if result.code == 0 and WAITED in result.err]
        if len(refused) + len(waited) != 1 or not {result.code for result in done} <= {0, 1}:
            problems.append(f"they ended with {[result.code for result in done]}: {[tail(result) for result in done]}")
        problems += [
            problem
            for result, words in zip(done, commands, strict=True)
            if result.code == 0 and words[0] == LAUNCH
            for problem in self.lesson.compare(result.rows)
        ]
        was_reset = any(
            words[0] == RESET and result.code == 0 and (refused or result in waited)  # the last one that did something
            for words, result in zip(commands, done, strict=True)
        )
        self._converge(what, self._outcome(done), problems, was_reset=was_reset)

    def _outcome(self, done: Sequence[Result]) -> str:
        waited = ("waited, then done" if WAITED in result.err else "done" for result in done)
        return ", ".join("refused" if result.code else said for result, said in zip(done, waited, strict=True))

    def _converge(self, what: str, outcome: str, problems: list[str], *, was_reset: bool = False) -> None:
        if was_reset:  # the folder of the one who did it is gone, and the other's is of no use any more
            for tool in self.both:
                shutil.rmtree(tool.home / "course", ignore_errors=True)
            problems += self.lesson.left()
        begun = time.monotonic()
        problems += self.lesson.finished(self.lesson.launch())
        seconds = time.monotonic() - begun
        again, more = called(self.lesson.tool, *self.lesson.launch())
        if "nothing was changed" not in again.err:
            problems.append("another run has something to change")
        self._table.add(Row(what, "", outcome, seconds, (*problems, *more)))

    def after(self, what: str, signal_to_first: int, patience: float) -> None:
        """The first one's run is killed, or its computer goes to sleep; how long the second one has to wait."""
        self.lesson.enrol(1)
        self.copy_folder()
        first = Running(self.lesson.tool, *self.lesson.launch())
        first.until(lambda run: "Plan:" in run.printed)
        first.send(signal_to_first)
        begun, refusals, problems = time.monotonic(), 0, list[str]()
        while True:
            second, more = called(self.other, *self.lesson.launch())
            problems += more
            if second.code == 0 or time.monotonic() - begun > patience:
                break
            refusals += REFUSED in second.err
        waited = time.monotonic() - begun
        if second.code:
            problems.append(f"still refused after {waited:.0f} s: {tail(second)}")
        else:
            problems += self.lesson.compare(second.rows)
        first.send(signal.SIGKILL)
        first.result()
        self._converge(what, f"{refusals} refusals, done after {waited:.0f} s", problems)


def tail(result: Result) -> str:
    return " ".join(result.err.split())[-200:]


def two_trainers(place: Place, table: Table) -> None:
    pair = Pair(place, table)
    lesson = pair.lesson
    table.head("Two trainers at once", "commands", "", "the two runs", "next run")
    # keys that both have, and hosts that nobody has set up
    first = Running(lesson.tool, *lesson.launch())
    first.until(lambda run: "setting up its engine" in run.printed)
    first.send(signal.SIGKILL)
    first.result()
    pair.at_once("themachine twice, first launch", lesson.launch(), lesson.launch())
    lesson.enrol(3)
    pair.at_once("themachine twice, more students", lesson.launch(), lesson.launch())
    lesson.enrol(1)
    pair.at_once("themachine and containers_reset", lesson.launch(), (SEATS_RESET, "--yes"))
    lesson.enrol(1)
    pair.at_once("themachine and driver_reset", lesson.launch(), (RESET, "--yes"))
    pair.after("after a run that was killed", signal.SIGKILL, 10)
    pair.after("after a computer that sleeps", signal.SIGSTOP, LETS_GO)
    pair.copy_folder()
    if problems := lesson.finished((RESET, "--yes")):
        table.add(Row("driver_reset", "its end", "", 0.0, tuple(problems)))
    for tool in pair.both:
        shutil.rmtree(tool.home, ignore_errors=True)
