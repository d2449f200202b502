"""Deletes what a course has in the cloud, or what some of its machines have. Nothing without the mark is deleted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from openstack.exceptions import HttpException

from cloudscale.drivers.openstack import inventory
from cloudscale.drivers.openstack.cloud import Cloud, is_transient, status
from cloudscale.drivers.openstack.inventory import Server, read_together
from cloudscale.drivers.openstack.stored import Volume, read_volumes
from cloudscale.drivers.openstack.watch import Watch
from cloudscale.errors import CloudError
from cloudscale.fanout import fan_out
from cloudscale.model import Outcome, Outcomes

R = TypeVar("R", Server, Volume)

DELETING = 300.0  # seconds for a server or a volume to disappear
IN_USE = 60.0  # seconds in which a port, a group or a volume may still be in use
CONFLICT = 409
VOLUME_IN_USE = 400  # cinder: "Volume status must be available", while it is attached or an image is copied to it
ASK = "Run again. If it fails again, ask the cloud's administrators."


@dataclass(frozen=True)
class Resource:
    """Something that the course has, and how to delete it. `in_use`: the status of a refusal while it is in use."""

    name: str
    id: str
    delete: Callable[[str], object]
    in_use: int = CONFLICT


@dataclass(frozen=True)
class Resources:
    """All resources of a course, in the order of their deletion: the resources of a stage use those of the next one."""

    servers: Sequence[Resource]
    ips: Sequence[Resource]
    ports: Sequence[Resource]
    volumes: Sequence[Resource]
    server_groups: Sequence[Resource]
    security_groups: Sequence[Resource]

    @property
    def stages(self) -> list[list[Resource]]:
        return [[*self.servers, *self.ips], [*self.ports, *self.volumes, *self.server_groups], [*self.security_groups]]

    @property
    def all(self) -> list[Resource]:
        return [resource for stage in self.stages for resource in stage]

    def describe(self) -> str:
        """The number of each kind of resource, in words."""
        counts = {
            "servers": self.servers,
            "floating IPs": self.ips,
            "ports": self.ports,
            "volumes": self.volumes,
            "server groups": self.server_groups,
            "security groups": self.security_groups,
        }
        return ", ".join(f"{len(resources)} {what}" for what, resources in counts.items() if resources)


def find(cloud: Cloud, mark: str, only: Collection[str] | None = None, keep: Collection[str] = ()) -> Resources:
    """Everything with the mark but the work volumes; with `only`, what belongs to these machines. Raises CloudError.

    `keep`: addresses of floating IPs that stay, because the project had them before.
    """
    compute, network = cloud.api.compute, cloud.api.network
    servers, ports, ips, volumes, server_groups, security_groups = read_together(
        {
            "servers": partial(inventory.read_servers, cloud, mark),
            "ports": partial(inventory.read_ports, cloud, mark),
            "floating IPs": partial(inventory.read_ips, cloud, mark),
            "volumes": partial(read_volumes, cloud, mark),
            "server groups": partial(inventory.read_server_groups, cloud, mark),
            "security groups": partial(inventory.read_security_groups, cloud, mark),
        }
    )
    own_servers = [server for server in servers if only is None or server.name in only]
    server_ids = {server.id for server in own_servers}
    # a port that compute made has no name
    own_ports = [port for port in ports if only is None or port.name in only or port.owner in server_ids]
    ids = {port.id for port in own_ports}
    return Resources(
        servers=[Resource(f"server {server.name}", server.id, compute.delete_server) for server in own_servers],
        ips=[
            Resource(f"floating IP {ip.address}", ip.id, network.delete_ip)
            for ip in ips
            if (only is None or ip.port_id in ids or ip.owner in server_ids) and ip.address not in keep
        ],
        ports=[Resource(f"port {port.name or port.id}", port.id, network.delete_port) for port in own_ports],
        volumes=[
            _volume(cloud, volume) for volume in volumes if not volume.machine and (only is None or volume.name in only)
        ],
        server_groups=[
            Resource(f"server group {group.id}", group.id, compute.delete_server_group)
            for group in server_groups
            if only is None
        ],
        security_groups=[
            Resource(f"security group {group.name}", group.id, network.delete_security_group)
            for group in security_groups
            if only is None
        ],
    )


def find_work(cloud: Cloud, mark: str) -> Resources:
    """The work volumes with the mark. Raises CloudError."""
    volumes = [_volume(cloud, volume) for volume in read_volumes(cloud, mark) if volume.machine]
    return Resources([], [], [], volumes, [], [])


def _volume(cloud: Cloud, volume: Volume) -> Resource:
    return Resource(f"volume {volume.name}", volume.id, cloud.api.block_storage.delete_volume, VOLUME_IN_USE)


def sweep(cloud: Cloud, mark: str, only: Collection[str] | None = None, keep: Collection[str] = ()) -> Outcomes[str]:
    """Deletes all that `find` returns. Returns an outcome for each."""
    return _delete_all(cloud, mark, partial(find, cloud, mark, only, keep))


def sweep_work(cloud: Cloud, mark: str) -> Outcomes[str]:
    """Deletes the work volumes, with the students' work; to be called once their servers are gone."""
    return _delete_all(cloud, mark, partial(find_work, cloud, mark))


