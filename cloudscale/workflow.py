"""The stages of each task, composed: whoever opens this file reads what a task does, in order."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cloudscale import containers, naming, readiness, recipes, removal, report, spawner, ssh
from cloudscale.cluster import Cluster, Session, look
from cloudscale.drivers import Driver, load_driver
from cloudscale.engine import Engine, from_environment
from cloudscale.errors import CloudscaleError, RequestError, SlowSeat
from cloudscale.fanout import fan_out
from cloudscale.model import UNREACHED, CommandResult, Machine, Outcome, Place, Row, Seat, Student
from cloudscale.notebook import ensure_image, look_inside
from cloudscale.output import check_writable, write_private
from cloudscale.plan import Plan, PortRange, make_plan
from cloudscale.report import Report
from cloudscale.roster import read_roster
from cloudscale.seatspec import Template
from cloudscale.settings import Launch, Remote
from cloudscale.shell import on_terminal
from cloudscale.swarm import ensure_swarm, leave_swarm

READY_TIMEOUT = 600.0  # seconds for all seats to answer
COMMAND_TIMEOUT = 300.0  # seconds for a command on one target
REMOTE_TIMEOUT = 5.0  # the same for remote_com, as in 2016


# --- themachine ------------------------------------------------------------------------------


def themachine(session: Session, launch: Launch) -> Report:
    """Roster → machines → engines → swarm → seats → table. Run again, it converges."""
    students = [] if launch.onlycreate else read_roster(session.settings.students)
    driver = load_driver(session.settings)
    driver.check_nodes(launch.nodes)
    if launch.output:
        check_writable(launch.output)
    done = (_planned if launch.plan else _launched)(session, driver, launch, students)
    if launch.output:
        try:
            write_private(launch.output, done.text)
        except OSError as error:
            return replace(done, problems=(*done.problems, f"{launch.output} was not written: {error.strerror}."))
    return done


def _planned(session: Session, driver: Driver, launch: Launch, students: Sequence[Student]) -> Report:
    cluster = look(session, driver)
    plan = _plan(cluster, session, launch, students)
    for warning in plan.warnings:
        session.progress.say(f"Warning: {warning}")
    return Report(report.plan(plan, cluster.machines, session.common.format))


def _launched(session: Session, driver: Driver, launch: Launch, students: Sequence[Student]) -> Report:
    say = session.progress.say
    with session.course.locked():
        cluster = look(session, driver)
        plan = _plan(cluster, session, launch, students)
        for warning in plan.warnings:
            say(f"Warning: {warning}")
        spawner.check_key(cluster.seats, session.course.key(create=False), session.course.folder)
        machines = ", ".join(cluster.engines)
        say(f"Plan: {machines}" + ("" if launch.onlycreate else f" for {len(plan.seats)} students"))

        template = _template(cluster, session, launch)
        say(f"Image: {template.image.reference} is on every machine")
        made = ensure_swarm(cluster.manager, session.settings.course)
        say(f"Swarm: {'made' if made else 'there already'}")
        cluster = look(session, driver)
        if launch.onlycreate:
            return Report(_machine_table(cluster, session))
        return _seat(cluster, plan, template, session, launch)


def _plan(cluster: Cluster, session: Session, launch: Launch, students: Sequence[Student]) -> Plan:
    seated = {seat.student_id: Place(cluster.machine_of(seat), seat.port) for seat in cluster.seats}
    remembered: dict[str, Place] = {}
    for engine in cluster.engines.values():
        remembered |= containers.remembered_places(engine, session.settings.course)
    nodes = []
    for name, node in cluster.nodes.items():
        ours = containers.seat_ports(cluster.engines[name], session.settings.course)
        held = cluster.driver.held_ports(node.machine) - ours
        nodes.append(replace(node, taken_ports=node.taken_ports | held))
    ports = PortRange(launch.start, launch.end)
    # where --only or --skip may keep some of those who left, no newcomer is given a place of theirs
    prune = launch.prune and not (session.common.only or session.common.skip)
    plan = make_plan(students, nodes, seated, remembered, ports, session.settings.seat, prune=prune)
    return _chosen(plan, cluster, session)


def _chosen(plan: Plan, cluster: Cluster, session: Session) -> Plan:
    """What --only and --skip leave of a plan; they may name seats, students who left, and machines."""
    present = {seat.student_id: seat for seat in cluster.seats}

    def names(target: Seat | spawner.RunningSeat | Machine) -> tuple[str, ...]:
        if isinstance(target, Machine):
            return (target.name,)
        if isinstance(target, spawner.RunningSeat):
            return cluster.names_of(target)
        student = target.student
        service = present[student.id].name if student.id in present else ""
        name = service or naming.seat_name(session.settings.course, student)
        return (name, student.id, student.full_name, target.place.machine)

    leaving = [present[student_id] for student_id in plan.leavers]
    targets: list[Seat | spawner.RunningSeat | Machine] = [*plan.seats, *leaving, *cluster.machines]
    chosen = session.selection.choose(targets, names)
    return replace(
        plan,
        seats=tuple(target for target in chosen if isinstance(target, Seat)),
        leavers=tuple(target.student_id for target in chosen if isinstance(target, spawner.RunningSeat)),
    )


def _template(cluster: Cluster, session: Session, launch: Launch) -> Template:
    """The image, fetched by all machines at once before any seat starts, and what the seats have in common."""
    reference = recipes.full_reference(session.settings.image)
    with session.progress.bar(f"Image {reference}", 0) as advance:
        fetched = fan_out(
            lambda engine: ensure_image(engine, reference, advance), cluster.engines.values(), name=lambda e: e.name
        )
        pinned = [outcome.get() for outcome in fetched]
        image = look_inside(cluster.manager, reference, pinned[0], session.settings.course)
    key = session.course.key()
    assert key
    return Template(session.settings.course, key, image, session.settings.seat, launch.port, launch.env)


def _seat(cluster: Cluster, plan: Plan, template: Template, session: Session, launch: Launch) -> Report:
    say, course = session.progress.say, session.settings.course
    spawn = spawner.Spawner(cluster.manager, course)
    problems = _prune(cluster, plan, spawn, session, launch)

    changes = spawn.converge(plan.seats, cluster.nodes, cluster.seats, template)
    done = [outcome.value.what for outcome in changes if outcome.value]
    say("Seats: " + ", ".join(f"{done.count(what)} {what}" for what in ("created", "updated", "unchanged")))
    started = [(seat, outcome.value) for seat, outcome in zip(plan.seats, changes, strict=True) if outcome.value]
    timeout = session.common.timeout or READY_TIMEOUT
    with session.progress.bar("Seats ready", len(started)) as advance:
        answers = readiness.wait_ready(
            cluster.manager, started, cluster.hosts, timeout=timeout, ready=lambda count: advance(count, len(started))
        )
    spawn.remove_unused_secrets()
    outcome_of = dict(zip((seat.student.id for seat, _ in started), answers, strict=True))
    rows = []
    for seat, change in zip(plan.seats, changes, strict=True):
        outcome = outcome_of.get(seat.student.id) or Outcome[str](change.target, error=change.error)
        state = "ready" if outcome.ok else "starting" if isinstance(outcome.error, SlowSeat) else "failed"
        rows.append(_row(seat, cluster.hosts, state, naming.password(template.key, seat.student.id)))
        if not outcome.ok:
            problems.append(report.told(outcome))
    ready = sum(row.state == "ready" for row in rows)
    untouched = set(done) <= {"unchanged"} and not (launch.prune and plan.leavers)
    say(f"Done: {ready} of {len(rows)} seats are ready" + ("; nothing was changed" if untouched else ""))
    return Report(report.seats(rows, session.common.format, passwords=True), tuple(problems))


def _prune(cluster: Cluster, plan: Plan, spawn: spawner.Spawner, session: Session, launch: Launch) -> list[str]:
    """Removes the seats of those who left (`--prune`), or says who they are. Their volumes stay."""
    leaving = [seat for seat in cluster.seats if seat.student_id in plan.leavers]
    if not leaving:
        return []
    listed = ", ".join(seat.student_name or seat.student_id for seat in leaving)
    if not launch.prune:
        session.progress.say(f"No longer among the students, kept: {listed} (--prune removes their seats)")
        return []
    problems = list(report.problems(removal.remove_seats(cluster, leaving, spawn)))
    session.progress.say(f"Removed the seats of those who left: {listed} (their volumes stay)")
    return problems


def _row(seat: Seat, hosts: Mapping[str, str], state: str, password: str | None) -> Row:
    host = hosts[seat.place.machine]
    return Row(
        student=seat.student.full_name,
        email=seat.student.email,
        url=_url(host, seat.place.port),
        host=host,
        port=seat.place.port,
        node=seat.place.machine,
        state=state,
        password=password,
    )


def _url(host: str, port: int) -> str:
    if not host:  # of a machine that the course does not have any more
        return ""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# --- commands --------------------------------------------------------------------------------


def com_node(session: Session, command: str) -> Report:
    """A shell command on every machine, in parallel."""
    driver = load_driver(session.settings)
    machines = session.selection.choose(driver.machines(), lambda machine: (machine.name,))
    timeout = session.common.timeout or COMMAND_TIMEOUT
    outcomes = fan_out(lambda m: driver.run(m, command, timeout), machines, name=lambda m: m.name)
    for outcome in outcomes:
        if isinstance(outcome.error, RequestError):  # wrong for one is wrong for all
            raise outcome.error
    return command_report(outcomes, session.common.format)


def com_containers(session: Session, command: str) -> Report:
    """A shell command in every seat, in parallel; a seat that does not run is a target that was not reached."""
    cluster = look(session, load_driver(session.settings))
    seats = session.selection.choose(cluster.seats, cluster.names_of)
    timeout = session.common.timeout or COMMAND_TIMEOUT
    course = session.settings.course
    running = {name: containers.seat_containers(engine, course) for name, engine in cluster.engines.items()}

    def one(seat: spawner.RunningSeat) -> CommandResult:
        machine = cluster.machine_of(seat)
        container = running.get(machine, {}).get(seat.student_id)
        if container is None:
            raise CloudscaleError("The seat does not run.", "invoke status tells more; invoke themachine starts it.")
        return containers.execute(cluster.engines[machine], container, command, timeout)

    outcomes = fan_out(one, seats, name=lambda seat: seat.name)
    if not seats:
        session.progress.say(f"The course {course!r} has no seats.")
    return command_report(outcomes, session.common.format)


def command_report(outcomes: Sequence[Outcome[CommandResult]], format: str) -> Report:
    """The blocks of a command's targets, and the targets on which it failed."""
    rows = report.command_rows(outcomes, UNREACHED)
    problems = [
        report.told(outcome) if not outcome.ok else f"{row.target}: exit code {row.exit_code}"
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

    def one(target: ssh.Target) -> CommandResult:
        with ssh.connect(
            target, timeout=timeout, known_hosts=session.course.known_hosts, new_key=session.progress.say
        ) as client:
            return ssh.run(client, remote.com, folder=remote.path, timeout=timeout)

    return command_report(fan_out(one, chosen, name=lambda target: target.name), session.common.format)


# --- status ----------------------------------------------------------------------------------


def status(session: Session) -> Report:
    """Machines and seats as they are now, each seat as its student would find it."""
    cluster = look(session, load_driver(session.settings))
    seats = session.selection.choose(cluster.seats, cluster.names_of) if cluster.seats else []
    states = readiness.seat_states(cluster.manager, seats, cluster.hosts, cluster.machine_of) if seats else []
    rows, problems = [], []
    for seat, state in zip(seats, states, strict=True):
        machine = cluster.machine_of(seat)
        host = cluster.hosts.get(machine, "")
        rows.append(Row(seat.student_name, seat.email, _url(host, seat.port), host, seat.port, machine, state.state))
        if state.cause:
            problems.append(str(state.cause))
    table = report.seats(rows, session.common.format, passwords=False)
    if session.common.format not in ("csv", "json"):
        table = _machine_table(cluster, session) + "\n\n" + table
    return Report(table, tuple(problems))


def _machine_table(cluster: Cluster, session: Session) -> str:
    rows = [
        {
            "machine": name,
            "address": node.machine.address,
            "engine": "swarm manager" if cluster.in_swarm else "in no swarm",
            "cores": node.cpus,
            "memory": f"{node.memory / 1024**3:.1f} GiB",
            "seats": sum(seat.node_id == node.id for seat in cluster.seats),
        }
        for name, node in cluster.nodes.items()
    ]
    return report.machines(rows, session.common.format)


# --- removing --------------------------------------------------------------------------------


def containers_reset(session: Session, *, with_volumes: bool) -> Report:
    """Removes the seats, keeps the machines; the students' volumes stay unless they are asked for too."""
    with session.course.locked():
        cluster = look(session, load_driver(session.settings))
        course = session.settings.course
        chosen = removal.removable(cluster, session, with_volumes=with_volumes)
        if not chosen.seats and not chosen.volumes:
            session.progress.say(f"The course {course!r} has none: nothing to remove")
            return report.removed((), session.common.format)
        extra = f" and {len(chosen.volumes)} volumes with the students' work" if with_volumes else ""
        session.ask(f"Remove {len(chosen.seats)} seats{extra} of the course {course!r}?")
        return report.removed(removal.remove(cluster, session, chosen), session.common.format)


def driver_reset(session: Session) -> Report:
    """Removes everything that was made for the course with this driver, for good."""
    course = session.settings.course
    with session.course.locked():
        cluster = look(session, load_driver(session.settings))
        chosen = removal.removable(cluster, session, with_volumes=True)
        volumes = len(chosen.volumes)
        session.ask(f"Remove {len(chosen.seats)} seats and {volumes} volumes of the course {course!r}, for good?")
        outcomes = removal.remove(cluster, session, chosen)
        partly = session.common.only or session.common.skip
        if not partly and all(outcome.ok for outcome in outcomes):
            for engine in cluster.engines.values():
                containers.remove_others(engine, course)
            if done := leave_swarm(cluster.manager, course):
                session.progress.say(done)
            session.course.forget()
            session.progress.say(f"Done: nothing of the course {course!r} is left")
        return report.removed(outcomes, session.common.format)


# --- single machines -------------------------------------------------------------------------


def machine_new(session: Session, name: str) -> Report:
    return Report(load_driver(session.settings).add(name))


def machine_rm(session: Session, name: str) -> Report:
    driver = load_driver(session.settings)
    session.ask(f"{driver.removal(name)} will be removed. Go on?")
    return Report(driver.remove(name))


# --- images ----------------------------------------------------------------------------------


def image_build(session: Session, name: str) -> Report:
    """Builds one of the project's own notebook images on the trainer's own engine."""
    machine = "this computer"
    engine = Engine(Machine(machine, ""), from_environment(timeout=recipes.DOWNLOAD_TIMEOUT))
    with session.progress.bar(f"Building {name}", 0):
        return Report(recipes.build(engine, name, session.progress.say))
