"""What a reset would remove for good: work that was not collected, or that has changed since."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cloudscale.cluster.state import Cluster
from cloudscale.course.session import Session
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError
from cloudscale.fanout import fan_out
from cloudscale.material.marks import read_marks
from cloudscale.material.programs import program
from cloudscale.material.volumes import Mount, image_of, opened
from cloudscale.workflow.works import Work, choose, find_works, image_on

PATIENCE = 30.0  # seconds after which it is not known
LOOKING = 20.0  # seconds for the files of one machine
SHOWN = 5

T = TypeVar("T")


@dataclass
class Uncollected:
    """Students by what is known of their work. `unknown`: whether it has changed since it was collected."""

    never: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = (
            ("work that was never collected in full", self.never),
            ("work that has changed since it was collected", self.changed),
            ("work that may have changed since it was collected", self.unknown),
        )
        said = "; ".join(f"{_students(names)} {what} ({_some(names)})" for what, names in parts if names)
        return f"{said}. --collect DIR collects it first." if said else ""


def _students(names: Sequence[str]) -> str:
    return f"{len(names)} student{'s have' if len(names) > 1 else ' has'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def say_uncollected(session: Session, find: Callable[[], Cluster]) -> None:
    """Says which of the work that a reset is about was not collected. It takes a bounded time, and never fails."""

    def look() -> str:
        cluster = find()
        works = choose(find_works(cluster, session.settings.course), cluster, session)
        return str(uncollected(cluster, session, [work for work in works if work.may_exist(cluster)]))

    note = _within(PATIENCE, look)
    if note is None:
        note = "It is not known whether all work was collected: the machines could not be asked."
    if note:
        session.progress.say(note)


def _within(seconds: float, call: Callable[[], T]) -> T | None:
    """The value of a call; None if it fails or takes longer."""
    results: list[T] = []
    thread = threading.Thread(
        target=lambda: results.extend(fan_out(lambda _: call(), [0]).values.values()), daemon=True
    )
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def uncollected(cluster: Cluster, session: Session, works: Sequence[Work]) -> Uncollected:
    """What is known of these students' work. Raises EngineError where the swarm can't be asked."""
    found = Uncollected()
    if not works:
        return found
    marks = read_marks(cluster.manager, session.settings.course) if cluster.in_swarm else {}
    found.never += [work.student.full_name for work in works if work.student.id not in marks]
    marked = [work for work in works if work.student.id in marks]
    machines = {work.machine: [each for each in marked if each.machine == work.machine] for work in marked}
    answers = fan_out(
        lambda name: _look(cluster, session, cluster.engines[name], machines[name], marks), machines, name=str
    )
    for name, of_machine in machines.items():
        said = answers.values.get(name, ["unknown"] * len(of_machine))
        for work, answer in zip(of_machine, said, strict=True):
            if answer != "no":
                (found.changed if answer == "yes" else found.unknown).append(work.student.full_name)
    return found


def _look(
    cluster: Cluster, session: Session, engine: Engine, works: Sequence[Work], marks: Mapping[str, int]
) -> list[str]:
    """`yes`, `no` or `unknown` for the work of each of these students, who are on one machine. Raises EngineError."""
    seat = next((seat for seat in cluster.seats if seat.place.machine == engine.name), None)
    image = image_of(seat) if seat else image_on(engine, session.settings.image)
    own = [work.mount(writable=False) for work in works]
    mounts = [Mount(mount.volume, f"/students/{at}", mount.labels) for at, mount in enumerate(own)]
    words = [
        word for work, mount in zip(works, mounts, strict=True) for word in (mount.folder, str(marks[work.student.id]))
    ]
    with opened(engine, session.settings.course, image, mounts) as helper:
        said = b"".join(helper.run(program("changed"), words, timeout=LOOKING)).decode(errors="replace").split()
    if len(said) != len(works):
        raise CloudscaleError(f"{engine.name}: its answer is incomplete.")
    return said