def _delete_all(cloud: Cloud, mark: str, find: Callable[[], Resources]) -> Outcomes[str]:
    """Deletes all that `find` returns, in parallel, and waits until it is gone."""
    done: dict[str, Outcome[str]] = {}
    servers: Watch[Server] = Watch(lambda: inventory.read_servers(cloud, mark), cloud.clock)
    volumes: Watch[Volume] = Watch(lambda: read_volumes(cloud, mark), cloud.clock)
    resources = find()
    while new := [one for one in resources.all if one.id not in done]:
        for stage in resources.stages:
            now = [resource for resource in stage if resource in new]
            outcomes = fan_out(partial(_delete, cloud), now, name=_name)
            done |= {resource.id: outcome for resource, outcome in zip(now, outcomes, strict=True)}
            accepted = [resource for resource, outcome in zip(now, outcomes, strict=True) if outcome.ok]
            left = _await_gone(servers, [one for one in accepted if one in resources.servers], _is_stuck)
            left_volumes = _await_gone(volumes, [one for one in accepted if one in resources.volumes], _is_stuck_volume)
            states = {server.id: _state(cloud, server) for server in left}
            states |= {volume.id: f"it is {volume.status}" for volume in left_volumes}
            done |= {one.id: _failed(one, f"It was not deleted: {states[one.id]}.") for one in now if one.id in states}
        # the last requests of an interrupted run may have been carried out meanwhile
        resources = find()
    for resource in resources.all:
        if done[resource.id].ok:
            done[resource.id] = _failed(resource, "The cloud reported it as deleted, but it still exists.")
    return Outcomes(done.values())


def _failed(resource: Resource, message: str) -> Outcome[str]:
    return Outcome(resource.name, error=CloudError(message, ASK))


def _name(resource: Resource) -> str:
    return resource.name


def _delete(cloud: Cloud, resource: Resource) -> str:
    """Deletes it as soon as it is no longer in use. openstacksdk ignores that it is already gone."""
    deadline = cloud.clock.now() + IN_USE

    def attempt() -> bool:
        try:
            resource.delete(resource.id)
        except HttpException as error:
            if status(error) != resource.in_use or is_transient(error) or cloud.clock.now() > deadline:
                raise
            return False
        return True

    while not cloud.attempt(f"Deleting the {resource.name}", attempt):
        cloud.clock.sleep(2)
    return "deleted"


def _await_gone(watch: Watch[R], resources: Sequence[Resource], is_stuck: Callable[[R], bool]) -> list[R]:
    """Waits until these servers or volumes are gone, or the cloud gives up. Returns those that remain."""
    ids = {resource.id for resource in resources}

    def is_over(items: Sequence[R]) -> bool:
        return all(is_stuck(item) for item in items if item.id in ids)

    if not ids:
        return []
    watch.until(is_over, DELETING)
    return [item for item in watch.latest if item.id in ids]


def _is_stuck(server: Server) -> bool:
    return server.status == "ERROR" and not server.task


def _is_stuck_volume(volume: Volume) -> bool:
    return volume.status == "error_deleting"


def _state(cloud: Cloud, server: Server) -> str:
    fault = inventory.read_fault(cloud, server.id) if server.status == "ERROR" else ""
    return ", ".join(part for part in (f"it is {server.status}", server.task, fault) if part)
