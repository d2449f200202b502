"""`containers_reset` and `driver_reset`: seats and volumes, and all that was made for a course, are removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import driver_of, look, lost_problems
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import MakesMachines, SetsUpEngines
from cloudscale.engines.client import Engine
from cloudscale.errors import SwarmError
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.images.delivery import remove_delivered
from cloudscale.model import Machine, Outcome, Outcomes
from cloudscale.seats import containers
from cloudscale.seats.services import RunningSeat, SeatServices
from cloudscale.swarm.leaving import dissolve, leave, shrink
from cloudscale.swarm.nodes import membership, remove_node


def containers_reset(session: Session, *, with_volumes: bool) -> Report:
    """Removes the seats, keeps the machines; the students' volumes stay unless they are asked for too."""
    with session.course.locked():
        cluster = look(session, driver_of(session))
        cluster.check_head(
            "Bring them back (invoke themachine); or invoke driver_reset takes the others out of the swarm."
        )
        course = session.settings.course
        chosen = removable(cluster, session, with_volumes=with_volumes)
        problems = lost_problems(cluster, session)
        if not chosen.seats and not chosen.volumes:
            session.progress.say(f"The course {course!r} has none: nothing to remove")
            return Report(report.removed(Outcomes(), session.common.format).text, problems)
        extra = f" and {len(chosen.volumes)} volumes with the students' work" if with_volumes else ""
        session.ask(f"Remove {len(chosen.seats)} seats{extra} of the course {course!r}?")
        outcomes = remove(cluster, session, chosen)
        removed = {outcome.target for outcome in outcomes if outcome.ok}
        if cluster.maker:
            cluster.maker.open_ports(cluster.ports(seat for seat in cluster.seats if seat.name not in removed))
        done = report.removed(outcomes, session.common.format)
        return replace(done, problems=(*problems, *done.problems))


def driver_reset(session: Session) -> Report:
    """Removes everything that was made for the course with this driver, for good."""
    course, say = session.settings.course, session.progress.say
    with session.course.locked():
        driver = driver_of(session)
        if isinstance(driver, MakesMachines) and not (session.common.only or session.common.skip):
            return _swept(session, driver)
        cluster = look(session, driver)
        chosen = removable(cluster, session, with_volumes=True)
        volumes = len(chosen.volumes)
        back = "" if driver.adopts_swarm else f", and {'delete' if isinstance(driver, MakesMachines) else 'give back'}"
        back += f" {len(chosen.machines)} machines" if back else ""
        session.ask(f"Remove {len(chosen.seats)} seats and {volumes} volumes of the course {course!r}{back}, for good?")
        outcomes = remove(cluster, session, chosen)
        if isinstance(driver, MakesMachines):
            removed = {outcome.target for outcome in outcomes if outcome.ok}
            driver.open_ports(cluster.ports(seat for seat in cluster.seats if seat.name not in removed))
        chosen = without_stuck(cluster, chosen, outcomes)
        outcomes = Outcomes([*outcomes, *release(cluster, session, chosen)])
        done = report.removed(outcomes, session.common.format)
        released = [outcome.target for outcome in outcomes if outcome.ok]
        if isinstance(driver, MakesMachines):
            there = {machine.name for machine in driver.machines()}
            released += [machine.name for machine in chosen.machines if machine.name not in there]
        done = replace(done, problems=(*lost_problems(cluster, session, but=released), *done.problems))
        if len(chosen.machines) == len(cluster.machines) and not done.problems:
            session.course.forget()
            say(f"Done: nothing of the course {course!r} is left")
        return done


def _swept(session: Session, driver: MakesMachines) -> Report:
    """All at once: what is on machines that are deleted needs no removing."""
    course, say = session.settings.course, session.progress.say
    resources = driver.resources()
    if resources:
        session.ask(f"Delete {resources} of the course {course!r}, with all of the students' work, for good?")
    with session.progress.bar("Deleting", 0):
        done = report.removed(driver.sweep(), session.common.format)
    if not done.problems:
        session.course.forget()
        say(f"Done: nothing of the course {course!r} is left")
    return done


