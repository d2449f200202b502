"""From a plan to seats that answer, and to the table's rows."""

from __future__ import annotations

from collections.abc import Mapping

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.course.settings import Launch
from cloudscale.errors import SeatError, SlowSeat, SwarmError
from cloudscale.model import Outcome, Row, Seat
from cloudscale.plan.placing import Plan
from cloudscale.seats import address, jupyter, readiness
from cloudscale.seats.services import SeatServices
from cloudscale.seats.spec import Template
from cloudscale.units import gib
from cloudscale.workflow import reset

READY_TIMEOUT = 600.0  # seconds for all seats to answer


def seat_everyone(cluster: Cluster, plan: Plan, template: Template, session: Session, launch: Launch) -> Report:
    """Creates what is missing, updates what differs, waits until all answer; a seat that does not is told."""
    say, course = session.progress.say, session.settings.course
    spawn = SeatServices(cluster.manager, course)
    problems = _prune(cluster, plan, spawn, session, launch)

    stranded = [seat for seat in plan.seats if seat.place.machine not in template.pinned]
    seats = [seat for seat in plan.seats if seat.place.machine in template.pinned]
    changes = spawn.converge(seats, cluster.nodes, cluster.seats, template)
    done = [outcome.get().what for outcome in changes if outcome.ok]
    say("Seats: " + ", ".join(f"{done.count(what)} {what}" for what in ("created", "updated", "unchanged")))
    started = [(seat, outcome.get()) for seat, outcome in zip(seats, changes, strict=True) if outcome.ok]
    timeout = session.common.timeout or READY_TIMEOUT
    with session.progress.bar("Seats ready", len(started)) as advance:
        answers = readiness.wait_ready(
            cluster.manager,
            started,
            cluster.hosts,
            engines=cluster.engines,
            timeout=timeout,
            ready=lambda count: advance(count, len(started)),
        )
    spawn.remove_unused_secrets()
    outcomes = {
        seat.student.id: Outcome[str](outcome.target, error=outcome.error)
        for seat, outcome in zip(seats, changes, strict=True)
    }
    outcomes |= dict(zip((seat.student.id for seat, _ in started), answers, strict=True))
    outcomes |= {seat.student.id: _left_alone(seat, cluster) for seat in stranded}

    rows = []
    for seat in plan.seats:
        outcome = outcomes[seat.student.id]
        state = "ready" if outcome.ok else "starting" if isinstance(outcome.error, SlowSeat) else "failed"
        rows.append(seat_row(seat, cluster.hosts, state, naming.password(template.key, seat.student.id)))
        if not outcome.ok:
            problems.append(outcome.problem)
    ready = sum(row.state == "ready" for row in rows)
    untouched = set(done) <= {"unchanged"} and not (launch.prune and plan.leavers)
    say(f"Done: {ready} of {len(rows)} seats are ready" + ("; nothing was changed" if untouched else ""))
    return Report(report.seats(rows, session.common.format, passwords=True), tuple(problems))


def _left_alone(seat: Seat, cluster: Cluster) -> Outcome[str]:
    """A seat on a machine that could not be made ready: it is as it is."""
    host = cluster.hosts.get(seat.place.machine, "")
    if host and jupyter.answers(host, seat.place.port):
        return Outcome(seat.student.full_name, "ready")
    error = SeatError(
        f"{seat.student.full_name}: the machine {seat.place.machine} is lost, and the seat with it.",
        "Bring the machine back and run again; or --replace-lost seats its students on the others"
        " (what they saved on that machine stays there).",
    )
    return Outcome(seat.student.full_name, error=error)


def _prune(cluster: Cluster, plan: Plan, spawn: SeatServices, session: Session, launch: Launch) -> list[str]:
    """Removes the seats of those who left (`--prune`), or says who they are. Their volumes stay."""
    leaving = [seat for seat in cluster.seats if seat.student_id in plan.leavers]
    if not leaving:
        return []
    listed = ", ".join(seat.student_name or seat.student_id for seat in leaving)
    if not launch.prune:
        session.progress.say(f"No longer among the students, kept: {listed} (--prune removes their seats)")
        return []
    problems = list(reset.remove_seats(cluster, leaving, spawn).problems)
    session.progress.say(f"Removed the seats of those who left: {listed} (their volumes stay)")
    return problems


def seat_row(seat: Seat, hosts: Mapping[str, str], state: str, password: str | None = None) -> Row:
    host = hosts.get(seat.place.machine, "")  # none: of a machine that the course does not have any more
    return Row(
        student=seat.student.full_name,
        email=seat.student.email,
        url=address.url(host, seat.place.port),
        host=host,
        port=seat.place.port,
        node=seat.place.machine,
        state=state,
        password=password,
    )


def machine_table(cluster: Cluster, format: str) -> str:
    rows = []
    for machine in cluster.machines:
        node = cluster.nodes.get(machine.name)
        seats = sum(cluster.machine_of(seat) == machine.name for seat in cluster.seats)
        rows.append(
            {
                "machine": machine.name,
                "address": machine.address,
                "engine": _engine_state(cluster, machine.name),
                "cores": node.cpus if node else "",
                "memory": gib(node.memory) if node else "",
                "seats": "" if cluster.cut_off else seats,  # then nobody can tell
            }
        )
    return report.machines(rows, format)


def _engine_state(cluster: Cluster, name: str) -> str:
    node = cluster.nodes.get(name)
    if node is None:
        if isinstance(cluster.lost.get(name), SwarmError):
            return "in another swarm"
        return "lost" if name in cluster.failures else "not set up"
    if name in cluster.cut_off:
        return "swarm without managers"
    if not node.id:
        return "in no swarm"
    if node.id not in cluster.swarm:  # struck off, half joined, or of a swarm that was given up
        return "not in the swarm"
    return "swarm manager" if cluster.swarm[node.id].is_manager else "swarm worker"
