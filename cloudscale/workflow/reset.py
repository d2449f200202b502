"""`containers_reset` and `driver_reset`: the seats are removed, or everything that was made for a course."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver, KeepsWork, MakesMachines, SetsUpEngines
from cloudscale.engines.client import Engine
from cloudscale.errors import Declined, SwarmError
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.gateway.program import forget_readings
from cloudscale.gateway.volume import remove_volumes
from cloudscale.images.delivery import remove_delivered
from cloudscale.material.handout import remove_kept
from cloudscale.material.marks import forget_marks
from cloudscale.material.shared import remove_shared
from cloudscale.material.volumes import remove_helpers
from cloudscale.model import Machine, Outcome, Outcomes
from cloudscale.seats import containers, moving
from cloudscale.seats.changes import forget_changes
from cloudscale.seats.services import RunningSeat, SeatServices
from cloudscale.swarm.deadline import write_deadline
from cloudscale.swarm.leaving import dissolve, leave, shrink
from cloudscale.swarm.nodes import membership, remove_node
from cloudscale.workflow import gateway
from cloudscale.workflow.alone import alone
from cloudscale.workflow.collect import collected_first
from cloudscale.workflow.uncollected import say_uncollected
from cloudscale.workflow.work_volumes import check_attached, delete_question, work_volumes

# --- the tasks -------------------------------------------------------------------------------


def containers_reset(session: Session, *, with_volumes: bool, collect: Path | None = None) -> Report:
    """Removes the seats, keeps the machines; the students' volumes stay unless they are asked for too.

    `collect`: a folder of this computer that gets the students' work first.
    """
    with alone(session) as driver:
        cluster = look(session, driver)
        cluster.check_quorum(
            "Bring them back (invoke themachine); or run invoke driver_reset to take the others out of the swarm."
        )
        course = session.settings.course
        chosen = removable(cluster, session, with_volumes=with_volumes)
        problems = cluster.problems(session.selection)
        if not cluster.seats and cluster.in_swarm:  # what a reset that was cut off has left
            SeatServices(cluster.manager, course).finish_removals(cluster.engines.values())
            _follow(cluster, session, Outcomes()).get()
        if not chosen.seats and not chosen.volumes:
            session.progress.say(f"The course {course!r} has no seats: nothing to remove")
            return replace(report.removed(Outcomes(), session.common.format), problems=problems)
        _save_work(session, cluster, collect, removes=with_volumes)
        extra = f" and {len(chosen.volumes)} volumes with the students' work" if with_volumes else ""
        session.ask(f"Remove {len(chosen.seats)} seats{extra} of the course {course!r}?")
        outcomes = _follow(cluster, session, remove(cluster, session, chosen))
        if with_volumes:
            outcomes = Outcomes([*outcomes, *_remove_material(cluster, chosen, course).failed])
        done = report.removed(outcomes, session.common.format)
        return replace(done, problems=(*problems, *done.problems))


def driver_reset(session: Session, *, collect: Path | None = None, unattended: bool = False) -> Report:
    """Removes everything that was made for the course with this driver, for good.

    `collect`: a folder of this computer that gets the students' work first. `unattended`: by `reap`, which holds the
    lock.
    """
    with alone(session, unless=unattended) as driver:
        if isinstance(driver, MakesMachines) and not (session.common.only or session.common.skip):
            return _sweep(session, driver, collect, unattended=unattended)
        cluster = look(session, driver)
        chosen = removable(cluster, session, with_volumes=True)
        kept = _kept_work(chosen, driver, session)
        chosen = replace(chosen, volumes=tuple(v for v in chosen.volumes if v.engine.name not in kept))
        if chosen.volumes or collect:
            _save_work(session, cluster, collect, unattended=unattended)
        session.ask(_question(cluster, chosen, session.settings.course))
        leaving = {machine.name for machine in chosen.machines}
        removed = _follow(cluster, session, remove(cluster, session, chosen), leaving)
        chosen = without_stuck(chosen, removed)
        outcomes = Outcomes([*removed, *release(cluster, session, chosen)])
        done = report.removed(outcomes, session.common.format)
        released = {outcome.target for outcome in outcomes if outcome.ok}
        if cluster.maker:
            left = {machine.name for machine in driver.machines()}
            released |= {machine.name for machine in chosen.machines if machine.name not in left}
        done = replace(done, problems=(*cluster.problems(session.selection, but=released), *done.problems))
        if len(chosen.machines) == len(cluster.hosts) and not (done.problems or work_volumes(driver)):
            _forget(session)
        return done


def _sweep(session: Session, driver: MakesMachines, collect: Path | None, *, unattended: bool) -> Report:
    """All at once: what is on machines that are deleted needs no removing."""
    course = session.settings.course
    volumes = work_volumes(driver)
    resources = driver.resources()
    if collect:
        check_attached(volumes)
    if resources:
        _save_work(session, None, collect, unattended=unattended)
        whose = "" if volumes else ", with all of the students' work"
        session.ask(f"Delete {resources} of the course {course!r}{whose}, for good?")
    removes_work = bool(volumes) and _agrees(session, delete_question(volumes, course, more=bool(resources)))
    with session.progress.bar("Deleting", 0):
        outcomes = driver.sweep()
        if removes_work and isinstance(driver, KeepsWork):
            outcomes = Outcomes([*outcomes, *driver.sweep_work()])
    done = report.removed(outcomes, session.common.format)
    if volumes and not removes_work:
        session.progress.say(
            f"Kept, with the students' work: {', '.join(volume.name for volume in volumes)}. The next invoke themachine"
            " of the course makes their machines again, and the students find their work. To delete them: invoke"
            " driver_reset. The course's folder stays as well."
        )
    elif not done.problems:
        _forget(session)
    return done


def _agrees(session: Session, question: str) -> bool:
    try:
        session.ask(question)
    except Declined:
        return False
    return True


def _save_work(
    session: Session,
    cluster: Cluster | None,
    folder: Path | None,
    *,
    removes: bool = True,
    unattended: bool = False,
) -> None:
    """Collects the work into a folder, if one is given; else says what of it was not collected.

    Raises CloudscaleError if it was to be collected, and not all of it could be.
    """
    if folder:
        collected_first(cluster or look(session), session, folder, unattended=unattended)
    elif removes:
        say_uncollected(session, lambda: cluster or look(session))


def _forget(session: Session) -> None:
    forget_readings(session.settings.course)
    session.course.forget()
    session.progress.say(f"Done: nothing of the course {session.settings.course!r} is left")
    if session.course.keeps_certificates:
        session.progress.say(
            f"The gateway's certificates stay in {session.course.folder}, for the next class at that address:"
            " an authority signs only a few in a week. If there will be none, delete the folder."
        )


def _question(cluster: Cluster, chosen: Removable, course: str) -> str:
    machines = ""
    if cluster.maker or isinstance(cluster.driver, SetsUpEngines):
        machines = f", and {'delete' if cluster.maker else 'release'} {len(chosen.machines)} machines"
    what = (
        f"{len(chosen.seats)} seats and {len(chosen.volumes)} volumes with the students' work of the course {course!r}"
    )
    return f"Remove {what}{machines}, for good?"


def _follow(cluster: Cluster, session: Session, removed: Outcomes[str], leaving: Collection[str] = ()) -> Outcomes[str]:
    """Lets the gateway and the open ports lead to the seats alone that were not removed."""
    gone = {outcome.target for outcome in removed if outcome.ok}
    left = [seat for seat in cluster.seats if seat.name not in gone]
    after, failed = gateway.follow(cluster, left, session, leaving=leaving)
    after.open_ports(left)
    return Outcomes([*removed, *failed])


# --- seats and volumes -----------------------------------------------------------------------


@dataclass(frozen=True)
class Volume:
    """A student's volume on a machine."""

    engine: Engine
    name: str
    student_id: str


