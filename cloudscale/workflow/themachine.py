"""`themachine`, stage by stage: machines → plan → engines, swarm and image → seats → table."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloudscale.cli import report
from cloudscale.cli.output import check_writable
from cloudscale.cli.report import Report
from cloudscale.cluster.look import driver_of, look
from cloudscale.cluster.state import Cluster
from cloudscale.course.roster import read_roster
from cloudscale.course.session import Session
from cloudscale.course.settings import Launch
from cloudscale.drivers.protocols import Driver, MakesMachines
from cloudscale.engines.client import Engine, trainers_engine
from cloudscale.errors import CapacityError, CloudscaleError, EngineError, ImageError, RequestError, SwarmError
from cloudscale.fanout import fan_out
from cloudscale.files import replace_file
from cloudscale.images.on_engine import check_reference, find_image, look_inside
from cloudscale.images.recipes import full_reference, is_ours, short_name
from cloudscale.model import Machine, MachineState, Order, Outcome, Outcomes, Student, Survey
from cloudscale.phases import Phases
from cloudscale.plan.placing import Plan, machines_to_make, seats_in
from cloudscale.seats import containers, services
from cloudscale.seats.spec import Template
from cloudscale.swarm import leaving, nodes
from cloudscale.swarm.nodes import balance_managers
from cloudscale.waiting import poll
from cloudscale.workflow.machines import Ready, bring_up
from cloudscale.workflow.planning import plan_launch
from cloudscale.workflow.seats import machine_table, seat_everyone

NOTICING = 40.0  # seconds for a swarm to notice that a machine is gone: three missed heartbeats


@dataclass(frozen=True)
class Seen:
    """What a launch finds: machines that answer, those of them to be used, the course as it is, and what is amiss.

    `usable` has those that are to be made, too, and `order` what they take of a quota. `is_headless`: the swarm has
    lost its managers for good.
    """

    answering: Mapping[str, Survey]
    usable: Mapping[str, Survey]
    order: Order
    cluster: Cluster
    is_headless: bool
    problems: tuple[str, ...]

    def given_up(self, launch: Launch) -> list[str]:
        """The machines whose students are seated elsewhere."""
        gone = {node.machine for node in self.cluster.swarm.values()} - {"", *self.answering, *self.usable}
        return sorted(gone if launch.replace_lost else gone & deleted(self.cluster))


def deleted(cluster: Cluster) -> set[str]:
    """The machines that the swarm has and that are gone for good: those that were made, and are not there any more."""
    return set(cluster.swarm_machines - cluster.hosts.keys()) if cluster.maker else set()


def planned(session: Session, driver: Driver, launch: Launch, students: Sequence[Student]) -> Report:
    """What would be done, and what it needs. Makes nothing."""
    seen = _seen(session, driver, launch, students, Phases())
    _with_image(session, seen)
    plan = _plan(seen, session, launch, students)
    text = report.plan(plan, seen.cluster.machines, seen.order.demands, session.common.format)
    return Report(text, seen.problems)


def launched(session: Session, driver: Driver, launch: Launch, students: Sequence[Student]) -> Report:
    """The whole of it; the report has the table, and what failed."""
    say, phases = session.progress.say, Phases()
    with session.course.locked():
        seen = _seen(session, driver, launch, students, phases)
        session = _with_image(session, seen)
        plan = _plan(seen, session, launch, students)
        _check_key(seen.cluster, session)
        say(f"Plan: {', '.join(seen.usable)}" + ("" if launch.onlycreate else f" for {len(plan.seats)} students"))

        if seen.is_headless:
            say("The swarm's managers were deleted: it is founded anew on the machines that are left")
        if launch.replace_lost or seen.is_headless:
            _give_up_swarm(seen.cluster)
        steps = "boot, engine, swarm, image" if isinstance(driver, MakesMachines) else "engine, swarm, image"
        with session.progress.bar(f"Machines: {steps}", 0) as advance:
            outcomes = bring_up(seen.cluster, seen.usable, session, phases, advance)
        ready = outcomes.values
        problems = seen.problems + outcomes.problems
        if not ready:
            raise _first_error(outcomes)
        say(f"Machines: {len(ready)} of {len(seen.usable)} ready, in one swarm, with the image")
        try:
            done = _seated(seen, plan, ready, session, launch, students, phases)
        except CloudscaleError as error:
            if not problems:
                raise
            raise CloudscaleError("\n".join([*problems, f"Without them: {error.message}"]), error.remedy) from None
        say(str(phases))
        return replace(done, problems=(*problems, *done.problems))


def _seen(session: Session, driver: Driver, launch: Launch, students: Sequence[Student], phases: Phases) -> Seen:
    """Looks at all machines. Changes nothing. Raises CloudscaleError where none is left."""

    def survey(machine: Machine) -> Survey:
        with phases.timed("login", machine.name):
            return driver.survey(machine)

    check_reference(session.settings.image)
    machines = driver.machines()
    outcomes = fan_out(survey, machines, name=lambda machine: machine.name)
    for outcome in outcomes:
        if isinstance(outcome.error, RequestError):
            raise outcome.error
    answering = outcomes.values
    _check_distinct(answering)
    cluster = look(session, driver, answering, machines)
    lost = {outcome.target: outcome for outcome in outcomes.failed}
    causes = {name: outcome.error for name, outcome in lost.items() if isinstance(outcome.error, CloudscaleError)}
    cluster = replace(cluster, lost={**cluster.lost, **causes})
    lost |= {n: Outcome(n, error=error) for n, error in cluster.lost.items() if isinstance(error, SwarmError)}
    freed = _without_own_ports(cluster, answering, session.settings.course)
    usable = _wanted(cluster, {name: survey for name, survey in freed.items() if name not in lost}, session, launch)
    order = _ordered(cluster, usable, session, launch, students)
    usable |= {survey.machine.name: survey for survey in order.surveys}
    if not usable and not lost and session.common.only:
        raise RequestError("There is no machine yet, and with --only none is made.", "Leave out --only.")
    if not usable:
        raise _first_error(Outcomes(lost.values()))
    stopped = any(survey.state.is_asleep for survey in usable.values())  # it will be started
    is_headless = isinstance(driver, MakesMachines) and cluster.is_beheaded and not stopped and not lost
    if not is_headless and not launch.replace_lost and not stopped:
        cluster.check_head("Bring those machines back; or seat everyone anew on the others with --replace-lost.")
    named = {name: outcome for name, outcome in lost.items() if session.selection.uses(name, cluster.hosts)}
    problems = (*Outcomes(named.values()).problems, *(() if isinstance(driver, MakesMachines) else cluster.strays))
    return Seen(answering, usable, order, cluster, is_headless, problems)


def _ordered(
    cluster: Cluster, usable: Mapping[str, Survey], session: Session, launch: Launch, students: Sequence[Student]
) -> Order:
    """The machines that are to be made for the students, or for --nodes. Raises CapacityError."""
    limits = session.settings.seat
    if cluster.maker is None:
        return Order()
    kind = cluster.maker.kind()
    taken = Counter(map(cluster.machine_of, cluster.seats))
    rooms = {
        name: max(taken[name], seats_in(survey.cpus or 0, survey.memory or 0, limits))
        for name, survey in usable.items()
    }
    enrolled = {student.id for student in students}
    leavers = [] if launch.prune else [seat for seat in cluster.seats if seat.student_id not in enrolled]
    lost = [] if launch.replace_lost else cluster.hosts.keys() - usable.keys()
    stranded = sum(taken[name] for name in lost)  # who stays where they are
    count = machines_to_make(len(students) + len(leavers) - stranded, rooms.values(), kind, limits)
    if launch.nodes:
        count = launch.nodes - len(cluster.machines)
    elif not cluster.machines:
        count = max(count, 1)
    if session.common.only:  # which names machines that are there
        count = 0
    if count <= 0 and not any(survey.state.needs_boot for survey in usable.values()):
        return Order()
    order = cluster.maker.order(max(count, 0), deleted(cluster))
    short = [demand for demand in order.demands if not demand.is_met]
    if short:
        fitting = order.fits * seats_in(kind.cpus, kind.memory, limits) + sum(rooms.values())
        raise CapacityError(
            f"{order.quota} is too small for {max(count, 0)} machines of the kind {kind.name}:\n"
            f"{report.quotas(short, 'table')}\n"
            f"What would fit: {order.fits} machines more, with room for {fitting} seats in all.",
            order.remedy,
        )
    return order


def _without_own_ports(cluster: Cluster, surveys: Mapping[str, Survey], course: str) -> dict[str, Survey]:
    """The surveys without the ports that the course's own seats hold."""
    own = fan_out(lambda e: containers.seat_ports(e, course), cluster.engines.values(), name=lambda e: e.name).values
    return {n: replace(survey, held_ports=survey.held_ports - own.get(n, frozenset())) for n, survey in surveys.items()}


