"""What a course has in the cloud, recognised by its mark: the tag, name or description `cloudscale:COURSE`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from openstack.exceptions import raise_from_response

from cloudscale.course.deadline import MARK, latest
from cloudscale.course.naming import natural
from cloudscale.drivers.openstack.cloud import MICROVERSION, Cloud, understood
from cloudscale.drivers.openstack.stored import WORK, Volume, read_volumes, work_volumes
from cloudscale.errors import CloudError, SettingsError
from cloudscale.fanout import fan_out
from cloudscale.networks import is_public
from cloudscale.outside import formed, given, shaped, typed
from cloudscale.units import MIB

# in the metadata of a server: the SSH key that it was made with, the user for logins, and how it is reached; the work
# volume that it was made with is there under the name that the volume has its machine under (WORK)
FINGERPRINT, USER, REACHED = "cloudscale.key", "cloudscale.user", "cloudscale.reached"
FLOATING, OWN, INNER = "floating", "own", "inner"  # by a floating IP, by its own address, through the first machine
ANSWERED = "cloudscale.answered"  # tag of a server: it has been up, and may hold students' work
UNTIL = f"{MARK}:"  # tag of the security group, before the time
CONSOLE = 20.0  # seconds to read a console, with all attempts


def mark(course: str) -> str:
    return f"cloudscale:{course}"


SERVER = {  # what is needed of nova's JSON
    "id": str,
    "name": str,
    "flavor?": {"vcpus?": int, "ram?": int},
    "tags?": [str],
    "metadata?": {"*": str},
    "os-extended-volumes:volumes_attached?": [{"id": str}],
}
MARKED = {"id": str, "name?": str, "description?": str, "tags?": [str]}
GROUP = {"id": str, "name": str, "member_ids?": [str]}
FAULT = {"server": {"fault?": {"message?": str}}}


@dataclass(frozen=True)
class Server:
    """A machine as nova has it. `memory` is bytes. `volumes`: ids of those that it has, or that it is to have.

    `work`: the id of its work volume, which it may have lost; "" for a machine from before the setting.
    """

    id: str
    name: str
    status: str
    task: str = ""
    has_answered: bool = False
    fingerprint: str = ""
    user: str = ""
    reached: str = ""
    cpus: int = 0
    memory: int = 0
    created: str = ""
    volumes: tuple[str, ...] = ()
    work: str = ""

    @property
    def is_up(self) -> bool:
        """Whether it can be logged in to. The first login is that of its boot, which has its keys from the console."""
        return self.status == "ACTIVE" and self.has_answered

    @property
    def lacks_work(self) -> bool:
        """Whether it is in use without the work volume that it had: somebody detached that."""
        return self.has_answered and bool(self.work) and self.work not in self.volumes


@dataclass(frozen=True)
class Port:
    """A machine's port in the network; it stays if the server is replaced. `owner`: the id of the server.

    `address`: for the other machines; `outer_address`: for everybody else, where it has no floating IP.
    `is_computes`: compute made it for the server, and deletes it with the server.
    """

    id: str
    name: str
    address: str
    outer_address: str = ""
    owner: str = ""
    network_id: str = ""
    is_tagged: bool = True
    is_computes: bool = False


@dataclass(frozen=True)
class FloatingIp:
    """`is_ours`: it was made for the course, and has its mark. `owner`: the id of the server that it leads to."""

    id: str
    address: str
    port_id: str = ""
    owner: str = ""
    network_id: str = ""
    is_tagged: bool = True
    is_ours: bool = True


@dataclass(frozen=True)
class Named:
    """Anything else that a course has."""

    id: str
    name: str
    is_tagged: bool = True


@dataclass(frozen=True)
class Inventory:
    """The machines of a course, by name. `duplicates`: servers with the name of another one in `servers`.

    `work`: the work volumes by the names of their machines, which may not exist. Not read without the setting.
    """

    servers: Mapping[str, Server] = field(default_factory=dict)
    duplicates: tuple[Server, ...] = ()
    ports: Mapping[str, Port] = field(default_factory=dict)
    ips: tuple[FloatingIp, ...] = ()
    deadline: datetime | None = None
    work: Mapping[str, Volume] = field(default_factory=dict)

    @property
    def waiting(self) -> list[str]:
        """The machines that do not exist, and whose work volumes may hold students' work."""
        return sorted((name for name, v in self.work.items() if v.is_used and name not in self.servers), key=natural)

    def address(self, name: str, *, floating: bool) -> str:
        """The address of a machine: its floating IP (`floating`), or that of its port; "" if it has none yet."""
        port = self.ports.get(name)
        if port is None:
            return ""
        return next((ip.address for ip in self.ips if ip.port_id == port.id), "" if floating else port.outer_address)


