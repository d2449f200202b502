"""From what was asked and what is there to a plan: who sits where, of those whom --only and --skip leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.course.settings import Launch
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError
from cloudscale.fanout import fan_out
from cloudscale.model import Machine, Node, Place, Seat, Student, Survey
from cloudscale.plan.placing import Plan, PortRange, make_plan
from cloudscale.seats import containers
from cloudscale.seats.services import RunningSeat


def plan_launch(
    cluster: Cluster,
    surveys: Mapping[str, Survey],
    session: Session,
    launch: Launch,
    students: Sequence[Student],
    *,
    given_up: Sequence[str] = (),
    planned: Mapping[str, Place] | None = None,
) -> Plan:
    """Where everyone sits. `given_up`: lost machines whose students are seated elsewhere. Raises CapacityError."""
    course = session.settings.course
    seen = fan_out(lambda engine: _seen(engine, course), cluster.engines.values(), name=lambda engine: engine.name)
    volumes: list[tuple[datetime, str, Place]] = []
    ours: dict[str, frozenset[int]] = {}
    for name, (places, own) in seen.values.items():  # without those that have died since they were looked at
        ours[name] = own
        volumes += [(since, student_id, place) for student_id, (since, place) in places.items()]
    # of several places, of a student who was moved from a lost machine, the latest
    remembered = {student_id: place for _, student_id, place in sorted(volumes, key=lambda volume: volume[0])}
    remembered |= planned or {}
    nodes = []
    for name, survey in surveys.items():
        if (node := cluster.nodes.get(name)) and name in ours:
            held = survey.held_ports - ours[name]
            nodes.append(replace(node, taken_ports=node.taken_ports | held))
        elif node is None and survey.cpus and survey.memory:  # it is to be set up yet, or started
            nodes.append(Node(survey.machine, "", survey.cpus, survey.memory, survey.held_ports))
    if not nodes:
        raise CloudscaleError("No machine can be used.\n" + "\n".join(map(str, cluster.lost.values())))
    seated = {seat.student_id: Place(cluster.machine_of(seat), seat.port) for seat in cluster.seats}
    # where --only or --skip may keep some of those who left, no newcomer is given a place of theirs
    prune = launch.prune and not (session.common.only or session.common.skip)
    there = {node.machine.name for node in nodes}
    plan = make_plan(
        students,
        nodes,
        seated,
        remembered,
        PortRange(launch.start, launch.end),
        session.settings.seat,
        prune=prune,
        lost={*cluster.hosts, *(place.machine for place in seated.values())} - {"", *there, *given_up},
        hosts=cluster.hosts,
    )
    return _chosen(plan, cluster, session)


def _seen(engine: Engine, course: str) -> tuple[dict[str, tuple[datetime, Place]], frozenset[int]]:
    return containers.remembered_places(engine, course), containers.seat_ports(engine, course)


def _chosen(plan: Plan, cluster: Cluster, session: Session) -> Plan:
    """What --only and --skip leave of a plan; they may name seats, students who left, and machines."""
    present = {seat.student_id: seat for seat in cluster.seats}

    def names(target: Seat | RunningSeat | Machine) -> tuple[str, ...]:
        if isinstance(target, Machine):
            return (target.name,)
        if isinstance(target, RunningSeat):
            return cluster.names_of(target)
        student = target.student
        service = present[student.id].name if student.id in present else ""
        name = service or naming.seat_name(session.settings.course, student)
        return (name, student.id, student.full_name, target.place.machine)

    leaving = [present[student_id] for student_id in plan.leavers]
    targets: list[Seat | RunningSeat | Machine] = [*plan.seats, *leaving, *cluster.machines]
    chosen = session.selection.choose(targets, names)
    return replace(
        plan,
        seats=tuple(target for target in chosen if isinstance(target, Seat)),
        leavers=tuple(target.student_id for target in chosen if isinstance(target, RunningSeat)),
    )
