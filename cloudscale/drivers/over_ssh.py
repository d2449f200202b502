"""Machines that are reached over SSH, and whose engines listen with TLS: what their drivers share."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import USUAL_SEAT, SeatSettings
from cloudscale.engines import setup as provision
from cloudscale.engines.certificates import Authority, authority
from cloudscale.engines.passing import Stop, pass_image
from cloudscale.errors import ConnectionFailed, EngineError, NotReached, NotSetUp
from cloudscale.fanout import fan_out
from cloudscale.hosts.facts import Facts, read_facts
from cloudscale.hosts.holding import held
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import Connection, Logins
from cloudscale.hosts.target import Target
from cloudscale.hosts.tunnel import LOOPBACK, End, Tunnel
from cloudscale.model import CommandResult, Machine, MachineState, Outcomes, Say, Survey

if TYPE_CHECKING:
    from cloudscale.engines.client import Engine

LOGIN = 15.0  # seconds for each step of a login


def _state(facts: Facts) -> MachineState:
    if not facts.is_ready:
        return MachineState.BARE
    return MachineState.SERVING if facts.engine_runs else MachineState.STOPPED


class OverSsh(ABC):
    """Keeps logins and facts of the machines until the run ends. `patience`: seconds for a login, if not the usual."""

    adopts_swarm = False

    def __init__(self, course: CourseFolder, say: Say, patience: float | None = None) -> None:
        self._course = course
        self._patience = patience or LOGIN
        self._say = say
        self._known = KnownHosts(course.known_hosts, say, keeps=not course.read_only)
        self._login = Logins(self._known)
        self._facts: dict[str, Facts] = {}
        self._authority_lock = threading.Lock()
        self._signer: Authority | None = None
        self._tunnels: dict[str, Tunnel] = {}
        self._tunnels_lock = threading.Lock()

    @abstractmethod
    def machines(self) -> list[Machine]:
        """The machines of the course, the first manager of the swarm first."""

    @abstractmethod
    def _target(self, machine: Machine) -> Target:
        """How to log in to a machine. Raises CloudscaleError if that is not possible."""

    def _endpoint(self, machine: Machine) -> tuple[str, int]:
        """The host and port at which this computer reaches the machine's engine."""
        target = self._target(machine)
        if target.via or target.proxy:  # its SSH server is all that is reached from here
            return LOOPBACK, self._tunnel(machine).port
        return machine.address, provision.TLS_PORT

    def _tunnel(self, machine: Machine) -> Tunnel:
        """The way to the machine's engine over SSH. Raises NotSetUp if nothing listens there."""

        def to_engine() -> End:
            return self._connection(machine).open(LOOPBACK, provision.TLS_PORT, LOGIN)

        try:
            to_engine().close()
        except NotReached:
            raise NotSetUp(
                f"{machine.name}: its Docker Engine, port {provision.TLS_PORT}, does not run.",
                "invoke themachine sets it up and starts it.",
            ) from None
        with self._tunnels_lock:
            if machine.name not in self._tunnels:
                self._tunnels[machine.name] = Tunnel(to_engine)
            return self._tunnels[machine.name]

    def _connection(self, machine: Machine, timeout: float = LOGIN) -> Connection:
        return self._login(self._target(machine), min(timeout, self._patience))

    @contextlib.contextmanager
    def exclusive(self, who: str) -> Iterator[None]:
        with contextlib.ExitStack() as kept:
            for connection in self._answering():
                with contextlib.suppress(ConnectionFailed):
                    if kept.enter_context(held(connection, who, self._say)):
                        break
            yield

    def _answering(self) -> Iterator[Connection]:
        """The first machine; if no login works there, those of the others where one does."""
        machines = self.machines()
        for some in (machines[:1], machines[1:]):
            yield from fan_out(self._connection, some, name=lambda machine: machine.name).values.values()

    def _authority(self, *, create: bool = False) -> Authority | None:
        with self._authority_lock:
            if create and not self._signer:
                self._course.make_folder()
            if not self._signer:  # read once: each of two hundred machines would keep its keys in memory
                self._signer = authority(
                    self._course.folder, self._course.name, create=create, renew=not self._course.read_only
                )
            return self._signer

    def survey(self, machine: Machine) -> Survey:
        facts = self._read_facts(machine)
        return Survey(
            machine=machine,
            address=self._address(machine, facts),
            cpus=facts.cores,
            memory=facts.memory,
            free_disk=facts.free_disk,
            held_ports=facts.listening,
            networks=facts.networks,
            addresses=frozenset(own.address for own in facts.addresses),
            state=_state(facts),
        )

    def _address(self, machine: Machine, facts: Facts) -> str:
        return facts.own_address(machine.address, self._connection(machine).peer)

    def _confirmed(self, machine: Machine) -> set[str]:
        """The machine's addresses that are known from others than itself."""
        return {self._connection(machine).peer}

    def _read_facts(self, machine: Machine) -> Facts:
        facts = read_facts(self._connection(machine))
        provision.check(facts, machine.name, self._course.name, self._authority())
        self._facts[machine.name] = facts
        return facts

    def prepare(self, machine: Machine, seat: SeatSettings = USUAL_SEAT) -> Engine:
        facts = self._facts.get(machine.name) or self._read_facts(machine)
        signer = self._authority(create=True)
        assert signer
        setup = provision.wanted_setup(
            facts,
            machine.address,
            self._address(machine, facts),
            self._course.name,
            signer,
            self._confirmed(machine),
            seat,
        )
        if setup:
            action = "setting up and restarting" if facts.engine_runs and setup.restarts else "setting up"
            self._say(f"{machine.name}: {action} its engine ({'; '.join(setup.reasons)})")
            if setup.warning:
                self._say(f"Warning: {machine.name}: {setup.warning}")
            provision.apply(self._connection(machine), setup)
            self._read_facts(machine)
        return self.connect(machine)

    def connect(self, machine: Machine) -> Engine:
        signer = self._authority()
        if signer is None:
            raise NotSetUp(
                f"{machine.name}: the course {self._course.name!r} has not set it up, or did so from another computer.",
                f"Run invoke themachine. Or copy the course's folder from that computer to {self._course.folder}.",
            )
        if self._course.read_only and (fault := signer.client_fault()):
            raise NotSetUp(f"{machine.name}: your certificate for its engine {fault}.", "invoke themachine renews it.")
        from cloudscale.engines.client import Engine, over_tls  # a command on the machines needs no engine

        files = signer.client_files
        try:
            client = over_tls(machine.name, *self._endpoint(machine), ca=signer.ca_file, certificate=files)
        except NotSetUp as error:
            if self._read_facts(machine).is_ready:  # it is set up, but stopped
                raise EngineError(error.message, "Run invoke themachine to start it.") from None
            raise
        return Engine(machine, client)

    def copy_image(
        self,
        source: Machine,
        targets: Sequence[Machine],
        image: str,
        on_bytes: Callable[[int], None],
        on_arrival: Callable[[str], None],
    ) -> Outcomes[None]:
        def login(machine: Machine) -> tuple[Connection, str]:
            return self._connection(machine), self._address(machine, self._facts[machine.name])

        stops = [Stop(machine.name, partial(login, machine)) for machine in targets]
        return pass_image(image, self._connection(source), stops, on_bytes, on_arrival)

    def release(self, machine: Machine) -> str:
        facts = read_facts(self._connection(machine))
        if facts.mark.get("course") != self._course.name:
            return ""
        provision.check(facts, machine.name, self._course.name, self._authority())
        return provision.release(self._connection(machine), facts)

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        return self._connection(machine, timeout).run(command, timeout=timeout)