def read_inventory(cloud: Cloud, mark: str, given_ips: Collection[str] = (), *, with_work: bool = False) -> Inventory:
    """The course's machines as they are now. Raises CloudError.

    `given_ips`: addresses of floating IPs of the project that the course may use, too. `with_work`: their work volumes.
    """
    readers: dict[str, Callable[[], Any]] = {
        "servers": lambda: read_servers(cloud, mark),
        "ports": lambda: read_ports(cloud, mark),
        "floating IPs": lambda: read_project_ips(cloud, mark),
        "deadline": lambda: read_deadlines(cloud, mark),
        "volumes": lambda: read_volumes(cloud, mark) if with_work else [],
    }
    servers, ports, ips, deadlines, volumes = read_together(readers)
    by_name = _ports_by_machine(cloud, servers, ports)
    owners = {port.owner for port in by_name.values()}
    chosen: dict[str, Server] = {}
    for server in sorted(servers, key=lambda server: (server.id not in owners, server.created, server.id)):
        chosen.setdefault(server.name, server)
    ids = {server.id for server in chosen.values()}
    return Inventory(
        servers={name: chosen[name] for name in sorted(chosen, key=natural)},
        duplicates=tuple(server for server in servers if server.id not in ids),
        ports=by_name,
        ips=_usable_ips(ips, {port.id for port in by_name.values()}, given_ips),
        deadline=latest(tag.removeprefix(UNTIL) for _, tag in deadlines),
        work=work_volumes(volumes),
    )


def _ports_by_machine(cloud: Cloud, servers: Collection[Server], ports: Iterable[Port]) -> dict[str, Port]:
    """The port of each machine. A port that compute made has neither a name nor, where that is forbidden, the mark."""
    names = {server.id: server.name for server in servers}
    by_name: dict[str, Port] = {}

    def add(port: Port) -> None:
        name = port.name or names.get(port.owner, "")
        is_better = name not in by_name or (port.owner and not by_name[name].owner)  # of two, the one in use
        if name and is_better:
            by_name[name] = port

    for port in ports:
        add(port)
    if missing := [server.id for server in servers if server.name not in by_name]:
        for port in read_ports_of(cloud, missing):
            add(port)
    return by_name


def _usable_ips(ips: Iterable[FloatingIp], ports: Collection[str], given: Collection[str]) -> tuple[FloatingIp, ...]:
    """The course's own floating IPs; those of others that lead to its machines; those that were given and are free."""
    return tuple(ip for ip in ips if ip.is_ours or ip.port_id in ports or (ip.address in given and not ip.port_id))


def read_together(readers: Mapping[str, Callable[[], Any]]) -> list[Any]:
    """Reads several lists in parallel. Raises CloudError if one can't be read, and SettingsError for all wrong keys."""
    outcomes = fan_out(lambda name: readers[name](), readers)
    wrong = [error for error in outcomes.errors.values() if isinstance(error, SettingsError)]
    if len(wrong) > 1:
        raise SettingsError("\n".join(error.message for error in wrong), "\n".join(error.remedy for error in wrong))
    return outcomes.get()


@understood("Reading the servers")
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
    page: dict[str, Any] = formed(answer.json(), {"servers": [SERVER]})
    return page


def read_fault(cloud: Cloud, server_id: str) -> str:
    """Why a server is in ERROR, as reported by the cloud; "" if it is not. Lists of servers do not have this."""

    def read() -> dict[str, Any]:
        answer = cloud.api.compute.get(f"/servers/{server_id}", microversion=MICROVERSION)
        raise_from_response(answer)
        fault: dict[str, Any] = formed(answer.json(), FAULT)["server"].get("fault") or {}
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
    flavor, tags, metadata = values.get("flavor") or {}, values.get("tags") or (), values.get("metadata") or {}
    server = Server(
        id=values["id"],
        name=values["name"],
        status=str(values.get("status") or "UNKNOWN"),
        task=str(values.get("OS-EXT-STS:task_state") or ""),
        has_answered=ANSWERED in tags,
        fingerprint=metadata.get(FINGERPRINT, ""),
        user=metadata.get(USER, ""),
        reached=metadata.get(REACHED, ""),
        cpus=int(flavor.get("vcpus") or 0),
        memory=int(flavor.get("ram") or 0) * MIB,
        created=str(values.get("created") or ""),
        work=metadata.get(WORK, ""),
        volumes=tuple(volume["id"] for volume in values.get("os-extended-volumes:volumes_attached") or ()),
    )
    return typed(server)


