"""Reading a course back: its machines, then their engines, then the swarm. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cloudscale.cluster.driver import driver_of
from cloudscale.cluster.state import Cluster, Host
from cloudscale.course import deadline
from cloudscale.course.passwords import latest
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver, KeepsDeadline
from cloudscale.engines.client import Engine, describe
from cloudscale.errors import CloudscaleError, EngineError, MachineError, NotSetUp, SwarmError
from cloudscale.fanout import fan_out
from cloudscale.gateway.service import running_gateway
from cloudscale.model import Machine, MachineState, Node, Place, Survey
from cloudscale.seats.changes import password_changes
from cloudscale.seats.containers import remembered_places
from cloudscale.seats.services import RunningSeat, running_seats
from cloudscale.swarm.deadline import read_deadline
from cloudscale.swarm.nodes import Membership, SwarmNode, check_ours, check_usable, membership, swarm_nodes


@dataclass(frozen=True)
class View:
    """What one engine says: what it is, which swarm it is in, and which volumes students have on it."""

    engine: Engine
    node: Node
    membership: Membership
    volumes: Mapping[str, tuple[datetime, Place]]

    @property
    def manages(self) -> bool:
        return self.membership.is_active and self.membership.manages


def look(
    session: Session, driver: Driver | None = None, surveys: Mapping[str, Survey | CloudscaleError] | None = None
) -> Cluster:
    """The course as it is now. Warns if its deadline is over. Raises RequestError, EngineError, SwarmError.

    With `surveys`, by machine, engines that do not run are not asked, and a machine with an error, or with nothing,
    counts as lost; and the launch that has them warns by itself.
    """
    driver = driver or driver_of(session)
    course = session.settings.course
    machines = driver.machines()
    views = fan_out(lambda machine: _view(driver, machine, course, surveys), machines, name=lambda m: m.name)
    known = views.values
    errors = {name: _as_ours(name, error) for name, error in views.errors.items()}
    if driver.adopts_swarm:
        for name, view in known.items():
            check_usable(name, view.membership)
    managers = _managers([view for view in known.values() if view.manages], None if driver.adopts_swarm else course)
    nodes = {node.id: node for node in swarm_nodes(managers[0])} if managers else {}
    without_quorum = set() if managers or driver.adopts_swarm else _without_quorum(known)
    if not driver.adopts_swarm:
        errors |= _of_others({name: known[name] for name in known.keys() - without_quorum}, course, nodes)
    hosts = [_host(machine, known.get(machine.name), surveys, errors.get(machine.name)) for machine in machines]
    hosts = [replace(host, has_quorum=host.name not in without_quorum) for host in hosts]
    until = _deadline(driver, managers, course)
    if surveys is None and (warning := deadline.warning(until, deadline.now(), course)):
        session.progress.say(f"Warning: {warning}")
    return Cluster(
        driver=driver,
        hosts=tuple(hosts),
        managers=tuple(managers),
        swarm=nodes,
        seats=tuple(_seats(managers[0], course, hosts, nodes)) if managers else (),
        gateway=running_gateway(managers[0], course) if managers else None,
        quorum_is_gone=_quorum_is_gone(hosts, known, without_quorum),
        # a new swarm knows of none until the first launch
        password_changes=latest(
            session.course.password_changes(), password_changes(managers[0], course) if managers else {}
        ),
        until=until,
    )


def _deadline(driver: Driver, managers: Sequence[Engine], course: str) -> datetime | None:
    """The later one of the swarm's and the cloud's: a run that was cut off has changed only one of them."""
    marked = [driver.deadline()] if isinstance(driver, KeepsDeadline) else []
    marked += [read_deadline(managers[0], course)] if managers else []
    return max(filter(None, marked), default=None)


def _view(
    driver: Driver, machine: Machine, course: str, surveys: Mapping[str, Survey | CloudscaleError] | None
) -> View:
    if surveys is not None:
        _check_survey(machine.name, surveys.get(machine.name))
    engine = driver.connect(machine)
    member = membership(engine)
    node = describe(engine, course, manages=member.is_active and member.manages)
    return View(engine, node, member, remembered_places(engine, course))


def _check_survey(name: str, survey: Survey | CloudscaleError | None) -> None:
    """Raises a CloudscaleError where a machine's engine is not to be asked."""
    if survey is None:
        raise MachineError(f"{name}: it is lost.")
    if isinstance(survey, CloudscaleError):
        raise survey
    if survey.state.is_asleep:
        raise EngineError(f"{name}: its engine does not run.", "invoke themachine starts it.")
    if survey.state is not MachineState.SERVING:
        raise NotSetUp(f"{name}: it has no engine for the course yet.")


