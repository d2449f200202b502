"""The driver `openstack`, with the methods that the workflow calls."""

from __future__ import annotations

import ipaddress
import itertools
import threading
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from functools import partial

from cloudscale.course.folder import CourseFolder
from cloudscale.course.naming import natural
from cloudscale.course.settings import NO_FLOATING_IPS, OpenStackSettings
from cloudscale.drivers.made import MadeMachines, survey_not_up
from cloudscale.drivers.openstack import inventory, quota, security, sweep, work
from cloudscale.drivers.openstack.choices import Choices, choose
from cloudscale.drivers.openstack.claim import claim
from cloudscale.drivers.openstack.cloud import open_cloud
from cloudscale.drivers.openstack.credential import check_clock, check_credential
from cloudscale.drivers.openstack.given_ips import check_given_ips
from cloudscale.drivers.openstack.inventory import FLOATING, INNER, OWN, Inventory, Server, read_inventory
from cloudscale.drivers.openstack.making import BOOTING, Blueprint, Faulty, Maker, remove_duplicates
from cloudscale.drivers.over_ssh import LOGIN
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError, MachineError, NotSetUp
from cloudscale.fanout import fan_out
from cloudscale.hosts.facts import Facts, usable_memory
from cloudscale.hosts.first_login import Booting, NoLogin
from cloudscale.hosts.target import Target
from cloudscale.model import Finding, Kind, Machine, Order, Outcomes, Say, Survey, WorkVolume
from cloudscale.units import MIB

REPLACEMENTS = 2  # further servers that are tried for a machine if the first one does not come up
BOOTABLE = {"BUILD", "REBOOT", "HARD_REBOOT", "SHUTOFF"}  # states from which a server can become ACTIVE


def load(settings: OpenStackSettings, course: CourseFolder, say: Say, patience: float | None = None) -> OpenStack:
    return OpenStack(settings, course, say, patience)


