"""`status`: machines and seats as they are now."""

from __future__ import annotations

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.course.session import Session
from cloudscale.model import Machine, Seat
from cloudscale.seats import readiness, services
from cloudscale.workflow import gateway


def status(session: Session) -> Report:
    """Machines and seats as they are now, each seat as its student would find it."""
    cluster = look(session)
    targets: list[services.RunningSeat | Machine] = [*cluster.seats, *cluster.machines]
    chosen = session.selection.choose(targets, lambda t: (t.name,) if isinstance(t, Machine) else cluster.names_of(t))
    seats = [target for target in chosen if not isinstance(target, Machine)]
    key = session.course.key(create=False)
    services.check_key(seats, key, session.course.folder)
    addresses = cluster.seat_addresses(key or b"", session.course.names_key(create=False) or b"")
    states = readiness.seat_states(cluster.manager, seats, addresses, cluster.engines) if seats else []
    rows = []
    problems = [*cluster.problems(session.selection), *gateway.problems(cluster)]
    if cluster.without_quorum:
        problems.append(str(cluster.quorum_lost()))
    for running, state in zip(seats, states, strict=True):
        rows.append(report.seat_row(Seat(running.student, running.place), addresses, state.state))
        if state.cause:
            problems.append(str(state.cause))
    table = report.seats(rows, session.common.format, passwords=False)
    if session.common.format not in ("csv", "json"):
        table = report.machine_table(cluster, session.common.format) + "\n\n" + table
    return Report(table, tuple(problems))
