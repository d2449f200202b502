"""What a course has in the cloud, recognised by its mark: the tag, name or description `cloudscale:COURSE`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from openstack.exceptions import raise_from_response

from cloudscale.drivers.made import natural
from cloudscale.drivers.openstack.cloud import MICROVERSION, Cloud
from cloudscale.errors import CloudError
from cloudscale.fanout import fan_out
from cloudscale.units import MIB

FINGERPRINT = "cloudscale.key"  # in the metadata of a server: the SSH key that it was made with
ANSWERED = "cloudscale.answered"  # tag of a server: it has been up, and may hold students' work
CONSOLE = 20.0  # seconds to read a console, with all attempts


def mark(course: str) -> str:
    return f"cloudscale:{course}"


@dataclass(frozen=True)
class Server:
    """A machine as nova has it. `memory` is bytes."""

    id: str
    name: str
    status: str
    task: str = ""
    has_answered: bool = False
    fingerprint: str = ""
    cpus: int = 0
    memory: int = 0
    created: str = ""


@dataclass(frozen=True)
class Port:
    """A machine's port in the network; it stays if the server is replaced. `owner`: the id of the server."""

    id: str
    name: str
    address: str
    owner: str = ""
    is_tagged: bool = True


@dataclass(frozen=True)
class FloatingIp:
    id: str
    address: str
    port_id: str = ""
    is_tagged: bool = True


@dataclass(frozen=True)
class Named:
    """Anything else that a course has. `status`: of a volume."""

    id: str
    name: str
    is_tagged: bool = True
    status: str = ""


@dataclass(frozen=True)
class Inventory:
    """The machines of a course, by name. `duplicates`: servers with the name of another one in `servers`."""

    servers: Mapping[str, Server] = field(default_factory=dict)
    duplicates: tuple[Server, ...] = ()
    ports: Mapping[str, Port] = field(default_factory=dict)
    ips: tuple[FloatingIp, ...] = ()

    def address(self, name: str, *, floating: bool) -> str:
        """The address of a machine: its floating IP (`floating`), or that of its port; "" if it has none yet."""
        port = self.ports.get(name)
        if port is None:
            return ""
        return next((ip.address for ip in self.ips if ip.port_id == port.id), "" if floating else port.address)


def read_inventory(cloud: Cloud, mark: str) -> Inventory:
    """The course's machines as they are now. Raises CloudError."""
    readers: dict[str, Callable[[], Any]] = {
        "servers": lambda: read_servers(cloud, mark),
        "ports": lambda: read_ports(cloud, mark),
        "floating IPs": lambda: read_ips(cloud, mark),
    }
    servers, ports, ips = read_together(readers)
    by_name: dict[str, Port] = {}
    for port in ports:  # of two with the same name, the one in use
        if port.name not in by_name or (port.owner and not by_name[port.name].owner):
            by_name[port.name] = port
    owners = {port.owner for port in by_name.values()}
    chosen: dict[str, Server] = {}
    for server in sorted(servers, key=lambda server: (server.id not in owners, server.created, server.id)):
        chosen.setdefault(server.name, server)
    ids = {server.id for server in chosen.values()}
    return Inventory(
        servers={name: chosen[name] for name in sorted(chosen, key=natural)},
        duplicates=tuple(server for server in servers if server.id not in ids),
        ports=by_name,
        ips=tuple(ips),
    )


def read_together(readers: Mapping[str, Callable[[], Any]]) -> list[Any]:
    """Reads several lists in parallel. Raises CloudError if one can't be read."""
    return fan_out(lambda name: readers[name](), readers).get()


def read_servers(cloud: Cloud, mark: str) -> list[Server]:
    """The servers with the course's tag.

    Reads the JSON without the objects of openstacksdk, each of which takes 3.5 ms of CPU time.
    """
    servers: list[dict[str, Any]] = []
    query = {"tags": mark}
    while page := cloud.attempt("Reading the servers", partial(_server_page, cloud, query)):
        servers += page["servers"]
        if not page.get("servers_links"):
            break
        query["marker"] = page["servers"][-1]["id"]
    # necessary: a nova that does not know tags lists every server of the project
    return [_server(server) for server in servers if mark in server.get("tags", ())]


def _server_page(cloud: Cloud, query: Mapping[str, str]) -> dict[str, Any]:
    answer = cloud.api.compute.get("/servers/detail", params=dict(query), microversion=MICROVERSION)
    raise_from_response(answer)
    page: dict[str, Any] = answer.json()
    return page


