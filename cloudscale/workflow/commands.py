"""The stages of each task, composed: whoever opens this file reads what a task does, in order."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from cloudscale.cli import report
from cloudscale.cli.output import check_writable
from cloudscale.cli.report import Report
from cloudscale.cluster.state import Cluster, look
from cloudscale.course.roster import read_roster
from cloudscale.course.session import Session
from cloudscale.course.settings import Launch, Remote
from cloudscale.drivers import load_driver
from cloudscale.drivers.protocols import Driver
from cloudscale.engines.client import trainers_engine
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.fanout import fan_out
from cloudscale.files import replace_file
from cloudscale.hosts import ssh
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.this_computer import on_terminal
from cloudscale.images import build, listing, recipes
from cloudscale.images.on_engine import look_inside
from cloudscale.model import UNREACHED, CommandResult, Machine, Outcome, Outcomes, Place, Seat, Student
from cloudscale.seats import containers, readiness, services
from cloudscale.workflow import reset
from cloudscale.workflow import seats as seating
from cloudscale.workflow import themachine as launching

COMMAND_TIMEOUT = 300.0  # seconds for a command on one target
REMOTE_TIMEOUT = 5.0  # the same for remote_com, as in 2016


# --- themachine ------------------------------------------------------------------------------


def themachine(session: Session, launch: Launch) -> Report:
    """Roster → machines → engines → swarm → seats → table. Run again, it converges."""
    students = [] if launch.onlycreate else read_roster(session.settings.students)
    driver = _driver(session)
    driver.check_nodes(launch.nodes)
    if launch.onlycreate and driver.makes_machines and not launch.nodes:
        students = read_roster(session.settings.students)  # which tells how many machines there are to be
    if launch.output:
        check_writable(launch.output)
    done = (launching.planned if launch.plan else launching.launched)(session, driver, launch, students)
    if launch.output:
        try:
            replace_file(launch.output, f"{done.text}\n".encode())
        except OSError as error:
            return replace(done, problems=(*done.problems, f"{launch.output} was not written: {error.strerror}."))
    return done


def _driver(session: Session) -> Driver:
    if session.vm_flags and session.settings.driver not in ("qemu", "virtualbox"):
        raise RequestError(
            f"{', '.join(session.vm_flags)}: for VMs on this computer alone, not with the driver"
            f" {session.settings.driver}.",
            "A seat's limits are seat.cpus and seat.memory, a cloud's machines as large as openstack.flavor.",
        )
    return load_driver(session.settings, session.course, session.progress.say)


# --- commands --------------------------------------------------------------------------------


def com_node(session: Session, command: str) -> Report:
    """A shell command on every machine, in parallel."""
    driver = _driver(session)
    machines = session.selection.choose(driver.machines(), lambda machine: (machine.name,))
    timeout = session.common.timeout or COMMAND_TIMEOUT
    outcomes = fan_out(lambda m: driver.run(m, command, timeout), machines, name=lambda m: m.name)
    for outcome in outcomes:
        if isinstance(outcome.error, RequestError):  # wrong for one is wrong for all
            raise outcome.error
    return command_report(outcomes, session.common.format)


def com_containers(session: Session, command: str) -> Report:
    """A shell command in every seat, in parallel; a seat that does not run is a target that was not reached."""
    cluster = look(session, _driver(session))
    timeout = session.common.timeout or COMMAND_TIMEOUT
    targets = _seat_targets(cluster, session.settings.course)
    named = [*targets, *(SeatTarget((machine.name,), machine.name, "") for machine in cluster.machines)]
    seats = [seat for seat in session.selection.choose(named, lambda seat: seat.names) if seat in targets]

    def one(seat: SeatTarget) -> CommandResult:
        if seat.machine in cluster.lost:
            raise CloudscaleError(f"Its machine is lost. {cluster.lost[seat.machine]}")
        if seat.error:
            raise seat.error
        if not seat.container:
            raise CloudscaleError("The seat does not run.", "invoke status tells more; invoke themachine starts it.")
        return containers.execute(cluster.engines[seat.machine], seat.container, command, timeout)

    outcomes = fan_out(one, seats, name=lambda seat: seat.names[0])
    if not seats:
        session.progress.say(f"The course {session.settings.course!r} has no seats.")
    done = command_report(outcomes, session.common.format)
    return replace(done, problems=(*_lost_problems(cluster, session), *done.problems))


@dataclass(frozen=True)
class SeatTarget:
    """A seat to run something in: the names that it answers to, and its container where it runs."""

    names: tuple[str, ...]
    machine: str
    container: str
    error: Exception | None = None  # of a machine that went down since it was looked at


def _seat_targets(cluster: Cluster, course: str) -> list[SeatTarget]:
    """Every seat that the swarm knows of, and where it has nobody to ask, every one that runs."""
    found = fan_out(
        lambda engine: containers.seat_containers(engine, course),
        cluster.engines.values(),
        name=lambda engine: engine.name,
    )
    running, errors = found.values, found.errors
    if cluster.cut_off:
        return [
            SeatTarget((container.service, student, machine), machine, container.id)
            for machine, there in running.items()
            for student, container in sorted(there.items())
        ]
    targets = []
    for seat in cluster.seats:
        machine = cluster.machine_of(seat)
        container = running.get(machine, {}).get(seat.student_id)
        targets.append(
            SeatTarget(cluster.names_of(seat), machine, container.id if container else "", errors.get(machine))
        )
    return targets


def _lost_problems(cluster: Cluster, session: Session, *, but: Collection[str] = ()) -> tuple[str, ...]:
    """What is to be said of the lost machines, but for those that were left out or are done with."""
    lost = {n: e for n, e in cluster.failures.items() if n not in but and session.selection.is_about(n)}
    return (*Outcomes(Outcome[object](name, error=error) for name, error in lost.items()).problems, *cluster.strays)


def command_report(outcomes: Outcomes[CommandResult], format: str) -> Report:
    """The blocks of a command's targets, and the targets on which it failed."""
    rows = report.command_rows(outcomes, UNREACHED)
    problems = [
        outcome.problem if not outcome.ok else f"{row.target}: exit code {row.exit_code}"
        for outcome, row in zip(outcomes, rows, strict=True)
        if row.exit_code
    ]
    return Report(report.commands(rows, format), tuple(problems))


