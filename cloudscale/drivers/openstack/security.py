"""The security group of a course: who can reach which ports of its machines."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from openstack.exceptions import HttpException, raise_from_response

from cloudscale.course.deadline import as_text
from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.cloud import Cloud, status
from cloudscale.drivers.openstack.inventory import UNTIL, Named, read_deadlines, read_security_groups
from cloudscale.engines.setup import TLS_PORT
from cloudscale.fanout import fan_out
from cloudscale.networks import family

SSH_PORT = 22

# ports of the swarm (docs.docker.com, "Open protocols and ports between the hosts"), and SSH, because machines pass
# images to each other
BETWEEN = (("tcp", SSH_PORT), ("tcp", 2377), ("tcp", 7946), ("udp", 7946), ("udp", 4789))
ANY = "0.0.0.0/0"
V4_ONLY = ("IPv4",)
DEFAULT_RULES = 2  # in each new group; they allow all outgoing traffic


@dataclass(frozen=True)
class Rule:
    """Opens the ports `first` to `last` for a range of addresses; without `cidr`, for the machines of the group."""

    protocol: str
    first: int
    last: int
    cidr: str = ""
    family: str = "IPv4"


def base_rules(settings: OpenStackSettings, families: Collection[str] = V4_ONLY) -> frozenset[Rule]:
    """What a machine needs before it has seats. `families`: IPv4 or IPv6, or both, which its network has."""
    return frozenset(
        [
            *(rule for port in (SSH_PORT, TLS_PORT) for rule in _open(port, port, settings.admin_cidr, families)),
            *(Rule(protocol, port, port, "", name) for protocol, port in BETWEEN for name in families),
        ]
    )


def seat_rules(ports: Collection[int], cidrs: Collection[str], families: Collection[str] = V4_ONLY) -> frozenset[Rule]:
    """Opens exactly these ports, with one rule for each range of addresses and run of consecutive ports."""
    return frozenset(rule for first, last in runs(ports) for rule in _open(first, last, cidrs, families))


def _open(first: int, last: int, cidrs: Iterable[str], families: Collection[str]) -> Iterable[Rule]:
    return (Rule("tcp", first, last, cidr, name) for cidr in cidrs if (name := family(cidr)) in families)


def count(settings: OpenStackSettings, families: Collection[str] = V4_ONLY) -> int:
    """The number of rules in a new group, with those for seats that have consecutive ports."""
    return DEFAULT_RULES + len(base_rules(settings, families) | seat_rules([1], settings.student_cidr, families))


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The first and last number of each run of consecutive numbers."""
    pairs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if pairs and pairs[-1][1] == number - 1:
            pairs[-1] = (pairs[-1][0], number)
        else:
            pairs.append((number, number))
    return pairs


def ensure_group(cloud: Cloud, mark: str) -> str:
    """The id of the course's security group, which is created if it has none. Raises CloudError."""
    group = _find(cloud, mark)
    if group is None:
        return create_group(cloud, mark)
    return _tagged(cloud, mark, group)


def create_group(cloud: Cloud, mark: str) -> str:
    """The id of a new security group with the mark. Raises CloudError."""

    def create() -> Named:
        made = cloud.api.network.create_security_group(name=mark, description=mark)
        return Named(str(made.id), mark, is_tagged=False)

    return _tagged(cloud, mark, cloud.attempt("Creating the security group", create, found=partial(_find, cloud, mark)))


def _find(cloud: Cloud, mark: str) -> Named | None:
    return min(read_security_groups(cloud, mark), key=lambda group: group.id, default=None)


def _tagged(cloud: Cloud, mark: str, group: Named) -> str:
    if not group.is_tagged:
        put = partial(cloud.api.network.put, f"/security-groups/{group.id}/tags/{mark}")
        cloud.attempt("Tagging the security group", lambda: raise_from_response(put()))
    return group.id


