"""`themachine`, stage by stage: machines → plan → engines, swarm and image → seats → table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cloudscale import containers, recipes, report, seating, spawner, swarm
from cloudscale.bringup import Ready, bring_up
from cloudscale.cluster import Cluster, Session, look
from cloudscale.drivers import Driver
from cloudscale.errors import CloudscaleError, RequestError, SwarmError
from cloudscale.fanout import fan_out
from cloudscale.gathering import balance_managers
from cloudscale.model import Machine, Outcome, Student, Survey
from cloudscale.notebook import look_inside
from cloudscale.phases import Phases
from cloudscale.planning import plan_launch
from cloudscale.report import Report
from cloudscale.seatspec import Template
from cloudscale.settings import Launch
from cloudscale.waiting import poll

NOTICING = 40.0  # seconds for a swarm to notice that a machine is gone: three missed heartbeats


def planned(session: Session, driver: Driver, launch: Launch, students: Sequence[Student]) -> Report:
    """What would be done, and what it needs. Makes nothing."""
    _, surveys, cluster, problems = _seen(session, driver, launch, Phases())
    plan = plan_launch(cluster, surveys, session, launch, students)
    for warning in plan.warnings:
        session.progress.say(f"Warning: {warning}")
    return Report(report.plan(plan, cluster.machines, session.common.format), problems)


def launched(session: Session, driver: Driver, launch: Launch, students: Sequence[Student]) -> Report:
    """The whole of it; the report has the table, and what failed."""
    say, phases = session.progress.say, Phases()
    with session.course.locked():
        everything, surveys, cluster, problems = _seen(session, driver, launch, phases)
        given_up = _given_up(cluster, surveys, launch, say)
        plan = plan_launch(cluster, surveys, session, launch, students, given_up=given_up)
        spawner.check_key(cluster.seats, session.course.key(create=False), session.course.folder)
        for warning in plan.warnings:
            say(f"Warning: {warning}")
        say(f"Plan: {', '.join(surveys)}" + ("" if launch.onlycreate else f" for {len(plan.seats)} students"))

        surveys |= _departed(cluster, surveys, session.settings.course)
        with session.progress.bar("Machines: engine, swarm, image", 0) as advance:
            outcomes = bring_up(cluster, surveys, session, phases, advance)
        ready = {outcome.target: outcome.value for outcome in outcomes if outcome.value}
        problems += report.problems(outcomes)
        if not ready:
            raise _first_error(outcomes)
        say(f"Machines: {len(ready)} of {len(cluster.machines)} ready, in one swarm, with the image")

        surveys = {name: replace(survey, has_engine=True) for name, survey in surveys.items()}
        try:
            # one that has not got the image may manage the swarm all the same
            cluster = look(session, driver, {**everything, **surveys})
            surveys = {name: survey for name, survey in surveys.items() if name in ready}
            _strike_off(cluster, given_up)
            if launch.onlycreate:
                done = Report(seating.machine_table(cluster, session.common.format))
            else:
                with phases.timed("seats"):
                    template = _template(ready, session, launch)
                    plan = plan_launch(cluster, surveys, session, launch, students, given_up=given_up)
                    done = seating.seat_everyone(cluster, plan, template, session, launch)
        except CloudscaleError as error:
            if not problems:
                raise
            raise CloudscaleError("\n".join([*problems, f"Without them: {error.message}"]), error.remedy) from None
        say(str(phases))
        return replace(done, problems=(*problems, *done.problems))


def _seen(
    session: Session, driver: Driver, launch: Launch, phases: Phases
) -> tuple[dict[str, Survey], dict[str, Survey], Cluster, tuple[str, ...]]:
    """All machines that answer, those to be used, the course on them as it is, and why others can't be used."""

    def survey(machine: Machine) -> Survey:
        with phases.timed("login", machine.name):
            return driver.survey(machine)

    outcomes = fan_out(survey, driver.machines(), name=lambda machine: machine.name)
    for outcome in outcomes:
        if isinstance(outcome.error, RequestError):
            raise outcome.error
    surveys = {outcome.target: outcome.value for outcome in outcomes if outcome.value}
    _check_distinct(surveys)
    cluster = look(session, driver, surveys)
    lost = {outcome.target: outcome for outcome in outcomes if not outcome.ok}
    causes = {name: outcome.error for name, outcome in lost.items() if isinstance(outcome.error, CloudscaleError)}
    cluster = replace(cluster, lost={**cluster.lost, **causes})
    lost |= {n: Outcome(n, error=error) for n, error in cluster.lost.items() if isinstance(error, SwarmError)}
    everything = surveys
    surveys = {name: survey for name, survey in surveys.items() if name not in lost}
    in_use = {node.machine for node in cluster.swarm.values()}
    wanted = list(surveys)[: launch.nodes or None]
    surveys = {name: survey for name, survey in surveys.items() if name in wanted or name in in_use}
    if not surveys:
        raise _first_error(list(lost.values()))
    if not launch.replace_lost:
        cluster.check_head("Bring those machines back; or seat everyone anew on the others with --replace-lost.")
    return everything, surveys, cluster, report.problems(lost.values())