@dataclass(frozen=True)
class Removable:
    """What a reset may remove: the seats, volumes and machines that were chosen.

    A machine is not, as long as anything on it is kept.
    """

    seats: tuple[RunningSeat, ...]
    volumes: tuple[Volume, ...]
    machines: tuple[Machine, ...]


def removable(cluster: Cluster, session: Session, *, with_volumes: bool) -> Removable:
    """What --only and --skip leave. Raises RequestError for a name that nothing has, EngineError."""
    seat_of = {seat.student.id: seat for seat in cluster.seats}
    volumes = _volumes(cluster, session.settings.course) if with_volumes else []

    def names(target: RunningSeat | Machine | Volume) -> tuple[str, ...]:
        if isinstance(target, Machine):
            return (target.name,)
        if isinstance(target, RunningSeat):
            return cluster.names_of(target)
        seat = seat_of.get(target.student_id)
        full_name = seat.student.full_name if seat else ""
        return (target.name, target.student_id, full_name, target.engine.name, seat.name if seat else "")

    targets: list[RunningSeat | Machine | Volume] = [*cluster.seats, *volumes, *cluster.machines]
    chosen = session.selection.choose(targets, names)
    kept = {seat.place.machine for seat in cluster.seats if seat not in chosen}
    kept |= {volume.engine.name for volume in volumes if volume not in chosen}
    return Removable(
        seats=tuple(target for target in chosen if isinstance(target, RunningSeat)),
        volumes=tuple(target for target in chosen if isinstance(target, Volume)),
        machines=tuple(target for target in chosen if isinstance(target, Machine) and target.name not in kept),
    )