def _managers(managing: list[View], course: str | None) -> list[Engine]:
    """The engines that manage the swarm: of the course, or where it is adopted (None) any. The first ones are the best
    to ask.
    """
    ours = [view for view in managing if course in (None, view.membership.mark)]
    # of two swarms, the younger one was created when the other had lost its quorum
    newest = max((view.membership.created for view in ours), default="")
    ours = [view for view in ours if view.membership.created == newest]
    if len(ours) > 1:
        lists = fan_out(lambda view: swarm_nodes(view.engine), ours, name=lambda view: view.engine.name)
        if not lists.values:
            lists.get()  # raises
        # one whose network was cut a moment ago may have lost the leader again since it was seen
        ours = [view for view in ours if view.engine.name in lists.values]
        ours.sort(key=lambda view: _doubts(view, lists.values))
    return [view.engine for view in ours]


def _doubts(view: View, lists: Mapping[str, Sequence[SwarmNode]]) -> tuple[bool, int]:
    """What speaks against asking a manager, the most important first.

    Whether the swarm knows its node by another name, of which it is a clone: the copy of a manager's disk manages a
    copy of the swarm. And how many of the managers take it for lost. `lists`: the nodes as each of them knows them.
    """
    node_id, name = view.membership.node_id, view.engine.name
    itself = any(node.id == node_id and node.machine in ("", name) for node in lists[name])
    return not itself, sum(node.id == node_id and not node.is_up for nodes in lists.values() for node in nodes)


def _without_quorum(views: Mapping[str, View]) -> set[str]:
    """The machines in a swarm none of whose managers can be asked.

    It is the course's: an engine that lets the course in was in no swarm when it was set up for it.
    """
    return {
        name
        for name, view in views.items()
        if view.membership.state == "leaderless" or (view.membership.is_active and not view.membership.manages)
    }


def _of_others(views: Mapping[str, View], course: str, nodes: Mapping[str, SwarmNode]) -> dict[str, CloudscaleError]:
    """The errors of machines that are in a swarm of somebody else."""
    errors: dict[str, CloudscaleError] = {}
    for name, view in views.items():
        try:
            check_ours(name, view.membership, course, nodes)
        except SwarmError as error:
            errors[name] = error
    return errors


def _quorum_is_gone(hosts: Iterable[Host], views: Mapping[str, View], without_quorum: set[str]) -> bool:
    """Whether so many of the lost swarm's managers do not exist any more that it can't come back."""
    if not without_quorum:
        return False
    managers = frozenset[str]().union(*(views[name].membership.managers for name in without_quorum))
    existing = {view.membership.node_id for view in views.values()}
    all_seen = all(host.engine or isinstance(host.error, NotSetUp) for host in hosts)
    return all_seen and 2 * len(managers & existing) <= len(managers)


def _host(
    machine: Machine,
    view: View | None,
    surveys: Mapping[str, Survey | CloudscaleError] | None,
    error: CloudscaleError | None,
) -> Host:
    survey = (surveys or {}).get(machine.name)
    survey = survey if isinstance(survey, Survey) else None
    if view is None or error:
        return Host(machine, survey, error=error)
    node = view.node
    if survey:
        # The course's own seats listen on the machine, too. Their ports are taken off once and for all: after an
        # engine was restarted, it would not be known whose ports they were.
        survey = replace(survey, held_ports=survey.held_ports - node.own_ports)
        node = replace(node, taken_ports=node.taken_ports | survey.held_ports)
    return Host(machine, survey, view.engine, node, view.volumes)


def _seats(manager: Engine, course: str, hosts: Iterable[Host], nodes: Mapping[str, SwarmNode]) -> list[RunningSeat]:
    """The seats, in the order of the machines and then of their ports."""
    machines = {host.node.id: host.name for host in hosts if host.node and host.node.id}
    # the label counts: a clone claims to be the same node
    machines |= {node.id: node.machine for node in nodes.values() if node.machine}
    order = {host.name: at for at, host in enumerate(hosts)}
    seats = running_seats(manager, course, machines)
    return sorted(seats, key=lambda seat: order.get(seat.place.machine, -1))


def _as_ours(name: str, error: Exception) -> CloudscaleError:
    return error if isinstance(error, CloudscaleError) else CloudscaleError(f"{name}: {error!r}")