def _wanted(cluster: Cluster, surveys: dict[str, Survey], session: Session, launch: Launch) -> dict[str, Survey]:
    """The machines that --nodes, --only and --skip leave for use; --nodes leaves out none that is in the swarm."""
    in_use = {node.machine for node in cluster.swarm.values()}
    meant = {name: survey for name, survey in surveys.items() if session.selection.uses(name, cluster.hosts)}
    first = list(meant)[: launch.nodes or None]
    return {name: survey for name, survey in meant.items() if name in first or name in in_use}


def _with_image(session: Session, seen: Seen) -> Session:
    """The session with the image's full name. Raises ImageError where it is to be built here, and is nowhere yet."""
    engines = list(seen.cluster.engines.values())
    if not seen.cluster.driver.adopts_swarm:  # there, the engine of this computer is among them
        with contextlib.suppress(EngineError):
            engines.append(trainers_engine())
    image = full_reference(session.settings.image, engines)
    asleep = any(survey.state.is_asleep for survey in seen.answering.values())  # who may have it
    if is_ours(image) and not asleep and not any(_holds(engine, image) for engine in engines):
        name = short_name(image)
        raise ImageError(f"The image {name} is not built yet.", f"Build it here first: invoke image_build {name}.")
    return replace(session, settings=session.settings.model_copy(update={"image": image}))


