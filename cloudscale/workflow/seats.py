"""From a plan to seats that answer, and to the rows of the table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cloudscale.cli import report
from cloudscale.cluster.state import Cluster
from cloudscale.course.flags import Launch
from cloudscale.course.passwords import Passwords
from cloudscale.course.session import Session
from cloudscale.errors import SeatError, SlowSeat
from cloudscale.fanout import MACHINES_WIDTH, WIDTH, fan_out
from cloudscale.images.on_engine import look_inside
from cloudscale.model import Outcome, Outcomes, Row, Seat, failures
from cloudscale.plan.placing import Plan
from cloudscale.seats import readiness
from cloudscale.seats.address import Addresses
from cloudscale.seats.changes import note_changes
from cloudscale.seats.containers import without_limit
from cloudscale.seats.pacing import Pace
from cloudscale.seats.services import Change, SeatServices
from cloudscale.seats.spec import Template, restarted
from cloudscale.workflow import shared

READY_TIMEOUT = 600.0  # seconds for all seats to answer


@dataclass(frozen=True)
class Seated:
    """The rows of the table, in the roster's order, and what failed."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]


def left_out(cluster: Cluster, plan: Plan, session: Session, launch: Launch) -> tuple[str, ...]:
    """Warns of what makes running seats restart: the shared folder, which comes or goes, and variables that they have
    and that this launch does not name (their values may be secret); and of volumes that the limit does not reach.
    """
    warnings = (*shared.restarts(cluster, plan, session), *_missing_variables(cluster, plan, launch))
    return (*warnings, *_without_limit(cluster, plan, session))


def _without_limit(cluster: Cluster, plan: Plan, session: Session) -> tuple[str, ...]:
    able = {host.name: host.engine for host in cluster.hosts if host.engine and host.node and host.node.has_quotas}
    course = session.settings.course
    found = fan_out(lambda name: without_limit(able[name], course), able, width=MACHINES_WIDTH).values
    names = [
        seat.student.full_name for seat in plan.seats if seat.student.id in found.get(seat.place.machine, frozenset())
    ]
    if not names:
        return ()
    return (
        f"the disk of {', '.join(names)} is not limited: the work there is older than the limit (seat.disk). To limit"
        " it, collect the work, remove the volumes (invoke containers_reset --volumes --collect DIR), run again, and"
        " restore it.",
    )


def _missing_variables(cluster: Cluster, plan: Plan, launch: Launch) -> tuple[str, ...]:
    planned = {seat.student.id for seat in plan.seats}
    running = [seat for seat in cluster.seats if seat.student.id in planned]
    present = {name for seat in running for name in seat.environment}
    if not (missing := sorted(present - launch.env.keys())):
        return ()
    flags = " ".join(f"--env {name}=…" for name in missing)
    return (
        f"the running seats have {', '.join(missing)} in their environment, and this run leaves it out: they restart"
        f" without it. To keep it, give it again: {flags}.",
    )


