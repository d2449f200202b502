"""Where the students' work is, whether or not their seats run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from threading import BoundedSemaphore
from typing import Any, TypeVar

from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError, EngineError, MachineError
from cloudscale.fanout import fan_out
from cloudscale.images.on_engine import find_image
from cloudscale.images.recipes import full_reference
from cloudscale.material.volumes import Helper, Mount, image_of, opened, remove_helpers
from cloudscale.model import Machine, Outcomes, Student
from cloudscale.seats.containers import UNFINISHED, volumes
from cloudscale.seats.services import RunningSeat

WIDTH = 4  # students at once: each takes some memory here
OF_MACHINE = 2  # of one machine: others work on it
FOLDER = "/students"  # where a volume without a seat is mounted

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """One student's work. `volume`: as the engine describes it; None where the seat has none yet, or can't be asked.

    `others`: machines that have an older volume of the student.
    """

    student: Student
    machine: str
    seat: RunningSeat | None = None
    volume: dict[str, Any] | None = field(default=None, repr=False)
    others: tuple[str, ...] = ()

    def may_exist(self, cluster: Cluster) -> bool:
        return self.volume is not None or self.machine not in cluster.engines

    def mount(self, *, writable: bool) -> Mount:
        if self.seat:
            return Mount.of_seat(self.seat, writable=writable)
        assert self.volume
        return Mount(self.volume["Name"], FOLDER, self.volume["Labels"], writable)


def find_works(cluster: Cluster, course: str) -> list[Work]:
    """The work of every student: that of the seats first, then that of seats that were removed. Raises EngineError."""
    listed = fan_out(lambda engine: volumes(engine, course), cluster.engines.values(), name=lambda e: e.name)
    # a copy that a move has not finished is older than every other volume
    dates = {(host.name, id): since for host in cluster.hosts for id, (since, _) in host.volumes.items()}
    of_student: dict[str, list[tuple[datetime, str, dict[str, Any]]]] = {}
    for machine, found in zip(cluster.engines, listed.get(), strict=True):
        for volume in found:
            id = volume["Labels"][naming.STUDENT]
            of_student.setdefault(id, []).append((dates.get((machine, id), UNFINISHED), machine, volume))
    works = []
    for seat in cluster.seats:
        machines = {machine: volume for _, machine, volume in of_student.pop(seat.student.id, [])}
        own = machines.pop(seat.place.machine, None)
        works.append(Work(seat.student, seat.place.machine, seat, own, tuple(machines)))
    for student_id, entries in sorted(of_student.items(), key=lambda item: naming.natural(item[0])):
        *older, (_, machine, volume) = sorted(entries, key=lambda entry: entry[0])
        works.append(Work(Student(student_id, student_id), machine, None, volume, tuple(each[1] for each in older)))
    return works


def choose(works: list[Work], cluster: Cluster, session: Session) -> list[Work]:
    """Those that --only and --skip leave. Raises RequestError for a name that nothing has."""

    def names(target: Work | Machine) -> tuple[str, ...]:
        if isinstance(target, Machine):
            return (target.name,)
        if target.seat:
            return (*cluster.names_of(target.seat), target.volume["Name"] if target.volume else "")
        return ("", target.student.id, "", target.machine, target.volume["Name"] if target.volume else "")

    targets: list[Work | Machine] = [*works, *cluster.machines]
    chosen = session.selection.choose(targets, names)
    return [target for target in chosen if isinstance(target, Work)]


class Rooms:
    """Opens students' volumes, only some of each machine at once."""

    def __init__(self, cluster: Cluster, session: Session) -> None:
        self._cluster = cluster
        self._session = session
        self._at_once = {name: BoundedSemaphore(OF_MACHINE) for name in cluster.engines}

    def each(
        self, works: list[Work], do: Callable[[Work, Helper, Mount], T], *, writable: bool, what: str
    ) -> Outcomes[T]:
        """What is done with each student's volume, in a helper container."""
        course = self._session.settings.course
        done = count(1)

        def one(work: Work) -> T:
            engine = self._engine(work)
            mount = work.mount(writable=writable)
            try:
                with self._at_once[engine.name], opened(engine, course, self._image(work, engine), [mount]) as helper:
                    return do(work, helper, mount)
            finally:
                advance(next(done), len(works))

        # machine by machine they would wait for each other
        order = [work for turn in _turns(works) for work in turn]
        with self._session.progress.bar(what, len(works)) as advance, self._cleared_if_interrupted():
            outcomes = fan_out(one, order, name=lambda work: work.student.id, width=WIDTH)
        by_student = {outcome.target: outcome for outcome in outcomes}
        return Outcomes(by_student[work.student.id] for work in works)

    @contextlib.contextmanager
    def _cleared_if_interrupted(self) -> Iterator[None]:
        """After Ctrl-C nobody waits for the threads, and they would not come to remove their helpers."""
        try:
            yield
        except BaseException:
            course = self._session.settings.course
            engines = self._cluster.engines.values()
            fan_out(lambda engine: remove_helpers(engine, course), engines, name=lambda engine: engine.name)
            raise

    def _engine(self, work: Work) -> Engine:
        """Raises CloudscaleError where the machine can't be asked."""
        if engine := self._cluster.engines.get(work.machine):
            return engine
        raise self._cluster.lost.get(work.machine) or MachineError(
            f"{work.machine or 'the machine'}: it is lost.", "invoke themachine brings it back, if it still exists."
        )

    def _image(self, work: Work, engine: Engine) -> str:
        """An image of the class that the machine has. Raises EngineError, RequestError."""
        seats = [work.seat, *(seat for seat in self._cluster.seats if seat.place.machine == engine.name)]
        for seat in filter(None, seats):
            return image_of(seat)
        return image_on(engine, self._session.settings.image)


def image_on(engine: Engine, image: str) -> str:
    """The configured image, by a name with which the machine has it. Raises EngineError, RequestError."""
    reference = full_reference(image, [engine])
    if found := find_image(engine, reference):
        return found.pinned
    raise EngineError(
        f"{engine.name}: it does not have the image {reference}, which is needed to reach students' volumes.",
        "Name the image of the class (--image, or image in invoke.yaml), or run invoke themachine first.",
    )


def _turns(works: list[Work]) -> Iterator[list[Work]]:
    """One of each machine, then the next of each, …"""
    queues: dict[str, list[Work]] = {}
    for work in works:
        queues.setdefault(work.machine, []).append(work)
    while any(queues.values()):
        yield [queue.pop(0) for queue in queues.values() if queue]


def cause(error: Exception) -> str:
    """An error as a table shows it, on one line."""
    text = error.message if isinstance(error, CloudscaleError) else repr(error)
    return " ".join(text.split())