def remote_com(session: Session, remote: Remote) -> Report:
    """A command on any hosts over SSH."""
    if remote.pwd == "-" and not on_terminal():
        raise RequestError("--pwd - asks for the password, and nobody is there to answer.", "Run it on a terminal.")
    password = getpass.getpass("Password: ") if remote.pwd == "-" else remote.pwd
    targets = [
        ssh.parse_target(host, port=remote.port, user=remote.user, password=password, key_file=remote.kfile)
        for host in remote.hosts
    ]
    chosen = session.selection.choose(targets, lambda target: (target.name, target.host))
    timeout = session.common.timeout or REMOTE_TIMEOUT

    known = KnownHosts(session.course.remote_known_hosts, session.progress.say)

    def one(target: ssh.Target) -> CommandResult:
        with ssh.connect(target, timeout=timeout, known=known) as connection:
            return connection.run(remote.com, folder=remote.path, timeout=timeout)

    return command_report(fan_out(one, chosen, name=lambda target: target.name), session.common.format)


# --- status ----------------------------------------------------------------------------------


def status(session: Session) -> Report:
    """Machines and seats as they are now, each seat as its student would find it."""
    cluster = look(session, _driver(session))
    targets: list[services.RunningSeat | Machine] = [*cluster.seats, *cluster.machines]
    chosen = session.selection.choose(targets, lambda t: (t.name,) if isinstance(t, Machine) else cluster.names_of(t))
    seats = [target for target in chosen if not isinstance(target, Machine)]
    states = []
    if seats:
        states = readiness.seat_states(
            cluster.manager, seats, cluster.hosts, cluster.engines, machine_of=cluster.machine_of
        )
    rows = []
    problems = list(_lost_problems(cluster, session))
    if cluster.cut_off:
        problems.append(str(cluster.head_lost()))
    for running, state in zip(seats, states, strict=True):
        student = Student(running.student_id, running.student_name, email=running.email)
        seat = Seat(student, Place(cluster.machine_of(running), running.port))
        rows.append(seating.seat_row(seat, cluster.hosts, state.state))
        if state.cause:
            problems.append(str(state.cause))
    table = report.seats(rows, session.common.format, passwords=False)
    if session.common.format not in ("csv", "json"):
        table = seating.machine_table(cluster, session.common.format) + "\n\n" + table
    return Report(table, tuple(problems))


# --- removing --------------------------------------------------------------------------------


def containers_reset(session: Session, *, with_volumes: bool) -> Report:
    """Removes the seats, keeps the machines; the students' volumes stay unless they are asked for too."""
    with session.course.locked():
        cluster = look(session, _driver(session))
        cluster.check_head(
            "Bring them back (invoke themachine); or invoke driver_reset takes the others out of the swarm."
        )
        course = session.settings.course
        chosen = reset.removable(cluster, session, with_volumes=with_volumes)
        problems = _lost_problems(cluster, session)
        if not chosen.seats and not chosen.volumes:
            session.progress.say(f"The course {course!r} has none: nothing to remove")
            return Report(report.removed(Outcomes(), session.common.format).text, problems)
        extra = f" and {len(chosen.volumes)} volumes with the students' work" if with_volumes else ""
        session.ask(f"Remove {len(chosen.seats)} seats{extra} of the course {course!r}?")
        outcomes = reset.remove(cluster, session, chosen)
        removed = {outcome.target for outcome in outcomes if outcome.ok}
        cluster.driver.open_ports(cluster.ports(seat for seat in cluster.seats if seat.name not in removed))
        done = report.removed(outcomes, session.common.format)
        return replace(done, problems=(*problems, *done.problems))