def _volumes(cluster: Cluster, course: str) -> list[Volume]:
    return [
        Volume(engine, volume["Name"], volume["Labels"][naming.STUDENT])
        for engine in cluster.engines.values()
        for volume in sorted(containers.volumes(engine, course), key=lambda volume: volume["Name"])
    ]


def remove(cluster: Cluster, session: Session, chosen: Removable) -> Outcomes[str]:
    """Removes the seats and volumes; each is an outcome."""
    outcomes: list[Outcome[str]] = []
    # without a quorum nobody can remove the seats: they end as their machine leaves the swarm
    names = {machine.name for machine in chosen.machines}
    leaving = [engine for name, engine in cluster.without_quorum.items() if name in names]
    outcomes += fan_out(leave, leaving, name=lambda engine: engine.name).failed
    if cluster.in_swarm:
        services = SeatServices(cluster.manager, session.settings.course)
        outcomes += services.remove_completely(chosen.seats, cluster.engines.values())
        services.remove_unused_secrets()
    outcomes += _forget_work(cluster, session, chosen)
    outcomes += fan_out(lambda volume: _remove_volume(volume, session), chosen.volumes, name=lambda v: v.name)
    return Outcomes(outcomes)


def _forget_work(cluster: Cluster, session: Session, chosen: Removable) -> Outcomes[str]:
    """Removes what would keep the volumes in use, and what the swarm knows of their collection."""
    course = session.settings.course
    engines = {volume.engine.name: volume.engine for volume in chosen.volumes}
    cleared = fan_out(lambda engine: remove_helpers(engine, course), engines.values(), name=lambda e: e.name)
    if cluster.in_swarm and chosen.volumes:
        forget_marks(cluster.manager, course, {volume.student_id for volume in chosen.volumes})
    return cleared.failed


def _remove_volume(volume: Volume, session: Session) -> str:
    moving.remove_helpers(volume.engine, session.settings.course, volume.student_id)
    return containers.remove_volume(volume.engine, volume.name)


def _remove_material(cluster: Cluster, chosen: Removable, course: str) -> Outcomes[str]:
    """Removes what was distributed, and the shared folder, from machines on which no student's work is kept."""
    engines = [cluster.engines[machine.name] for machine in chosen.machines if machine.name in cluster.engines]

    def remove(engine: Engine) -> str:
        remove_shared(engine, course)
        return remove_kept(engine, course)

    return fan_out(remove, engines, name=lambda engine: engine.name)


def without_stuck(chosen: Removable, outcomes: Outcomes[str]) -> Removable:
    """The same without the machines on which something could not be removed: they are not released."""
    failed = {outcome.target for outcome in outcomes.failed}
    stuck = {seat.place.machine for seat in chosen.seats if seat.name in failed}
    stuck |= {volume.engine.name for volume in chosen.volumes if volume.name in failed}
    return replace(chosen, machines=tuple(m for m in chosen.machines if m.name not in stuck | failed))


def _kept_work(chosen: Removable, driver: Driver, session: Session) -> set[str]:
    """The chosen machines whose students' work survives them, on volumes of the cloud; that is reported."""
    going = {machine.name for machine in chosen.machines}
    kept = [
        volume for volume in work_volumes(driver) if volume.machine in going and volume.is_used and volume.is_attached
    ]
    if kept:
        session.progress.say(
            f"The students' work stays, on {', '.join(volume.name for volume in kept)}: the machine that invoke"
            " themachine makes in its place gets it"
        )
    return {volume.machine for volume in kept}


# --- machines --------------------------------------------------------------------------------


