"""From machines to a swarm with the image on each: every machine goes through it on its own, side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster, Host
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver, SetsUpEngines
from cloudscale.engines.client import trainers_engine
from cloudscale.errors import CloudscaleError, ConnectionFailed, EngineError
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.images.delivery import Delivery, Sources
from cloudscale.model import Machine, MachineState, Outcomes, Survey, failures
from cloudscale.networks import SWARM_NETWORKS, spare_network
from cloudscale.phases import Phases
from cloudscale.progress import Advance
from cloudscale.seats.services import check_key
from cloudscale.swarm.joining import SwarmJoin
from cloudscale.workflow.planning import no_machine


@dataclass(frozen=True)
class Ready:
    """The course once its machines are up: `names` are ready for seats, `problems` report those that died since."""

    cluster: Cluster
    names: tuple[str, ...]
    problems: tuple[str, ...]


def wake(cluster: Cluster, usable: Collection[str], session: Session, phases: Phases) -> Cluster:
    """The course with its machines started, where some were asleep and none of the others manages its swarm.

    Only then do they say whether the swarm's managers still exist. Those that are reached through a first machine that
    was lost say nothing before it is made again. One that does not start is reported by the next stage.
    """
    maker = cluster.maker
    hosts = [host for host in cluster.hosts if host.survey and host.name in usable]
    if not maker or cluster.managers or not any(host.is_asleep for host in hosts):
        return cluster

    def boot(survey: Survey) -> Survey:
        with phases.timed("boot", survey.machine.name):
            return maker.boot(survey.machine)

    surveys = {host.name: host.survey for host in hosts if host.survey}
    dark = [survey for survey in surveys.values() if survey.state.needs_boot]
    started = fan_out(boot, dark, name=lambda survey: survey.machine.name, width=MACHINES_WIDTH)
    woken = look(session, cluster.driver, {**surveys, **started.values})
    if woken.quorum_is_gone:
        return woken
    return cluster.with_hosts(replace(host, survey=started.values.get(host.name, host.survey)) for host in hosts)


def bring_up(cluster: Cluster, usable: Collection[str], session: Session, phases: Phases) -> Outcomes[Host]:
    """Engine, swarm and image of each machine. Every machine's outcome is kept; the others go on.

    Raises CloudscaleError where all fail.
    """
    steps = "boot, engine, swarm, image" if cluster.maker else "engine, swarm, image"
    with session.progress.bar(f"Machines: {steps}", 0) as advance:
        outcomes = _bring_up_all(cluster, usable, session, phases, advance)
    if not outcomes.values:
        raise no_machine(outcomes.errors)
    count = f"{len(outcomes.values)} of {len(usable)}"
    session.progress.say(f"Machines: {count} ready, in one swarm, with the image")
    return outcomes


def look_again(cluster: Cluster, usable: Collection[str], up: Mapping[str, Host], session: Session) -> Ready:
    """The course once its machines are `up`. Raises RequestError for seats of another key, EngineError, SwarmError."""
    now = look(session, cluster.driver, _surveys(cluster.with_hosts(up.values()), usable))
    check_key(now.seats, session.course.key(create=False), session.course.folder)
    died = failures({name: error for name, error in now.lost.items() if name in up})
    now = now.with_hosts(replace(host, image=up[host.name].image) for host in now.hosts if host.name in up)
    names = tuple(host.name for host in now.hosts if host.engine and host.image)
    return Ready(now, names, died.problems)


def _surveys(cluster: Cluster, usable: Collection[str]) -> dict[str, Survey | CloudscaleError]:
    """What is known of the machines for another look. One that did not get the image may manage the swarm, too."""
    known: dict[str, Survey | CloudscaleError] = {}
    for host in cluster.hosts:
        if host.survey and host.name in usable:
            known[host.name] = replace(host.survey, state=MachineState.SERVING)
        elif result := host.error if host.is_unusable else host.survey:
            known[host.name] = result
    return known


def _bring_up_all(
    cluster: Cluster, usable: Collection[str], session: Session, phases: Phases, advance: Advance
) -> Outcomes[Host]:
    """Every machine on its own; none waits for another, except to join the first one's swarm.

    Returns the hosts as they are then, each with its engine and the image's name there. Every machine's outcome is
    kept; the others go on.
    """
    driver = cluster.driver
    surveys = {host.name: host.survey for host in cluster.hosts if host.survey and host.name in usable}
    order = [*surveys] if cluster.managers else sorted(surveys, key=lambda name: _creates_late(surveys[name].state))
    swarm = SwarmJoin(
        session.settings.course,
        order,
        pool=spare_network({network for survey in surveys.values() for network in survey.networks}, SWARM_NETWORKS),
        manager=cluster.managers[0] if cluster.managers else None,
        adopts=driver.adopts_swarm,
    )
    sources = Sources(
        # with a swarm that is adopted, the engine of this computer is the machine
        trainer=lambda: None if driver.adopts_swarm else trainers_engine(),
        engines=cluster.engines.values(),
        copy=driver.copy_image if isinstance(driver, SetsUpEngines) else None,
    )
    delivery = Delivery(
        session.settings.image, session.settings.course, sources, bytes_done=advance, say=session.progress.say
    )

    def boot(survey: Survey) -> Survey:
        assert cluster.maker
        with phases.timed("boot", survey.machine.name):
            return cluster.maker.boot(survey.machine)

    def set_up(survey: Survey) -> Host:
        name = survey.machine.name
        with phases.timed("engine", name):
            engine = driver.prepare(survey.machine, session.settings.seat)
        if name == order[0]:  # the others wait for its swarm, not for its image
            with phases.timed("swarm", name):
                swarm.join(engine, survey.address)
        with phases.timed("image", name):
            image = delivery.deliver(engine, survey)
        if name != order[0]:
            with phases.timed("swarm", name):
                swarm.join(engine, survey.address)
        return Host(survey.machine, replace(survey, state=MachineState.SERVING), engine, image=image)

    def one(survey: Survey) -> Host:
        try:
            running = boot(survey) if survey.state.needs_boot else survey
            try:
                return set_up(running)
            except (ConnectionFailed, EngineError) as error:
                return set_up(boot(_gone_down(driver, running.machine, error, session)))
        except BaseException:
            swarm.give_up(survey.machine.name)
            raise

    return fan_out(one, surveys.values(), name=lambda survey: survey.machine.name, width=MACHINES_WIDTH)


def _creates_late(state: MachineState) -> tuple[bool, bool]:
    """Sorts machines by which of them is to create the swarm.

    A stopped one comes first: it may be a manager of the course's swarm already. The others wait for the one that
    creates it, so one that serves is preferred to one that has to be installed.
    """
    return not state.is_asleep, state is not MachineState.SERVING


def _gone_down(driver: Driver, machine: Machine, error: CloudscaleError, session: Session) -> Survey:
    """The machine, if it went down meanwhile, so that it can be started again; else raises what it failed with."""
    try:
        now = driver.survey(machine)
    except CloudscaleError:
        raise error from None
    if not now.state.needs_boot:
        raise error
    session.progress.say(f"{error.message} It went down, and is started again")
    return now
