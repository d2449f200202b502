"""The folder of `seat.shared` on its way to the machines, before a seat starts there, and away from them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cloudscale.cluster.state import Cluster, Host
from cloudscale.course.session import Session
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError
from cloudscale.fanout import fan_out
from cloudscale.material.shared import Mirror, Shared, machine_has, make_room, remove_shared, scan
from cloudscale.model import Outcomes
from cloudscale.plan.placing import Plan
from cloudscale.seats.services import RunningSeat, running_seats
from cloudscale.seats.spec import SHARED, has_shared
from cloudscale.units import amount, gib


def check(session: Session) -> Shared | None:
    """The folder, if the setting names one. Raises RequestError if it can't be shared."""
    location = session.settings.seat.shared
    return scan(location) if location else None


def describe(folder: Shared | None) -> str:
    if not folder:
        return ""
    return f"{'1 file' if len(folder.files) == 1 else f'{len(folder.files)} files'}, {amount(folder.size)}"


# --- the plan --------------------------------------------------------------------------------


def restarts(cluster: Cluster, plan: Plan, session: Session) -> tuple[str, ...]:
    """Warns where running seats restart as the shared folder comes or goes. A change of what is in it needs none."""
    planned = {seat.student.id for seat in plan.seats}
    is_wanted = session.settings.seat.shared is not None
    changing = [seat for seat in cluster.seats if seat.student.id in planned and has_shared(seat.spec) != is_wanted]
    if not changing:
        return ()
    count = "1 running seat restarts" if len(changing) == 1 else f"{len(changing)} running seats restart"
    if is_wanted:
        return (f"{count} once, to get the shared folder. Later changes of what is in it need no restart.",)
    return (f"{count} without the shared folder: this run has no seat.shared. To keep it, set it again.",)


def say(cluster: Cluster, plan: Plan, session: Session) -> None:
    """Says what will be sent, and where there may be too little room. Raises RequestError, EngineError."""
    if not plan.seats or not (folder := check(session)):
        return
    for path in folder.special:
        session.progress.say(f"Warning: {path} in the shared folder loses its setuid or setgid bit.")
    course = session.settings.course
    looks = fan_out(lambda engine: machine_has(engine, course), cluster.engines.values(), name=lambda e: e.name)
    new = [host for host in cluster.hosts if not host.is_unusable and not looks.values.get(host.name)]
    sent = f"to {', '.join(host.name for host in new)}: all of it" if new else ""
    others = "to machines that have it: what has changed" if any(looks.values.values()) else ""
    session.progress.say(f"Shared folder: {describe(folder)}; {'; '.join(filter(None, (sent, others)))}")
    for warning in _small_disks(new, folder.size):
        session.progress.say(f"Warning: {warning}")


def _small_disks(hosts: Collection[Host], size: int) -> list[str]:
    return [
        f"{host.name}: its disk has {gib(host.survey.free_disk)} free, and the shared folder has {amount(size)}."
        for host in hosts
        if host.survey and host.survey.free_disk is not None and host.survey.free_disk < size
    ]


# --- to the machines, and away ---------------------------------------------------------------


@dataclass(frozen=True)
class Brought:
    """`without`: the machines where the folder could not be brought up to date, with the error; `changed`: the others
    where it had to be.
    """

    without: Mapping[str, Exception] = field(default_factory=dict)
    changed: tuple[str, ...] = ()


def bring(cluster: Cluster, plan: Plan, session: Session) -> Brought:
    """Makes each machine's copy the same as the folder, and room for it in the seats that don't have it yet."""
    if not (folder := check(session)):
        return Brought()
    have = {seat.student.id for seat in cluster.seats if has_shared(seat.spec)}
    newcomers = [seat for seat in plan.seats if seat.student.id not in have]
    mirror = Mirror(session.settings.course, folder, session.common.timeout)
    hosts = [host for host in cluster.hosts if host.engine and host.image]
    counting, total = threading.Lock(), 0
    with session.progress.bar(f"Shared folder: {describe(folder)}", 0) as advance:

        def sent(size: int) -> None:
            nonlocal total
            with counting:
                total += size
                advance(total, max(total, folder.size * len(hosts)))

        def one(host: Host) -> int:
            assert host.engine
            count = mirror.bring(host.engine, host.image, sent)
            names = {seat.student.id: seat.student.full_name for seat in newcomers if seat.place.machine == host.name}
            for student in make_room(host.engine, mirror.course, host.image, [*names], SHARED):
                session.progress.say(f"{names[student]}: an own {SHARED!r} was renamed, for the shared folder")
            return count

        outcomes = fan_out(one, hosts, name=lambda host: host.name)
    changed = tuple(name for name, count in outcomes.values.items() if count >= 0)
    if changed:
        session.progress.say(f"Shared folder: sent {amount(total)} to {len(changed)} of {len(hosts)} machines")
    elif outcomes.values:
        session.progress.say("Shared folder: the machines have it already, nothing was sent")
    return Brought(outcomes.errors, changed)


def prepare(engine: Engine, image: str, seat: RunningSeat, session: Session) -> None:
    """Brings the folder to a machine that a seat moves to, if the seat has it. Raises CloudscaleError."""
    if not has_shared(seat.spec):
        return
    if folder := check(session):
        Mirror(session.settings.course, folder, session.common.timeout).bring(engine, image, lambda size: None)
    elif not machine_has(engine, session.settings.course):
        raise CloudscaleError(
            f"{engine.name} does not have the shared folder that the seat has, and seat.shared is not set here.",
            "Set it, then run again.",
        )


def remove_unwanted(cluster: Cluster, session: Session) -> tuple[str, ...]:
    """Removes the copies, once the setting is gone and no seat of the machine has the folder. Returns what failed."""
    if session.settings.seat.shared:
        return ()
    course = session.settings.course
    machines = {host.node.id: host.name for host in cluster.hosts if host.node}
    using = {seat.place.machine for seat in running_seats(cluster.manager, course, machines) if has_shared(seat.spec)}
    engines = [engine for name, engine in cluster.engines.items() if name not in using]
    removed: Outcomes[str] = fan_out(lambda engine: remove_shared(engine, course), engines, name=lambda e: e.name)
    if any(removed.values.values()):
        session.progress.say(f"The shared folder was removed ({SHARED} in the seats)")
    return removed.problems
