"""A server of compute: what it is, what becomes of it, and how it is shown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.lab.stand_in.wire import Json, new_id, now

if TYPE_CHECKING:
    from tests.lab.stand_in.compute import Compute

ACTIVE, BUILD, ERROR, SHUTOFF = "ACTIVE", "BUILD", "ERROR", "SHUTOFF"
STATUSES = (ACTIVE, BUILD, ERROR, SHUTOFF, "DELETED", "PAUSED", "REBOOT", "HARD_REBOOT", "SUSPENDED", "UNKNOWN")
# vm_state and power_state
STATES = {ACTIVE: ("active", 1), BUILD: ("building", 0), ERROR: ("error", 0), SHUTOFF: ("stopped", 4)}
HOST = hashlib.sha224(b"stand-in").hexdigest()


@dataclass
class Server:
    """`looks`: so many more times it is seen building, before it becomes what its `fate` says."""

    name: str
    flavor: Json
    image: str
    """Its id; empty where it starts from a volume."""
    id: str = field(default_factory=new_id)
    status: str = BUILD
    fate: str = ACTIVE
    looks: int = 0
    last_looks: int | None = None
    """While it is being deleted, how many times it is still seen."""
    metadata: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    description: str | None = None
    hostname: str = ""
    key_name: str | None = None
    zone: str = "nova"
    config_drive: bool = False
    user_data: str = ""
    """As it was given: in base64."""
    group: str = ""
    ports: list[str] = field(default_factory=list)
    own_ports: list[str] = field(default_factory=list)
    """Those of the ports that were made for it, and go with it."""
    volumes: dict[str, bool] = field(default_factory=dict)
    """Whether they go with it, by id."""
    fault: str = ""
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)

    @property
    def is_placed(self) -> bool:
        """Whether it is on a host."""
        return self.status not in (BUILD, ERROR)

    def become(self, fate: str) -> None:
        """`ERROR: why`, or a status."""
        self.status, _, self.fault = fate.partition(": ")
        self.updated = now()

    @property
    def host_keys(self) -> list[str]:
        """Keys as sshd has them, made from the id: nobody can have the private part."""
        blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + hashlib.sha256(self.id.encode()).digest()
        return [f"ssh-ed25519 {base64.b64encode(blob).decode()} root@{self.name}"]

    @property
    def console(self) -> str:
        """What a machine with cloud-init says while it starts."""
        return (
            f"[    0.000000] Linux version 6.1.0-18-cloud-amd64\n[    5.502832] SCSI subsystem initialized\n"
            f"ci-info: +++++++++++++++++++Authorized keys from /home/debian/.ssh/authorized_keys for user debian++++\n"
            f"-----BEGIN SSH HOST KEY KEYS-----\n{chr(10).join(self.host_keys)}\n-----END SSH HOST KEY KEYS-----\n"
            f"[   21.340291] cloud-init[521]: Cloud-init v. 22.4.2 finished. Up 21.33 seconds\n\n{self.name} login: "
        )


def links(compute: Compute, path: str) -> list[Json]:
    """To a thing of compute."""
    own, bookmark = f"{compute.url}/v2.1/{path}", f"{compute.url}/{path}"
    return [{"rel": "self", "href": own}, {"rel": "bookmark", "href": bookmark}]


def brief(compute: Compute, server: Server) -> Json:
    return {"id": server.id, "name": server.name, "links": links(compute, f"servers/{server.id}")}


def details(
    compute: Compute, server: Server, version: tuple[int, int], leading: Mapping[str, list[str]], *, alone: bool
) -> Json:
    """`alone`: asked for by itself, not in a list. `leading`: the floating addresses, by the port they lead to."""
    vm_state, power = STATES.get(server.status, (server.status.lower(), 1))
    task = "deleting" if server.last_looks is not None else "spawning" if server.status == BUILD else None
    picture = {"id": server.image, "links": links(compute, f"images/{server.image}")[1:]} if server.image else ""
    view: Json = {
        "id": server.id,
        "name": server.name,
        "status": server.status,
        "tenant_id": compute.network.project_id,
        "user_id": compute.user_id,
        "metadata": server.metadata,
        "hostId": HOST if server.is_placed else "",
        "image": picture,
        "flavor": _flavor(compute, server.flavor, version),
        "created": server.created,
        "updated": server.updated,
        "addresses": _addresses(compute, server, leading),
        "accessIPv4": "",
        "accessIPv6": "",
        "links": links(compute, f"servers/{server.id}"),
        "OS-DCF:diskConfig": "MANUAL",
        **({"progress": 0} if server.status in (ACTIVE, BUILD) else {}),
    }
    if server.status == ERROR:
        view["fault"] = {"code": 500, "created": server.updated, "message": server.fault}
    launched = f"{server.updated[:-1]}.000000" if server.is_placed else None
    volumes: list[Json] = [
        {"id": id} | ({"delete_on_termination": goes} if version >= (2, 3) else {})
        for id, goes in server.volumes.items()
    ]
    view |= {
        "OS-EXT-AZ:availability_zone": "" if server.status == ERROR else server.zone,
        "config_drive": "True" if server.config_drive else "",
        "key_name": server.key_name,
        "OS-SRV-USG:launched_at": launched,
        "OS-SRV-USG:terminated_at": None,
        "OS-EXT-STS:task_state": task,
        "OS-EXT-STS:vm_state": vm_state,
        "OS-EXT-STS:power_state": power,
        "os-extended-volumes:volumes_attached": volumes,
    }
    groups = [group for port in compute.ports_of(server) for group in port["security_groups"]]
    if server.is_placed and groups:
        view["security_groups"] = [{"name": compute.network.groups.items[id]["name"]} for id in groups]
    return view | _newer(server, version, alone)


def _newer(server: Server, version: tuple[int, int], alone: bool) -> Json:
    added: list[tuple[tuple[int, int], Json]] = [
        ((2, 9), {"locked": False}),
        ((2, 19), {"description": server.description}),
        ((2, 26), {"tags": server.tags}),
        ((2, 63), {"trusted_image_certificates": None}),
        ((2, 71), {"server_groups": [server.group] if server.group else []} if alone else {}),
        ((2, 73), {"locked_reason": None}),
        ((2, 90), {"OS-EXT-SRV-ATTR:hostname": server.hostname}),
    ]
    return {name: value for since, more in added if version >= since for name, value in more.items()}


def _flavor(compute: Compute, flavor: Json, version: tuple[int, int]) -> Json:
    if version < (2, 47):
        return {"id": flavor["id"], "links": links(compute, f"flavors/{flavor['id']}")[1:]}
    return {
        "vcpus": flavor["vcpus"],
        "ram": flavor["ram"],
        "disk": flavor["disk"],
        "ephemeral": 0,
        "swap": 0,
        "original_name": flavor["name"],
        "extra_specs": {},
    }


def _addresses(compute: Compute, server: Server, leading: Mapping[str, list[str]]) -> Json:
    """By network, the fixed ones and those that lead to them."""
    found: dict[str, list[Json]] = {}
    if not server.is_placed:
        return found
    network = compute.network
    for port in compute.ports_of(server):
        net = network.networks.items[port["network_id"]]["name"]
        floating = leading.get(port["id"], [])
        for ip in port["fixed_ips"]:
            for address, kind in [(ip["ip_address"], "fixed"), *((one, "floating") for one in floating)]:
                shown = {"version": 6 if ":" in address else 4, "addr": address, "OS-EXT-IPS:type": kind}
                found.setdefault(net, []).append(shown | {"OS-EXT-IPS-MAC:mac_addr": port["mac_address"]})
    return found
