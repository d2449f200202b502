"""What a task works with: what was asked for, and the course as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver
from cloudscale.engines.client import Engine, describe
from cloudscale.errors import CloudscaleError, EngineError, MachineError, NotSetUp, SwarmError
from cloudscale.fanout import fan_out
from cloudscale.model import Machine, MachineState, Node, Survey
from cloudscale.seats.services import RunningSeat, running_seats
from cloudscale.swarm.nodes import Membership, SwarmNode, check_ours, check_usable, membership, swarm_nodes


@dataclass(frozen=True)
class Cluster:
    """The course as it is now.

    `engines` and `nodes` are of the machines that can be used; `lost` has the others, with the cause.
    `managers` are the engines that speak for the swarm, `swarm` its nodes by id. `cut_off` has the
    engines whose swarm has too few managers left to be asked; `is_beheaded`: they will not come back, being deleted.
    """

    driver: Driver
    machines: tuple[Machine, ...]
    engines: Mapping[str, Engine]
    nodes: Mapping[str, Node]
    lost: Mapping[str, CloudscaleError]
    managers: tuple[Engine, ...]
    swarm: Mapping[str, SwarmNode]
    seats: tuple[RunningSeat, ...]
    cut_off: Mapping[str, Engine]
    is_beheaded: bool = False

    @property
    def in_swarm(self) -> bool:
        return bool(self.managers)

    def head_lost(self) -> SwarmError:
        return SwarmError(
            "The swarm has too few managers left to be asked or changed;"
            f" what runs on {', '.join(self.cut_off)} goes on."
        )

    def check_head(self, remedy: str) -> None:
        """Raises SwarmError where the swarm has lost its managers."""
        if self.cut_off:
            raise CloudscaleError("\n".join(map(str, self.lost.values())) + f"\n{self.head_lost().message}", remedy)

    def ports(self, seats: Iterable[RunningSeat]) -> dict[str, set[int]]:
        """The ports of these seats, by machine."""
        ports: dict[str, set[int]] = {}
        for seat in seats:
            ports.setdefault(self.machine_of(seat), set()).add(seat.port)
        return ports

    @property
    def manager(self) -> Engine:
        """An engine that speaks for the swarm; without a swarm, the first. Raises CloudscaleError for want of any."""
        for engine in (*self.managers, *self.engines.values()):
            return engine
        raise CloudscaleError("No machine can be used.\n" + "\n".join(str(error) for error in self.lost.values()))

    @property
    def swarm_machines(self) -> set[str]:
        """The names of the machines that the swarm has, lost ones too."""
        return {node.machine for node in self.swarm.values()} - {""}

    @property
    def hosts(self) -> dict[str, str]:
        return {machine.name: machine.address for machine in self.machines}

    @property
    def failures(self) -> dict[str, CloudscaleError]:
        """The lost machines that the course uses; one that was never set up for it is none."""
        used = {node.machine for node in self.swarm.values()}
        return {n: error for n, error in self.lost.items() if n in used or not isinstance(error, NotSetUp)}

    def machine_of(self, seat: RunningSeat) -> str:
        """The name of the machine that a seat is pinned to; empty where the swarm does not have it any more."""
        # the label first: a clone claims to be the same node
        name = self.swarm[seat.node_id].machine if seat.node_id in self.swarm else ""
        name = name or next((name for name, node in self.nodes.items() if node.id == seat.node_id), "")
        return name

    @property
    def strays(self) -> tuple[str, ...]:
        """What to say of machines that are in the swarm and not among the course's any more."""
        strays = sorted({node.machine for node in self.swarm.values()} - {"", *self.hosts})
        if self.driver.makes_machines:
            return tuple(f"{name}: it was deleted.\n  invoke themachine makes it again." for name in strays)
        return tuple(
            f"{name}: it is in the course's swarm, but not among its machines any more; what is on it stays as it is."
            f"\n  Put it back; before it is left out, invoke driver_reset --only {name}."
            for name in strays
        )

    def names_of(self, seat: RunningSeat) -> tuple[str, ...]:
        return (seat.name, seat.student_id, seat.student_name, self.machine_of(seat))