@understood("Reading the ports")
def read_ports(cloud: Cloud, mark: str) -> list[Port]:
    return [as_port(port, mark) for port in _marked(cloud, "ports", cloud.api.network.ports, mark)]


@understood("Reading the servers' ports")
def read_ports_of(cloud: Cloud, servers: Collection[str], network_id: str = "") -> list[Port]:
    """The ports of these servers (ids); those with public addresses first."""
    query = {"device_id": list(servers), **({"network_id": network_id} if network_id else {})}
    ports = cloud.attempt("Reading the servers' ports", lambda: shaped(cloud.api.network.ports(**query), MARKED))
    found = [replace(as_port(port), is_computes=True) for port in ports if port.device_id in servers]
    return sorted(found, key=lambda port: not (port.outer_address and is_public(port.outer_address)))


def as_port(port: Any, mark: str = "") -> Port:
    """A port as the library has it. The addresses are IPv4 where possible, the outer one public where possible."""
    addresses = [fixed["ip_address"] for fixed in given(port.fixed_ips, [{"ip_address": str}])]
    inner = sorted(addresses, key=lambda text: ":" in text)
    outer = sorted(inner, key=lambda text: not is_public(text))
    found = Port(
        id=port.id,
        name=port.name or "",
        address=next(iter(inner), ""),
        outer_address=next(iter(outer), ""),
        owner=port.device_id or "",
        network_id=port.network_id or "",
        is_tagged=mark in (port.tags or ()),
        is_computes=not port.name,  # ours have the machine's
    )
    return typed(found)


def read_ips(cloud: Cloud, mark: str) -> list[FloatingIp]:
    """The floating IPs that were made for the course."""
    return [ip for ip in read_project_ips(cloud, mark) if ip.is_ours]


@understood("Reading the floating IPs")
def read_project_ips(cloud: Cloud, mark: str) -> list[FloatingIp]:
    """All floating IPs of the project: those that were made for the course, and others."""
    own = {"project_id": cloud.project_id}
    ips = cloud.attempt(
        "Reading the floating IPs", lambda: shaped(cloud.api.network.ips(**own), {**MARKED, "port_details?": dict})
    )
    found = [
        FloatingIp(
            id=ip.id,
            address=ip.floating_ip_address,
            port_id=ip.port_id or "",
            owner=str((ip.port_details or {}).get("device_id") or ""),
            network_id=ip.floating_network_id or "",
            is_tagged=mark in (ip.tags or ()),
            is_ours=ip.description == mark or mark in (ip.tags or ()),
        )
        for ip in ips
    ]
    return list(map(typed, found))


@understood("Reading the security groups")
def read_security_groups(cloud: Cloud, mark: str) -> list[Named]:
    groups = _marked(cloud, "security groups", cloud.api.network.security_groups, mark)
    return [typed(Named(group.id, group.name, mark in (group.tags or ()))) for group in groups]


@understood("Reading the deadline")
def read_deadlines(cloud: Cloud, mark: str) -> list[tuple[str, str]]:
    """The tags with the course's deadline, each with the id of the security group that has it.

    The group has it for all: every course has one, which is made first and deleted last.
    """
    groups = _marked(cloud, "deadline", cloud.api.network.security_groups, mark)
    return [(str(group.id), tag) for group in groups for tag in group.tags or () if tag.startswith(UNTIL)]


@understood("Reading the security groups")
def read_owners(cloud: Cloud, mark: str, prefix: str) -> list[tuple[str, str, frozenset[str]]]:
    """The course's security groups: the id, the time when it was made, and its tags with this prefix."""
    groups = _marked(cloud, "security groups", cloud.api.network.security_groups, mark)
    return [
        (
            str(group.id),
            str(group.created_at or ""),
            frozenset(tag for tag in group.tags or () if tag.startswith(prefix)),
        )
        for group in groups
    ]


@understood("Reading the server groups")
def read_server_groups(cloud: Cloud, mark: str) -> list[Named]:
    """Server groups have neither tags nor descriptions: their name is the mark."""
    groups = cloud.attempt("Reading the server groups", lambda: shaped(cloud.api.compute.server_groups(), GROUP))
    return [typed(Named(group.id, group.name)) for group in groups if group.name == mark]


@understood("Reading the server groups")
def read_group_sizes(cloud: Cloud, mark: str) -> dict[str, int]:
    """The ids of the course's server groups, with the number of their members."""
    groups = cloud.attempt("Reading the server groups", lambda: shaped(cloud.api.compute.server_groups(), GROUP))
    return {str(group.id): len(group.member_ids or ()) for group in groups if group.name == mark}


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
    return shaped(listing(**query), MARKED)
