"""`themachine`: from a roster to a class, stage by stage."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from cloudscale.cli import report
from cloudscale.cli.output import check_writable
from cloudscale.cli.report import Report
from cloudscale.cluster.driver import driver_of
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster, Host
from cloudscale.course.flags import Launch
from cloudscale.course.roster import read_roster
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver, MakesMachines
from cloudscale.engines.client import Engine, trainers_engine
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.fanout import fan_out
from cloudscale.files import replace_file
from cloudscale.images.on_engine import check_reference, find_image
from cloudscale.images.recipes import full_reference, is_ours, short_name
from cloudscale.material.sources import Material
from cloudscale.model import Machine, Student, Survey, failures
from cloudscale.phases import Phases
from cloudscale.seats.services import check_key
from cloudscale.workflow import check, deadline, gateway, machines, material, recovery, seats, shared
from cloudscale.workflow.alone import alone
from cloudscale.workflow.planning import check_some_usable, low_disks, place, seats_after, size, usable_machines


def themachine(session: Session, launch: Launch) -> Report:
    """Roster → machines → engines → swarm → seats → table. A second run makes only what is missing."""
    with material.of_launch(session, launch) as handout:
        return _launch(session, launch, handout)


def _launch(session: Session, launch: Launch, handout: Material | None) -> Report:
    driver, students = _check_request(session, launch)
    phases = Phases()
    with alone(session, driver, unless=launch.plan):  # --plan makes nothing, not even the course's folder
        cluster = look(session, driver, _survey_all(driver, session, phases))
        until = deadline.choose(cluster, launch, session)
        usable = usable_machines(cluster, session, launch)
        wish = gateway.wish(cluster, session, launch)
        order = size(cluster, usable, students, session, launch)  # machines to make, checked against the quota
        cluster = cluster.with_hosts(Host(survey.machine, survey, is_made=False) for survey in order.surveys)
        usable += [survey.machine.name for survey in order.surveys]
        check_some_usable(cluster, usable, session)
        lost = recovery.decide(cluster, usable, session, launch)  # what is given up for good
        session = _with_image(session, cluster)
        students = [] if launch.onlycreate else students
        entry = gateway.on_first(wish, cluster, session)
        plan = place(cluster, usable, students, session, launch, given_up=lost.machines)
        for warning in (*plan.warnings, *low_disks(cluster, plan), *seats.left_out(cluster, plan, session, launch)):
            session.progress.say(f"Warning: {warning}")
        gateway.say_change(entry, cluster, session)
        shared.say(cluster, plan, session)
        problems = _problems(cluster, session)
        if launch.plan:
            text = report.plan(plan, cluster.machines, order.demands, session.common.format)
            return _written(Report(text, problems), launch)

        _settle_owner(cluster, session)
        of = "" if launch.onlycreate else f" for {len(plan.seats)} students"
        session.progress.say(f"Plan: {', '.join(usable)}{of}")
        deadline.mark_cloud(driver, until)
        cluster = machines.wake(cluster, usable, session, phases)
        if cluster.quorum_is_gone:  # which may not have been seen before
            lost = recovery.decide(cluster, usable, session, launch)
        lost.give_up_swarm(cluster, session)
        up = machines.bring_up(cluster, usable, session, phases)
        with _after(problems := (*problems, *up.problems)):
            ready = machines.look_again(cluster, usable, up.values, session)
            problems = (*problems, *ready.problems, *deadline.mark_swarm(ready.cluster, until, session))
            given_up = lost.remove_lost_nodes(ready.cluster, ready.names, session)
            if launch.onlycreate:
                session.progress.say(str(phases))
                return _written(Report(report.machine_table(ready.cluster, session.common.format), problems), launch)
            with phases.timed("seats"):
                plan = place(ready.cluster, ready.names, students, session, launch, given_up=given_up, preferred=plan)
                after = seats_after(ready.cluster, plan, pruned=launch.prune)
                entered = gateway.bring_up(ready.cluster, entry, after, session)
                entered.open_ports(after)
                seated = seats.start(
                    entered, plan, session, launch, has_changed=entered.gateway != ready.cluster.gateway
                )
                problems = (*problems, *gateway.settle(entered, session))
                problems = (*problems, *seated.problems, *material.hand_out(handout, entered, plan, session))
            if launch.check:
                with phases.timed("check"):
                    problems = (*problems, *check.ready_seats(entered, plan.seats, seated.rows, session))
        session.progress.say(str(phases))
        table = report.seats(seated.rows, session.common.format, passwords=True)
        return _written(Report(table, problems), launch)


def _check_request(session: Session, launch: Launch) -> tuple[Driver, list[Student]]:
    """The driver, and the students to make machines for. Raises RequestError for what can be seen by now."""
    students = [] if launch.onlycreate else read_students(session)
    driver = driver_of(session)  # after the roster: it may ask for a password
    driver.check_nodes(launch.nodes)
    if launch.onlycreate and isinstance(driver, MakesMachines) and not launch.nodes:
        students = read_students(session)  # they say how many machines to make
    if launch.output:
        check_writable(launch.output)
    check_reference(session.settings.image)
    shared.check(session)
    return driver, students


def read_students(session: Session) -> list[Student]:
    """The students of the roster. How it was read is reported. Raises RosterError."""
    roster = read_roster(session.settings.students, session.settings.columns)
    for remark in roster.remarks:
        session.progress.say(remark)
    return list(roster.students)


def _settle_owner(cluster: Cluster, session: Session) -> None:
    """The folder has the course's secrets from now on. Raises RequestError if the course is another folder's."""
    check_key(cluster.seats, session.course.key(create=False), session.course.folder)
    session.course.make_secrets()
    if cluster.maker:
        cluster.maker.claim()


def _survey_all(driver: Driver, session: Session, phases: Phases) -> dict[str, Survey | CloudscaleError]:
    """What each machine looks like from outside its engine, or why that is not known. Raises RequestError."""

    def survey(machine: Machine) -> Survey:
        with phases.timed("login", machine.name):
            return driver.survey(machine)

    outcomes = fan_out(survey, driver.machines(), name=lambda machine: machine.name)
    for error in outcomes.errors.values():
        if isinstance(error, RequestError):  # wrong for one is wrong for all
            raise error
    check_distinct(outcomes.values)
    errors = {
        name: error if isinstance(error, CloudscaleError) else CloudscaleError(f"{name}: {error!r}")
        for name, error in outcomes.errors.items()
    }
    return {**outcomes.values, **errors}


def check_distinct(surveys: Mapping[str, Survey]) -> None:
    """Raises RequestError where two of the machines are the same one."""
    names: dict[frozenset[str], str] = {}
    for name, survey in surveys.items():
        if survey.addresses and survey.addresses in names:
            raise RequestError(
                f"{names[survey.addresses]} and {name} are the same machine:"
                f" both have the address {min(survey.addresses)}.",
                "Name it once.",
            )
        names[survey.addresses] = name


def _problems(cluster: Cluster, session: Session) -> tuple[str, ...]:
    """What to report of machines that can't be used and were not left out."""
    errors = {n: e for n, e in cluster.unusable.items() if session.selection.uses(n, cluster.addresses)}
    return (*failures(errors).problems, *(() if cluster.maker else cluster.strays))


