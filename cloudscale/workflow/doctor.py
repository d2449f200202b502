"""`doctor`: what a launch would meet, looked at beforehand. It calls what a launch calls, and changes nothing."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.driver import driver_of
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster, Host
from cloudscale.course.flags import Launch
from cloudscale.course.session import Session
from cloudscale.drivers import DRIVERS
from cloudscale.drivers.protocols import Driver, Examines, MakesMachines
from cloudscale.engines.certificates import authority
from cloudscale.engines.client import Engine, trainers_engine
from cloudscale.errors import CloudscaleError, NotSetUp
from cloudscale.hosts.login_key import ssh_key
from cloudscale.images.on_engine import check_pullable, check_reference, not_pulled
from cloudscale.images.recipes import is_ours, recipe_names, short_name
from cloudscale.images.registry import check_in_registry
from cloudscale.model import Kind, Machine, MachineState, Order, Outcome, Student, Survey
from cloudscale.plan.placing import Plan
from cloudscale.seats.services import check_key
from cloudscale.units import gib
from cloudscale.workflow import gateway, recovery, shared
from cloudscale.workflow.findings import Findings
from cloudscale.workflow.gateway import Wish
from cloudscale.workflow.planning import low_disks, place, size, usable_machines
from cloudscale.workflow.themachine import check_distinct, full_image, has_image, read_students

ANSWER = 5.0  # seconds for an answer, unless --timeout says otherwise
REST = 3.0  # seconds more for all other things together
SPEAKING = 2.0  # seconds more for what has answered, to say what it is

HERE, CONFIGURATION, STUDENTS, FOLDER = "this computer", "configuration", "students", "course folder"
SHARED = "shared folder"
MACHINES, KIND, QUOTA, SWARM, IMAGE = "machines", "new machines", "quota", "swarm", "image"
SEATS, GATEWAY, DRIVER = "seats", "gateway", "driver"
ABOVE = "can be looked at only when what is wrong above is fixed"
MAY_PULL = "Check its name. The machines pull it themselves: they may reach the registry."
LATER = "Run invoke themachine --onlycreate, and then doctor again."
STATES = {
    MachineState.COMING: "it has not come up yet, a launch goes on with it",
    MachineState.OFF: "it is off, a launch starts it",
    MachineState.BARE: "it has no engine for the course yet, a launch sets it up",
    MachineState.STOPPED: "its engine is stopped, a launch starts it",
    MachineState.SERVING: "its engine runs",
}


def doctor(session: Session) -> Report:
    """Looks at everything that a launch needs, in its order, and goes on where that is possible."""
    answer = session.common.timeout or ANSWER
    found = Findings(answer + REST)
    # shorter than for the steps below: an error that comes of it says what gave no answer
    session = replace(session, progress=found.notes, only_looks=True, patience=answer)
    students = _look_here(session, found)
    if course := _look_at_machines(session, answer, found):
        _look_at_plan(course, students, session, found)
    width = shutil.get_terminal_size((120, 24)).columns
    return report.examination(found.together, session.common.format, width)


# --- this computer ---------------------------------------------------------------------------


def _look_here(session: Session, found: Findings) -> list[Student] | None:
    """Looks at what is on this computer. Returns the students, if they can be read."""
    found.well(HERE, f"Python {platform.python_version()}")
    settings = session.settings
    if session.refused:
        found.fail(CONFIGURATION, session.refused)
    else:
        found.well(CONFIGURATION, f"driver {settings.driver}, course {settings.course!r}")
    students = None
    if session.left_out & {"students", "columns"}:
        found.skip(STUDENTS, ABOVE)
    else:
        count = f"students in {settings.students}"
        outcome = found.look(STUDENTS, partial(read_students, session), lambda read: f"{len(read)} {count}", REST)
        students = outcome.value
    if settings.seat.shared:
        found.look(SHARED, partial(shared.check, session), lambda folder: shared.describe(folder), REST)
    if not session.left_out & {"course", "driver"}:
        found.look(FOLDER, partial(_check_folder, session), str, REST)
    return students


def _check_folder(session: Session) -> str:
    """Describes the course's folder. Raises RequestError if a launch can't use it."""
    folder = session.course
    folder.check_writable()
    folder.names_key(create=False)
    ssh_key(folder.folder, create=False)
    authority(folder.folder, folder.name, create=False, renew=False)
    if folder.key(create=False):
        return f"with the keys of the course: {folder.folder}"
    return f"{'without keys of a course yet' if folder.folder.exists() else 'a launch makes it'}: {folder.folder}"


# --- the machines ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """What the course has already. `own`: the engine of this computer; None where that is the course's machine."""

    cluster: Cluster
    own: Outcome[Engine] | None