@dataclass(frozen=True)
class Removable:
    """What a reset may remove: the seats, the volumes (engine, name) and the machines that were chosen.

    A machine is not, as long as anything on it is kept.
    """

    seats: tuple[RunningSeat, ...]
    volumes: tuple[tuple[Engine, str], ...]
    machines: tuple[Machine, ...]


def removable(cluster: Cluster, session: Session, *, with_volumes: bool) -> Removable:
    seat_of = {seat.student_id: seat for seat in cluster.seats}
    volumes = [
        (engine, volume["Name"], volume["Labels"][naming.STUDENT])
        for engine in cluster.engines.values()
        for volume in sorted(containers.volumes(engine, session.settings.course), key=lambda volume: volume["Name"])
        if with_volumes
    ]

    def names(target: RunningSeat | Machine | tuple[Engine, str, str]) -> tuple[str, ...]:
        if isinstance(target, Machine):
            return (target.name,)
        if isinstance(target, RunningSeat):
            return cluster.names_of(target)
        engine, volume, student_id = target
        seat = seat_of.get(student_id)
        return (volume, student_id, engine.name, *(cluster.names_of(seat) if seat else ()))

    targets: list[RunningSeat | Machine | tuple[Engine, str, str]] = [*cluster.seats, *volumes, *cluster.machines]
    chosen = session.selection.choose(targets, names)
    kept = {cluster.machine_of(seat) for seat in cluster.seats if seat not in chosen}
    kept |= {target[0].name for target in volumes if target not in chosen}
    return Removable(
        seats=tuple(target for target in chosen if isinstance(target, RunningSeat)),
        volumes=tuple((target[0], target[1]) for target in chosen if isinstance(target, tuple)),
        machines=tuple(target for target in chosen if isinstance(target, Machine) and target.name not in kept),
    )


def remove(cluster: Cluster, session: Session, chosen: Removable) -> Outcomes[str]:
    """Removes the seats and volumes; each is an outcome."""
    outcomes: list[Outcome[str]] = []
    # where there is no manager to end the seats, they end as their machine leaves
    leaving = [cluster.cut_off[machine.name] for machine in chosen.machines if machine.name in cluster.cut_off]
    outcomes += fan_out(leave, leaving, name=lambda engine: engine.name).failed
    if cluster.in_swarm:
        spawn = SeatServices(cluster.manager, session.settings.course)
        outcomes += remove_seats(cluster, chosen.seats, spawn)
        spawn.remove_unused_secrets()
    volumes = fan_out(lambda item: containers.remove_volume(*item), chosen.volumes, name=lambda item: item[1])
    return Outcomes([*outcomes, *volumes])


def remove_seats(cluster: Cluster, seats: Sequence[RunningSeat], spawn: SeatServices) -> Outcomes[str]:
    """Removes services and waits until their containers are gone, so that ports and volumes are free."""
    outcomes = spawn.remove(seats)
    students = {seat.student_id: seat.name for seat in seats}
    waits = fan_out(
        lambda engine: containers.wait_gone(engine, spawn.course, students),
        cluster.engines.values(),
        name=lambda engine: engine.name,
    )
    lingering = {students[left.target]: left.error for found in waits.values.values() for left in found}
    return Outcomes(
        [
            *(Outcome(o.target, error=lingering[o.target]) if o.target in lingering else o for o in outcomes),
            *(Outcome[str](name, error=error) for name, error in waits.errors.items()),
        ]
    )


