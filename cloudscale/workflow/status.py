"""`status`: machines and seats as they are now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloudscale.cli import details, report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.model import Machine, MachineDetails, Seat, SeatDetails
from cloudscale.seats import readiness, services
from cloudscale.seats.address import Addresses
from cloudscale.seats.jupyter import Activity
from cloudscale.seats.readiness import SeatState
from cloudscale.seats.services import RunningSeat
from cloudscale.seats.usage import Sample, Usage, samples, usages
from cloudscale.workflow import deadline, gateway
from cloudscale.workflow.planning import disk_warnings

MEASURING = 1.0  # seconds over which CPU is measured, at least
ASKING = 20.0  # seconds for all servers to say how they are used, whatever some of them do


@dataclass(frozen=True)
class Course:
    """A course as it is now: the seats that --only and --skip leave, their addresses, and what is wrong with it."""

    cluster: Cluster
    seats: Sequence[RunningSeat]
    addresses: Addresses
    problems: tuple[str, ...]

    def on(self, machine: str) -> list[RunningSeat]:
        return [seat for seat in self.seats if seat.place.machine == machine]


def status(session: Session, *, with_details: bool = False) -> Report:
    """Machines and seats as they are now, each seat as its student would find it."""
    course, format = read_course(session), session.common.format
    cluster, seats, addresses = course.cluster, course.seats, course.addresses
    deadline.say_left(cluster, session)
    states = readiness.seat_states(cluster.manager, seats, addresses, cluster.engines) if seats else []
    rows = [
        report.seat_row(Seat(running.student, running.place), addresses, state.state)
        for running, state in zip(seats, states, strict=True)
    ]
    problems = (*course.problems, *(str(state.cause) for state in states if state.cause))
    if with_details:
        machines, of_seats = _details(course, states, session)
        table = details.seats(rows, of_seats, format)
        above = details.machine_table(cluster, machines, format)
    else:
        table, above = report.seats(rows, format, passwords=False), report.machine_table(cluster, format)
    return Report(table if format in ("csv", "json") else f"{above}\n\n{table}", problems)


def read_course(session: Session, driver: Driver | None = None) -> Course:
    """Raises RequestError, EngineError, SwarmError."""
    cluster = look(session, driver)
    targets: list[RunningSeat | Machine] = [*cluster.seats, *cluster.machines]
    chosen = session.selection.choose(targets, lambda t: (t.name,) if isinstance(t, Machine) else cluster.names_of(t))
    seats = [target for target in chosen if not isinstance(target, Machine)]
    key = session.course.key(create=False)
    services.check_key(seats, key, session.course.folder)
    addresses = cluster.seat_addresses(key or b"", session.course.names_key(create=False) or b"")
    problems = [*cluster.problems(session.selection), *gateway.problems(cluster)]
    if cluster.without_quorum:
        problems.append(str(cluster.quorum_lost()))
    return Course(cluster, seats, addresses, tuple(problems))


# --- details ---------------------------------------------------------------------------------


def _details(
    course: Course, states: Sequence[SeatState], session: Session
) -> tuple[dict[str, MachineDetails], list[SeatDetails]]:
    """How machines (by name) and seats are doing. What can't be read is left empty."""
    engines = course.cluster.engines
    start = time.monotonic()
    before = _samples(course, session)
    activities = activities_of(course, states)
    disks = fan_out(lambda name: free_disk(course.cluster, name), engines, width=MACHINES_WIDTH).values
    time.sleep(max(0.0, MEASURING - (time.monotonic() - start)))
    now = _samples(course, session)
    used = {name: usages(before.get(name, {}), looks) for name, looks in now.items()}
    for warning in disk_warnings(disks, Counter(seat.place.machine for seat in course.cluster.seats)):
        session.progress.say(f"Warning: {warning}")
    machines = {host.name: machine_details(used.get(host.name), disks.get(host.name)) for host in course.cluster.hosts}
    seats = [
        seat_details(state, used.get(seat.place.machine, {}).get(seat.student.id), activity)
        for seat, state, activity in zip(course.seats, states, activities, strict=True)
    ]
    return machines, seats


def _samples(course: Course, session: Session) -> dict[str, dict[str, Sample]]:
    engines, name = course.cluster.engines.values(), session.settings.course
    return fan_out(lambda engine: samples(engine, name), engines, name=lambda engine: engine.name).values


def activities_of(course: Course, states: Sequence[SeatState]) -> list[Activity]:
    """What the servers say of their use; those that are not ready are not asked."""
    end = time.monotonic() + ASKING
    passwords = course.cluster.passwords(course.addresses.key)

    def one(pair: tuple[RunningSeat, SeatState]) -> Activity:
        seat, state = pair
        is_asked = state.state == "ready" and time.monotonic() < end
        return course.addresses.activity(seat, passwords.status_pass(seat.student.id)) if is_asked else Activity()

    return fan_out(one, zip(course.seats, states, strict=True), name=lambda pair: pair[0].name).get()


def free_disk(cluster: Cluster, machine: str) -> int | None:
    """In bytes; None where its driver can't say, or for a machine that is not the course's. Raises CloudscaleError."""
    found = next((known for known in cluster.machines if known.name == machine), None)
    return cluster.driver.survey(found).free_disk if found else None


def seat_details(state: SeatState, usage: Usage | None, activity: Activity) -> SeatDetails:
    known = SeatDetails(kernels=activity.kernels, last_activity=activity.last, restarts=state.restarts)
    return replace(known, memory=usage.memory, limit=usage.limit, cpu=usage.cpu) if usage else known


def machine_details(used: Mapping[str, Usage] | None, disk: int | None) -> MachineDetails:
    """What all seats of a machine take. `used`: by student; None: its engine did not say."""
    if used is None:
        return MachineDetails(free_disk=disk)
    cpus = [usage.cpu for usage in used.values() if usage.cpu is not None]
    return MachineDetails(sum(cpus), sum(usage.memory for usage in used.values()), disk)