def _with_image(session: Session, cluster: Cluster) -> Session:
    """The session with the image's full name. Raises RequestError where it has to be built here, and was not yet."""
    engines = list(cluster.engines.values())
    if not cluster.driver.adopts_swarm:  # else the engine of this computer is among them
        with contextlib.suppress(EngineError):
            engines.append(trainers_engine(session.progress.say))
    image = full_image(session.settings.image, cluster, engines)
    return replace(session, settings=session.settings.model_copy(update={"image": image}))


def full_image(image: str, cluster: Cluster, engines: Collection[Engine]) -> str:
    """The image's full name. Raises RequestError where it has to be built here, and none of the engines has it."""
    image = full_reference(image, engines)
    may_have_it = any(host.is_asleep for host in cluster.hosts)
    if is_ours(image) and not may_have_it and not any(has_image(engine, image) for engine in engines):
        name = short_name(image)
        raise RequestError(f"The image {name} is not built yet.", f"Build it here first: invoke image_build {name}.")
    return image


def has_image(engine: Engine, image: str) -> bool:
    """Whether an engine has the image; one that does not answer has none."""
    with contextlib.suppress(EngineError):
        return find_image(engine, image) is not None
    return False


@contextlib.contextmanager
def _after(problems: tuple[str, ...]) -> Iterator[None]:
    """An error of a later stage is reported together with what failed before it."""
    try:
        yield
    except CloudscaleError as error:
        if not problems:
            raise
        raise CloudscaleError("\n".join([*problems, f"Without them: {error.message}"]), error.remedy) from None


def _written(done: Report, launch: Launch) -> Report:
    """The report, written to --output too."""
    if launch.output:
        try:
            replace_file(launch.output, f"{done.text}\n".encode())
        except OSError as error:
            return replace(done, problems=(*done.problems, f"{launch.output} was not written: {error.strerror}."))
    return done