def without_stuck(cluster: Cluster, chosen: Removable, outcomes: Sequence[Outcome[str]]) -> Removable:
    """The same without the machines on which something could not be removed: they are not given back."""
    failed = {outcome.target for outcome in outcomes if not outcome.ok}
    stuck = {cluster.machine_of(seat) for seat in chosen.seats if seat.name in failed}
    stuck |= {engine.name for engine, volume in chosen.volumes if volume in failed}
    return replace(chosen, machines=tuple(m for m in chosen.machines if m.name not in stuck | failed))


def release(cluster: Cluster, session: Session, chosen: Removable) -> list[Outcome[str]]:
    """Takes the chosen machines out of the swarm and gives them back; the swarm goes with the last of them."""
    course = session.settings.course
    engines = [cluster.engines[machine.name] for machine in chosen.machines if machine.name in cluster.engines]
    cleared = fan_out(lambda engine: _clear(engine, cluster, course), engines, name=lambda engine: engine.name)
    failed = list(cleared.failed)
    if cluster.maker:
        cluster = _without_lost(cluster, {m.name for m in chosen.machines})
    if cluster.in_swarm and (failed or len(chosen.machines) < len(cluster.machines)):
        stuck = {outcome.target for outcome in failed}
        leaving = [engine for engine in engines if engine.name not in stuck]
        failed += shrink(cluster.managers, cluster.engines, cluster.swarm.values(), leaving)
    elif cluster.in_swarm:
        said, left = dissolve(cluster.manager, engines, course)
        failed = list(left)
        if said:
            session.progress.say(said)
        left_behind = {outcome.target for outcome in failed}
        staying = [e for e in engines if e.name not in left_behind and membership(e).is_active]
        if staying and not cluster.driver.adopts_swarm:  # handed over to others
            return failed + [_kept(engine) for engine in staying]
    if cluster.driver.adopts_swarm:  # its machine was there before, and so was the engine
        return failed
    # of one in a swarm of somebody else, the settings are ours all the same
    out_of_reach = {name for name, error in cluster.failures.items() if not isinstance(error, SwarmError)}
    bad = {outcome.target for outcome in failed} | out_of_reach
    if cluster.maker:  # one that is out of reach can be deleted all the same
        stuck = {outcome.target for outcome in failed}
        return [*failed, *_delete(cluster.maker, cluster, [m.name for m in chosen.machines if m.name not in stuck])]
    machines = [machine for machine in chosen.machines if machine.name not in bad]
    assert isinstance(cluster.driver, SetsUpEngines)
    with session.progress.bar("Giving the machines back", len(machines)):
        released = fan_out(cluster.driver.release, machines, name=lambda machine: machine.name, width=MACHINES_WIDTH)
    return failed + [outcome for outcome in released if outcome.value or not outcome.ok]


def _without_lost(cluster: Cluster, going: set[str]) -> Cluster:
    """A manager that is gone weighs against the majority that each change of the circle needs."""
    gone = {
        node.id
        for node in cluster.swarm.values()
        if node.machine not in cluster.engines and (node.machine in going or node.machine not in cluster.hosts)
    }
    for head in cluster.managers[:1]:
        for node_id in gone:
            remove_node(head, node_id)
    return replace(cluster, swarm={id: node for id, node in cluster.swarm.items() if id not in gone})


def _delete(maker: MakesMachines, cluster: Cluster, names: Sequence[str]) -> Outcomes[str]:
    """Deletes machines; with the last of them goes what they shared."""
    return maker.sweep(None if {*names} >= cluster.hosts.keys() else names)


def _kept(engine: Engine) -> Outcome[str]:
    return Outcome(
        engine.name,
        error=SwarmError(
            f"{engine.name}: others use the swarm by now, so it stays in it, with the course's settings.",
            "When they are done with it, take it out (docker swarm leave --force), then run again.",
        ),
    )


def _clear(engine: Engine, cluster: Cluster, course: str) -> str:
    """What the course has on an engine beside its seats and volumes."""
    containers.remove_others(engine, course)
    if not cluster.driver.adopts_swarm:
        remove_delivered(engine, course)
    return "cleared"
