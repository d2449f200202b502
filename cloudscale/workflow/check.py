"""`check`: does in every seat what its student will do, in all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cloudscale.cli import report
from cloudscale.cli.report import CheckRow, Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.errors import CloudscaleError, SeatError
from cloudscale.gateway.certificates import browsers_trust, own_stands_in
from cloudscale.model import Machine, Outcome, Outcomes, Row, Seat
from cloudscale.seats import readiness, services, visit
from cloudscale.seats.address import Addresses, Placed
from cloudscale.seats.browser import UNTRUSTED
from cloudscale.seats.services import RunningSeat
from cloudscale.seats.visit import Door, Visit
from cloudscale.workflow import gateway

VISIT_TIMEOUT = 120.0  # seconds for all that one student does

REMEDIES = {
    "open": "invoke status shows whether the server runs. If it does, a firewall or another program is in the way.",
    "certificate": "Open the address in a browser and look at its certificate. gateway.tls says who is to sign.",
    "login": "Run invoke themachine, which sets up again what is not as it should be.",
    "kernel": "The server's log says more: docker service logs {seat}",
    "run": "Does something on the way let no WebSockets through, such as a proxy? The log: docker service logs {seat}",
    "save": 'How full is the disk: invoke com_containers "df -h ." --only {student}',
}


def check(session: Session) -> Report:
    """A row for each seat, with the step at which its student would fail, and why. It changes nothing."""
    cluster = look(session)
    targets: list[RunningSeat | Machine] = [*cluster.seats, *cluster.machines]
    chosen = session.selection.choose(targets, lambda t: (t.name,) if isinstance(t, Machine) else cluster.names_of(t))
    seats = [target for target in chosen if not isinstance(target, Machine)]
    problems = [*cluster.problems(session.selection), *gateway.problems(cluster)]
    if cluster.without_quorum:
        problems.append(str(cluster.quorum_lost()))
    elif not seats:
        session.progress.say(f"The course {session.settings.course!r} has no seats to check.")
    services.check_key(seats, session.course.key(create=False), session.course.folder)
    addresses = _addresses(cluster, session)
    visits = _explained(cluster, seats, addresses, _visit(cluster, seats, addresses, session))
    rows = [
        CheckRow(
            seat.student.full_name,
            addresses.url(seat),
            "failed" if made.cause else "ok",
            made.step,
            made.seconds,
            made.cause,
        )
        for seat, made in zip(seats, visits, strict=True)
    ]
    return Report(report.checks(rows, session.common.format), (*problems, *_problems(seats, visits, session)))


def ready_seats(cluster: Cluster, seats: Sequence[Seat], rows: Sequence[Row], session: Session) -> tuple[str, ...]:
    """What students would fail at, of the seats that a launch has made ready. `rows`: of its table."""
    ready = [seat for seat, row in zip(seats, rows, strict=True) if row.state == "ready"]
    try:
        visits = _visit(cluster, ready, _addresses(cluster, session), session)
    except CloudscaleError as error:  # the seats are ready, and their table is to be seen
        return (str(error),)
    return _problems(ready, visits, session)


def _addresses(cluster: Cluster, session: Session) -> Addresses:
    key, names = session.course.key(create=False), session.course.names_key(create=False)
    return cluster.seat_addresses(key or b"", names or b"")


def _visit(cluster: Cluster, seats: Sequence[Placed], addresses: Addresses, session: Session) -> list[Visit]:
    """One visit to each seat, all in the same second. Raises CloudscaleError."""
    if not seats:
        return []
    entrance = addresses.entrance
    trust = browsers_trust(session.settings.gateway, entrance, session.course.folder) if entrance else None
    passwords = cluster.passwords(addresses.key)
    doors = [
        Door(
            addresses.url(seat),
            passwords.of(seat.student.id),
            entrance.url if entrance else "",
        )
        for seat in seats
    ]
    timeout = session.common.timeout or VISIT_TIMEOUT
    with session.progress.bar("Check", len(doors)) as advance:
        visits = visit.visit_all(doors, trust, timeout, lambda done: advance(done, len(doors)))
    well = sum(not made.cause for made in visits)
    longest = max(made.seconds for made in visits)
    session.progress.say(f"Check: {well} of {len(visits)} seats work; the slowest took {longest:.1f} s")
    if entrance and own_stands_in(session.settings.gateway, entrance, addresses.gateway):
        session.progress.say(
            f"Warning: every browser warns of the certificate of {entrance.url}: no authority on the internet has"
            " signed it yet. invoke themachine tells the reason; gateway.tls says who is to sign"
        )
    return visits


def _explained(
    cluster: Cluster, seats: Sequence[RunningSeat], addresses: Addresses, visits: Sequence[Visit]
) -> list[Visit]:
    """With the cause that the swarm knows, where no server is there."""
    absent = [seat for seat, made in zip(seats, visits, strict=True) if made.is_absent]
    if not absent:
        return list(visits)
    states = readiness.seat_states(cluster.manager, absent, addresses, cluster.engines)
    causes = {}
    for seat, state in zip(absent, states, strict=True):
        if state.state != "ready":
            causes[seat.student.id] = " ".join(str(state.cause or "the server is starting").split())
    return [
        replace(made, cause=causes.get(seat.student.id, made.cause)) if made.is_absent else made
        for seat, made in zip(seats, visits, strict=True)
    ]


def _problems(seats: Sequence[Placed], visits: Sequence[Visit], session: Session) -> tuple[str, ...]:
    outcomes = Outcomes(
        Outcome[Visit](seat.student.full_name, error=_error(seat, made, session))
        for seat, made in zip(seats, visits, strict=True)
        if made.cause
    )
    return outcomes.problems


def _error(seat: Placed, made: Visit, session: Session) -> SeatError:
    if made.cause.startswith(seat.student.full_name):  # status has a remedy of its own
        return SeatError(made.cause)
    what = "certificate" if made.cause.startswith(UNTRUSTED) else made.step
    remedy = REMEDIES[what].format(
        seat=naming.seat_name(session.settings.course, seat.student), student=seat.student.id
    )
    return SeatError(f"{made.step}: {made.cause}", remedy)
