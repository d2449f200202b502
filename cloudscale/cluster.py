"""What a task works with: what was asked for, and the course as it is now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cloudscale.course import Course
from cloudscale.drivers import Driver
from cloudscale.engine import Engine, describe
from cloudscale.model import Machine, Node
from cloudscale.progress import Progress
from cloudscale.selection import Selection
from cloudscale.settings import Common, Settings
from cloudscale.spawner import RunningSeat, running_seats
from cloudscale.swarm import is_manager


@dataclass(frozen=True)
class Session:
    """One run of one task: what was asked for, and the way to talk with the user meanwhile."""

    settings: Settings
    common: Common
    progress: Progress
    ask: Callable[[str], None]  # raises RequestError unless the user agrees

    @property
    def course(self) -> Course:
        return Course.named(self.settings.course, self.settings.driver)

    @property
    def selection(self) -> Selection:
        return Selection(self.common.only, self.common.skip)


@dataclass(frozen=True)
class Cluster:
    """The course as it is now: engines and nodes by machine, the manager first, and the seats of the swarm."""

    driver: Driver
    engines: Mapping[str, Engine]
    nodes: Mapping[str, Node]
    manager: Engine
    in_swarm: bool
    seats: tuple[RunningSeat, ...]

    @property
    def machines(self) -> list[Machine]:
        return [engine.machine for engine in self.engines.values()]

    @property
    def hosts(self) -> dict[str, str]:
        return {machine.name: machine.address for machine in self.machines}

    def machine_of(self, seat: RunningSeat) -> str:
        """The name of the machine that a seat is pinned to; empty where the course does not have it any more."""
        return next((name for name, node in self.nodes.items() if node.id == seat.node_id), "")

    def names_of(self, seat: RunningSeat) -> tuple[str, ...]:
        return (seat.name, seat.student_id, seat.student_name, self.machine_of(seat))


def look(session: Session, driver: Driver) -> Cluster:
    """Reads back what is there. Changes nothing. Raises EngineError, SwarmError."""
    course = session.settings.course
    engines = {machine.name: driver.connect(machine) for machine in driver.machines()}
    manager = next(iter(engines.values()))
    in_swarm = is_manager(manager)
    return Cluster(
        driver=driver,
        engines=engines,
        nodes={name: describe(engine, course) for name, engine in engines.items()},
        manager=manager,
        in_swarm=in_swarm,
        seats=tuple(running_seats(manager, course)) if in_swarm else (),
    )