def release(cluster: Cluster, session: Session, chosen: Removable) -> Outcomes[str]:
    """Takes the chosen machines out of the swarm, which is dissolved with the last of them; then gives them back.

    Machines that were made for the course are deleted, others released. What fails is an outcome, and its machine
    stays as it is.
    """
    names = {machine.name for machine in chosen.machines}
    engines = [engine for name, engine in cluster.engines.items() if name in names]
    cleared = fan_out(lambda engine: _clear(engine, cluster, session), engines, name=lambda engine: engine.name)
    failed, in_use = [*cleared.failed], Outcomes[str]()
    if cluster.in_swarm:
        leaving = [engine for engine in engines if engine.name not in cleared.errors]
        left, in_use = _leave_swarm(cluster, session, chosen, leaving)
        failed += left
    if in_use:  # what others have in the swarm may be on any of its machines
        return Outcomes([*failed, *in_use])
    given_back = _give_back(cluster, session, chosen, {outcome.target for outcome in failed})
    return Outcomes([*failed, *given_back])


def _clear(engine: Engine, cluster: Cluster, session: Session) -> str:
    """Removes what the course has on an engine beside its seats and volumes."""
    containers.remove_others(engine, session.settings.course)
    remove_volumes(engine, session.settings.course)
    remove_kept(engine, session.settings.course)
    remove_shared(engine, session.settings.course)
    if not cluster.driver.adopts_swarm:
        remove_delivered(engine, session.settings.course)
    return "cleared"


def _leave_swarm(
    cluster: Cluster, session: Session, chosen: Removable, leaving: Sequence[Engine]
) -> tuple[Outcomes[str], Outcomes[str]]:
    """Returns the machines that did not leave, and those that stay because others use the swarm by now."""
    names = {machine.name for machine in chosen.machines}
    if cluster.maker:
        cluster = _without_lost(cluster, names)
    if len(leaving) < len(names & cluster.engines.keys()) or len(chosen.machines) < len(cluster.hosts):
        return shrink(cluster.managers, cluster.engines, cluster.swarm.values(), leaving), Outcomes()
    forget_changes(cluster.manager, session.settings.course)
    write_deadline(cluster.manager, session.settings.course, None)  # a swarm that others use stays
    done, left = dissolve(cluster.manager, leaving, session.settings.course)
    if done:
        session.progress.say(done)
    if cluster.driver.adopts_swarm:
        return left, Outcomes()
    staying = [engine for engine in leaving if engine.name not in left.errors and membership(engine).is_active]
    return left, Outcomes(_in_use(engine) for engine in staying)


def _without_lost(cluster: Cluster, going: Collection[str]) -> Cluster:
    """Removes the nodes of machines that are gone: they weigh against the majority that each change needs."""
    gone = {
        node.id
        for node in cluster.swarm.values()
        if node.machine not in cluster.engines and (node.machine in going or node.machine not in cluster.addresses)
    }
    for node_id in gone:
        remove_node(cluster.manager, node_id)
    return replace(cluster, swarm={id: node for id, node in cluster.swarm.items() if id not in gone})


def _in_use(engine: Engine) -> Outcome[str]:
    error = SwarmError(
        f"{engine.name}: others use the swarm by now, so it stays in it, with the course's settings.",
        "When they do not need it any more, take it out (docker swarm leave --force), then run again.",
    )
    return Outcome(engine.name, error=error)


def _give_back(cluster: Cluster, session: Session, chosen: Removable, failed: Collection[str]) -> Outcomes[str]:
    """Deletes machines that were made for the course, and releases others."""
    names = [machine.name for machine in chosen.machines if machine.name not in failed]
    if cluster.maker:  # one that can't be reached can be deleted all the same
        return cluster.maker.sweep(None if {*names} >= cluster.addresses.keys() else names)
    if not isinstance(cluster.driver, SetsUpEngines):  # its machine and its engine stay
        return Outcomes()
    # of a machine in a swarm of somebody else, the settings are ours all the same
    out_of_reach = {name for name, error in cluster.failures.items() if not isinstance(error, SwarmError)}
    machines = [m for m in chosen.machines if m.name in names and m.name not in out_of_reach]
    with session.progress.bar("Releasing the machines", len(machines)):
        released = fan_out(cluster.driver.release, machines, name=lambda machine: machine.name, width=MACHINES_WIDTH)
    return Outcomes(outcome for outcome in released if outcome.value or not outcome.ok)
