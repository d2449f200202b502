"""From a plan to seats that answer, and to the rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudscale.cli import report
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.course.settings import Launch
from cloudscale.errors import SeatError, SlowSeat
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.images.on_engine import look_inside
from cloudscale.model import Outcome, Outcomes, Row, Seat
from cloudscale.plan.placing import Plan
from cloudscale.seats import readiness
from cloudscale.seats.address import Addresses
from cloudscale.seats.services import Change, SeatServices
from cloudscale.seats.spec import Template

READY_TIMEOUT = 600.0  # seconds for all seats to answer


@dataclass(frozen=True)
class Seated:
    """The rows of the table, in the roster's order, and what failed."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]


def start(cluster: Cluster, plan: Plan, session: Session, launch: Launch) -> Seated:
    """Creates what is missing, updates what differs, and waits until all seats answer; failures are reported.

    A seat on a machine without the image is left as it is. Raises ImageError, EngineError.
    """
    say = session.progress.say
    template = _template(cluster, session, launch)
    services = SeatServices(cluster.manager, session.settings.course)
    pruned = _prune(cluster, plan, services, session, launch)
    seats = [seat for seat in plan.seats if seat.place.machine in template.pinned]
    changes = services.converge(seats, cluster.nodes, cluster.seats, template)
    done = [each.get().what for each in changes if each.ok]
    say("Seats: " + ", ".join(f"{done.count(what)} {what}" for what in ("created", "updated", "unchanged")))
    addresses = cluster.seat_addresses(template.key, session.course.names_key(create=False) or b"")
    answers = _wait(cluster, seats, changes, addresses, session)
    services.remove_unused_secrets()

    outcomes = {seat.student.id: answers.get(seat.student.id) or _left_alone(seat, addresses) for seat in plan.seats}
    rows = tuple(_row(seat, outcomes[seat.student.id], addresses) for seat in plan.seats)
    ready = sum(row.state == "ready" for row in rows)
    untouched = set(done) <= {"unchanged"} and not (launch.prune and plan.leavers)
    say(f"Done: {ready} of {len(rows)} seats are ready" + ("; nothing was changed" if untouched else ""))
    return Seated(rows, (*pruned, *Outcomes(outcomes.values()).problems))


def _template(cluster: Cluster, session: Session, launch: Launch) -> Template:
    """What the seats have in common."""
    settings = session.settings
    pinned = {host.name: host.image for host in cluster.hosts if host.engine and host.image}
    looks = fan_out(
        lambda name: look_inside(cluster.engines[name], settings.image, pinned[name], settings.course),
        pinned,
        width=MACHINES_WIDTH,
    )
    # a machine that can't start it gives the reason when its seats do
    open_files = {name: inside.open_files for name, inside in looks.values.items()}
    key = session.course.key()
    assert key
    return Template(
        settings.course, key, looks[0].get(), pinned, settings.seat, launch.port, launch.env, open_files=open_files
    )


def _wait(
    cluster: Cluster, seats: Sequence[Seat], changes: Outcomes[Change], addresses: Addresses, session: Session
) -> dict[str, Outcome[str]]:
    """By student's id, what became of each seat: it answers, or why it does not."""
    pairs = list(zip(seats, changes, strict=True))
    failed = {seat.student.id: Outcome[str](each.target, error=each.error) for seat, each in pairs if not each.ok}
    started = [(seat, each.get()) for seat, each in pairs if each.ok]
    with session.progress.bar("Seats ready", len(started)) as advance:
        answers = readiness.wait_ready(
            cluster.manager,
            started,
            addresses,
            engines=cluster.engines,
            timeout=session.common.timeout or READY_TIMEOUT,
            ready=lambda count: advance(count, len(started)),
        )
    return failed | dict(zip((seat.student.id for seat, _ in started), answers, strict=True))


def _row(seat: Seat, outcome: Outcome[str], addresses: Addresses) -> Row:
    state = "ready" if outcome.ok else "starting" if isinstance(outcome.error, SlowSeat) else "failed"
    return report.seat_row(seat, addresses, state, naming.password(addresses.key, seat.student.id))


def _left_alone(seat: Seat, addresses: Addresses) -> Outcome[str]:
    """A seat on a machine that could not be made ready: it is as it is."""
    if addresses.answers(seat):
        return Outcome(seat.student.full_name, "ready")
    error = SeatError(
        f"{seat.student.full_name}: the machine {seat.place.machine} is lost, and the seat with it.",
        "Bring the machine back and run again; or use --replace-lost to move its students to other machines"
        " (their work on the lost machine stays there).",
    )
    return Outcome(seat.student.full_name, error=error)


def _prune(cluster: Cluster, plan: Plan, services: SeatServices, session: Session, launch: Launch) -> tuple[str, ...]:
    """Removes the seats of those who left (`--prune`), or reports who they are. Their volumes stay."""
    leaving = [seat for seat in cluster.seats if seat.student.id in plan.leavers]
    if not leaving:
        return ()
    listed = ", ".join(seat.student.full_name or seat.student.id for seat in leaving)
    if not launch.prune:
        session.progress.say(f"No longer among the students, kept: {listed} (--prune removes their seats)")
        return ()
    removed = services.remove_completely(leaving, cluster.engines.values())
    session.progress.say(f"Removed the seats of those who left: {listed} (their volumes stay)")
    return removed.problems
