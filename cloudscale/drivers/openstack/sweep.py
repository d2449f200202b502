"""What a course has in the cloud is deleted: all of it, or what some machines have. Nothing that lacks the mark is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from openstack.exceptions import HttpException

from cloudscale.drivers.openstack import inventory
from cloudscale.drivers.openstack.cloud import Cloud, is_transient, status
from cloudscale.drivers.openstack.inventory import Named, Server, read_together
from cloudscale.drivers.openstack.watch import Watch
from cloudscale.errors import CloudError
from cloudscale.fanout import fan_out
from cloudscale.model import Outcome, Outcomes

GOING = 300.0  # seconds for servers to be gone
LETTING_GO = 60.0  # seconds for a port, a group or a volume to be free for deletion
CONFLICT = 409
VOLUME_HELD = 400  # cinder's "Volume status must be available", while a server has it yet or an image is copied to it
ASK = "Run again; if it stays, ask who runs the cloud."


@dataclass(frozen=True)
class Doomed:
    """Something that is to go, and how it is deleted."""

    name: str
    id: str
    delete: Callable[[str], object]
    held: int = CONFLICT
    """The status of a refusal while something else holds it."""


@dataclass(frozen=True)
class Everything:
    """What a course has, in the order in which it can go: each stage holds the one after it."""

    servers: Sequence[Doomed]
    ips: Sequence[Doomed]
    ports: Sequence[Doomed]
    volumes: Sequence[Doomed]
    server_groups: Sequence[Doomed]
    security_groups: Sequence[Doomed]

    @property
    def stages(self) -> list[list[Doomed]]:
        return [[*self.servers, *self.ips], [*self.ports, *self.volumes, *self.server_groups], [*self.security_groups]]

    @property
    def all(self) -> list[Doomed]:
        return [doomed for stage in self.stages for doomed in stage]

    def told(self) -> str:
        """How many there are of what, in words."""
        counts = {
            "servers": self.servers,
            "floating IPs": self.ips,
            "ports": self.ports,
            "volumes": self.volumes,
            "server groups": self.server_groups,
            "security groups": self.security_groups,
        }
        return ", ".join(f"{len(found)} {what}" for what, found in counts.items() if found)


def find(cloud: Cloud, mark: str, only: Collection[str] | None = None) -> Everything:
    """What carries the mark; with `only`, what belongs to the machines of these names. Raises CloudError."""
    compute, network = cloud.api.compute, cloud.api.network
    servers, ports, ips, volumes, server_groups, security_groups = read_together(
        {
            "servers": partial(inventory.read_servers, cloud, mark),
            "ports": partial(inventory.read_ports, cloud, mark),
            "floating IPs": partial(inventory.read_ips, cloud, mark),
            "volumes": partial(inventory.read_volumes, cloud, mark),
            "server groups": partial(inventory.read_server_groups, cloud, mark),
            "security groups": partial(inventory.read_security_groups, cloud, mark),
        }
    )
    meant = [port for port in ports if only is None or port.name in only]
    ids = {port.id for port in meant}
    return Everything(
        servers=[
            Doomed(f"server {server.name}", server.id, compute.delete_server)
            for server in servers
            if only is None or server.name in only
        ],
        ips=[
            Doomed(f"floating IP {ip.address}", ip.id, network.delete_ip)
            for ip in ips
            if only is None or ip.port_id in ids
        ],
        ports=[Doomed(f"port {port.name or port.id}", port.id, network.delete_port) for port in meant],
        volumes=[
            Doomed(f"volume {volume.name}", volume.id, cloud.api.block_storage.delete_volume, VOLUME_HELD)
            for volume in volumes
            if only is None or volume.name in only
        ],
        server_groups=[
            Doomed(f"server group {group.id}", group.id, compute.delete_server_group)
            for group in server_groups
            if only is None
        ],
        security_groups=[
            Doomed(f"security group {group.name}", group.id, network.delete_security_group)
            for group in security_groups
            if only is None
        ],
    )


def sweep(cloud: Cloud, mark: str, only: Collection[str] | None = None) -> Outcomes[str]:
    """Deletes all that `find` finds, side by side, and waits until it is gone; what refuses is named."""
    done: dict[str, Outcome[str]] = {}
    watch: Watch[Server] = Watch(lambda: inventory.read_servers(cloud, mark), cloud.clock)
    everything = find(cloud, mark, only)
    while new := [one for one in everything.all if one.id not in done]:
        for stage in everything.stages:
            going = [doomed for doomed in stage if doomed in new]
            for doomed, outcome in zip(going, fan_out(partial(_delete, cloud), going, name=_name), strict=True):
                done[doomed.id] = outcome
            servers = [doomed for doomed in going if doomed in everything.servers]
            done |= {doomed.id: outcome for doomed, outcome in _await_gone(cloud, watch, servers, done)}
            volumes = [doomed for doomed in going if doomed in everything.volumes and done[doomed.id].ok]
            done |= {doomed.id: outcome for doomed, outcome in _await_volumes(cloud, mark, volumes)}
        # what a run that was cut off asked for last may have appeared meanwhile
        everything = find(cloud, mark, only)
    for doomed in everything.all:
        if done[doomed.id].ok:
            error = CloudError("It was deleted, and is there all the same.", ASK)
            done[doomed.id] = Outcome(doomed.name, error=error)
    return Outcomes(done.values())


def _name(doomed: Doomed) -> str:
    return doomed.name


def _delete(cloud: Cloud, doomed: Doomed) -> str:
    """Deletes it as soon as nothing holds it any more; what is gone already is gone."""
    deadline = cloud.clock.now() + LETTING_GO

    def attempt() -> bool:
        try:
            doomed.delete(doomed.id)
        except HttpException as error:
            if status(error) != doomed.held or is_transient(error) or cloud.clock.now() > deadline:
                raise
            return False
        return True

    while not cloud.attempt(f"Deleting the {doomed.name}", attempt):
        cloud.clock.sleep(2)
    return "deleted"


def _await_gone(
    cloud: Cloud, watch: Watch[Server], servers: Sequence[Doomed], done: dict[str, Outcome[str]]
) -> list[tuple[Doomed, Outcome[str]]]:
    """Waits for the servers whose deletion was accepted; returns those that do not go."""
    going = {doomed.id for doomed in servers if done[doomed.id].ok}
    last: dict[str, Server] = {}

    def gone(found: Sequence[Server]) -> bool | None:
        last.clear()
        last.update({server.id: server for server in found if server.id in going})
        # nova gives up with ERROR
        return True if all(server.status == "ERROR" and not server.task for server in last.values()) else None

    if going:
        watch.until(gone, GOING)
    return [
        (doomed, Outcome(doomed.name, error=CloudError(f"It does not go: {_state(cloud, last[doomed.id])}.", ASK)))
        for doomed in servers
        if doomed.id in last
    ]


def _await_volumes(cloud: Cloud, mark: str, volumes: Sequence[Doomed]) -> list[tuple[Doomed, Outcome[str]]]:
    """The same for volumes."""
    going = {doomed.id for doomed in volumes}
    last: dict[str, str] = {}

    def gone(found: Sequence[Named]) -> bool | None:
        last.clear()
        last.update({volume.id: volume.status for volume in found if volume.id in going})
        return True if all(state == "error_deleting" for state in last.values()) else None

    if going:
        watch: Watch[Named] = Watch(lambda: inventory.read_volumes(cloud, mark), cloud.clock)
        watch.until(gone, GOING)
    return [
        (doomed, Outcome(doomed.name, error=CloudError(f"It does not go: it is {last[doomed.id]}.", ASK)))
        for doomed in volumes
        if doomed.id in last
    ]


def _state(cloud: Cloud, server: Server) -> str:
    fault = inventory.read_fault(cloud, server.id) if server.status == "ERROR" else ""
    return ", ".join(part for part in (f"it is {server.status}", server.task, fault) if part)
