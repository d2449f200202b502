"""Size and place of a class: which machines are used, how many more are made, and who gets a seat where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cloudscale.cli import report
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.flags import Launch
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import MakesMachines
from cloudscale.errors import CapacityError, CloudscaleError, RequestError
from cloudscale.model import Kind, Machine, Order, Seat, Student, Survey, failures
from cloudscale.plan.placing import Plan, Situation, make_plan
from cloudscale.plan.ports import PortRange
from cloudscale.plan.sizing import machines_to_make, seats_in
from cloudscale.seats.address import Placed
from cloudscale.seats.services import RunningSeat
from cloudscale.units import MIB, gib

LITTLE = 512 * MIB  # of disk, for a seat


def usable_machines(cluster: Cluster, session: Session, launch: Launch) -> list[str]:
    """The machines that --nodes, --only and --skip leave for use; --nodes leaves out none that is in the swarm."""
    chosen = [
        host.name
        for host in cluster.hosts
        if not host.is_unusable and session.selection.uses(host.name, cluster.addresses)
    ]
    first = chosen[: launch.nodes or None]
    return [name for name in chosen if name in first or name in cluster.swarm_machines]


def size(
    cluster: Cluster, usable: Collection[str], students: Sequence[Student], session: Session, launch: Launch
) -> Order:
    """The machines to make for the students, or for --nodes. Makes nothing. Raises CapacityError, RequestError."""
    if cluster.maker is None:
        return Order()
    kind, limits = cluster.maker.kind(), session.settings.seat
    taken = Counter(seat.place.machine for seat in cluster.seats)
    surveys = {host.name: host.survey for host in cluster.hosts if host.survey and host.name in usable}
    rooms = {
        name: max(taken[name], seats_in(survey.cpus or 0, survey.memory or 0, limits))
        for name, survey in surveys.items()
    }
    enrolled = {student.id for student in students}
    leavers = [] if launch.prune else [seat for seat in cluster.seats if seat.student.id not in enrolled]
    lost = [] if launch.replace_lost else cluster.addresses.keys() - surveys.keys()
    stranded = sum(taken[name] for name in lost)  # who stays where they are
    count = machines_to_make(len(students) + len(leavers) - stranded, rooms.values(), kind, limits)
    if launch.nodes:
        count = launch.nodes - len(cluster.hosts)
    elif not cluster.hosts:
        count = max(count, 1)
    if session.common.only:  # which names machines that exist
        count = 0
    return _order(cluster, cluster.maker, max(count, 0), surveys.values(), kind, sum(rooms.values()), session)


def _order(
    cluster: Cluster,
    maker: MakesMachines,
    count: int,
    surveys: Collection[Survey],
    kind: Kind,
    room: int,
    session: Session,
) -> Order:
    if not count and not any(survey.state.needs_boot for survey in surveys):
        return Order()
    order = maker.order(count, cluster.deleted)
    short = [demand for demand in order.demands if not demand.is_met]
    if short:
        fitting = order.fits * seats_in(kind.cpus, kind.memory, session.settings.seat) + room
        raise CapacityError(
            f"{order.quota} is too small for {count} machines of the kind {kind.name}:\n"
            f"{report.quotas(short, 'table')}\n"
            f"What would fit: {order.fits} more machines, with room for {fitting} seats in all.",
            order.remedy,
        )
    return order


def check_some_usable(cluster: Cluster, usable: Collection[str], session: Session) -> None:
    """Raises CloudscaleError where no machine is left for a launch."""
    if usable:
        return
    if not cluster.unusable and session.common.only:
        raise RequestError("The course has no machines, and --only makes none.", "Leave out --only.")
    raise no_machine(cluster.unusable)


def no_machine(errors: Mapping[str, Exception]) -> CloudscaleError:
    """One error for a launch that no machine is left for."""
    only = next(iter(errors.values())) if len(errors) == 1 else None
    if isinstance(only, RequestError):
        # something may have been done by now: not a request that changed nothing
        return CloudscaleError(only.message, only.remedy)
    if isinstance(only, CloudscaleError):
        return only
    return CloudscaleError("No machine can be used.\n" + "\n".join(failures(errors).problems))


def place(
    cluster: Cluster,
    usable: Collection[str],
    students: Sequence[Student],
    session: Session,
    launch: Launch,
    *,
    given_up: Collection[str],
    preferred: Plan | None = None,
) -> Plan:
    """Who gets a seat where, of those that --only and --skip leave.

    The plan that is shown and the plan that is carried out come from here. `given_up`: lost machines whose students
    move to others. `preferred`: the plan from before the machines came up, which showed more of them. Raises
    CapacityError.
    """
    nodes = [node for host in cluster.hosts if host.name in usable and (node := host.capacity)]
    if not nodes:
        raise no_machine(cluster.lost)
    # of several places, of a student who moved from a lost machine, the latest
    volumes = [(since, id, where) for host in cluster.hosts for id, (since, where) in host.volumes.items()]
    seated = {seat.student.id: seat.place for seat in cluster.seats}
    names = {node.machine.name for node in nodes}
    situation = Situation(
        nodes,
        PortRange(launch.start, launch.end),
        session.settings.seat,
        seated=seated,
        remembered={id: where for _, id, where in sorted(volumes, key=lambda volume: volume[0])},
        preferred={seat.student.id: seat.place for seat in preferred.seats} if preferred else {},
        lost={*cluster.addresses, *(where.machine for where in seated.values())} - {"", *names, *given_up},
        addresses=cluster.addresses,
        # where --only or --skip may keep some of those who left, no newcomer is given a place of theirs
        pruned=launch.prune and not (session.common.only or session.common.skip),
    )
    return _chosen(make_plan(students, situation), cluster, session)


def _chosen(plan: Plan, cluster: Cluster, session: Session) -> Plan:
    """What --only and --skip leave of a plan; they may name seats, students who left, and machines."""
    present = {seat.student.id: seat for seat in cluster.seats}

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
    made = [host.machine for host in cluster.hosts if host.is_made]
    targets: list[Seat | RunningSeat | Machine] = [*plan.seats, *leaving, *made]
    chosen = session.selection.choose(targets, names)
    return replace(
        plan,
        seats=tuple(target for target in chosen if isinstance(target, Seat)),
        leavers=tuple(target.student.id for target in chosen if isinstance(target, RunningSeat)),
    )


def low_disks(cluster: Cluster, plan: Plan) -> tuple[str, ...]:
    """Warns of machines whose disk may be too small for the seats on them: nothing limits what a student writes."""
    seats = Counter(seat.place.machine for seat in plan.seats)
    return disk_warnings({host.name: host.survey.free_disk for host in cluster.hosts if host.survey}, seats)


def disk_warnings(free: Mapping[str, int | None], seats: Mapping[str, int]) -> tuple[str, ...]:
    """The same for free disks in bytes (None: unknown), and numbers of seats, by machine."""
    return tuple(
        f"{name}: its disk has {gib(space)} free, which its seats ({seats[name]}) share. A full disk stops all of them."
        " Make room there (docker system df shows what the engine has), or use a machine with a larger disk."
        for name, space in free.items()
        if space is not None and is_low(space, seats.get(name, 0))
    )


def is_low(free_disk: int, seats: int) -> bool:
    """Whether a disk with so many bytes free has little room for its seats."""
    return free_disk < seats * LITTLE


def seats_after(cluster: Cluster, plan: Plan, *, pruned: bool) -> list[Placed]:
    """The seats that there are once the plan is carried out."""
    planned = {seat.student.id for seat in plan.seats}
    going = {*planned, *(plan.leavers if pruned else ())}
    return [*plan.seats, *(seat for seat in cluster.seats if seat.student.id not in going)]
