"""The driver `openstack`, as the workflow sees it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Mapping
from functools import partial

from slugify import slugify

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack import inventory, quota, security, sweep
from cloudscale.drivers.openstack.choices import Choices, choose
from cloudscale.drivers.openstack.cloud import open_cloud
from cloudscale.drivers.openstack.inventory import Inventory, Server, natural, read_inventory, read_servers
from cloudscale.drivers.openstack.making import GOING, Blueprint, Faulty, Maker
from cloudscale.drivers.openstack.watch import Watch
from cloudscale.drivers.over_ssh import OverSsh
from cloudscale.engines.client import Engine
from cloudscale.errors import MachineError, NotSetUp, RequestError
from cloudscale.hosts.facts import Facts, usable_memory
from cloudscale.hosts.first_login import Booting, NoLogin, log_in
from cloudscale.hosts.login_key import KEY_FILE, SshKey, ssh_key
from cloudscale.hosts.ssh import Target
from cloudscale.model import Kind, Machine, MachineState, Order, Outcomes, Say, Survey
from cloudscale.units import MIB

REPLACEMENTS = 2  # servers after the first that a machine may take to come up
INSTALLING = 1800.0  # seconds for the packages of the first boot
BOOTED = "[ ! -e /var/lib/cloudscale/course/begun ] || flock -w 1800 /var/lib/cloudscale/course/lock true"
ON_ITS_WAY = {"BUILD", "REBOOT", "HARD_REBOOT", "SHUTOFF"}


class OpenStack(OverSsh):
    def __init__(self, settings: OpenStackSettings, course: CourseFolder, say: Say) -> None:
        super().__init__(course, say)
        self._settings = settings
        self._cloud = open_cloud(settings)
        self._mark = inventory.mark(course.name)
        self._there = Inventory()
        self._targets: dict[str, Target] = {}
        self._lock = threading.Lock()
        self._chosen: Choices | None = None
        self._maker: Maker | None = None
        self._group_size: int | None = None
        self._up: set[str] = set()

    # --- what is there -----------------------------------------------------------------------

    def machines(self) -> list[Machine]:
        self._there = read_inventory(self._cloud, self._mark)
        machines = [self._machine(name) for name in self._there.servers]
        self._targets = {
            machine.name: self._target_of(server, machine.address)
            for machine, server in zip(machines, self._there.servers.values(), strict=True)
            if server.status == "ACTIVE" and machine.address
        }
        return machines

    def _machine(self, name: str) -> Machine:
        return Machine(name, self._there.address(name, floating=bool(self._settings.external_network)))

    def _target_of(self, server: Server, address: str) -> Target:
        key_file = self._course.folder / KEY_FILE
        # known by the server's id: the same address may have been another machine's
        return Target(address, user=self._settings.user, key_file=key_file, label=server.name, alias=server.id)

    def _target(self, machine: Machine) -> Target:
        server = self._there.servers.get(machine.name)
        if server:
            self._check_key(server)
        if machine.name not in self._targets:
            state = self._told(server) if server else "not there"
            raise MachineError(f"{machine.name}: its server is {state}.", "invoke themachine sees to it.")
        return self._targets[machine.name]

    def _key(self, *, create: bool = False) -> SshKey | None:
        with self._lock:
            if create:
                self._course.make_folder()
            return ssh_key(self._course.folder, create=create)

    def _told(self, server: Server) -> str:
        """A server's state, in words."""
        fault = inventory.read_fault(self._cloud, server.id) if server.status == "ERROR" else ""
        return " ".join(part for part in (server.status, server.task, f"({fault})" if fault else "") if part)

    def _check_key(self, server: Server) -> None:
        key = self._key()
        if server.fingerprint and (key is None or key.fingerprint != server.fingerprint):
            raise RequestError(
                f"{server.name} was made for a course {self._course.name!r} with another SSH key"
                f" ({server.fingerprint}) than that in {self._course.folder}.",
                "Copy the course's folder from the computer that made it, or choose another --course.",
            )

    def survey(self, machine: Machine) -> Survey:
        server = self._there.servers[machine.name]
        self._check_key(server)
        is_well = server.status in ("ACTIVE", *ON_ITS_WAY) and server.task != "deleting"
        if server.has_answered and not is_well:
            raise MachineError(
                f"{machine.name}: its server is {self._told(server)}.",
                f"Put that right in the cloud; or give it up: invoke driver_reset --only {machine.name}.",
            )
        if server.has_answered and machine.name in self._targets:
            return super().survey(machine)
        # it boots yet, or an earlier run was cut off before it had answered, or its floating IP was taken from it
        return self._coming(machine, server.cpus, usable_memory(server.memory // MIB), has_answered=server.has_answered)

    def _coming(self, machine: Machine, cpus: int, memory: int, *, has_answered: bool = False) -> Survey:
        return Survey(
            machine,
            address="",
            cpus=cpus,
            memory=memory,
            networks=self._choices().cidrs,
            state=MachineState.OFF if has_answered else MachineState.COMING,
        )

    def connect(self, machine: Machine) -> Engine:
        server = self._there.servers.get(machine.name)
        if server and not server.has_answered and machine.name not in self._up:
            raise NotSetUp(
                f"{machine.name}: it has not come up yet ({self._told(server)}).", "invoke themachine goes on."
            )
        self._target(machine)
        return super().connect(machine)

    def _address(self, machine: Machine, facts: Facts) -> str:
        port = self._there.ports.get(machine.name)
        return facts.own_address(*([port.address] if port else []), machine.address, self._connection(machine).peer)

    # --- what is to come ---------------------------------------------------------------------

    def kind(self) -> Kind:
        return self._choices().kind

    def _choices(self) -> Choices:
        with self._lock:
            if self._chosen is None:
                self._chosen = choose(self._cloud, self._settings)
            return self._chosen

    def check_nodes(self, nodes: int) -> None:
        pass  # as many as the quota allows, which `order` checks

    def order(self, count: int, former: Collection[str]) -> Order:
        kind, there = self._choices().kind, self._there
        machines = [self._machine(name) for name in self._names(count, former)]
        with_volumes = bool(self._settings.boot_volume)
        allowances, self._group_size = quota.read_allowances(self._cloud, with_volumes=with_volumes, say=self._say)
        groups = quota.read_groups(self._cloud, self._mark)
        recipe = quota.recipe(self._choices(), self._settings, there, groups, self._group_size)
        return Order(
            surveys=tuple(self._coming(machine, kind.cpus, kind.memory) for machine in machines),
            demands=quota.demands(recipe, count, allowances),
            fits=quota.most(recipe, count, allowances),
            quota="The project's quota",
            remedy="Ask who runs the cloud for more, remove what is not used any more, or choose another"
            " openstack.flavor.",
        )

    def _names(self, count: int, former: Collection[str]) -> list[str]:
        """Those that machines had which are gone, then the next numbers."""
        taken = self._there.servers
        earlier = sorted({*former, *self._there.ports} - taken.keys(), key=natural)
        stem = self._settings.server_prefix + (slugify(self._course.name) or "course")
        fresh = (name for number in itertools.count(1) if (name := f"{stem}-{number}") not in {*taken, *earlier})
        return list(itertools.islice(itertools.chain(earlier, fresh), count))

    # --- a machine comes up ------------------------------------------------------------------

    def boot(self, machine: Machine) -> Survey:
        name, maker = machine.name, self._made_by()
        there = self._there.servers.get(name)
        for attempt in itertools.count(1):
            try:
                address = self._boot_server(name, maker)
                break
            except Faulty as fault:
                if name in self._up or (there and there.has_answered):
                    raise MachineError(fault.message, "Look at it in the cloud; there may be work on it.") from None
                if attempt > REPLACEMENTS:
                    raise MachineError(
                        f"{fault.message}\n{name}: that was its server number {attempt}, and no other is tried.",
                        "Run again; if it stays, ask who runs the cloud.",
                    ) from None
                self._say(f"{fault.message}\n{name}: it is replaced")
                maker.discard(fault.server_id)
        brought = Machine(name, address)
        self._connection(brought).run_root(BOOTED, timeout=INSTALLING)
        return OverSsh.survey(self, brought)

    def _remove_surplus(self) -> None:
        """Servers that were made twice, for want of an answer: one a name is enough."""
        surplus = self._there.surplus
        # with the second server, nova takes the port from the first: that is made anew unless there may be work on it
        twins = [self._there.servers[server.name] for server in surplus]
        doomed = {*surplus, *(twin for twin in twins if not twin.has_answered)}
        for server in doomed:
            self._say(f"{server.name}: its server was made twice; deleting {server.id}")
            delete = partial(self._cloud.api.compute.delete_server, server.id)
            self._cloud.attempt(f"{server.name}: deleting it", delete)
        if doomed:
            gone = {server.id for server in doomed}
            servers: Watch[Server] = Watch(lambda: read_servers(self._cloud, self._mark), self._cloud.clock)
            servers.until(lambda found: not gone & {server.id for server in found} or None, GOING)
            self._there = read_inventory(self._cloud, self._mark)

    def _made_by(self) -> Maker:
        key = self._key(create=True)
        choices = self._choices()
        assert key
        with self._lock:
            if self._maker is None:
                self._remove_surplus()
                blueprint = Blueprint(self._mark, self._settings, choices, key)
                self._maker = Maker(self._cloud, blueprint, self._there, self._group_size)
            return self._maker

    def _boot_server(self, name: str, maker: Maker) -> str:
        """A server in its place that lets us in; returns the machine's address. Raises Faulty."""
        port = maker.port(name)
        ip = maker.floating_ip(name, port)
        server = maker.server(name, port)
        address = ip.address if ip else port.address
        target = self._target_of(server, address)
        maker.await_active(name, server)
        booting = Booting(partial(inventory.read_console, self._cloud, server.id), self._cloud.clock)
        try:
            connection = log_in(booting, target, self._known, self._settings.boot_timeout, self._say)
        except NoLogin as silence:
            told = f"{name}: its server runs, but {silence}.\n{booting.console_end()}"
            raise Faulty(told, server.id) from None
        self._login.keep(connection)
        maker.mark_answered(server)
        self._say(f"{name}: up, at {address}")
        with self._lock:
            self._targets[name] = target
            self._up.add(name)
        return address

    def open_ports(self, ports: Mapping[str, Collection[int]]) -> None:
        self._remove_surplus()
        group = security.ensure_group(self._cloud, self._mark)
        wanted = security.base_rules(self._settings) | security.seat_rules(
            {*itertools.chain(*ports.values())}, self._settings
        )
        security.add_rules(self._cloud, self._mark, group, wanted)
        security.remove_others(self._cloud, self._mark, group, wanted)

    # --- the end -----------------------------------------------------------------------------

    def resources(self) -> str:
        return sweep.find(self._cloud, self._mark).told()

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        return sweep.sweep(self._cloud, self._mark, only)