def _look_at_machines(session: Session, answer: float, found: Findings) -> Course | None:
    """Looks at the driver, and at the machines that it has for the course. None where that can't be looked at."""
    name = session.settings.driver
    if session.left_out & {"driver", "course", DRIVERS[name].section}:
        found.skip(MACHINES, ABOVE)
        return None
    opened = _look_at_driver(f"driver {name}", session, answer, found)
    if not opened.ok:
        found.skip(MACHINES, ABOVE)
        return None
    driver, machines = opened.get()
    calls: dict[str, Callable[[], Any]] = {machine.name: partial(driver.survey, machine) for machine in machines}
    outcomes = found.ask({**_other_calls(driver), **calls}, answer + SPEAKING)
    said = found.notes.take()
    _add_others(outcomes, [line for line in said if line.partition(": ")[0] not in calls], found)
    surveys = _add_machines(driver, {name: outcomes[name] for name in calls}, said, session, found)
    cluster = found.look(SWARM, partial(look, session, driver, surveys), _describe_swarm, REST)
    if not cluster.ok:
        found.skip(SEATS, ABOVE)
        return None
    _add_strays(cluster.get(), session, found)
    return Course(cluster.get(), outcomes.get(HERE))


def _look_at_driver(
    check: str, session: Session, answer: float, found: Findings
) -> Outcome[tuple[Driver, list[Machine]]]:
    if session.settings.driver == "generic" and session.settings.generic.pwd == "-":
        opened = found.ask_user(check, partial(_open, session))  # for the password
        found.add(check, opened, _describe_driver, found.notes.take())
        return opened
    return found.look(check, partial(_open, session), _describe_driver, answer + SPEAKING)


def _open(session: Session) -> tuple[Driver, list[Machine]]:
    driver = driver_of(session)
    driver.check_nodes(0)
    return driver, driver.machines()


def _describe_driver(opened: tuple[Driver, list[Machine]]) -> str:
    names = ", ".join(machine.name for machine in opened[1])
    return f"it can be used; the course has {names or 'no machines yet'}"


def _other_calls(driver: Driver) -> dict[str, Callable[[], Any]]:
    """What is looked at while the machines answer."""
    calls: dict[str, Callable[[], Any]] = {}
    if not driver.adopts_swarm:
        calls[HERE] = trainers_engine
    if isinstance(driver, MakesMachines):
        calls[KIND] = driver.kind
    if isinstance(driver, Examines):
        calls[DRIVER] = lambda: list(driver.examine())
    return calls


def _add_others(outcomes: Mapping[str, Outcome[Any]], said: Sequence[str], found: Findings) -> None:
    own = outcomes.get(HERE)
    if own and isinstance(own.error, CloudscaleError):  # most courses do without
        found.well(HERE, f"{own.error.message} Only images that are built here need one.")
    if examined := outcomes.get(DRIVER):
        found.add(DRIVER, examined, lambda findings: "")
        found.rows += examined.value or []
    if kind := outcomes.get(KIND):
        found.add(KIND, kind, _describe_kind, said)


def _describe_kind(kind: Kind) -> str:
    return f"{kind.name}: {kind.cpus} cores, {gib(kind.memory)} for seats"


def _add_machines(
    driver: Driver, surveys: Mapping[str, Outcome[Survey]], said: Sequence[str], session: Session, found: Findings
) -> dict[str, Survey | CloudscaleError]:
    """Adds each machine that was not left out, once its engine was asked too. Returns what is known of all."""
    values = {name: outcome.get() for name, outcome in surveys.items() if outcome.ok}
    engines = found.ask(
        {
            f"{name}: its Docker Engine": partial(driver.connect, survey.machine)
            for name, survey in values.items()
            if survey.state is MachineState.SERVING
        },
        REST,
    )
    known: dict[str, Survey | CloudscaleError] = {}
    for name, outcome in surveys.items():
        engine = engines.get(f"{name}: its Docker Engine")
        if engine and engine.error and not isinstance(engine.error, NotSetUp):
            outcome = Outcome(name, error=engine.error)
        if session.selection.uses(name, surveys):
            own = [line for line in said if line.partition(": ")[0] == name]
            found.add(f"machine {name}", outcome, _describe_machine, own)
        known[name] = outcome.error if isinstance(outcome.error, CloudscaleError) else outcome.get()
    found.look(MACHINES, partial(check_distinct, values), lambda _: "", REST)
    return known


def _describe_machine(survey: Survey) -> str:
    parts = [STATES[survey.state]]
    if survey.cpus and survey.memory:
        parts.append(f"{survey.cpus} cores, {gib(survey.memory)} of memory")
    if survey.free_disk is not None:
        parts.append(f"{gib(survey.free_disk)} of disk free")
    return "; ".join(parts)


def _describe_swarm(cluster: Cluster) -> str:
    return f"machines: {len(cluster.swarm)}; seats: {len(cluster.seats)}" if cluster.in_swarm else ""


