"""`status --watch`: machines and seats, again and again. Each machine is asked by itself: one that hangs stops none."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from cloudscale.cli import details, live, report
from cloudscale.cli.report import Report
from cloudscale.cluster.driver import driver_of
from cloudscale.cluster.state import Host
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.model import SeatDetails
from cloudscale.progress import Advance, Progress
from cloudscale.seats import readiness
from cloudscale.seats.jupyter import Activity
from cloudscale.seats.readiness import SeatState, Task
from cloudscale.seats.services import RunningSeat
from cloudscale.seats.usage import Sample, Usage, samples, usages
from cloudscale.workflow.planning import is_low
from cloudscale.workflow.status import Course, activities_of, free_disk, machine_details, read_course, seat_details

T = TypeVar("T")

EVERY = 5.0  # seconds between two looks at the seats of a machine, from the end of one to the start of the next
LOOKING = 20.0  # the same for the course: its machines, and who has a seat
DISKS = 60.0  # and for a machine's disk, which takes a command over SSH
LATE = 15.0  # seconds after which a machine that has not answered is reported
THREAD = "status --watch"  # the name of those that ask


def watch(session: Session) -> Report:
    """Shows machines and seats on the terminal until Ctrl-C, its usual end. Raises RequestError where there is none."""
    if session.common.format != "table":
        raise RequestError(
            f"--watch is for a terminal, so it has no --format {session.common.format}.",
            "Leave out one of them: --details has the same columns.",
        )
    if not live.is_possible():
        raise RequestError(
            "--watch needs a terminal, and the output does not go to one.",
            "Use --details instead, which prints the same once.",
        )
    messages = Messages(session.progress)
    session = replace(session, progress=messages)
    board = Board(session, driver_of(session))
    try:
        board.start()
        messages.is_held = True
        live.show(lambda: board.screen(messages.held))
    finally:
        board.stop()
    return Report("")


class Messages:
    """Progress that is passed on until the screen is in use; then the latest messages are kept for it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.is_held = False
        self.held: deque[str] = deque(maxlen=2)

    def say(self, text: str) -> None:
        if self.is_held:
            self.held.append(text)
        else:
            self._progress.say(text)

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        yield lambda done, of: None


