"""`seat_move`: one student's server to another machine, with the work.

The service says where the seat is: it is pinned to a machine, and the volume there counts. So there is one moment at
which the seat moves, and a run that is cut off before or after it leaves nothing unclear:

1. the seat stops; its work is copied. Cut off here, the seat is where it was; the copy is marked as one that does not
   count.
2. the service is pinned to the other machine, with a label that names the one that it left. The copy counts.
3. once the seat answers, the volume there is removed, and then the label. Cut off here, the next run does that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from cloudscale.cli.report import Report
from cloudscale.cluster.driver import driver_of
from cloudscale.cluster.state import Cluster, Host
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.errors import CapacityError, CloudscaleError, RequestError
from cloudscale.images.on_engine import EngineImage, find_image, look_inside
from cloudscale.model import Outcome, Outcomes, Place
from cloudscale.plan.placing import Situation, make_plan
from cloudscale.plan.ports import PortRange
from cloudscale.seats import moving
from cloudscale.seats.containers import UNFINISHED, let_count, wait_stopped
from cloudscale.seats.moving import StudentVolume
from cloudscale.seats.services import RunningSeat, SeatServices
from cloudscale.seats.spec import Spec, Target, arrived, container_of, is_stopped, moved, started, stopped
from cloudscale.units import MIB
from cloudscale.workflow import shared
from cloudscale.workflow.alone import alone
from cloudscale.workflow.one_seat import answer, check_machine, find, lead_to, row_of

COPYING = 3600.0  # seconds for the work of one student
RESERVE = 512 * MIB  # bytes of the disk that a copy leaves free


def seat_move(session: Session, student: str, to: str | None) -> Report:
    """Moves a student's server to another machine, with the work."""
    if not to:
        raise RequestError("--to is missing: the machine that the seat is to move to.", "invoke status shows them.")
    driver = driver_of(session)
    if driver.adopts_swarm:
        raise RequestError(
            f"The driver {session.settings.driver} has one machine: a seat can't move to another one.",
            "seat_move is for a class on several machines.",
        )
    with alone(session, driver):
        cluster, seat = find(session, student, driver)
        host = _machine(cluster, to)
        if seat.place.machine != host.name:
            check_machine(cluster, seat)
            host = _surveyed(host, cluster)
            target = _target(cluster, seat, host, session)
            _move(cluster, seat, host, target, session)
            cluster, seat = find(_for_all(session), seat.student.id, driver)
        else:
            session.progress.say(f"{seat.student.full_name} is on {host.name} already")
        return _arrive(cluster, seat, session)


def _for_all(session: Session) -> Session:
    """The session without --only and --skip, which may name the machine that the seat has left."""
    return replace(session, common=session.common.model_copy(update={"only": (), "skip": ()}))


# --- where to --------------------------------------------------------------------------------


def _machine(cluster: Cluster, name: str) -> Host:
    """The machine of a name. Raises RequestError if the course has none, CloudscaleError if it can't be used."""
    hosts = {host.name.casefold(): host for host in cluster.hosts}
    host = hosts.get(name.strip().casefold())
    if host is None:
        raise RequestError(f"The course has no machine {name!r}.", f"Available: {', '.join(cluster.addresses)}.")
    if host.engine and host.node and host.node.id in cluster.swarm:
        return host
    others = ", ".join(name for name in cluster.engines if name != host.name) or "none"
    cause = f" {host.error.message}" if host.error else ""
    raise CloudscaleError(
        f"{host.name} is not ready for seats.{cause}", f"invoke themachine prepares it. Other machines: {others}."
    )


def _target(cluster: Cluster, seat: RunningSeat, host: Host, session: Session) -> Target:
    """The place on that machine. Raises CapacityError, ImageError, CloudscaleError."""
    assert host.engine and host.node
    image, reference = _image(cluster, seat, host)
    place = _place(cluster, seat, host, session)
    inside = look_inside(host.engine, reference, image.pinned, session.settings.course)
    disk = session.settings.seat.disk if host.node.has_quotas else 0
    return Target(place, host.node.id, image.pinned, inside.open_files, disk)


def _surveyed(host: Host, cluster: Cluster) -> Host:
    """With what is seen of the machine from outside its engine: what else listens there, and the room on its disk."""
    assert host.node
    survey = cluster.driver.survey(host.machine)
    held = survey.held_ports - host.node.own_ports
    return replace(host, survey=survey, node=replace(host.node, taken_ports=host.node.taken_ports | held))


def _place(cluster: Cluster, seat: RunningSeat, host: Host, session: Session) -> Place:
    others = {each.student.id: each.place for each in cluster.seats if each is not seat}

    def on(one: Host) -> Place:
        assert one.node
        first = min(each.place.port for each in cluster.seats)  # of those that --start has left to seats
        situation = Situation(
            [one.node], PortRange(first), session.settings.seat, seated=others, addresses=cluster.addresses
        )
        return make_plan([seat.student], situation).seats[0].place

    try:
        return on(host)
    except CapacityError as error:
        with_room = []
        for other in cluster.hosts:
            with contextlib.suppress(CapacityError):
                if other.node and other.engine and other.name not in (host.name, seat.place.machine) and on(other):
                    with_room.append(other.name)
        raise CapacityError(
            f"{host.name} has no room for the seat. {error.message}",
            f"Choose another machine. With room: {', '.join(with_room) or 'none'}.",
        ) from None


