"""`seat_restart` and `seat_password`: one student's server, while all others go on."""

from __future__ import annotations

from dataclasses import replace

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course.selection import find_one
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.model import Outcome, Outcomes, Seat, failures
from cloudscale.seats.changes import count_change
from cloudscale.seats.services import Change, RunningSeat, SeatServices, check_key
from cloudscale.seats.spec import restarted
from cloudscale.workflow import gateway, seats
from cloudscale.workflow.alone import alone


def seat_restart(session: Session, student: str) -> Report:
    """Starts a student's server again, at the same address and with the same password."""
    with alone(session) as driver:
        cluster, seat = find(session, student, driver)
        check_machine(cluster, seat)
        session.progress.say(f"Restarting the server of {seat.student.full_name} on {seat.place.machine}")
        change = SeatServices(cluster.manager, session.settings.course).change(seat.service_id, restarted)
        return row_of(cluster, seat, answer(cluster, seat, change, session), session)


def seat_password(session: Session, student: str) -> Report:
    """Gives a student another password, which counts from now on, also for other trainers."""
    with alone(session) as driver:
        cluster, seat = find(session, student, driver)
        check_machine(cluster, seat)
        cluster = _counted(cluster, seat, session)
        services = SeatServices(cluster.manager, session.settings.course)
        session.progress.say(f"A new password for {seat.student.full_name}: the server restarts with it")
        try:
            change = services.set_password(seat, cluster.passwords(key_of(session)))
        except CloudscaleError as error:
            raise CloudscaleError(
                f"The new password of {seat.student.full_name} has no effect yet. {error.message}",
                "invoke themachine puts it into effect.",
            ) from None
        cluster, failed = _follow(cluster, session)
        outcome = answer(cluster, seat, change, session)
        services.remove_unused_secrets()
        return row_of(cluster, seat, outcome, session, with_password=True, failed=failed)


def _counted(cluster: Cluster, seat: RunningSeat, session: Session) -> Cluster:
    """The course with one more change of the student's password: first of all, so that nobody forgets it."""
    course, student_id = session.settings.course, seat.student.id
    count = count_change(cluster.manager, course, student_id, cluster.password_changes.get(student_id, 0))
    cluster = replace(cluster, password_changes={**cluster.password_changes, student_id: count})
    session.course.note_password_changes(cluster.password_changes)
    return cluster


# --- what the tasks for one seat have in common ----------------------------------------------


def find(session: Session, student: str, driver: Driver | None = None) -> tuple[Cluster, RunningSeat]:
    """The course, and the seat of one student. Raises RequestError where it is not clear whose, CloudscaleError."""
    cluster = look(session, driver)
    cluster.check_quorum("Bring those machines back (invoke themachine).")
    if not cluster.seats and cluster.failures:
        raise CloudscaleError("\n".join(failures(cluster.failures).problems))
    if not cluster.seats:
        raise RequestError(f"The course {session.settings.course!r} has no seats.", "invoke themachine makes them.")
    check_key(cluster.seats, session.course.key(create=False), session.course.folder)
    chosen = session.selection.choose(cluster.seats, cluster.names_of)
    return cluster, find_one(student, chosen, cluster.names_of)


def key_of(session: Session) -> bytes:
    """The course's key, after `find` has checked it."""
    key = session.course.key(create=False)
    assert key
    return key


def check_machine(cluster: Cluster, seat: RunningSeat) -> None:
    """Raises CloudscaleError if the seat's machine is lost."""
    machine = seat.place.machine
    if machine in cluster.engines:
        return
    cause = f" {error.message}" if (error := cluster.lost.get(machine)) else ""
    raise CloudscaleError(
        f"{seat.student.full_name}: the machine {machine} is lost, and the seat with it.{cause}",
        "Bring the machine back; or use invoke themachine --replace-lost to give its students seats on other machines"
        " (their work on the lost machine stays there).",
    )


def _follow(cluster: Cluster, session: Session) -> tuple[Cluster, Outcomes[str]]:
    """The gateway with the ways to the seats as they are now; it is removed by none of these tasks."""
    if not cluster.gateway_host:
        return cluster, Outcomes()
    return gateway.follow(cluster, cluster.seats, session)


def lead_to(cluster: Cluster, session: Session) -> tuple[Cluster, Outcomes[str]]:
    """Lets the gateway and the open ports lead to the seats where they are now."""
    cluster, failed = _follow(cluster, session)
    cluster.open_ports(cluster.seats)
    return cluster, failed


def answer(cluster: Cluster, running: RunningSeat, change: Change, session: Session) -> Outcome[str]:
    """Waits until the seat answers, as it is after a change."""
    addresses = cluster.seat_addresses(key_of(session), session.course.names_key(create=False) or b"")
    seat = Seat(running.student, running.place)
    waited = seats.wait(cluster, [(seat, Outcome(running.name, change))], addresses, session)
    return waited[running.student.id]


def row_of(
    cluster: Cluster,
    running: RunningSeat,
    outcome: Outcome[str],
    session: Session,
    *,
    with_password: bool = False,
    failed: Outcomes[str] | None = None,
) -> Report:
    """The seat's line, as with `status` or, with the password, as with `themachine`; and what went wrong."""
    key = key_of(session)
    addresses = cluster.seat_addresses(key, session.course.names_key(create=False) or b"")
    row = seats.row(Seat(running.student, running.place), outcome, addresses, cluster.passwords(key))
    problems = (*gateway.problems(cluster), *(failed or Outcomes()).problems, *Outcomes([outcome]).problems)
    return Report(report.seats([row], session.common.format, passwords=with_password), problems)