class Repeated(Generic[T]):
    """A question that a thread of its own asks again and again. Who wants to know gets the last answer at once.

    `answer` is `first` until another one comes. `error`: why the latest question has none.
    """

    def __init__(self, ask: Callable[[], T], first: T, every: float, stopped: threading.Event) -> None:
        self._ask, self._every, self._stopped = ask, every, stopped
        self.answer = first
        self.error: Exception | None = None
        self._since = time.monotonic()

    def start(self) -> None:
        threading.Thread(target=self._run, name=THREAD, daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.answer = self._ask()
                self._since, self.error = time.monotonic(), None
            except Exception as error:
                self.error = error
            self._stopped.wait(self._every)

    @property
    def age(self) -> float:
        """The seconds since the last answer."""
        return time.monotonic() - self._since

    @property
    def failure(self) -> str:
        """Why there has been no answer for a while, if that is known."""
        return str(self.error) if self.error and self.age > LATE else ""


@dataclass(frozen=True)
class Watched:
    """What is asked about one machine. By student's id: what the seats take, how they are, and how they are used."""

    usages: Repeated[Mapping[str, Usage] | None]
    seats: Repeated[Mapping[str, tuple[SeatState, Activity]]]
    disk: Repeated[int | None]

    def start(self) -> None:
        for asked in (self.usages, self.seats, self.disk):
            asked.start()


class Board:
    """All that is known of a course at the moment. Raises CloudscaleError where that can't be read at first."""

    def __init__(self, session: Session, driver: Driver) -> None:
        self._session, self._driver = session, driver
        self._stopped = threading.Event()
        self._watched: dict[str, Watched] = {}
        first = read_course(session, driver)
        self._course = Repeated(self._read_course, first, LOOKING, self._stopped)
        self._tasks = Repeated(self._read_tasks, self._read_tasks(), EVERY, self._stopped)

    def start(self) -> None:
        self._course.start()
        self._tasks.start()

    def stop(self) -> None:
        self._stopped.set()

    def _read_course(self) -> Course:
        course, before = read_course(self._session, self._driver), self._course.answer
        lost = course.cluster.failures
        if lost and before.cluster.in_swarm and not course.cluster.in_swarm:  # who has a seat is not known any more
            raise next(iter(lost.values()))
        return course

    def _read_tasks(self) -> Mapping[str, Sequence[Task]]:
        """What a manager says of the seats' containers, the first one that answers."""
        error: CloudscaleError | None = None
        for manager in self._course.answer.cluster.managers:
            try:
                return readiness.all_tasks(manager)
            except CloudscaleError as this:
                error = this
        if error:
            raise error
        return {}

    # --- one machine -------------------------------------------------------------------------

    def _questions(self, machine: str) -> Watched:
        looks: dict[str, Sample] = {}

        def read_usages() -> Mapping[str, Usage] | None:
            nonlocal looks
            before, looks = looks, samples(self._engine(machine), self._session.settings.course)
            return usages(before, looks)

        return Watched(
            Repeated(read_usages, None, EVERY, self._stopped),
            Repeated(lambda: self._read_seats(machine), {}, EVERY, self._stopped),
            Repeated(lambda: free_disk(self._course.answer.cluster, machine), None, DISKS, self._stopped),
        )

    def _engine(self, machine: str) -> Engine:
        cluster = self._course.answer.cluster
        if machine not in cluster.engines:
            raise cluster.lost.get(machine) or CloudscaleError(f"{machine}: it has no engine.")
        return cluster.engines[machine]

    def _read_seats(self, machine: str) -> Mapping[str, tuple[SeatState, Activity]]:
        course = self._course.answer
        seats, engines = course.on(machine), course.cluster.engines
        states = readiness.states_by(self._tasks.answer, seats, course.addresses, engines)
        activities = activities_of(replace(course, seats=seats), states)
        return {
            seat.student.id: (state, activity) for seat, state, activity in zip(seats, states, activities, strict=True)
        }

    # --- the screen --------------------------------------------------------------------------

    def screen(self, messages: Sequence[str] = ()) -> live.Screen:
        """What is known now."""
        course = self._course.answer
        for name in {host.name for host in course.cluster.hosts} | {seat.place.machine for seat in course.seats}:
            if name not in self._watched:
                self._watched[name] = self._questions(name)
                self._watched[name].start()
        seats = [self._seat_line(seat) for seat in course.seats]
        causes = [str(state.cause) for seat in course.seats if (state := self._state(seat)) and state.cause]
        asked: list[Repeated[Any]] = [self._course, self._tasks]
        asked += [self._watched[name].usages for name in course.cluster.engines]
        failures = [each.failure for each in asked if each.failure]
        notes = dict.fromkeys([*failures, *course.problems, *causes, *messages])  # each once
        return live.Screen(
            title=f"{self._session.settings.course}: {_counted(seats)}",
            time=datetime.now().strftime("%H:%M:%S"),
            machines=self._machine_lines(course),
            seats=seats,
            notes=list(notes),
        )

    def _state(self, seat: RunningSeat) -> SeatState | None:
        known = self._watched[seat.place.machine].seats.answer.get(seat.student.id)
        return known[0] if known else None

    def _seat_line(self, seat: RunningSeat) -> live.Line:
        watched = self._watched[seat.place.machine]
        state, activity = watched.seats.answer.get(seat.student.id, (None, Activity()))
        usage = (watched.usages.answer or {}).get(seat.student.id)
        known = seat_details(state, usage, activity) if state else SeatDetails()
        word = state.state if state else ""
        cells = {"student": seat.student.full_name, "machine": seat.place.machine, "state": word}
        return live.Line(
            cells | (details.seat_cells(known) if state else {}),
            urgency=details.urgency(word, known),
            warns=frozenset(["memory"] if details.is_near(known) else []),
            is_old=watched.usages.age > LATE,
        )

    def _machine_lines(self, course: Course) -> list[live.Line]:
        rows = report.machine_rows(course.cluster)
        return [self._machine_line(host, row) for host, row in zip(course.cluster.hosts, rows, strict=True)]

    def _machine_line(self, host: Host, row: Mapping[str, object]) -> live.Line:
        watched = self._watched[host.name]
        is_silent = bool(host.engine or row["engine"] == "lost") and watched.usages.age > LATE
        known = machine_details(watched.usages.answer, watched.disk.answer)
        cells = {key: str(value) for key, value in details.machine_cells(row, known).items()}
        cells["state"] = f"no answer for {watched.usages.age:.0f} s" if is_silent else cells["engine"]
        seats = row["seats"] if isinstance(row["seats"], int) else 0
        warns = {"state"} if is_silent else set()
        if watched.disk.answer is not None and is_low(watched.disk.answer, seats):
            cells["free disk"] += " !"
            warns.add("free disk")
        return live.Line(cells, urgency=0 if warns else 1, warns=frozenset(warns), is_old=is_silent)


def _counted(seats: Sequence[live.Line]) -> str:
    """Such as `58 of 60 seats ready, 1 starting, 1 failed`."""
    if not seats:
        return "no seats"
    states = [line.cells["state"] for line in seats]
    words = {"starting": "starting", "failed": "failed", "": "not asked yet"}
    others = [f", {count} {word}" for state, word in words.items() if (count := states.count(state))]
    return f"{states.count('ready')} of {len(states)} seats ready{''.join(others)}"