def _image(cluster: Cluster, seat: RunningSeat, host: Host) -> tuple[EngineImage, str]:
    """The image that the seat runs, on the other machine, and a name of it there."""
    assert host.engine
    source = cluster.engines[seat.place.machine]
    own = str(container_of(seat.spec)["Image"])
    wanted = find_image(source, own)
    if wanted:
        neighbours = (container_of(each.spec)["Image"] for each in cluster.seats if each.place.machine == host.name)
        for name in dict.fromkeys([*neighbours, *wanted.names, own]):
            found = find_image(host.engine, name)
            if found and found.is_same(wanted):
                return found, name
    raise CloudscaleError(
        f"{host.name} does not have the image that the seat runs.",
        "invoke themachine --onlycreate, with the class's image, brings it to all machines. Then run again.",
    )


# --- on the way ------------------------------------------------------------------------------


def _move(cluster: Cluster, seat: RunningSeat, host: Host, target: Target, session: Session) -> None:
    """Stops the seat, copies its work, and starts it at the other place. If that fails, it goes on where it was."""
    assert host.engine
    course, student = session.settings.course, seat.student
    _ask_about_older(seat, host, session)
    source = StudentVolume(cluster.engines[seat.place.machine], course, student.id, container_of(seat.spec)["Image"])
    copy = StudentVolume(host.engine, course, student.id, target.image)
    services = SeatServices(cluster.manager, course)
    shared.prepare(host.engine, target.image, seat, session)
    session.progress.say(f"Moving {student.full_name} from {seat.place.machine} to {host.name}: the server stops")
    try:
        services.change(seat.service_id, stopped)
        wait_stopped(source.engine, course, student.id)
        labels = {**naming.student_labels(course, student.id), naming.PORT: str(target.place.port)}
        copy.begin(labels, target.disk)
        _copy(source, copy, host, session)
        services.change(seat.service_id, _pinned(seat, target))
    except BaseException:
        session.progress.say(f"Not moved: the server starts again on {seat.place.machine}")
        _undo(services, seat, copy)
        raise


def _copy(source: StudentVolume, copy: StudentVolume, host: Host, session: Session) -> None:
    free = host.survey.free_disk if host.survey else None
    with session.progress.bar(f"Work: copying it to {host.name}", 0) as advance:
        moving.copy(
            source,
            copy,
            room=None if free is None else max(0, free - RESERVE),
            timeout=session.common.timeout or COPYING,
            advance=advance,
        )


def _pinned(seat: RunningSeat, target: Target) -> Callable[[Spec], Spec]:
    """The step that moves it; unless the seat has run since, or has moved: then the copy is not its work any more."""

    def change(spec: Spec) -> Spec:
        if not is_stopped(spec) or spec["TaskTemplate"]["Placement"] != seat.spec["TaskTemplate"]["Placement"]:
            raise CloudscaleError(
                f"{seat.student.full_name}: the seat was started meanwhile, by another trainer.", "Run again."
            )
        return moved(spec, seat.place.machine, target)

    return change


def _undo(services: SeatServices, seat: RunningSeat, copy: StudentVolume) -> None:
    """The seat goes on where it was, and the copy is removed; unless it has moved already."""

    def change(spec: Spec) -> Spec:
        if spec["TaskTemplate"]["Placement"] != seat.spec["TaskTemplate"]["Placement"]:
            raise CloudscaleError("The seat has moved.")
        return started(spec)

    with contextlib.suppress(CloudscaleError):
        services.change(seat.service_id, change)
        copy.remove()


def _ask_about_older(seat: RunningSeat, host: Host, session: Session) -> None:
    """Asks before work is removed that the student had on the other machine at an earlier time."""
    since, _ = host.volumes.get(seat.student.id, (UNFINISHED, None))
    if since != UNFINISHED:
        session.ask(
            f"{host.name} has older work of {seat.student.full_name}, in a volume of {since:%Y-%m-%d %H:%M} UTC."
            f" Remove it, and put the work of {seat.place.machine} in its place?"
        )


# --- at the other end ------------------------------------------------------------------------


def _arrive(cluster: Cluster, seat: RunningSeat, session: Session) -> Report:
    """Waits until the seat answers where it is now; then removes what is left of it where it was."""
    check_machine(cluster, seat)
    course, left = session.settings.course, seat.spec["Labels"].get(naming.MOVED)
    assert left != seat.place.machine  # it was never put there while the seat is there
    services = SeatServices(cluster.manager, course)
    if left:
        let_count(cluster.engines[seat.place.machine], course, {seat.student.id})
    change = services.change(seat.service_id, started)
    cluster, failed = lead_to(cluster, session)
    outcome = answer(cluster, seat, change, session)
    if left and outcome.ok:
        failed = Outcomes([*failed, *_clear(cluster, seat, left, services, session)])
    elif left:
        session.progress.say(f"Its work is still on {left}, too. Once it answers, run the same command again")
    return row_of(cluster, seat, outcome, session, failed=failed)


def _clear(cluster: Cluster, seat: RunningSeat, left: str, services: SeatServices, session: Session) -> Outcomes[str]:
    """Removes the volume that the seat has left, and the label that says so."""
    try:
        if engine := cluster.engines.get(left):
            StudentVolume(engine, session.settings.course, seat.student.id, "").remove()
        elif left in cluster.addresses:
            raise CloudscaleError("The machine is lost now.")
        services.change(seat.service_id, arrived)
    except CloudscaleError as error:
        still = CloudscaleError(
            f"{left}: the volume that {seat.student.full_name} had there is still there. {error.message}",
            "Run the same command again.",
        )
        return Outcomes([Outcome[str](left, error=still)])
    session.progress.say(f"Moved: nothing of {seat.student.full_name} is left on {left}")
    return Outcomes()
