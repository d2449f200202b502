"""The course's security group: who reaches what on its machines."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from openstack.exceptions import HttpException, raise_from_response

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.cloud import Cloud, status
from cloudscale.drivers.openstack.inventory import read_security_groups
from cloudscale.fanout import fan_out

SSH_PORT = 22
TLS_PORT = 2376
# the swarm's own (docs.docker.com, "Open protocols and ports between the hosts"), and the engines', for images that
# machines pass on to each other
BETWEEN = (("tcp", TLS_PORT), ("tcp", 2377), ("tcp", 7946), ("udp", 7946), ("udp", 4789))
ANY = "0.0.0.0/0"
DEFAULT_RULES = 2  # that come with each group: everything may go out


@dataclass(frozen=True)
class Rule:
    """Lets packets in to ports from `first` to `last`, of a range of addresses, or of the group's own machines ("")."""

    protocol: str
    first: int
    last: int
    cidr: str = ""

    @property
    def family(self) -> str:
        return "IPv6" if ":" in self.cidr else "IPv4"


def base_rules(settings: OpenStackSettings) -> frozenset[Rule]:
    """What a machine needs for its course, before there are seats."""
    return frozenset(
        [
            *(Rule("tcp", port, port, settings.admin_cidr) for port in (SSH_PORT, TLS_PORT)),
            *(Rule(protocol, port, port) for protocol, port in BETWEEN),
        ]
    )


def seat_rules(ports: Collection[int], settings: OpenStackSettings) -> frozenset[Rule]:
    """For just these ports, in as few rules as there are gaps."""
    return frozenset(Rule("tcp", first, last, settings.student_cidr) for first, last in runs(ports))


def count(settings: OpenStackSettings) -> int:
    """How many rules a new group takes, with one for the seats."""
    return DEFAULT_RULES + len(base_rules(settings)) + 1


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The first and last of each unbroken run."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def ensure_group(cloud: Cloud, mark: str) -> str:
    """The id of the course's security group, made where there is none. Raises CloudError."""
    network = cloud.api.network

    def there() -> str | None:
        groups = read_security_groups(cloud, mark)
        return min((group.id for group in groups), default=None)

    def made() -> str:
        return str(network.create_security_group(name=mark, description=mark).id)

    group = there() or cloud.attempt("Making the security group", made, found=there)
    found = cloud.attempt("Reading the security group", lambda: network.get_security_group(group))
    if mark not in (found.tags or ()):
        put = partial(network.put, f"/security-groups/{group}/tags/{mark}")
        cloud.attempt("Marking the security group", lambda: raise_from_response(put()))
    return group


def add_rules(cloud: Cloud, mark: str, group: str, wanted: frozenset[Rule]) -> None:
    """Adds those that are missing. Raises CloudError."""
    there = {_read(found, group) for found in _rules(cloud, group)}

    def add(rule: Rule) -> None:
        cloud.attempt(f"Opening port {rule.first}", partial(_create, cloud, mark, group, rule))

    fan_out(add, wanted - there).get()


def remove_others(cloud: Cloud, mark: str, group: str, wanted: frozenset[Rule]) -> None:
    """Removes what is too much. A rule of somebody else in the group stays. Raises CloudError."""
    ours = [found for found in _rules(cloud, group) if found.description == mark]
    surplus = [found.id for found in ours if _read(found, group) not in wanted]

    def remove(rule_id: str) -> None:
        cloud.attempt("Closing a port", lambda: cloud.api.network.delete_security_group_rule(rule_id))

    fan_out(remove, surplus).get()


def _rules(cloud: Cloud, group: str) -> list[Any]:
    network = cloud.api.network
    return cloud.attempt(
        "Reading the rules", lambda: list(network.security_group_rules(security_group_id=group, direction="ingress"))
    )


def _read(found: Any, group: str) -> Rule | None:
    """A rule in our terms, None where it can't be said in them."""
    if not found.protocol or found.port_range_min is None or found.remote_group_id not in (None, group):
        return None
    if found.remote_address_group_id:
        return None
    cidr = "" if found.remote_group_id else found.remote_ip_prefix or ("::/0" if found.ether_type == "IPv6" else ANY)
    return Rule(found.protocol, found.port_range_min, found.port_range_max, cidr)


def _create(cloud: Cloud, mark: str, group: str, rule: Rule) -> None:
    source = {"remote_ip_prefix": rule.cidr} if rule.cidr else {"remote_group_id": group}
    try:
        cloud.api.network.create_security_group_rule(
            security_group_id=group,
            direction="ingress",
            ether_type=rule.family,
            protocol=rule.protocol,
            port_range_min=rule.first,
            port_range_max=rule.last,
            description=mark,
            **source,
        )
    except HttpException as error:
        if status(error) != 409 or "already exists" not in str(error):  # an attempt that was not answered made it
            raise
