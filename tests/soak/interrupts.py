"""Ctrl-C at many moments, on a terminal and without one, while hosts answer and while they hang."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Iterator, Sequence

from tests.lab.running import Running
from tests.soak.on_hosts import RESET, Class, Place, called
from tests.soak.table import Row, Table

SOON = 2.0  # seconds for the end
CODE = 130
MOMENTS = (0.35, 0.6, 0.9, 1.3)  # seconds after the start, for commands that take about two
TEXTS = {
    "themachine": "invoke status shows it",
    "driver_reset": "Run the same command again",
    "check": "the next check",
}


class Interrupts:
    def __init__(self, lesson: Class, table: Table) -> None:
        self._lesson = lesson
        self._table = table
        self._count = 0

    def at(self, when: float | str, *words: str, hosts: str = "answer") -> None:
        """One Ctrl-C, after so many seconds or once a text was printed; every second one on a terminal."""
        self._count += 1
        run = Running(self._lesson.tool, *words, terminal=self._count % 2 == 0)
        came = run.until(lambda run: when in run.printed if isinstance(when, str) else _has_run(run, when))
        begun = time.monotonic()
        run.send(signal.SIGINT)
        done = run.result(timeout=30)
        seconds = time.monotonic() - begun
        what, point = f"{words[0]}, hosts {hosts}", when if isinstance(when, str) else f"{when:.1f} s"
        # all but its last lines; or its result is printed, and Python was about to end
        if not came or done.code == 0 or (done.code == -signal.SIGINT and done.out and not done.err):
            self._table.add(Row(what, point, "it had ended", seconds))
            return
        problems = [] if done.code == CODE else [f"it ended with {done.code}: {done.err[-300:]}"]
        problems += [f"it took {seconds:.1f} s"] if seconds > SOON else []
        problems += ["a traceback"] if "Traceback" in done.err or "Exception" in done.err else []
        if "Interrupted. " not in done.err:
            problems.append("it does not say what stands")
        elif TEXTS.get(words[0], "again") not in " ".join(done.err.split()) and "Nothing was changed" not in done.err:
            problems.append("it does not say what to run next")
        self._table.add(Row(what, point, "", seconds, tuple(problems)))


def _has_run(run: Running, seconds: float) -> bool:
    return time.monotonic() - run.begun >= seconds


@contextlib.contextmanager
def hanging(place: Place, process: str) -> Iterator[None]:
    """A program on all hosts that answers nothing more, and ends no connection either."""
    for host in place.hosts.hosts:
        host.run("pkill", "-STOP", "-x", process)
    try:
        yield
    finally:
        for host in place.hosts.hosts:
            host.run("pkill", "-CONT", "-x", process)


def interrupt(place: Place, table: Table) -> None:
    lesson = Class(place, place.tool("interrupted"))
    cuts = Interrupts(lesson, table)
    table.head("Ctrl-C", "command", "at", "", "its end")
    launch, commands = lesson.launch(), ("com_containers", "sleep 5")
    for text in ("setting up its engine", "sending it", "copying it", "Seats ready"):
        cuts.at(text, *launch)
    _well(lesson, table, launch)
    lesson.enrol(3)
    for words in (launch, commands, ("check",)):
        for when in MOMENTS:
            cuts.at(when, *words)
    for process in ("sshd", "dockerd"):
        with hanging(place, process):
            for words in (launch, commands, ("check",), ("com_node", "true"), ("status",), (RESET, "--yes")):
                for when in MOMENTS[1::2]:
                    cuts.at(when, *words, hosts=f"hang ({process})")
    _well(lesson, table, launch)
    for when in MOMENTS:
        cuts.at(when, RESET, "--yes")
    cuts.at("Releasing", RESET, "--yes")
    if problems := lesson.finished((RESET, "--yes")):
        table.add(Row("driver_reset", "afterwards", "", 0.0, tuple(problems)))
    shutil.rmtree(lesson.tool.home, ignore_errors=True)


def _well(lesson: Class, table: Table, words: Sequence[str]) -> None:
    begun = time.monotonic()
    problems = lesson.finished(words)
    _, more = called(lesson.tool, "check")
    if problems or more:
        table.add(Row(words[0], "afterwards", "", time.monotonic() - begun, (*problems, *more)))