def start(cluster: Cluster, plan: Plan, session: Session, launch: Launch, *, has_changed: bool = False) -> Seated:
    """Creates what is missing, updates what differs, and waits until all seats answer; failures are reported.

    A seat on a machine without the image is left as it is. `has_changed`: whether this run changed anything before.
    Raises ImageError, EngineError.
    """
    say = session.progress.say
    template = _template(cluster, session, launch)
    services = SeatServices(cluster.manager, session.settings.course)
    note_changes(cluster.manager, session.settings.course, cluster.password_changes)
    session.course.note_password_changes(cluster.password_changes)
    pruned = _prune(cluster, plan, services, session, launch)
    brought = shared.bring(cluster, plan, session)  # before a seat starts that is to have it
    without = brought.without
    ready_machines = template.pinned.keys() - without.keys()
    seats = [seat for seat in plan.seats if seat.place.machine in ready_machines]
    bring = services.bringing(cluster.nodes, cluster.seats, template)
    present = {seat.student.id for seat in cluster.seats}
    there = [seat for seat in seats if seat.student.id in present]
    # not paced: one that changes may need the port that another one leaves
    changes = fan_out(bring, there, name=lambda seat: seat.student.full_name)
    cores = {name: node.cpus for name, node in cluster.nodes.items()}
    pace = Pace([seat for seat in seats if seat.student.id not in present], bring, cores)
    addresses = cluster.seat_addresses(template.passwords.key, session.course.names_key(create=False) or b"")
    answers = wait(cluster, list(zip(there, changes, strict=True)), addresses, session, pace)
    done = [each.get().what for each in (*changes, *pace.outcomes.values()) if each.ok]
    say("Seats: " + ", ".join(f"{done.count(what)} {what}" for what in ("created", "updated", "unchanged")))
    services.remove_unused_secrets()
    left = shared.remove_unwanted(cluster, session)

    others = [seat for seat in plan.seats if seat.student.id not in answers]
    alone = fan_out(lambda seat: _left_alone(seat, addresses, without), others, width=2 * WIDTH).get()
    answers |= dict(zip((seat.student.id for seat in others), alone, strict=True))
    outcomes = {seat.student.id: answers[seat.student.id] for seat in plan.seats}
    rows = tuple(row(seat, outcomes[seat.student.id], addresses, template.passwords) for seat in plan.seats)
    ready = sum(row.state == "ready" for row in rows)
    has_changed |= not set(done) <= {"unchanged"} or bool(brought.changed) or bool(launch.prune and plan.leavers)
    say(f"Done: {ready} of {len(rows)} seats are ready" + ("" if has_changed else "; nothing was changed"))
    problems = (*pruned, *failures(without).problems, *Outcomes(outcomes.values()).problems, *left)
    return Seated(rows, problems)


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
    passwords = cluster.passwords(key)
    image, limits = looks[0].get(), settings.seat
    return Template(
        settings.course,
        passwords,
        image,
        pinned,
        limits,
        launch.port,
        launch.env,
        open_files=open_files,
        has_shared=limits.shared is not None,
        with_quotas=frozenset(name for name, node in cluster.nodes.items() if node.has_quotas),
    )


def wait(
    cluster: Cluster,
    changes: Sequence[tuple[Seat, Outcome[Change]]],
    addresses: Addresses,
    session: Session,
    pace: Pace | None = None,
) -> dict[str, Outcome[str]]:
    """By student's id, what became of each seat: it answers, or why it does not. `pace`: the new ones."""
    failed = {seat.student.id: Outcome[str](each.target, error=each.error) for seat, each in changes if not each.ok}
    there = [(seat, each.get()) for seat, each in changes if each.ok]
    services = SeatServices(cluster.manager, session.settings.course)
    pace = pace or Pace()
    count = len(there) + len(pace.coming)

    def restart(seat: Seat, change: Change) -> Change:
        session.progress.say(f"{seat.student.full_name}: the engine has given the seat no port, so it is restarted")
        return services.change(change.service_id, restarted)

    with session.progress.bar("Seats ready", count) as advance:
        answers = readiness.wait_ready(
            cluster.manager,
            there,
            addresses,
            starter=readiness.Starter(pace, restart),
            engines=cluster.engines,
            timeout=session.common.timeout or READY_TIMEOUT,
            ready=lambda ready: advance(ready, count),
        )
    return failed | answers


def row(seat: Seat, outcome: Outcome[str], addresses: Addresses, passwords: Passwords) -> Row:
    """A seat's line, after the wait for it."""
    state = "ready" if outcome.ok else "starting" if isinstance(outcome.error, SlowSeat) else "failed"
    return report.seat_row(seat, addresses, state, passwords.of(seat.student.id))


def _left_alone(seat: Seat, addresses: Addresses, without: Collection[str]) -> Outcome[str]:
    """A seat on a machine that could not be made ready, or is `without` the shared folder: it is as it is."""
    if addresses.answers(seat):
        return Outcome(seat.student.full_name, "ready")
    if seat.place.machine in without:
        cause = (
            f"{seat.student.full_name}: the shared folder is not on {seat.place.machine}, so the seat does not start."
        )
        return Outcome(seat.student.full_name, error=SeatError(cause, "Fix that (see there), then run again."))
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