class OpenStack(MadeMachines):
    def __init__(
        self, settings: OpenStackSettings, course: CourseFolder, say: Say, patience: float | None = None
    ) -> None:
        user = settings.user or "debian"
        super().__init__(course, say, user=user, boot_timeout=settings.boot_timeout, patience=patience)
        self._settings = settings
        self._given_user = settings.user if "user" in settings.model_fields_set else ""
        self._cloud = open_cloud(settings, patience=patience)
        self._mark = inventory.mark(course.name)
        self._inventory = Inventory()
        self._targets: dict[str, Target] = {}
        self._ports: dict[str, str] = {}  # the addresses of the machines that this run booted, for the other machines
        self._lock = threading.Lock()
        self._chosen: Choices | None = None
        self._maker: Maker | None = None
        self._group_size: int | None = None
        self._up: set[str] = set()
        self._ordered: tuple[str, ...] = ()  # names of machines to make
        self._by_first = False
        self._entrance_up: Future[Target] = Future()

    # --- existing machines -------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        self._inventory = self._read_inventory()
        machines = [self._machine(name) for name in self._inventory.servers]
        self._targets = {}
        up = [machine for machine in machines if machine.address and self._server(machine).is_up]
        for inner in (False, True):  # first those through which the others are reached
            for machine in [machine for machine in up if (self._reach(machine.name) == INNER) is inner]:
                via = self._targets.get(self._entrance) if inner else None
                if via or not inner:
                    self._targets[machine.name] = self._server_target(machine.address, self._server(machine), via)
        return machines

    def _server(self, machine: Machine) -> Server:
        return self._inventory.servers[machine.name]

    def _machine(self, name: str) -> Machine:
        return Machine(name, self._inventory.address(name, floating=self._reach(name) == FLOATING))

    @property
    def _entrance(self) -> str:
        """The machine through which the others are reached, if any are."""
        return min({*self._inventory.servers, *self._ordered}, key=natural, default="")

    def _reach(self, name: str) -> str:
        """How the machine is, or will be, reached: FLOATING, OWN or INNER."""
        server = self._inventory.servers.get(name)
        if self._settings.external_network == NO_FLOATING_IPS:
            return OWN
        if server and server.reached and (server.reached, name) != (INNER, self._entrance):
            return server.reached
        if self._chosen and self._chosen.external_id is None:
            return OWN
        return INNER if self._by_first and name != self._entrance else FLOATING

    def _server_target(self, address: str, server: Server, via: Target | None = None) -> Target:
        user = self._given_user or server.user or (self._chosen.user if self._chosen else "")
        return replace(self._login_target(address, server.name, server.id, user=user), via=via)

    def _target(self, machine: Machine) -> Target:
        server = self._inventory.servers.get(machine.name)
        if server:
            self._check_server_key(server)
        if machine.name not in self._targets:
            if server and server.is_up and self._reach(machine.name) == INNER:
                raise MachineError(
                    f"{machine.name}: it is reached through {self._entrance}, which is not up.",
                    "Run invoke themachine to repair that one.",
                )
            state = (
                "missing" if server is None else "not up yet" if server.status == "ACTIVE" else self._describe(server)
            )
            raise MachineError(f"{machine.name}: its server is {state}.", "Run invoke themachine to repair it.")
        return self._targets[machine.name]

    def _describe(self, server: Server) -> str:
        """The state of a server, in words."""
        fault = inventory.read_fault(self._cloud, server.id) if server.status == "ERROR" else ""
        return " ".join(part for part in (server.status, server.task, f"({fault})" if fault else "") if part)

    def _check_server_key(self, server: Server) -> None:
        remedy = "Copy the course's folder from the computer that made it, or use another --course."
        self._check_key(server.name, server.fingerprint, remedy)

    def survey(self, machine: Machine) -> Survey:
        server = self._inventory.servers[machine.name]
        self._check_server_key(server)
        is_well = server.status in ("ACTIVE", *BOOTABLE) and server.task != "deleting"
        if server.has_answered and not is_well:
            raise MachineError(
                f"{machine.name}: its server is {self._describe(server)}.",
                f"Repair it in the cloud. Or delete the machine: invoke driver_reset --only {machine.name}.",
            )
        lacks_work = server.lacks_work and self._settings.work_volume
        if server.has_answered and machine.name in self._targets and not lacks_work:
            return self._survey_running(machine)
        # it is still booting, or an earlier run was interrupted, or it has lost its floating IP or its work volume
        return survey_not_up(
            machine,
            cpus=server.cpus,
            memory=usable_memory(server.memory // MIB),
            networks=self._choices().cidrs,
            has_answered=server.has_answered,
        )

    def connect(self, machine: Machine) -> Engine:
        server = self._inventory.servers.get(machine.name)
        if server and not server.has_answered and machine.name not in self._up:
            raise NotSetUp(
                f"{machine.name}: it has not come up yet ({self._describe(server)}).",
                "Run invoke themachine to continue.",
            )
        self._target(machine)
        return super().connect(machine)

    def _address(self, machine: Machine, facts: Facts) -> str:
        return facts.own_address(*self._inner(machine), machine.address, self._connection(machine).peer)

    def _confirmed(self, machine: Machine) -> set[str]:
        # by which it is reached once the class has a gateway: its certificate need not change then
        return {*super()._confirmed(machine), *self._inner(machine)}

    def _inner(self, machine: Machine) -> list[str]:
        """The address in the project's network, as the cloud has it."""
        port, booted = self._inventory.ports.get(machine.name), self._ports.get(machine.name)
        return [inner] if (inner := port.address if port else booted) else []

    # --- new machines ------------------------------------------------------------------------

    def kind(self) -> Kind:
        return self._choices().kind

    def _choices(self) -> Choices:
        with self._lock:
            if self._chosen is None:
                self._chosen = choose(self._cloud, self._settings, self._say)
                work.say_missing(self._inventory, self._settings, self._say)
                given, external = self._settings.floating_ips, self._chosen.external_id
                check_given_ips(self._cloud, given, external, self._mark, self._inventory)
            return self._chosen

    def check_nodes(self, nodes: int) -> None:
        check_credential(self._cloud, self._say)  # of machines, only the quota is a limit, which `order` checks

    def check_port(self, port: int) -> None:
        pass  # any can be opened

    def claim(self) -> None:
        claim(self._cloud, self._mark, self._key().fingerprint)

    def order(self, count: int, former: Collection[str]) -> Order:
        kind, networks = self._choices().kind, self._choices().cidrs
        # ports and work volumes of machines that no longer exist are for new ones of the same name
        former = {*former, *self._inventory.ports, *self._inventory.work}
        names = self._new_names(count, self._inventory.servers, former, self._settings.server_prefix)
        self._ordered = tuple(names)
        work.say_waiting(self._inventory, names, self._say)
        allowances, self._group_size = quota.read_allowances(self._cloud, self._settings, self._say)
        groups = quota.read_groups(self._cloud, self._mark)
        recipe = quota.recipe(
            self._choices(), self._settings, self._inventory, groups, self._group_size, one_ip=self._by_first
        )
        demands = quota.demands(recipe, count, allowances)
        short = {demand.resource for demand in demands if not demand.is_met}
        ips = " Or name floating IPs that the project has: openstack.floating_ips."
        return Order(
            surveys=tuple(
                survey_not_up(self._machine(name), cpus=kind.cpus, memory=kind.memory, networks=networks)
                for name in names
            ),
            demands=demands,
            fits=quota.most(recipe, count, allowances),
            quota="The project's quota",
            remedy="Delete what is no longer used, choose a smaller openstack.flavor, or ask the cloud's administrators"
            f" for a larger quota.{ips if quota.FLOATING_IPS in short else ''}",
        )

    def examine(self) -> Iterable[Finding]:
        found = work.findings(self._cloud, self._mark, self._inventory.servers, self._settings)
        return [finding for finding in [check_clock(self._cloud), *found] if finding]

    # --- booting a machine -------------------------------------------------------------------

    def _start(self, name: str) -> Machine:
        try:
            return self._start_server(name)
        except BaseException:
            if name == self._entrance and not self._entrance_up.done():
                self._entrance_up.set_exception(MachineError(f"{name} did not come up.", "See there."))
            raise

    def _start_server(self, name: str) -> Machine:
        maker = self._get_maker()
        existing = self._inventory.servers.get(name)
        for attempt in itertools.count(1):
            try:
                machine = Machine(name, self._boot_server(name, maker))
                if name == self._entrance and not self._entrance_up.done():
                    self._entrance_up.set_result(self._targets[name])
                return machine
            except Faulty as fault:
                if name in self._up or (existing and existing.has_answered):
                    raise MachineError(
                        fault.message, "It may hold students' work, so it is not replaced. Check it in the cloud."
                    ) from None
                if attempt > REPLACEMENTS:
                    raise MachineError(
                        f"{fault.message}\n{name}: this was attempt {attempt} of {attempt} to create its server.",
                        "Run again. If it fails again, ask the cloud's administrators.",
                    ) from None
                self._say(f"{fault.message}\n{name}: replacing its server")
                maker.discard(fault.server_id)
        raise AssertionError

    def _remove_duplicates(self) -> None:
        if remove_duplicates(self._cloud, self._mark, self._inventory, self._say):
            self._inventory = self._read_inventory()

    def _read_inventory(self) -> Inventory:
        settings = self._settings
        return read_inventory(self._cloud, self._mark, settings.floating_ips, with_work=bool(settings.work_volume))

    def _get_maker(self) -> Maker:
        key, choices = self._key(), self._choices()
        with self._lock:
            if self._maker is None:
                self._remove_duplicates()
                blueprint = Blueprint(self._mark, self._settings, choices, key)
                self._maker = Maker(self._cloud, blueprint, self._inventory, self._group_size, self._say)
                names = sorted({*self._inventory.servers, *self._ordered}, key=natural)
                self._maker.reserve_ips(name for name in names if self._reach(name) == FLOATING)
            return self._maker

    def _boot_server(self, name: str, maker: Maker) -> str:
        """Makes or starts the machine's server, logs in, and returns the machine's address. Raises Faulty."""
        reach = self._reach(name)
        port = maker.port(name)
        server = maker.server(name, port, reach)
        ip = maker.floating_ip(name, port) if port and reach == FLOATING else None  # while it boots
        maker.await_active(name, server)
        if port is None:  # compute made it with the server
            port = maker.port_of(name, server)
            ip = maker.floating_ip(name, port) if reach == FLOATING else None
        address = ip.address if ip else port.outer_address
        via = self._await_entrance(name) if reach == INNER else None
        target = self._server_target(address, server, via)
        console = partial(inventory.read_console, self._cloud, server.id)
        booting = Booting(console, self._cloud.clock, over=lambda: self._login(via, LOGIN) if via else None)
        try:
            self._first_login(booting, target)
        except NoLogin as error:
            raise Faulty(str(error), server.id) from None
        work.use(maker, server, self._login(target, LOGIN), self._say)
        maker.mark_answered(server)
        maker.note_reached(server, reach)
        self._say(f"{name}: up, at {address}")
        with self._lock:
            self._ports[name] = port.address
            self._targets[name] = target
            self._up.add(name)
        return address

    # --- one floating IP for all -------------------------------------------------------------

    def enter_by_first(self, wanted: bool | None) -> bool:
        inner = any(server.reached == INNER for server in self._inventory.servers.values())
        self._by_first = inner if wanted is None else wanted
        return self._by_first

    def _await_entrance(self, name: str) -> Target:
        """How to log in to the machine through which this one is reached, once it is up."""
        entrance, limit = self._entrance, BOOTING + self._boot_timeout
        if known := self._targets.get(entrance):
            return known
        try:
            return self._entrance_up.result(limit)
        except (MachineError, TimeoutError):
            raise MachineError(
                f"{name}: it is reached through {entrance}, which did not come up.",
                f"Repair or delete {entrance}, then run again.",
            ) from None

    def settle_addresses(self) -> Mapping[str, str]:
        if self._choices().external_id is None:
            return {}
        self._inventory = self._read_inventory()
        self._ordered = ()
        blueprint = Blueprint(self._mark, self._settings, self._choices(), self._key())
        maker = Maker(self._cloud, blueprint, self._inventory, self._group_size, self._say)
        settled = fan_out(partial(self._settle_address, maker), self._inventory.servers)
        settled.get()
        return {name: address for name, address in settled.values.items() if address}

    def _settle_address(self, maker: Maker, name: str) -> str:
        """Gives the machine a floating IP, or takes it. Returns a new one."""
        server, port = self._inventory.servers[name], self._inventory.ports.get(name)
        if port is None:
            return ""
        bound = next((ip for ip in self._inventory.ips if ip.port_id == port.id), None)
        if self._by_first and name != self._entrance:
            if bound and not self._is_reached_inside(name, port.outer_address):
                return ""
            maker.note_reached(server, INNER)
            if bound:
                maker.take_ip(name, bound)
                self._say(f"{name}: its floating IP {bound.address} is given back")
            return ""
        ip = bound or maker.floating_ip(name, port)
        maker.note_reached(server, FLOATING)
        if bound or not ip:
            return ""
        self._targets[name] = self._server_target(ip.address, server)
        return ip.address

    def _is_reached_inside(self, name: str, address: str) -> bool:
        """Whether the first machine leads to this one. If not, that is reported."""
        try:
            self._login(self._targets[self._entrance], LOGIN).open(address, security.SSH_PORT, LOGIN).close()
        except CloudscaleError as error:
            self._say(f"Warning: {name} keeps its floating IP: it is not reached through {self._entrance}: {error}")
            return False
        return True

    def open_ports(self, ports: Mapping[str, Collection[int]], inner: Collection[int] = (), source: str = "") -> None:
        self._remove_duplicates()
        group = security.ensure_group(self._cloud, self._mark)
        seat_ports = {*itertools.chain(*ports.values())}
        families = self._choices().families
        rules = security.base_rules(self._settings, families)
        rules |= security.seat_rules(seat_ports, self._settings.student_cidr, families)
        if inner:
            rules |= security.seat_rules(inner, [str(ipaddress.ip_network(source))], families)
        security.add_rules(self._cloud, self._mark, group, rules)
        security.remove_others(self._cloud, self._mark, group, rules)

    # --- the deadline, and the end -----------------------------------------------------------

    def deadline(self) -> datetime | None:
        return self._inventory.deadline

    def mark_deadline(self, until: datetime | None) -> None:
        security.mark_deadline(self._cloud, self._mark, until)

    def resources(self) -> str:
        return sweep.find(self._cloud, self._mark, keep=self._settings.floating_ips).describe()

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        return sweep.sweep(self._cloud, self._mark, only, self._settings.floating_ips)

    def work_volumes(self) -> list[WorkVolume]:
        return work.read_work(self._cloud, self._mark)

    def sweep_work(self) -> Outcomes[str]:
        return sweep.sweep_work(self._cloud, self._mark)
