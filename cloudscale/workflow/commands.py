"""`com_node`, `com_containers`, `remote_com`: a command in many places at once."""

from __future__ import annotations

import getpass
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.driver import driver_of
from cloudscale.course.flags import Remote
from cloudscale.course.session import Session
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.fanout import fan_out
from cloudscale.hosts.credentials import check_key_file
from cloudscale.hosts.destinations import Destinations, Flags
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import Logins
from cloudscale.hosts.ssh_config import SshConfig
from cloudscale.hosts.target import Target
from cloudscale.hosts.this_computer import on_terminal
from cloudscale.model import CommandResult
from cloudscale.workflow import deadline

if TYPE_CHECKING:
    from cloudscale.cluster.state import Cluster

COMMAND_TIMEOUT = 300.0  # seconds for a command on one target
REMOTE_TIMEOUT = 5.0  # the same for remote_com, as in 2016


def com_node(session: Session, command: str) -> Report:
    """A shell command on every machine, in parallel."""
    driver = driver_of(session)
    machines = session.selection.choose(driver.machines(), lambda machine: (machine.name,))
    timeout = session.common.timeout or COMMAND_TIMEOUT
    outcomes = fan_out(lambda m: driver.run(m, command, timeout), machines, name=lambda m: m.name)
    for outcome in outcomes:
        if isinstance(outcome.error, RequestError):  # wrong for one is wrong for all
            raise outcome.error
    if outcomes and outcomes[0].ok:  # else its engine does not answer, either
        deadline.warn_without_look(driver, machines[0], session)
    return report.command_report(outcomes, session.common.format)


def com_containers(session: Session, command: str) -> Report:
    """A shell command in every seat, in parallel; a seat that does not run is a target that was not reached."""
    from cloudscale.cluster.look import look  # this alone needs engines, and what speaks to them
    from cloudscale.seats import containers

    cluster = look(session)
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
            raise CloudscaleError("The seat does not run.", "invoke status shows more; invoke themachine starts it.")
        return containers.execute(cluster.engines[seat.machine], seat.container, command, timeout)

    outcomes = fan_out(one, seats, name=lambda seat: seat.names[0])
    if not seats:
        session.progress.say(f"The course {session.settings.course!r} has no seats.")
    done = report.command_report(outcomes, session.common.format)
    return replace(done, problems=(*cluster.problems(session.selection), *done.problems))


@dataclass(frozen=True)
class SeatTarget:
    """A seat to run something in: the names that it answers to, and its container where it runs."""

    names: tuple[str, ...]
    machine: str
    container: str
    error: Exception | None = None  # of a machine that went down since it was looked at


def _seat_targets(cluster: Cluster, course: str) -> list[SeatTarget]:
    """Every seat of the swarm; where the swarm has lost its quorum, every seat that runs."""
    from cloudscale.seats import containers

    outcomes = fan_out(
        lambda engine: containers.seat_containers(engine, course),
        cluster.engines.values(),
        name=lambda engine: engine.name,
    )
    running, errors = outcomes.values, outcomes.errors
    if cluster.without_quorum:
        return [
            SeatTarget((container.service, student, machine), machine, container.id)
            for machine, seats in running.items()
            for student, container in sorted(seats.items())
        ]
    targets = []
    for seat in cluster.seats:
        machine = seat.place.machine
        container = running.get(machine, {}).get(seat.student.id)
        targets.append(
            SeatTarget(cluster.names_of(seat), machine, container.id if container else "", errors.get(machine))
        )
    return targets


def remote_com(session: Session, remote: Remote) -> Report:
    """A command on any hosts over SSH."""
    if remote.pwd == "-" and not on_terminal():
        raise RequestError(
            "--pwd - asks for the password, and there is no terminal.", "Run it on a terminal; or use --kfile."
        )
    flags = Flags(remote.port, remote.user, remote.kfile, session.common.timeout)
    destinations = Destinations(SshConfig(session.progress.say), flags)
    targets = [destinations.find(host) for host in remote.hosts]
    chosen = session.selection.choose(targets, lambda target: (target.name, target.host))
    password = getpass.getpass("Password: ") if remote.pwd == "-" else remote.pwd
    chosen = [replace(target, password=password) for target in chosen]
    for target in chosen:
        check_key_file(target)
    timeout = session.common.timeout or REMOTE_TIMEOUT

    known = KnownHosts(session.course.remote_known_hosts, session.progress.say, yes=session.common.yes)
    logins = Logins(known)

    def one(target: Target) -> CommandResult:
        with logins.fresh(target, timeout) as connection:
            return connection.run(remote.com, folder=remote.path, timeout=timeout)

    return report.command_report(fan_out(one, chosen, name=lambda target: target.name), session.common.format)