def look(
    session: Session,
    driver: Driver,
    surveys: Mapping[str, Survey] | None = None,
    machines: Sequence[Machine] | None = None,
) -> Cluster:
    """Reads back what is there. Changes nothing. Raises EngineError, SwarmError.

    With `surveys`, a machine that has none counts as lost, and one without an engine is not asked for it.
    `machines`: those that there are, where they were just read.
    """
    course = session.settings.course
    machines = tuple(driver.machines() if machines is None else machines)

    def view(machine: Machine) -> tuple[Engine, Node, Membership]:
        if surveys is not None:
            if machine.name not in surveys:
                raise MachineError(f"{machine.name}: it is lost.")
            survey = surveys[machine.name]
            if survey.state.is_asleep:
                raise EngineError(f"{machine.name}: its engine does not run.", "invoke themachine starts it.")
            if survey.state is not MachineState.SERVING:
                raise NotSetUp(f"{machine.name}: it has no engine for the course yet.")
        engine = driver.connect(machine)
        found = membership(engine)
        return engine, describe(engine, course, manages=found.is_active and found.manages), found

    outcomes = fan_out(view, machines, name=lambda machine: machine.name)
    lost = {name: _cause(name, error) for name, error in outcomes.errors.items()}
    views = outcomes.values
    if driver.adopts_swarm:
        for name, (_, _, found) in views.items():
            check_usable(name, found)

    speakers = [
        (engine, found)
        for engine, _, found in views.values()
        if found.is_active and found.manages and (driver.adopts_swarm or found.mark == course)
    ]
    if len(speakers) > 1:  # a copy of a manager's disk speaks for a copy of the swarm
        speakers.sort(key=lambda speaker: not _is_itself(*speaker))
    # of two swarms, one was founded anew when the other had lost its managers
    newest = max((found.founded for _, found in speakers), default="")
    managers = [engine for engine, found in speakers if found.founded == newest]
    swarm = {node.id: node for node in swarm_nodes(managers[0])} if managers else {}
    cut_off = {} if managers or driver.adopts_swarm else _cut_off(views)
    for name, (_, _, found) in list(views.items()):
        try:
            if not driver.adopts_swarm and name not in cut_off:
                check_ours(name, found, course, swarm)
        except SwarmError as error:
            lost[name] = error
            del views[name]
    # the managers that those engines know of, and those of them that there are
    heads = frozenset[str]().union(*(found.managers for name, (_, _, found) in views.items() if name in cut_off))
    there = {found.node_id for _, _, found in views.values()}
    seen = all(m.name in views or isinstance(lost.get(m.name), NotSetUp) for m in machines)
    cluster = Cluster(
        is_beheaded=bool(cut_off) and seen and 2 * len(heads & there) <= len(heads),
        driver=driver,
        machines=machines,
        engines={name: engine for name, (engine, _, _) in views.items()},
        nodes={name: node for name, (_, node, _) in views.items()},
        lost=lost,
        managers=tuple(managers),
        swarm=swarm,
        seats=tuple(running_seats(managers[0], course)) if managers else (),
        cut_off=cut_off,
    )
    order = {machine.name: at for at, machine in enumerate(machines)}
    seats = sorted(cluster.seats, key=lambda seat: order.get(cluster.machine_of(seat), -1))  # by port within each
    return replace(cluster, seats=tuple(seats))


def _is_itself(engine: Engine, found: Membership) -> bool:
    """Whether the swarm knows a manager's node by the manager's own name, and not as what it was cloned from."""
    own = next((node for node in swarm_nodes(engine) if node.id == found.node_id), None)
    return own is not None and own.machine in ("", engine.name)


def _cause(name: str, error: Exception) -> CloudscaleError:
    return error if isinstance(error, CloudscaleError) else CloudscaleError(f"{name}: {error!r}")


def _cut_off(views: Mapping[str, tuple[Engine, Node, Membership]]) -> dict[str, Engine]:
    """The engines that are in a swarm none of whose managers can be asked.

    It is the course's: an engine that lets the course in was in no swarm when it was set up for it.
    """
    return {
        name: engine
        for name, (engine, _, found) in views.items()
        if found.state == "leaderless" or (found.is_active and not found.manages)
    }
