"""A machine is made: its port, its floating IP, its volume where it has one, and its server."""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from openstack.exceptions import HttpException, raise_from_response

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack import inventory, security
from cloudscale.drivers.openstack.choices import Choices
from cloudscale.drivers.openstack.cloud import MICROVERSION, Cloud, status
from cloudscale.drivers.openstack.inventory import ANSWERED, FINGERPRINT, FloatingIp, Inventory, Named, Port, Server
from cloudscale.drivers.openstack.watch import Watch
from cloudscale.errors import CloudError, MachineError
from cloudscale.hosts.first_boot import user_data
from cloudscale.hosts.login_key import SshKey
from cloudscale.units import GIB

BOOTING = 900.0  # seconds for a server to become ACTIVE; large images are slow to reach a hypervisor
COPYING = 1800.0  # the same for a volume that an image is copied to
FILLING = ("creating", "downloading", "available")  # a volume's states on the way to use
ASK = "Ask who runs the cloud."
GOING = 300.0  # seconds for a server to be gone


class Faulty(MachineError):
    """A server that will never serve, but another one in its place may. `server_id`: the one that has to go."""

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
    """Makes what is missing of a machine; what is there is used. Safe to use from several threads."""

    def __init__(self, cloud: Cloud, blueprint: Blueprint, there: Inventory, group_size: int | None) -> None:
        self._cloud = cloud
        self._plan = blueprint
        self._there = there
        self._group_size = group_size
        self._lock = threading.Lock()
        self._group: str | None = None
        self._gone: set[str] = set()
        self._servers = dict(there.servers)
        self._ports = dict(there.ports)
        self._ips = {ip.port_id: ip for ip in there.ips if ip.port_id}
        self._spare_ips = [ip for ip in there.ips if not ip.port_id]
        self._places: dict[str, str] = {}  # name → server group
        self._server_groups: dict[str, int] | None = None  # id → members to come, too
        mark = blueprint.mark
        self.servers: Watch[Server] = Watch(lambda: inventory.read_servers(cloud, mark), cloud.clock)
        self._volumes: Watch[Named] = Watch(lambda: inventory.read_volumes(cloud, mark), cloud.clock)

    # --- what the machines share -----------------------------------------------------------------

    def _security_group(self) -> str:
        with self._lock:
            if self._group is None:
                mark, settings = self._plan.mark, self._plan.settings
                group = security.ensure_group(self._cloud, mark)
                security.add_rules(self._cloud, mark, group, security.base_rules(settings))
                self._group = group
            return self._group

    def _server_group(self, name: str) -> str | None:
        """One with room for a machine more: the members of a group go to different hypervisors as far as they can."""
        with self._lock:
            if name in self._places:  # its predecessor is gone
                return self._places[name]
            if self._server_groups is None:
                self._server_groups = inventory.read_group_sizes(self._cloud, self._plan.mark)
            groups = self._server_groups
            for group, members in groups.items():
                if not self._group_size or members < self._group_size:
                    groups[group] += 1
                    self._places[name] = group
                    return group
            before = set(groups)
            compute, mark = self._cloud.api.compute, self._plan.mark

            def new() -> str | None:
                return next((id for id in inventory.read_group_sizes(self._cloud, mark) if id not in before), None)

            def made() -> str:
                return str(compute.create_server_group(name=mark, policy="soft-anti-affinity").id)

            group = self._cloud.attempt("Making a server group", made, found=new)
            groups[group] = 1
            self._places[name] = group
            return group

    # --- one machine -----------------------------------------------------------------------------

    def port(self, name: str) -> Port:
        """The machine's port, marked. Raises CloudError."""
        cloud, mark, network = self._cloud, self._plan.mark, self._cloud.api.network
        group = self._security_group()

        def found() -> Port | None:
            return next((port for port in inventory.read_ports(cloud, mark) if port.name == name), None)

        def made() -> Port:
            port = network.create_port(
                network_id=self._plan.choices.network_id, name=name, description=mark, security_groups=[group]
            )
            return Port(port.id, name, inventory.own_address(port.fixed_ips), is_tagged=False)

        port = self._ports.get(name) or cloud.attempt(f"{name}: making its port", made, found=found)
        if not port.is_tagged:
            self._tag(name, "ports", port.id)
        self._ports[name] = replace(port, is_tagged=True)  # it stays when its server is replaced
        return self._ports[name]

    def floating_ip(self, name: str, port: Port) -> FloatingIp | None:
        """The machine's address for the world, bound to its port and marked; None where none is wanted."""
        cloud, mark, network = self._cloud, self._plan.mark, self._cloud.api.network
        external = self._plan.choices.external_id
        if external is None:
            return None

        def found() -> FloatingIp | None:
            return next((ip for ip in inventory.read_ips(cloud, mark) if ip.port_id == port.id), None)

        def made() -> FloatingIp:
            ip = network.create_ip(floating_network_id=external, port_id=port.id, description=mark)
            return FloatingIp(ip.id, ip.floating_ip_address, port.id, is_tagged=False)

        ip = self._ips.get(port.id)
        if ip is None:
            with self._lock:
                spare = self._spare_ips.pop() if self._spare_ips else None
            if spare:
                cloud.attempt(f"{name}: binding its floating IP", lambda: network.update_ip(spare.id, port_id=port.id))
                ip = spare
            else:
                ip = cloud.attempt(f"{name}: making its floating IP", made, found=found)
        if not ip.is_tagged:
            self._tag(name, "floatingips", ip.id)
        self._ips[port.id] = replace(ip, is_tagged=True)
        return self._ips[port.id]

    def _tag(self, name: str, kind: str, number: str) -> None:
        """The mark that others see; one in the description is there from the first moment."""
        network, mark = self._cloud.api.network, self._plan.mark
        self._cloud.attempt(
            f"{name}: marking what it has",
            lambda: raise_from_response(network.put(f"/{kind}/{number}/tags/{mark}")),
        )

    def server(self, name: str, port: Port) -> Server:
        """The machine's server, found or asked for; it is not awaited. Raises CloudError, MachineError."""
        there = self._servers.get(name)
        if there and there.id not in self._gone:
            return there
        volume = self._volume(name) if self._plan.settings.boot_volume else ""

        def found() -> Server | None:
            return self._named(name, self.servers.now())

        wanted = self._wanted(name, port, volume)

        def made() -> Server:
            return Server(self._cloud.api.compute.create_server(**wanted).id, name, "BUILD")

        self._servers[name] = self._cloud.attempt(f"{name}: making its server", made, found=found)
        return self._servers[name]

    def _named(self, name: str, servers: Sequence[Server]) -> Server | None:
        return next((server for server in servers if server.name == name and server.id not in self._gone), None)

    def _wanted(self, name: str, port: Port, volume: str) -> dict[str, Any]:
        """The server as nova is asked for it."""
        plan, settings = self._plan, self._plan.settings
        wanted: dict[str, Any] = {
            "name": name,
            "flavor_id": plan.choices.flavor_id,
            "networks": [{"port": port.id}],
            "user_data": base64.b64encode(user_data(plan.key.public).encode()).decode(),
            "tags": [plan.mark],
            "metadata": {FINGERPRINT: plan.key.fingerprint},
            "scheduler_hints": {"group": self._server_group(name)},
            "has_config_drive": settings.config_drive or None,
            "key_name": settings.key_pair,
            "availability_zone": settings.availability_zone,
        }
        if volume:
            device = {"uuid": volume, "source_type": "volume", "destination_type": "volume"}
            wanted["block_device_mapping"] = [{**device, "boot_index": 0, "delete_on_termination": True}]
        else:
            wanted["image_id"] = plan.choices.image_id
        return {key: value for key, value in wanted.items() if value is not None}

    def _volume(self, name: str) -> str:
        """The id of a volume with the image on it."""
        cloud, plan = self._cloud, self._plan
        size = -(-int(plan.settings.boot_volume or 0) // GIB)

        def found() -> Named | None:
            usable = [volume for volume in self._volumes.now() if volume.name == name and volume.status in FILLING]
            return next(iter(usable), None)

        def made() -> Named:
            volume = cloud.api.block_storage.create_volume(
                name=name,
                description=plan.mark,
                size=size,
                image_id=plan.choices.image_id,
                availability_zone=plan.settings.availability_zone,
            )
            return Named(volume.id, name)

        volume = found() or cloud.attempt(f"{name}: making its volume", made, found=found)

        def filled(volumes: Sequence[Named]) -> bool | None:
            state = next((found.status for found in volumes if found.id == volume.id), "deleted")
            if state.startswith("error") or state == "deleted":
                cloud.attempt(f"{name}: removing its volume", lambda: cloud.api.block_storage.delete_volume(volume.id))
                raise MachineError(f"{name}: its volume is in the state {state}.", "Run again; or boot without one.")
            return state == "available" or None

        if not self._volumes.until(filled, COPYING):
            raise MachineError(f"{name}: the image was not on its volume after {COPYING:.0f} s.", "Run again.")
        return volume.id

    def await_active(self, name: str, server: Server) -> None:
        """Until the server runs; one that is shut off is started. Raises Faulty, MachineError, CloudError."""
        compute = self._cloud.api.compute
        started: list[bool] = []

        def start() -> None:
            try:
                compute.start_server(server.id)
            except HttpException as error:
                if status(error) != 409:  # it runs: an attempt that was not answered started it
                    raise

        def found(servers: Sequence[Server]) -> str | None:
            seen = next((other for other in servers if other.id == server.id), None)
            if seen is None:
                raise Faulty(f"{name}: its server was deleted while it booted.", server.id)
            if seen.status == "ERROR":
                cause = inventory.read_fault(self._cloud, server.id) or "no cause is given"
                raise Faulty(f"{name}: its server is in ERROR ({cause}).", server.id)
            if seen.status == "SHUTOFF" and not seen.task and not started:
                started.append(True)
                self._cloud.attempt(f"{name}: starting its server", start)
            return seen.id if seen.status == "ACTIVE" and seen.task != "deleting" else None

        if self.servers.until(found, BOOTING) is None:
            raise Faulty(f"{name}: its server was not ACTIVE after {BOOTING:.0f} s.", server.id)

    def mark_answered(self, server: Server) -> None:
        """From now on there may be work on it: it is never replaced by itself again."""
        compute = self._cloud.api.compute
        tag = f"/servers/{server.id}/tags/{ANSWERED}"
        self._cloud.attempt(
            f"{server.name}: marking it",
            lambda: raise_from_response(compute.put(tag, microversion=MICROVERSION)),
        )

    def discard(self, server_id: str) -> None:
        """Deletes a server that is of no use, and waits until it is gone. Its port stays. Raises CloudError."""
        compute = self._cloud.api.compute
        self._cloud.attempt("Deleting a server", lambda: compute.delete_server(server_id))
        self._gone.add(server_id)

        def found(servers: Sequence[Server]) -> bool | None:
            return None if any(server.id == server_id for server in servers) else True

        if not self.servers.until(found, GOING):
            raise CloudError(f"A server ({server_id}) is not gone {GOING:.0f} s after it was deleted.", ASK)