def _departed(cluster: Cluster, surveys: Mapping[str, Survey], course: str) -> dict[str, Survey]:
    """Takes engines out of a swarm that is given up, its managers being lost; their seats' ports are free then."""
    freed = {
        name: replace(surveys[name], held_ports=surveys[name].held_ports - containers.seat_ports(engine, course))
        for name, engine in cluster.cut_off.items()
        if name in surveys
    }
    for outcome in fan_out(swarm.depart, cluster.cut_off.values(), name=lambda engine: engine.name):
        outcome.get()
    return freed


def _check_distinct(surveys: Mapping[str, Survey]) -> None:
    names: dict[frozenset[str], str] = {}
    for name, survey in surveys.items():
        if survey.addresses and survey.addresses in names:
            raise RequestError(
                f"{names[survey.addresses]} and {name} are one and the same machine:"
                f" both have the address {min(survey.addresses)}.",
                "Name it once.",
            )
        names[survey.addresses] = name


def _first_error(outcomes: Sequence[Outcome[object]]) -> CloudscaleError:
    """One error for a launch that no machine is left for."""
    if len(outcomes) == 1 and isinstance(error := outcomes[0].error, CloudscaleError):
        return error
    return CloudscaleError("No machine can be used.\n" + "\n".join(report.problems(outcomes)))


def _given_up(cluster: Cluster, surveys: Mapping[str, Survey], launch: Launch, say: Callable[[str], None]) -> list[str]:
    """With --replace-lost: the machines whose students are seated elsewhere, the swarm having lost them too."""
    lost = {node.id: node.machine for node in cluster.swarm.values() if node.machine not in surveys}
    if not (launch.replace_lost and lost) or cluster.driver.adopts_swarm:
        return []
    say(f"Lost: {', '.join(lost.values())}; waiting until the swarm has noticed")
    down: set[str] = set()

    def step() -> bool:
        down.update(node.machine for node in swarm.swarm_nodes(cluster.manager) if node.id in lost and not node.is_up)
        return len(down) == len(lost)

    if not poll(step, timeout=NOTICING, interval=1):
        still = ", ".join(name for name in lost.values() if name not in down)
        say(f"Warning: {still} can't be reached from here, but the swarm still has it: its seats stay")
    return sorted(down)


def _strike_off(cluster: Cluster, given_up: Sequence[str]) -> None:
    if cluster.driver.adopts_swarm:
        return
    for node in cluster.swarm.values():
        if node.machine in given_up:
            swarm.remove_node(cluster.manager, node.id)
    balance_managers(cluster.manager)


def _template(ready: Mapping[str, Ready], session: Session, launch: Launch) -> Template:
    """What the seats have in common."""
    settings, reference = session.settings, recipes.full_reference(session.settings.image)
    first = next(iter(ready.values()))
    image = look_inside(first.engine, reference, first.pinned, settings.course)
    key = session.course.key()
    assert key
    pinned = {name: machine.pinned for name, machine in ready.items()}
    return Template(settings.course, key, image, pinned, settings.seat, launch.port, launch.env)
