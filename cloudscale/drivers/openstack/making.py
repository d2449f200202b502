"""Makes the parts of a machine: its port, its floating IP, its server, and its volumes if it has some."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from openstack.exceptions import HttpException, raise_from_response

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack import inventory, security
from cloudscale.drivers.openstack.choices import Choices
from cloudscale.drivers.openstack.cloud import MICROVERSION, Cloud, status
from cloudscale.drivers.openstack.inventory import (
    ANSWERED,
    FINGERPRINT,
    REACHED,
    USER,
    FloatingIp,
    Inventory,
    Port,
    Server,
)
from cloudscale.drivers.openstack.stored import WORK, Volume
from cloudscale.drivers.openstack.volumes import VolumeMaker
from cloudscale.drivers.openstack.watch import Watch
from cloudscale.errors import CloudError, MachineError
from cloudscale.hosts.first_boot import user_data
from cloudscale.hosts.login_key import SshKey
from cloudscale.model import Say

BOOTING = 900.0  # seconds for a server to become ACTIVE; copying a large image to a hypervisor takes long
ASK = "Ask the cloud's administrators."
DELETING = 300.0  # seconds for a server to disappear


class Faulty(MachineError):
    """A server that will never work, but a new one may. `server_id`: the server to replace."""

    def __init__(self, message: str, server_id: str) -> None:
        super().__init__(message)
        self.server_id = server_id


@dataclass(frozen=True)
class Blueprint:
    """What all machines of a course have in common."""

    mark: str
    settings: OpenStackSettings
    choices: Choices
    key: SshKey


class Maker:
    """Makes the missing parts of machines, and uses those that exist. Safe to use from several threads."""

    def __init__(
        self, cloud: Cloud, blueprint: Blueprint, existing: Inventory, group_size: int | None, say: Say
    ) -> None:
        self._cloud = cloud
        self._say = say
        self._plan = blueprint
        self._group_size = group_size
        self._lock = threading.Lock()
        self._group: str | None = None
        self._deleted: set[str] = set()  # ids of servers
        self._servers = dict(existing.servers)
        self._ports = dict(existing.ports)
        self._ips = {ip.port_id: ip for ip in existing.ips if ip.port_id}
        self._spare_ips = _in_order([ip for ip in existing.ips if not ip.port_id], blueprint.settings.floating_ips)
        self._reserved_ips: dict[str, FloatingIp] = {}  # by the names of machines
        self._may_make_ports = True
        self._group_of: dict[str, str] = {}  # machine → id of its server group
        self._group_sizes: dict[str, int] | None = None  # id of a server group → members, with planned ones
        mark = blueprint.mark
        self._server_watch: Watch[Server] = Watch(lambda: inventory.read_servers(cloud, mark), cloud.clock)
        self._volumes = VolumeMaker(cloud, mark, blueprint.settings, blueprint.choices.image_id)

    # --- shared by the machines ------------------------------------------------------------------

    def _security_group(self) -> str:
        with self._lock:
            if self._group is None:
                mark, settings = self._plan.mark, self._plan.settings
                group = security.ensure_group(self._cloud, mark)
                rules = security.base_rules(settings, self._plan.choices.families)
                security.add_rules(self._cloud, mark, group, rules)
                self._group = group
            return self._group

    def _server_group(self, name: str) -> str | None:
        """A group with a free place. If possible, nova places the members of a group on different hypervisors."""
        with self._lock:
            if name in self._group_of:  # of the server that it replaces
                return self._group_of[name]
            if self._group_sizes is None:
                self._group_sizes = inventory.read_group_sizes(self._cloud, self._plan.mark)
            sizes = self._group_sizes
            free = (group for group, size in sizes.items() if not self._group_size or size < self._group_size)
            group = next(free, None) or self._create_server_group({*sizes})
            sizes[group] = sizes.get(group, 0) + 1
            self._group_of[name] = group
            return group

    def _create_server_group(self, known: Collection[str]) -> str:
        compute, mark = self._cloud.api.compute, self._plan.mark

        def find() -> str | None:
            return next((id for id in inventory.read_group_sizes(self._cloud, mark) if id not in known), None)

        def create() -> str:
            return str(compute.create_server_group(name=mark, policy="soft-anti-affinity").id)

        return self._cloud.attempt("Creating a server group", create, found=find)

    # --- one machine -----------------------------------------------------------------------------

    def port(self, name: str) -> Port | None:
        """The machine's port, with the mark; None if only compute may make it. Raises CloudError."""
        cloud, mark, network = self._cloud, self._plan.mark, self._cloud.api.network
        group = self._security_group()

        def find() -> Port | None:
            return next((port for port in inventory.read_ports(cloud, mark) if port.name == name), None)

        def create() -> Port | None:
            try:
                port = network.create_port(
                    network_id=self._plan.choices.network_id, name=name, description=mark, security_groups=[group]
                )
            except HttpException as error:
                if status(error) != 403:
                    raise
                self._may_make_ports = False  # a rule of this network: compute may, when it makes the server
                return None
            return replace(inventory.as_port(port), name=name, is_tagged=False, is_computes=False)

        port = self._ports.get(name)
        if port is None and self._may_make_ports:
            port = cloud.attempt(f"{name}: creating its port", create, found=find)
        return self._kept(name, port) if port else None

    def port_of(self, name: str, server: Server) -> Port:
        """The port that compute made for a server, which is ACTIVE. Raises CloudError."""
        network_id = self._plan.choices.network_id
        ports = inventory.read_ports_of(self._cloud, [server.id], network_id)
        if not ports:
            raise CloudError(f"{name}: compute made a server for it without a port in the network {network_id}.", ASK)
        return self._kept(name, ports[0])

    def _kept(self, name: str, port: Port) -> Port:
        """The port with the mark, kept for a server that replaces this one."""
        if not port.is_tagged:
            # where compute has to make the port, the mark may be forbidden too; the port is deleted with the server
            with contextlib.suppress(*([CloudError] if port.is_computes else [])):
                self._tag(name, "ports", port.id)
        self._ports[name] = replace(port, is_tagged=True)
        return self._ports[name]

    def reserve_ips(self, names: Iterable[str]) -> None:
        """Reserves the floating IPs that the project has already for the first machines without one."""
        with self._lock:
            given = [ip for ip in reversed(self._spare_ips) if not ip.is_ours]
            ports = {name: port.id for name, port in self._ports.items()}
            without = [name for name in names if ports.get(name) not in self._ips]
            self._reserved_ips = dict(zip(without, given, strict=False))
            self._spare_ips = [ip for ip in self._spare_ips if ip not in self._reserved_ips.values()]

    def floating_ip(self, name: str, port: Port) -> FloatingIp | None:
        """The machine's public address, bound to its port, with the mark; None if no external network is configured."""
        cloud, mark, network = self._cloud, self._plan.mark, self._cloud.api.network
        external = self._plan.choices.external_id
        if external is None:
            return None

        def find() -> FloatingIp | None:
            return next((ip for ip in inventory.read_ips(cloud, mark) if ip.port_id == port.id), None)

        def create() -> FloatingIp:
            ip = network.create_ip(floating_network_id=external, port_id=port.id, description=mark)
            return FloatingIp(ip.id, ip.floating_ip_address, port.id, is_tagged=False)

        ip = self._ips.get(port.id)
        if ip is None:
            with self._lock:
                spare = self._reserved_ips.pop(name, None) or (self._spare_ips.pop() if self._spare_ips else None)
            if spare:
                cloud.attempt(f"{name}: binding its floating IP", lambda: network.update_ip(spare.id, port_id=port.id))
                ip = spare
            else:
                ip = cloud.attempt(f"{name}: creating its floating IP", create, found=find)
        if ip.is_ours and not ip.is_tagged:
            self._tag(name, "floatingips", ip.id)
        self._ips[port.id] = replace(ip, is_tagged=True, port_id=port.id)
        return self._ips[port.id]

    def take_ip(self, name: str, ip: FloatingIp) -> None:
        """Takes a floating IP from a machine: one of the course's is deleted, one that was given is free again."""
        network = self._cloud.api.network
        if ip.is_ours:
            delete = partial(network.delete_ip, ip.id)
            self._cloud.attempt(f"{name}: deleting its floating IP", delete)
        else:
            unbind = partial(network.update_ip, ip.id, port_id=None)
            self._cloud.attempt(f"{name}: unbinding its floating IP", unbind)
        self._ips.pop(ip.port_id, None)

    def note_reached(self, server: Server, reached: str) -> None:
        """Writes down how a machine is reached, for later runs."""
        if server.reached != reached:
            self._note(server, REACHED, reached)

    def _note(self, server: Server, key: str, value: str) -> None:
        note = partial(self._cloud.api.compute.set_server_metadata, server.id, **{key: value})
        self._cloud.attempt(f"{server.name}: noting what it is", note)

    def _tag(self, name: str, kind: str, id: str) -> None:
        """Sets the mark that users see. The description has it since the resource was created."""
        network, mark = self._cloud.api.network, self._plan.mark
        self._cloud.attempt(
            f"{name}: setting the course's tag",
            lambda: raise_from_response(network.put(f"/{kind}/{id}/tags/{mark}")),
        )

    def server(self, name: str, port: Port | None, reached: str) -> Server:
        """The machine's server, existing or just requested; does not wait for it. Raises CloudError, MachineError.

        Without a port, compute makes one. `reached`: what its metadata is to say of how it is reached.
        """
        existing = self._servers.get(name)
        if existing and existing.id not in self._deleted:
            return existing
        settings = self._plan.settings
        boot = self._volumes.boot_volume(name) if settings.boot_volume else ""
        work = self._volumes.work_volume(name, self._say).id if settings.work_volume else ""

        def find() -> Server | None:
            servers = self._server_watch.now()
            return next((one for one in servers if one.name == name and one.id not in self._deleted), None)

        request = {**self._request(name, port, reached), **self._disks(boot, work)}
        request["metadata"] |= {WORK: work} if work else {}

        def create() -> Server:
            id = self._cloud.api.compute.create_server(**request).id
            return Server(id, name, "BUILD", reached=reached, work=work)

        self._servers[name] = self._cloud.attempt(f"{name}: creating its server", create, found=find)
        return self._servers[name]

    def _request(self, name: str, port: Port | None, reached: str) -> dict[str, Any]:
        """The arguments of the request to nova, without the disks."""
        plan, settings = self._plan, self._plan.settings
        others = [{"uuid": network} for network in plan.choices.other_networks]
        request: dict[str, Any] = {
            "name": name,
            "flavor_id": plan.choices.flavor_id,
            "networks": [{"port": port.id} if port else {"uuid": plan.choices.network_id}, *others],
            # for the ports that nova makes
            "security_groups": [{"name": self._security_group()}] if others or not port else None,
            "user_data": base64.b64encode(user_data(plan.key.public).encode()).decode(),
            "tags": [plan.mark],
            "metadata": {FINGERPRINT: plan.key.fingerprint, USER: plan.choices.user, REACHED: reached},
            "scheduler_hints": {"group": self._server_group(name)},
            "has_config_drive": settings.config_drive or None,
            "key_name": settings.key_pair,
            "availability_zone": settings.availability_zone,
        }
        return {key: value for key, value in request.items() if value is not None}

    def _disks(self, boot: str, work: str) -> dict[str, Any]:
        """What the server boots from, an image or a volume, and the volume for the work. Both are ids of volumes."""
        image = self._plan.choices.image_id
        own = {"source_type": "image", "destination_type": "local", "uuid": image}
        volume = {"source_type": "volume", "destination_type": "volume"}
        first = {**volume, "uuid": boot} if boot else own
        # nova wants what it boots from in a list of disks, too, even if it is the image
        disks = [{**first, "boot_index": 0, "delete_on_termination": True}]
        if work:
            disks += [{**volume, "uuid": work, "boot_index": -1, "delete_on_termination": False}]
        return {
            **({} if boot else {"image_id": image}),
            **({"block_device_mapping": disks} if boot or work else {}),
        }

    def attached_work(self, name: str, server: Server) -> Volume | None:
        """The machine's work volume, attached to its server, which is ACTIVE; None if it has none.

        A machine from before the setting gets none: its students' work is on its disk. Raises CloudError, MachineError.
        """
        if not self._plan.settings.work_volume or (server.has_answered and not server.work):
            return None
        volume = self._volumes.attached(name, server.id, say=self._say)
        if server.work != volume.id:
            if server.work:
                self._say(f"Warning: {name}: its work volume was deleted in the cloud, with the students' work on it")
            self._note(server, WORK, volume.id)
        return volume

    def note_used(self, name: str, work: Volume) -> None:
        self._volumes.note_used(name, work)

    def await_active(self, name: str, server: Server) -> None:
        """Waits until the server is ACTIVE; starts it if it is shut off. Raises Faulty, MachineError, CloudError."""
        deadline = self._cloud.clock.now() + BOOTING
        if self._await_status(name, server, deadline, "ACTIVE", "SHUTOFF") == "SHUTOFF":
            self._cloud.attempt(f"{name}: starting its server", partial(self._start_server, server.id))
            self._await_status(name, server, deadline, "ACTIVE")

    def _start_server(self, server_id: str) -> None:
        try:
            self._cloud.api.compute.start_server(server_id)
        except HttpException as error:
            if status(error) != 409:  # it runs: an attempt without an answer started it
                raise

    def _await_status(self, name: str, server: Server, deadline: float, *expected: str) -> str:
        """Waits until the server has one of these states, and the cloud does not work on it. Raises Faulty."""

        def find(servers: Sequence[Server]) -> str | None:
            now = next((other for other in servers if other.id == server.id), None)
            if now is None:
                raise Faulty(f"{name}: its server was deleted while it booted.", server.id)
            if now.status == "ERROR":
                cause = inventory.read_fault(self._cloud, server.id) or "the cloud reports no cause"
                raise Faulty(f"{name}: its server is in ERROR ({cause}).", server.id)
            is_busy = now.task == "deleting" or (now.status == "SHUTOFF" and now.task)
            return now.status if now.status in expected and not is_busy else None

        state = self._server_watch.until(find, deadline - self._cloud.clock.now())
        if state is None:
            raise Faulty(f"{name}: its server was not ACTIVE after {BOOTING:.0f} s.", server.id)
        return state

    def mark_answered(self, server: Server) -> None:
        """Tags a server that may hold students' work from now on: it is never replaced automatically again."""
        compute = self._cloud.api.compute
        tag = f"/servers/{server.id}/tags/{ANSWERED}"
        self._cloud.attempt(
            f"{server.name}: tagging its server as up",
            lambda: raise_from_response(compute.put(tag, microversion=MICROVERSION)),
        )

    def discard(self, server_id: str) -> None:
        """Deletes a server that does not work, and waits until it is gone. Raises CloudError.

        Its port stays, unless compute made it.
        """
        compute = self._cloud.api.compute
        self._cloud.attempt("Deleting a server", lambda: compute.delete_server(server_id))
        self._deleted.add(server_id)

        def is_gone(servers: Sequence[Server]) -> bool | None:
            return None if any(server.id == server_id for server in servers) else True

        for name, port in [*self._ports.items()]:
            if port.is_computes and port.owner == server_id:
                del self._ports[name]
                if ip := self._ips.pop(port.id, None):
                    self._reserved_ips[name] = replace(ip, port_id="")
        if not self._server_watch.until(is_gone, DELETING):
            raise CloudError(f"The server {server_id} still exists {DELETING:.0f} s after it was deleted.", ASK)


def remove_duplicates(cloud: Cloud, mark: str, existing: Inventory, say: Say) -> bool:
    """Deletes servers that were created twice, because the cloud did not answer the first request.

    Returns whether there were any.
    """
    # nova gives the port to the second server: the first one is useless, too, unless it may hold students' work
    others = [existing.servers[server.name] for server in existing.duplicates]
    to_delete = {*existing.duplicates, *(server for server in others if not server.has_answered)}
    for server in to_delete:
        say(f"{server.name}: it has two servers, deleting {server.id}")
        delete = partial(cloud.api.compute.delete_server, server.id)
        cloud.attempt(f"{server.name}: deleting a second server", delete)
    if to_delete:
        ids = {server.id for server in to_delete}
        watch: Watch[Server] = Watch(lambda: inventory.read_servers(cloud, mark), cloud.clock)
        watch.until(lambda servers: not ids & {server.id for server in servers} or None, DELETING)
    return bool(to_delete)


def _in_order(ips: Collection[FloatingIp], given: Sequence[str]) -> list[FloatingIp]:
    """The order in which they are used, from the end: first those that were given, in their order."""
    first = [ip for address in given for ip in ips if ip.address == address]
    return [*(ip for ip in ips if ip not in first), *reversed(first)]
