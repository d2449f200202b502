"""Machines that are reached over SSH, whose engines then listen with TLS: what the drivers for them share."""

from __future__ import annotations

import datetime
import re
import threading
from abc import ABC, abstractmethod

from cloudscale.course.folder import CourseFolder
from cloudscale.engines import setup as provision
from cloudscale.engines.certificates import Authority, authority
from cloudscale.engines.client import Engine, over_tls
from cloudscale.errors import EngineError, MachineError, NotSetUp
from cloudscale.hosts.facts import Facts, read_facts
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import Connection, Logins, Target
from cloudscale.model import CommandResult, Machine, MachineState, OnOutput, Say, Survey
from cloudscale.networks import endpoint

LOGIN = 15.0  # seconds for each step of a login
COPYING = 3600.0  # seconds for an image from one machine to another
GUEST = datetime.timedelta(hours=2)  # life of the certificate by which one engine's machine speaks to another engine

# $1: image; $2: where the other engine listens. The certificates come as a tar, into memory.
COPY = """
set -eu
folder=$(mktemp -d /dev/shm/cloudscale.XXXXXX 2>/dev/null || mktemp -d)
trap 'rm -rf "$folder"' EXIT HUP TERM INT
tar -x -C "$folder"
export NO_PROXY='*' no_proxy='*'
{ docker save "$1" || touch "$folder/failed"; } | dd bs=1M status=progress |
  docker --host "tcp://$2" --tlsverify --tlscacert "$folder/ca.pem" --tlscert "$folder/cert.pem" \\
    --tlskey "$folder/key.pem" load >/dev/null
[ ! -e "$folder/failed" ]
"""


def _state(facts: Facts) -> MachineState:
    if not facts.is_ready:
        return MachineState.BARE
    return MachineState.SERVING if facts.engine_runs else MachineState.STOPPED


class OverSsh(ABC):
    """Logins, facts and clients are kept for the length of a run."""

    adopts_swarm = False

    def __init__(self, course: CourseFolder, say: Say) -> None:
        self._course = course
        self._say = say
        self._known = KnownHosts(course.known_hosts, say)
        self._login = Logins(self._known)
        self._facts: dict[str, Facts] = {}
        self._authority_lock = threading.Lock()

    @abstractmethod
    def _target(self, machine: Machine) -> Target:
        """How to log in to a machine. Raises CloudscaleError where that can't be done."""

    def _endpoint(self, machine: Machine) -> tuple[str, int]:
        """Where this computer reaches the machine's engine."""
        return machine.address, provision.TLS_PORT

    def _connection(self, machine: Machine, timeout: float = LOGIN) -> Connection:
        return self._login(self._target(machine), min(timeout, LOGIN))

    def _authority(self, *, create: bool = False) -> Authority | None:
        with self._authority_lock:
            if create:
                self._course.make_folder()
            return authority(self._course.folder, self._course.name, create=create)

    def survey(self, machine: Machine) -> Survey:
        facts = self._look(machine)
        return Survey(
            machine=machine,
            address=self._address(machine, facts),
            cpus=facts.cores,
            memory=facts.memory,
            free_disk=facts.free_disk,
            held_ports=facts.listening,
            networks=facts.networks,
            addresses=frozenset(found.address for found in facts.addresses),
            state=_state(facts),
        )

    def _address(self, machine: Machine, facts: Facts) -> str:
        return facts.own_address(machine.address, self._connection(machine).peer)

    def _look(self, machine: Machine) -> Facts:
        facts = read_facts(self._connection(machine))
        provision.check(facts, machine.name, self._course.name, self._authority())
        self._facts[machine.name] = facts
        return facts

    def prepare(self, machine: Machine) -> Engine:
        facts = self._facts.get(machine.name) or self._look(machine)
        signer = self._authority(create=True)
        assert signer
        setup = provision.wanted_setup(facts, machine.address, self._address(machine, facts), self._course.name, signer)
        if setup:
            restarts = ", which restarts" if facts.engine_runs else ""
            self._say(f"{machine.name}: setting up its engine{restarts} ({'; '.join(setup.reasons)})")
            if setup.warning:
                self._say(f"Warning: {machine.name}: {setup.warning}")
            provision.apply(self._connection(machine), setup)
            self._look(machine)
        return self.connect(machine)

    def connect(self, machine: Machine) -> Engine:
        signer = self._authority()
        if signer is None:
            raise NotSetUp(
                f"{machine.name}: the course {self._course.name!r} has not set it up, or not from this computer.",
                "Run invoke themachine; or copy the course's folder from the computer that made it.",
            )
        files = signer.client_files
        try:
            client = over_tls(machine.name, *self._endpoint(machine), ca=signer.ca_file, certificate=files)
        except NotSetUp as error:
            if self._look(machine).is_ready:  # it was, and is stopped
                raise EngineError(error.message, "invoke themachine starts it.") from None
            raise
        return Engine(machine, client)

    def copy_image(self, source: Machine, target: Machine, image: str, on_output: OnOutput) -> None:
        signer = self._authority()
        assert signer
        pair = signer.client("cloudscale guest", GUEST)
        files = {"ca.pem": signer.pem, "cert.pem": pair.certificate, "key.pem": pair.key}
        address = self._address(target, self._facts[target.name])
        where = endpoint(address, provision.TLS_PORT)
        done = self._connection(source).run_root(
            COPY, image, where, timeout=COPYING, data=provision.tar(files), on_output=on_output
        )
        if done.exit_code:
            said = [line for line in done.stderr.splitlines() if line.strip() and not re.search("copied|records", line)]
            raise MachineError(
                f"{target.name}: the image {image} can't be sent to it from {source.name}"
                f" ({said[-1].strip() if said else done.exit_code}).",
                f"Is the port {provision.TLS_PORT} open between the machines?",
            )

    def release(self, machine: Machine) -> str:
        facts = read_facts(self._connection(machine))
        if facts.mark.get("course") != self._course.name:
            return ""
        provision.check(facts, machine.name, self._course.name, self._authority())
        return provision.release(self._connection(machine), facts)

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        return self._connection(machine, timeout).run(command, timeout=timeout)