def _holds(engine: Engine, image: str) -> bool:
    with contextlib.suppress(EngineError):
        return find_image(engine, image) is not None
    return False


def _plan(seen: Seen, session: Session, launch: Launch, students: Sequence[Student]) -> Plan:
    seated = [] if launch.onlycreate else students
    plan = plan_launch(seen.cluster, seen.usable, session, launch, seated, given_up=seen.given_up(launch))
    for warning in plan.warnings:
        session.progress.say(f"Warning: {warning}")
    return plan


def _check_key(cluster: Cluster, session: Session) -> None:
    services.check_key(cluster.seats, session.course.key(create=False), session.course.folder)


def _give_up_swarm(cluster: Cluster) -> None:
    """Takes engines out of a swarm whose managers are lost."""
    fan_out(leaving.leave, cluster.cut_off.values(), name=lambda engine: engine.name).get()


def _seated(
    seen: Seen,
    planned: Plan,
    ready: Mapping[str, Ready],
    session: Session,
    launch: Launch,
    students: Sequence[Student],
    phases: Phases,
) -> Report:
    """The seats on the machines that came up."""
    up = {
        name: replace(ready[name].survey if name in ready else survey, state=MachineState.SERVING)
        for name, survey in seen.usable.items()
    }
    # one that has not got the image may manage the swarm all the same
    cluster = look(session, seen.cluster.driver, {**seen.answering, **up})
    _check_key(cluster, session)
    died = Outcomes(Outcome[object](name, error=cluster.lost[name]) for name in ready if name in cluster.lost).problems
    usable = {name: survey for name, survey in up.items() if name in ready and name in cluster.nodes}
    given_up = _given_up(cluster, usable, launch, session)
    _strike_off(cluster, given_up)
    if launch.onlycreate:
        return Report(machine_table(cluster, session.common.format), died)
    with phases.timed("seats"):
        places = {seat.student.id: seat.place for seat in planned.seats}
        plan = plan_launch(cluster, usable, session, launch, students, given_up=given_up, planned=places)
        if cluster.maker:
            cluster.maker.open_ports(_ports(cluster, plan, launch))
        template = _template({name: ready[name] for name in usable}, session, launch)
        done = seat_everyone(cluster, plan, template, session, launch)
    return replace(done, problems=(*died, *done.problems))


