"""How much of the project's quotas machines need, and how many machines fit."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openstack.exceptions import HttpException, raise_from_response
from openstack.resource import Resource

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack import security
from cloudscale.drivers.openstack.choices import Choices, volume_size, work_size
from cloudscale.drivers.openstack.cloud import Cloud, status, understood
from cloudscale.drivers.openstack.inventory import Inventory, read_group_sizes, read_security_groups, read_together
from cloudscale.model import Demand, Say
from cloudscale.outside import OtherForm, formed

FLOATING_IPS = "floating IPs"
VOLUMES, GIGABYTES = "volumes", "volumes (GiB)"
UNLIMITED = -1  # in the answers of nova, neutron and cinder


QUOTA = {"limit": int, "in_use": int, "reserved": int}  # as cinder says it


@dataclass(frozen=True)
class Allowance:
    """Of one resource: how much is used, and how much may be used (None: no limit)."""

    used: int
    limit: int | None


@dataclass(frozen=True)
class Groups:
    """The groups of the course: whether it has a security group, and the sizes of its server groups."""

    has_security_group: bool
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """What machines need: `each` machine, minus the `spare` resources that exist, and `once` for the course itself.

    `group_size`: how many members a server group may have; `free_seats`: free places in the existing groups.
    `work`: the size of a machine's work volume in GiB, of which `spare_work` wait for their machines, and `due_work`
    machines have none yet. `volume_type`: of all volumes.
    """

    each: Mapping[str, int]
    once: Mapping[str, int]
    spare: Mapping[str, int] = field(default_factory=dict)
    group_size: int | None = None
    free_seats: int = 0
    work: int = 0
    spare_work: int = 0
    due_work: int = 0
    volume_type: str | None = None

    def needs(self, machines: int) -> dict[str, int]:
        """Resource → how much of it so many machines need."""
        needs = {name: max(0, machines - self.spare.get(name, 0)) * count for name, count in self.each.items()}
        for name, count in self.once.items():
            needs[name] = needs.get(name, 0) + count
        left = max(0, machines - self.free_seats)
        needs["server groups"] = math.ceil(left / (self.group_size or left)) if left else 0
        return needs | self._volumes(machines, needs)

    def _volumes(self, machines: int, needs: Mapping[str, int]) -> dict[str, int]:
        """The volumes that so many machines need, with those that they boot from, which `needs` has."""
        new = max(0, machines - self.spare_work) + self.due_work if self.work else 0
        volumes = {
            name: needs.get(name, 0) + new * count
            for name, count in ((VOLUMES, 1), (GIGABYTES, self.work))
            if name in needs or self.work
        }
        if not self.volume_type:
            return volumes
        return volumes | {_of_type(name, self.volume_type): count for name, count in volumes.items()}


def recipe(
    choices: Choices,
    settings: OpenStackSettings,
    existing: Inventory,
    groups: Groups,
    group_size: int | None,
    *,
    one_ip: bool = False,
) -> Recipe:
    """What machines of this course need, given what it already has. `one_ip`: all of them share one floating IP."""
    ports = 1 + len(choices.other_networks)
    each = {"servers": 1, "cores": choices.kind.cpus, "memory (MiB)": choices.ram, "ports": ports}
    if choices.external_id and not one_ip:
        each[FLOATING_IPS] = 1
    if size := volume_size(settings):
        each |= {VOLUMES: 1, GIGABYTES: size}
    # an interrupted run leaves servers without their port or floating IP, and the reverse
    with_ip = {ip.port_id for ip in existing.ips}
    own_ports = [existing.ports[name] for name in existing.servers if name in existing.ports]
    used_ips = sum(port.id in with_ip for port in own_ports)
    known = {"", *(port.id for port in existing.ports.values())}
    usable_ips = sum(ip.port_id in known for ip in existing.ips)  # the others belong to duplicate ports
    once = {"ports": len(existing.servers) - len(own_ports)}
    if choices.external_id:
        once[FLOATING_IPS] = int(not usable_ips) if one_ip else len(existing.servers) - used_ips
    if not groups.has_security_group:
        once |= {"security groups": 1, "security group rules": security.count(settings, choices.families)}
    return Recipe(
        each=each,
        once=once,
        spare={"ports": len(existing.ports) - len(own_ports), FLOATING_IPS: usable_ips - used_ips},
        group_size=group_size,
        free_seats=sum(max(0, (group_size or sys.maxsize) - size) for size in groups.sizes),
        work=work_size(settings),
        spare_work=len(existing.work.keys() - existing.servers.keys()),
        # who has answered without one keeps the work on the machine's disk
        due_work=sum(not s.has_answered and s.name not in existing.work for s in existing.servers.values()),
        volume_type=settings.volume_type,
    )


def demands(recipe: Recipe, machines: int, allowances: Mapping[str, Allowance]) -> tuple[Demand, ...]:
    """What so many machines need of every resource with a known quota."""
    needs = recipe.needs(machines)
    return tuple(
        Demand(name, needs.get(name, 0), allowance.used, allowance.limit)
        for name, allowance in allowances.items()
        if name in needs
    )


def most(recipe: Recipe, machines: int, allowances: Mapping[str, Allowance]) -> int:
    """How many machines fit, up to `machines`."""
    fitting = [
        count for count in range(1, machines + 1) if all(demand.is_met for demand in demands(recipe, count, allowances))
    ]
    return max(fitting, default=0)


def read_groups(cloud: Cloud, mark: str) -> Groups:
    """The groups that the course has. Raises CloudError."""
    security_groups, sizes = read_together(
        {
            "security groups": lambda: read_security_groups(cloud, mark),
            "server groups": lambda: read_group_sizes(cloud, mark),
        }
    )
    return Groups(bool(security_groups), tuple(sizes.values()))


@understood("Reading the quotas")
def read_allowances(cloud: Cloud, settings: OpenStackSettings, say: Say) -> tuple[dict[str, Allowance], int | None]:
    """The project's quotas by resource, and how many members a server group may have (None: any number).

    A quota that the account may not read is left out, with a warning.
    """
    volume_type = settings.volume_type
    readers: dict[str, Callable[[], Any]] = {
        "compute": lambda: cloud.attempt("Reading the quotas", lambda: _limits(cloud.api.compute)),
        "network": lambda: _network(cloud, say),
    }
    if settings.boot_volume or settings.work_volume:
        readers["volumes"] = lambda: cloud.attempt(
            "Reading the volumes' quotas", lambda: _limits(cloud.api.block_storage)
        )
        readers["volumes of the type"] = lambda: _of_volume_type(cloud, volume_type) if volume_type else {}
    compute, network, *volumes = read_together(readers)
    allowances = {
        "servers": Allowance(_number(compute.instances_used), _limit(compute.instances)),
        "cores": Allowance(_number(compute.total_cores_used), _limit(compute.total_cores)),
        "memory (MiB)": Allowance(_number(compute.total_ram_used), _limit(compute.total_ram)),
        "server groups": Allowance(_number(compute.server_groups_used), _limit(compute.server_groups)),
    }
    names = {
        "ports": "ports",
        FLOATING_IPS: "floating_ips",
        "security groups": "security_groups",
        "security group rules": "security_group_rules",
    }
    for name, key in names.items():
        if detail := formed(network.get(key) or {}, dict):
            used = _number(detail.get("used")) + _number(detail.get("reserved"))
            allowances[name] = Allowance(used, _limit(detail.get("limit")))
    if volumes:
        limits, of_type = volumes
        gigabytes = _limit(limits.max_total_volume_gigabytes)
        allowances[VOLUMES] = Allowance(_number(limits.total_volumes_used), _limit(limits.max_total_volumes))
        allowances[GIGABYTES] = Allowance(_number(limits.total_gigabytes_used), gigabytes)
        allowances |= of_type
    return allowances, _limit(compute.server_group_members)


def _limits(service: Any) -> Any:
    """The limits that a service reports. Raises OtherForm if it reports none."""
    if not isinstance(limits := service.get_limits().absolute, Resource):
        raise OtherForm("there are no limits")
    return limits


def _limit(value: Any) -> int | None:
    return None if value is None or value == UNLIMITED else _number(value)


def _number(value: Any) -> int:
    """Raises OtherForm for what is none."""
    try:
        return int(value or 0)
    except (TypeError, ValueError, OverflowError):
        raise OtherForm("a quota is no number") from None


def _of_type(resource: str, volume_type: str) -> str:
    return f"{volume_type} {resource}"


def _of_volume_type(cloud: Cloud, volume_type: str) -> dict[str, Allowance]:
    """The quotas of one type of volumes, where it has some that the account may read: cinder's limits lack them."""

    def read() -> Any:
        storage: Any = cloud.api.block_storage
        answer = storage.get(f"/os-quota-sets/{cloud.project_id}", params={"usage": "True"})
        if answer.status_code in (403, 404):
            return {}, []
        raise_from_response(answer)
        return formed(answer.json(), {"quota_set": dict})["quota_set"], list(storage.types())

    quotas, types = cloud.attempt("Reading the quotas of a volume type", read)
    name = next((one.name for one in types if volume_type in (one.name, one.id)), volume_type)
    found = {}
    for resource, key in ((VOLUMES, f"volumes_{name}"), (GIGABYTES, f"gigabytes_{name}")):
        quota = formed(quotas, {f"{key}?": QUOTA}).get(key)
        if quota and (limit := _limit(quota["limit"])) is not None:
            found[_of_type(resource, volume_type)] = Allowance(quota["in_use"] + quota["reserved"], limit)
    return found


def _network(cloud: Cloud, say: Say) -> Any:
    def read() -> Any:
        try:
            return cloud.api.network.get_quota(cloud.project_id, details=True)
        except HttpException as error:
            if status(error) not in (403, 404):  # the account has no permission, or the cloud lacks this extension
                raise
            say("Warning: could not read the network quotas, so they are not checked")
            return {}

    return cloud.attempt("Reading the network's quotas", read)