def mark_deadline(cloud: Cloud, mark: str, until: datetime | None) -> None:
    """Tags the course's security group with the deadline; None removes the tag. Raises CloudError."""
    tag = f"{UNTIL}{as_text(until)}" if until else ""
    group = ensure_group(cloud, mark) if until else ""
    present = read_deadlines(cloud, mark)
    if until and (group, tag) not in present:
        put = partial(cloud.api.network.put, f"/security-groups/{group}/tags/{tag}")
        cloud.attempt("Marking the deadline", lambda: raise_from_response(put()))
    for other, old in present:
        if old != tag:
            cloud.attempt("Removing the mark of a deadline", partial(_untag, cloud, other, old))


def _untag(cloud: Cloud, group: str, tag: str) -> None:
    answer = cloud.api.network.delete(f"/security-groups/{group}/tags/{tag}")
    if answer.status_code != 404:  # it is gone: an attempt without an answer removed it
        raise_from_response(answer)


def add_rules(cloud: Cloud, mark: str, group: str, rules: frozenset[Rule]) -> None:
    """Adds those of these rules that the group lacks, and lets all outgoing traffic pass. Raises CloudError."""
    listed = _rules(cloud, group)
    existing = {_read(rule, group) for rule in listed}

    def add(rule: Rule) -> None:
        cloud.attempt(f"Opening port {rule.first}", partial(_create, cloud, mark, group, rule))

    def let_out(name: str) -> None:
        # a new group lets everything out, unless the cloud's administrators have changed its first rules
        create = partial(_create_rule, cloud, mark, group, direction="egress", ether_type=name)
        cloud.attempt(f"Allowing outgoing {name}", create)

    fan_out(let_out, {"IPv4", "IPv6"} - {rule.ether_type for rule in listed if _lets_all_out(rule)}).get()
    fan_out(add, rules - existing).get()


def remove_others(cloud: Cloud, mark: str, group: str, rules: frozenset[Rule]) -> None:
    """Removes the course's other rules from the group. Rules that somebody else added stay. Raises CloudError."""
    ours = [rule for rule in _rules(cloud, group) if rule.description == mark and rule.direction == "ingress"]
    others = [rule.id for rule in ours if _read(rule, group) not in rules]

    def remove(rule_id: str) -> None:
        cloud.attempt("Closing a port", lambda: cloud.api.network.delete_security_group_rule(rule_id))

    fan_out(remove, others).get()


def _rules(cloud: Cloud, group: str) -> list[Any]:
    network = cloud.api.network
    return cloud.attempt("Reading the rules", lambda: list(network.security_group_rules(security_group_id=group)))


def _lets_all_out(rule: Any) -> bool:
    to_all = not rule.remote_group_id and not rule.remote_address_group_id
    return (
        rule.direction == "egress"
        and not rule.protocol
        and to_all
        and rule.remote_ip_prefix in (None, "", "0.0.0.0/0", "::/0")
    )


def _read(rule: Any, group: str) -> Rule | None:
    """A rule of neutron as a Rule; None if it is of another kind."""
    if (
        rule.direction != "ingress"
        or not rule.protocol
        or rule.port_range_min is None
        or rule.remote_group_id not in (None, group)
    ):
        return None
    if rule.remote_address_group_id:
        return None
    cidr = "" if rule.remote_group_id else rule.remote_ip_prefix or ("::/0" if rule.ether_type == "IPv6" else ANY)
    return Rule(rule.protocol, rule.port_range_min, rule.port_range_max, cidr, rule.ether_type)


def _create(cloud: Cloud, mark: str, group: str, rule: Rule) -> None:
    source = {"remote_ip_prefix": rule.cidr} if rule.cidr else {"remote_group_id": group}
    ports = {"protocol": rule.protocol, "port_range_min": rule.first, "port_range_max": rule.last}
    _create_rule(cloud, mark, group, direction="ingress", ether_type=rule.family, **ports, **source)


def _create_rule(cloud: Cloud, mark: str, group: str, **rule: Any) -> None:
    try:
        cloud.api.network.create_security_group_rule(security_group_id=group, description=mark, **rule)
    except HttpException as error:
        if status(error) != 409 or "already exists" not in str(error):  # an attempt without an answer created it
            raise