def _ports(cluster: Cluster, plan: Plan, launch: Launch) -> dict[str, set[int]]:
    """Those that seats use, by machine, once the plan is carried out."""
    planned = {seat.student.id for seat in plan.seats}
    going = {*planned, *(plan.leavers if launch.prune else ())}
    ports = cluster.ports(seat for seat in cluster.seats if seat.student_id not in going)
    for seat in plan.seats:
        ports.setdefault(seat.place.machine, set()).add(seat.place.port)
    return ports


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


def _first_error(outcomes: Outcomes[object]) -> CloudscaleError:
    """One error for a launch that no machine is left for."""
    if len(outcomes) == 1 and isinstance(error := outcomes[0].error, CloudscaleError):
        # something may have been done by now: not a request that changed nothing
        return CloudscaleError(error.message, error.remedy) if isinstance(error, RequestError) else error
    return CloudscaleError("No machine can be used.\n" + "\n".join(outcomes.problems))


def _given_up(cluster: Cluster, usable: Mapping[str, Survey], launch: Launch, session: Session) -> list[str]:
    """With --replace-lost: the machines whose students are seated elsewhere, the swarm having lost them too."""
    lost = {
        node.id: node.machine
        for node in cluster.swarm.values()
        if node.machine not in usable and session.selection.uses(node.machine, cluster.hosts)
    }
    if not launch.replace_lost:
        lost = {number: name for number, name in lost.items() if name in deleted(cluster)}
    if not lost or cluster.driver.adopts_swarm:
        return []
    say = session.progress.say
    say(f"Lost: {', '.join(lost.values())}; waiting until the swarm has noticed")
    down: set[str] = set()

    def step() -> bool:
        down.update(node.machine for node in nodes.swarm_nodes(cluster.manager) if node.id in lost and not node.is_up)
        return len(down) == len(lost)

    if not poll(step, timeout=NOTICING, interval=1):
        still = ", ".join(name for name in lost.values() if name not in down)
        say(f"Warning: the swarm still has {still}: the seats there stay")
    return sorted(down)


def _strike_off(cluster: Cluster, given_up: Sequence[str]) -> None:
    if cluster.driver.adopts_swarm:
        return
    for node in cluster.swarm.values():
        if node.machine in given_up:
            nodes.remove_node(cluster.manager, node.id)
    balance_managers(cluster.manager)


def _template(ready: Mapping[str, Ready], session: Session, launch: Launch) -> Template:
    """What the seats have in common."""
    settings = session.settings
    first = next(iter(ready.values()))
    image = look_inside(first.engine, settings.image, first.pinned, settings.course)
    key = session.course.key()
    assert key
    pinned = {name: machine.pinned for name, machine in ready.items()}
    return Template(settings.course, key, image, pinned, settings.seat, launch.port, launch.env)


def themachine(session: Session, launch: Launch) -> Report:
    """Roster → machines → engines → swarm → seats → table. Run again, it converges."""
    students = [] if launch.onlycreate else read_roster(session.settings.students)
    driver = driver_of(session)
    driver.check_nodes(launch.nodes)
    if launch.onlycreate and isinstance(driver, MakesMachines) and not launch.nodes:
        students = read_roster(session.settings.students)  # which tells how many machines there are to be
    if launch.output:
        check_writable(launch.output)
    done = (planned if launch.plan else launched)(session, driver, launch, students)
    if launch.output:
        try:
            replace_file(launch.output, f"{done.text}\n".encode())
        except OSError as error:
            return replace(done, problems=(*done.problems, f"{launch.output} was not written: {error.strerror}."))
    return done