def _add_strays(cluster: Cluster, session: Session, found: Findings) -> None:
    """Adds what is wrong with machines as members of a swarm."""
    for name, error in cluster.unusable.items():
        if session.selection.uses(name, cluster.addresses):
            found.fail(f"machine {name}", error)
    for stray in () if cluster.maker else cluster.strays:
        message, _, remedy = stray.partition("\n  ")
        found.fail(SWARM, CloudscaleError(message, remedy))


# --- the plan --------------------------------------------------------------------------------


def _look_at_plan(course: Course, students: list[Student] | None, session: Session, found: Findings) -> None:
    """Goes through the stages of a launch that decide, as `themachine --plan` does."""
    cluster, launch = course.cluster, Launch()
    found.look(FOLDER, partial(_check_seats, cluster, session), lambda _: "", REST)
    usable = usable_machines(cluster, session, launch)
    wish = found.look(GATEWAY, partial(gateway.wish, cluster, session, launch), lambda _: "", REST)
    order = found.look(
        QUOTA,
        partial(size, cluster, usable, students or [], session, launch),
        _describe_order if cluster.maker else lambda _: "",
        REST,
    )
    if order.ok:
        new = [survey.machine.name for survey in order.get().surveys]
        cluster = cluster.with_hosts(Host(survey.machine, survey, is_made=False) for survey in order.get().surveys)
        usable += new
    lost = found.look(SWARM, partial(recovery.decide, cluster, usable, session, launch), lambda _: "", REST)
    _look_for_image(replace(course, cluster=cluster), session, found)
    if not (order.ok and lost.ok and wish.ok and usable):
        found.skip(SEATS, ABOVE)
        return
    _look_at_gateway(wish.get(), cluster, session, found)
    if students is None:
        found.skip(SEATS, ABOVE)
        return
    given_up = lost.get().machines
    placed = partial(place, cluster, usable, students, session, launch, given_up=given_up)
    plan = found.look(SEATS, placed, _describe_plan, REST)
    for warning in (*plan.get().warnings, *low_disks(cluster, plan.get())) if plan.ok else ():
        found.warn(SEATS, warning)


def _check_seats(cluster: Cluster, session: Session) -> None:
    check_key(cluster.seats, session.course.key(create=False), session.course.folder)


def _describe_order(order: Order) -> str:
    if not order.demands:
        return "no more machines are needed"
    return "\n".join(
        f"{demand.resource}: {demand.need} more, {demand.used} used"
        + (", no limit" if demand.limit is None else f" of {demand.limit}")
        for demand in order.demands
        if demand.need
    )


def _describe_plan(plan: Plan) -> str:
    return f"{len(plan.seats)} seats on {', '.join(dict.fromkeys(seat.place.machine for seat in plan.seats))}"


def _look_for_image(course: Course, session: Session, found: Findings) -> None:
    own = course.own
    engines = [*course.cluster.engines.values(), *([own.get()] if own and own.ok else [])]
    is_recipe = short_name(session.settings.image) in recipe_names()
    image = found.look(IMAGE, partial(_find_image, course.cluster, engines, session, found), str, REST)
    if not image.ok and own and isinstance(own.error, CloudscaleError) and is_recipe:
        found.fail(HERE, own.error)


def _find_image(cluster: Cluster, engines: Sequence[Engine], session: Session, found: Findings) -> str:
    """Says where machines get the image from. Raises CloudscaleError if they get it nowhere."""
    check_reference(session.settings.image)
    image = full_image(session.settings.image, cluster, engines)
    holder = next((engine.name for engine in engines if has_image(engine, image)), "")
    if holder:
        return f"{image} is on {holder}"
    if is_ours(image):
        return f"{image} may be on a machine that is off"
    doubt = check_pullable(engines[0], image) if engines else check_in_registry(image)
    if doubt and cluster.engines:
        raise not_pulled(image, doubt, engines[0].name)
    if doubt:
        found.warn(IMAGE, f"{image}: its registry could not be asked from here ({doubt}).", MAY_PULL)
    return "" if doubt else f"{image} can be pulled"


def _look_at_gateway(wish: Wish, cluster: Cluster, session: Session, found: Findings) -> None:
    if not wish.is_wanted:
        return
    settings = session.settings.gateway
    first = found.look(
        GATEWAY,
        partial(gateway.on_first, wish, cluster, session),
        lambda wish: f"{wish.mode}, on {wish.machine}, port {settings.port}",
        REST,
    )
    machine = first.value.machine if first.value else ""
    if not machine or not settings.domain:
        return
    if not (address := cluster.addresses[machine]):
        found.warn(GATEWAY, f"the name {settings.domain} has to lead to {machine}, which has no address yet.", LATER)
        return
    fault = partial(gateway.name_fault, settings.domain, machine, address, by_name=wish.mode == "subdomain")
    outcome = found.ask({settings.domain: fault}, REST)[settings.domain]
    if wrong := outcome.value if outcome.ok else (f"the name {settings.domain} is not known.", ""):
        found.warn(GATEWAY, *wrong)