def driver_reset(session: Session) -> Report:
    """Removes everything that was made for the course with this driver, for good."""
    course, say = session.settings.course, session.progress.say
    with session.course.locked():
        driver = _driver(session)
        if driver.makes_machines and not (session.common.only or session.common.skip):
            return _swept(session, driver)
        cluster = look(session, driver)
        chosen = reset.removable(cluster, session, with_volumes=True)
        volumes = len(chosen.volumes)
        back = "" if driver.adopts_swarm else f", and {'delete' if driver.makes_machines else 'give back'}"
        back += f" {len(chosen.machines)} machines" if back else ""
        session.ask(f"Remove {len(chosen.seats)} seats and {volumes} volumes of the course {course!r}{back}, for good?")
        outcomes = reset.remove(cluster, session, chosen)
        if driver.makes_machines:
            removed = {outcome.target for outcome in outcomes if outcome.ok}
            driver.open_ports(cluster.ports(seat for seat in cluster.seats if seat.name not in removed))
        chosen = reset.without_stuck(cluster, chosen, outcomes)
        outcomes = Outcomes([*outcomes, *reset.release(cluster, session, chosen)])
        done = report.removed(outcomes, session.common.format)
        released = [outcome.target for outcome in outcomes if outcome.ok]
        if driver.makes_machines:
            there = {machine.name for machine in driver.machines()}
            released += [machine.name for machine in chosen.machines if machine.name not in there]
        done = replace(done, problems=(*_lost_problems(cluster, session, but=released), *done.problems))
        if len(chosen.machines) == len(cluster.machines) and not done.problems:
            session.course.forget()
            say(f"Done: nothing of the course {course!r} is left")
        return done


def _swept(session: Session, driver: Driver) -> Report:
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


# --- single machines -------------------------------------------------------------------------


def machine_new(session: Session, name: str) -> Report:
    session = _on_this_computer(session)
    with session.course.locked():
        return Report(_driver(session).add(name))


def machine_rm(session: Session, name: str) -> Report:
    session = _on_this_computer(session)
    driver = _driver(session)
    what = driver.removal(name)
    if driver.makes_machines:  # there may be seats on it, and others in its swarm
        return driver_reset(replace(session, common=session.common.model_copy(update={"only": (name,), "skip": ()})))
    session.ask(f"{what} will be removed. Go on?")
    return Report(driver.remove(name))


def _on_this_computer(session: Session) -> Session:
    """With a driver for VMs here, unless a flag names another: as in 2016, single machines are not made in a cloud."""
    if session.names_driver or session.settings.driver != "openstack":
        return session
    only_virtualbox = shutil.which("VBoxManage") and not shutil.which("qemu-system-x86_64")
    driver = "virtualbox" if only_virtualbox else "qemu"
    session.progress.say(f"A single machine is a VM on this computer (--driver {driver})")
    return replace(session, settings=session.settings.model_copy(update={"driver": driver}))


# --- images ----------------------------------------------------------------------------------


def image_build(session: Session, name: str, folder: str | None, on: str | None) -> Report:
    """Builds a notebook image on the trainer's own engine: one of the project's, or what a trainer's folder has."""
    if on and not folder:
        raise RequestError("--on says what an image of your own stands on.", "Add --from FOLDER, or leave out --on.")
    if folder:
        recipe = recipes.own_recipe(Path(folder), name, on or recipes.DEFAULT)
    else:
        recipe = recipes.find_recipe(name or recipes.DEFAULT)
    engine = trainers_engine()
    with session.progress.bar(f"Building {recipe.name}", 0):
        built = build.build(engine, recipe, session.progress.say)
        if recipe.is_own:
            look_inside(engine, built, built, session.settings.course)
    return Report(built)


def image_list(session: Session) -> Report:
    """The project's images and those that trainers built: which are built here, and on which machines they are."""
    here: dict[str, listing.Built] = {}
    try:
        here = listing.built_on(trainers_engine())
    except EngineError as error:
        session.progress.say(f"What is built here can't be told. {error}")
    there: dict[str, dict[str, listing.Built]] = {}
    problems: tuple[str, ...] = ()
    try:
        cluster = look(session, _driver(session))
    except CloudscaleError as error:  # no cloud or no hosts yet, say
        problems = (f"The machines can't be told: {error}",)
    else:
        engines = session.selection.choose(list(cluster.engines.values()), lambda engine: (engine.name,))
        outcomes = fan_out(listing.built_on, engines, name=lambda engine: engine.name)
        there = outcomes.values
        problems = (*_lost_problems(cluster, session), *outcomes.problems)
    for line in listing.differing(here, there):
        session.progress.say(line)
    return Report(report.images(listing.rows(here, there), session.common.format), problems)
