"""Reading a course back: its driver, and what there is to report of its machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cloudscale.cluster.state import Cluster
from cloudscale.course.session import Session
from cloudscale.drivers import load_driver
from cloudscale.drivers.protocols import Driver
from cloudscale.engines.client import Engine, describe
from cloudscale.errors import CloudscaleError, EngineError, MachineError, NotSetUp, RequestError, SwarmError
from cloudscale.fanout import fan_out
from cloudscale.model import Machine, MachineState, Node, Outcome, Outcomes, Survey
from cloudscale.seats.services import running_seats
from cloudscale.swarm.nodes import Membership, check_ours, check_usable, membership, swarm_nodes


def driver_of(session: Session) -> Driver:
    if session.vm_flags and session.settings.driver not in ("qemu", "virtualbox"):
        raise RequestError(
            f"{', '.join(session.vm_flags)}: for VMs on this computer alone, not with the driver"
            f" {session.settings.driver}.",
            "A seat's limits are seat.cpus and seat.memory, a cloud's machines as large as openstack.flavor.",
        )
    return load_driver(session.settings, session.course, session.progress.say)


def lost_problems(cluster: Cluster, session: Session, *, but: Collection[str] = ()) -> tuple[str, ...]:
    """What is to be said of the lost machines, but for those that were left out or are done with."""
    lost = {n: e for n, e in cluster.failures.items() if n not in but and session.selection.is_about(n)}
    return (*Outcomes(Outcome[object](name, error=error) for name, error in lost.items()).problems, *cluster.strays)


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