def read_fault(cloud: Cloud, server_id: str) -> str:
    """Why a server is in ERROR, as reported by the cloud; "" if it is not. Lists of servers do not have this."""

    def read() -> dict[str, Any]:
        answer = cloud.api.compute.get(f"/servers/{server_id}", microversion=MICROVERSION)
        raise_from_response(answer)
        fault: dict[str, Any] = answer.json()["server"].get("fault") or {}
        return fault

    with contextlib.suppress(CloudError):
        return " ".join(str(cloud.attempt("Reading a fault", read).get("message", "")).split()).rstrip(".")
    return ""


def read_console(cloud: Cloud, server_id: str) -> str | None:
    """The console output of a server; None if the cloud does not provide it."""
    compute = cloud.api.compute
    with contextlib.suppress(CloudError):
        answer = cloud.attempt(
            "Reading the console", lambda: compute.get_server_console_output(server_id), patience=CONSOLE
        )
        return str(answer.get("output") or "")
    return None


def _server(values: Mapping[str, Any]) -> Server:
    """From nova's JSON (its API reference, "List Servers Detailed")."""
    flavor, tags = values.get("flavor") or {}, values.get("tags") or ()
    return Server(
        id=values["id"],
        name=values["name"],
        status=str(values.get("status") or "UNKNOWN"),
        task=str(values.get("OS-EXT-STS:task_state") or ""),
        has_answered=ANSWERED in tags,
        fingerprint=(values.get("metadata") or {}).get(FINGERPRINT, ""),
        cpus=int(flavor.get("vcpus") or 0),
        memory=int(flavor.get("ram") or 0) * MIB,
        created=str(values.get("created") or ""),
    )


def read_ports(cloud: Cloud, mark: str) -> list[Port]:
    return [
        Port(port.id, port.name, own_address(port.fixed_ips), port.device_id or "", mark in (port.tags or ()))
        for port in _marked(cloud, "ports", cloud.api.network.ports, mark)
    ]


def own_address(fixed_ips: Iterable[Mapping[str, str]]) -> str:
    """The address of a port to be used: IPv4 if it has one."""
    addresses = sorted((str(fixed["ip_address"]) for fixed in fixed_ips or ()), key=lambda text: ":" in text)
    return next(iter(addresses), "")


def read_ips(cloud: Cloud, mark: str) -> list[FloatingIp]:
    ips = _marked(cloud, "floating IPs", cloud.api.network.ips, mark)
    return [FloatingIp(ip.id, ip.floating_ip_address, ip.port_id or "", mark in (ip.tags or ())) for ip in ips]


def read_security_groups(cloud: Cloud, mark: str) -> list[Named]:
    groups = _marked(cloud, "security groups", cloud.api.network.security_groups, mark)
    return [Named(group.id, group.name, mark in (group.tags or ())) for group in groups]


def read_server_groups(cloud: Cloud, mark: str) -> list[Named]:
    """Server groups have neither tags nor descriptions: their name is the mark."""
    groups = cloud.attempt("Reading the server groups", lambda: list(cloud.api.compute.server_groups()))
    return [Named(group.id, group.name) for group in groups if group.name == mark]


def read_group_sizes(cloud: Cloud, mark: str) -> dict[str, int]:
    """The ids of the course's server groups, with the number of their members."""
    groups = cloud.attempt("Reading the server groups", lambda: list(cloud.api.compute.server_groups()))
    return {str(group.id): len(group.member_ids or ()) for group in groups if group.name == mark}


def read_volumes(cloud: Cloud, mark: str) -> list[Named]:
    """The volumes that the course's machines boot from; none if the cloud has no block storage."""
    if not cloud.api.has_service("block-storage"):
        return []
    volumes = cloud.attempt("Reading the volumes", lambda: list(cloud.api.block_storage.volumes(details=True)))
    return [Named(v.id, v.name, status=str(v.status)) for v in volumes if v.description == mark]


def _marked(cloud: Cloud, what: str, listing: Callable[..., Iterable[Any]], mark: str) -> list[Any]:
    """By description, which is set when a resource is created, and by tag, which is set later and visible to users."""
    by_id = {}
    for query in ({"description": mark}, {"tags": mark}):
        for resource in cloud.attempt(f"Reading the {what}", partial(_listed, listing, query)):
            # necessary: a service that does not know a filter lists everything
            if resource.description == mark or mark in (resource.tags or ()):
                by_id[resource.id] = resource
    return list(by_id.values())


def _listed(listing: Callable[..., Iterable[Any]], query: Mapping[str, str]) -> list[Any]:
    return list(listing(**query))
