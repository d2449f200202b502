"""`status`: machines and seats as they are now."""

from __future__ import annotations

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import driver_of, look, lost_problems
from cloudscale.course.session import Session
from cloudscale.model import Machine, Place, Seat, Student
from cloudscale.seats import readiness, services
from cloudscale.workflow.seats import machine_table, seat_row


def status(session: Session) -> Report:
    """Machines and seats as they are now, each seat as its student would find it."""
    cluster = look(session, driver_of(session))
    targets: list[services.RunningSeat | Machine] = [*cluster.seats, *cluster.machines]
    chosen = session.selection.choose(targets, lambda t: (t.name,) if isinstance(t, Machine) else cluster.names_of(t))
    seats = [target for target in chosen if not isinstance(target, Machine)]
    states = []
    if seats:
        states = readiness.seat_states(
            cluster.manager, seats, cluster.hosts, cluster.engines, machine_of=cluster.machine_of
        )
    rows = []
    problems = list(lost_problems(cluster, session))
    if cluster.cut_off:
        problems.append(str(cluster.head_lost()))
    for running, state in zip(seats, states, strict=True):
        student = Student(running.student_id, running.student_name, email=running.email)
        seat = Seat(student, Place(cluster.machine_of(running), running.port))
        rows.append(seat_row(seat, cluster.hosts, state.state))
        if state.cause:
            problems.append(str(state.cause))
    table = report.seats(rows, session.common.format, passwords=False)
    if session.common.format not in ("csv", "json"):
        table = machine_table(cluster, session.common.format) + "\n\n" + table
    return Report(table, tuple(problems))
