"""A course as it is now: its machines, the swarm, and the seats in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain

from cloudscale.course.passwords import Passwords
from cloudscale.course.selection import Selection
from cloudscale.drivers.protocols import Driver, MakesMachines
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError, NotSetUp, SwarmError
from cloudscale.gateway.service import Gateway
from cloudscale.model import Machine, Node, Place, Survey, failures
from cloudscale.seats.address import Addresses, Placed
from cloudscale.seats.services import RunningSeat
from cloudscale.swarm.nodes import SwarmNode


@dataclass(frozen=True)
class Host:
    """One machine of the course as it is now.

    `survey`: what a launch sees from outside its engine. `engine`: None where it can't be used, and `error` says why,
    or where the machine is still to be made. `node`: its capacity, and what others hold of it. `volumes`: where
    students had their seats, by their ids, as their volumes on it say, and since when. `image`: the notebook image's
    name there once it is ready for seats. `is_made`: it exists already. `has_quorum`: whether its swarm, if it is in
    one, can be asked and changed.
    """

    machine: Machine
    survey: Survey | None = None
    engine: Engine | None = None
    node: Node | None = None
    volumes: Mapping[str, tuple[datetime, Place]] = field(default_factory=dict)
    image: str = ""
    is_made: bool = True
    error: CloudscaleError | None = None
    has_quorum: bool = True

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def is_unusable(self) -> bool:
        """Whether a launch can do nothing about its error: it does not answer, or is in a swarm of somebody else."""
        return self.survey is None or isinstance(self.error, SwarmError)

    @property
    def is_asleep(self) -> bool:
        """Whether there may be seats and images on it, which can be seen only after it was started."""
        return self.survey is not None and self.survey.state.is_asleep

    @property
    def capacity(self) -> Node | None:
        """What it has for seats: as its engine says, or before that runs, as it looks from outside."""
        survey = self.survey
        if self.node or self.is_unusable or not survey or not survey.cpus or not survey.memory:
            return self.node
        return Node(self.machine, "", survey.cpus, survey.memory, survey.held_ports)


@dataclass(frozen=True)
class Cluster:
    """The course as it is now.

    `managers` are the engines that manage the swarm, `swarm` has its nodes by id. `quorum_is_gone`: the swarm has
    lost its quorum, and the managers that it lacks do not exist any more. `password_changes`: how often those of
    students were changed, by id. `until`: the deadline, if it has one.
    """

    driver: Driver
    hosts: tuple[Host, ...]
    managers: tuple[Engine, ...] = ()
    swarm: Mapping[str, SwarmNode] = field(default_factory=dict)
    seats: tuple[RunningSeat, ...] = ()
    quorum_is_gone: bool = False
    gateway: Gateway | None = None
    password_changes: Mapping[str, int] = field(default_factory=dict)
    until: datetime | None = None

    # --- the machines ------------------------------------------------------------------------

    @property
    def maker(self) -> MakesMachines | None:
        """The driver, where it makes machines."""
        return self.driver if isinstance(self.driver, MakesMachines) else None

    @property
    def machines(self) -> tuple[Machine, ...]:
        return tuple(host.machine for host in self.hosts)

    @property
    def addresses(self) -> dict[str, str]:
        """What students type, by machine."""
        return {host.name: host.machine.address for host in self.hosts}

    @property
    def engines(self) -> dict[str, Engine]:
        """Those that can be used, by machine."""
        return {host.name: host.engine for host in self.hosts if host.engine}

    @property
    def nodes(self) -> dict[str, Node]:
        """What the machines are whose engines can be used."""
        return {host.name: host.node for host in self.hosts if host.engine and host.node}

    @property
    def lost(self) -> dict[str, CloudscaleError]:
        """Why machines can't be used."""
        return {host.name: host.error for host in self.hosts if host.error}

    @property
    def failures(self) -> dict[str, CloudscaleError]:
        """The lost machines that the course uses; one that was never set up for it is none."""
        return {
            name: error
            for name, error in self.lost.items()
            if name in self.swarm_machines or not isinstance(error, NotSetUp)
        }

    @property
    def swarm_machines(self) -> set[str]:
        """The names of the machines that the swarm has, lost ones too."""
        return {node.machine for node in self.swarm.values()} - {""}

    @property
    def deleted(self) -> set[str]:
        """The machines that the swarm has and that do not exist any more: those that the driver made."""
        return self.swarm_machines - self.addresses.keys() if self.maker else set()

    @property
    def unusable(self) -> dict[str, CloudscaleError]:
        """The machines that a launch can't use: those that it could not survey, and those of others."""
        return {host.name: host.error for host in self.hosts if host.error and host.is_unusable}

    def with_hosts(self, hosts: Iterable[Host]) -> Cluster:
        """The same with these machines, in place of those of the same names or after them."""
        new = {host.name: host for host in hosts}
        kept = [new.pop(host.name, host) for host in self.hosts]
        return replace(self, hosts=(*kept, *new.values()))

    # --- the swarm ---------------------------------------------------------------------------

    @property
    def in_swarm(self) -> bool:
        return bool(self.managers)

    @property
    def manager(self) -> Engine:
        """An engine that manages the swarm; without a swarm, the first. Raises CloudscaleError where there is none."""
        for engine in (*self.managers, *self.engines.values()):
            return engine
        raise CloudscaleError("No machine can be used.\n" + "\n".join(map(str, self.lost.values())))

    @property
    def without_quorum(self) -> dict[str, Engine]:
        """The engines whose swarm has too few managers left, by machine."""
        return {host.name: host.engine for host in self.hosts if host.engine and not host.has_quorum}

    def quorum_lost(self) -> SwarmError:
        return SwarmError(
            "The swarm has lost its quorum: too few of its managers are left."
            f" What runs on {', '.join(self.without_quorum)} keeps running."
        )

    def check_quorum(self, remedy: str) -> None:
        """Raises CloudscaleError where the swarm has lost its quorum."""
        if self.without_quorum:
            raise CloudscaleError("\n".join(map(str, (*self.lost.values(), self.quorum_lost().message))), remedy)

    # --- the seats ---------------------------------------------------------------------------

    def names_of(self, seat: RunningSeat) -> tuple[str, ...]:
        """The names that a seat answers to in --only and --skip."""
        return (seat.name, seat.student.id, seat.student.full_name, seat.place.machine)

    def passwords(self, key: bytes) -> Passwords:
        """The students' passwords as they are now. `key`: the course's."""
        return Passwords(key, self.password_changes)

    def open_ports(self, seats: Iterable[Placed]) -> None:
        """Lets the world reach these seats, or the gateway alone where there is one; and nothing else."""
        if not self.maker:
            return
        ports: dict[str, set[int]] = {}
        for seat in seats:
            ports.setdefault(seat.place.machine, set()).add(seat.place.port)
        if self.gateway and (host := self.gateway_host):
            source = self.inner_address(host.name)
            self.maker.open_ports({host.name: self.gateway.ports}, {*chain(*ports.values())}, source)
        else:
            self.maker.open_ports(ports)

    def inner_address(self, machine: str) -> str:
        """The address of a machine for the other machines of the course."""
        for host in self.hosts:
            if host.name == machine and host.survey:
                return host.survey.address
        for node in self.swarm.values():
            if node.machine == machine and node.address:
                return node.address
        return self.addresses.get(machine, "")

    # --- the gateway -------------------------------------------------------------------------

    @property
    def gateway_host(self) -> Host | None:
        """The machine that the gateway is pinned to, if the course still has it."""
        if not self.gateway:
            return None
        node = self.swarm.get(self.gateway.node_id)
        name = node.machine if node else ""
        own = (host for host in self.hosts if host.name == name or (host.node and host.node.id == self.gateway.node_id))
        return next(own, None)

    def seat_addresses(self, key: bytes, names: bytes) -> Addresses:
        """The addresses that students open. `key`: the course's; `names`: that of the seats' host names."""
        if not self.gateway:
            return Addresses(self.addresses, key)
        host = self.gateway_host
        return Addresses(self.addresses, key, self.gateway.entrance, host.machine.address if host else "", names)

    def with_gateway(self, gateway: Gateway | None) -> Cluster:
        return replace(self, gateway=gateway)

    # --- what is to be reported --------------------------------------------------------------

    def problems(self, selection: Selection, *, but: Collection[str] = ()) -> tuple[str, ...]:
        """What is wrong with machines that were not left out; without those in `but`."""
        errors = {n: error for n, error in self.failures.items() if n not in but and selection.is_about(n)}
        return (*failures(errors).problems, *self.strays)

    @property
    def strays(self) -> tuple[str, ...]:
        """What to report of machines that are in the swarm and not among the course's any more."""
        strays = sorted(self.swarm_machines - self.addresses.keys())
        if self.maker:
            return tuple(f"{name}: it was deleted.\n  invoke themachine creates it again." for name in strays)
        return tuple(
            f"{name}: it is in the course's swarm, but not among its machines any more; what is on it stays as it is."
            f"\n  Put it back; before you leave it out, run invoke driver_reset --only {name}."
            for name in strays
        )
