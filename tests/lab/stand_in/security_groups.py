"""Security groups and their rules, of the network API."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tests.lab.stand_in.network_fields import NAMED, Field, boolean, one_of, refusal, text, uuid, uuid_or_none
from tests.lab.stand_in.network_kind import Kind
from tests.lab.stand_in.wire import Json

if TYPE_CHECKING:
    from tests.lab.stand_in.network import Network

PROTOCOLS = ["ah", "dccp", "egp", "esp", "gre", "hopopt", "icmp", "igmp", "ip", "ipip", "ipv6-encap", "ipv6-frag"]
PROTOCOLS += [
    "ipv6-icmp",
    "icmpv6",
    "ipv6-nonxt",
    "ipv6-opts",
    "ipv6-route",
    "ospf",
    "pgm",
    "rsvp",
    "sctp",
    "tcp",
    "udp",
]
PROTOCOLS += ["udplite", "vrrp"]
WITH_PORTS = {"tcp", "udp", "udplite", "sctp", "dccp", "6", "17"}
MOST = 65535
ETHERTYPES = ["IPv4", "IPv6"]
NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp"}
SAME = ("direction", "ethertype", "port_range_min", "port_range_max", "normalized_cidr", "remote_group_id")
DEFAULT = "default"


class Groups(Kind):
    """`lets_out`: whether a new group lets all outgoing traffic pass, which administrators may change."""

    one, many = "security_group", "security_groups"
    fields: ClassVar[Mapping[str, Field]] = {**NAMED, "stateful": Field(boolean)}
    filters = frozenset({"stateful", "shared"})
    gone = ("SecurityGroupNotFound", "Security group {id} does not exist")

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.lets_out = True

    @property
    def default(self) -> Json:
        return next(group for group in self.items.values() if group["name"] == DEFAULT)

    def make(self, given: Json) -> Json:
        if given.get("name") == DEFAULT:
            raise refusal(409, "SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
        self.network.check_quota("security_group_rule", len(self.network.rules.items), more=2)
        return self.add(given.get("name", ""), given.get("description", ""))

    def add(self, name: str, description: str = "") -> Json:
        """With the rules that every one has from the beginning."""
        group = self.added({"name": name, "stateful": True, "description": description, "shared": False})
        for ethertype in ("IPv4", "IPv6"):
            if self.lets_out:
                self.network.rules.put_in({"direction": "egress", "ethertype": ethertype, "description": None}, group)
            if name == DEFAULT:
                own = {"direction": "ingress", "ethertype": ethertype, "remote_group_id": group["id"]}
                self.network.rules.put_in({**own, "description": None}, group)
        return group

    def view(self, item: Json) -> Json:
        own = [rule for rule in self.network.rules.items.values() if rule["security_group_id"] == item["id"]]
        own.sort(key=lambda rule: str(rule["id"]))
        return item | {"security_group_rules": [rule | {"tags": []} for rule in own]}

    def remove(self, item: Json) -> None:
        if item["name"] == DEFAULT:
            message = "Insufficient rights for removing default security group."
            raise refusal(409, "SecurityGroupCannotRemoveDefault", message)
        if any(item["id"] in port["security_groups"] for port in self.network.ports.items.values()):
            raise refusal(409, "SecurityGroupInUse", f"Security Group {item['id']} in use.")
        rules = self.network.rules.items
        for rule in list(rules.values()):
            if item["id"] in (rule["security_group_id"], rule["remote_group_id"]):
                del rules[rule["id"]]
        super().remove(item)


def port_number(value: Any) -> str:
    whole = value is None or (isinstance(value, int) and not isinstance(value, bool))
    if not whole and not str(value).isdecimal():
        raise refusal(400, "SecurityGroupInvalidPortValue", f"Invalid value for port {value}", True)
    return ""


def ethertype(value: Any) -> str:
    if value not in ETHERTYPES:
        message = f"Security group rule for ethertype '{value}' not supported. Allowed values are {ETHERTYPES}."
        raise refusal(400, "SecurityGroupRuleInvalidEtherType", message, True)
    return ""


def protocol(value: Any) -> str:
    return "" if value is None or isinstance(value, str | int) else f"'{value}' is not a valid string."


def prefix(value: Any) -> str:
    return "" if value is None or isinstance(value, str) else f"'{value}' is not a valid string."


def _same(rule: Json) -> list[Any]:
    """What no two rules of a group have in common."""
    protocol = NUMBERS.get(rule["protocol"], rule["protocol"])
    return [protocol, *(rule[name] for name in SAME)]


class Rules(Kind):
    one, many = "security_group_rule", "security_group_rules"
    fields: ClassVar[Mapping[str, Field]] = {
        "description": Field(text(), put=False),
        "security_group_id": Field(uuid, put=False, required=True),
        "direction": Field(one_of("ingress", "egress"), put=False, required=True),
        "ethertype": Field(ethertype, put=False),
        "protocol": Field(protocol, put=False),
        "port_range_min": Field(port_number, put=False),
        "port_range_max": Field(port_number, put=False),
        "remote_ip_prefix": Field(prefix, put=False),
        "remote_group_id": Field(uuid_or_none, put=False),
    }
    filters = frozenset(fields) | {"remote_address_group_id", "normalized_cidr"}
    named = tagged = changed = False
    gone = ("SecurityGroupRuleNotFound", "Security group rule {id} does not exist")

    def make(self, given: Json) -> Json:
        self._check_protocol(given)
        self._check_remote(given)
        group = self.network.groups.get(given["security_group_id"])
        if given.get("remote_group_id"):
            self.network.groups.get(given["remote_group_id"])
        rule = self._complete(given, group)
        for known in self.items.values():
            if known["security_group_id"] == group["id"] and _same(known) == _same(rule):
                message = f"Security group rule already exists. Rule id is {known['id']}."
                raise refusal(409, "SecurityGroupRuleExists", message)
        self.network.groups.touch(group)
        return self.added(rule)

    def put_in(self, given: Json, group: Json) -> Json:
        return self.added(self._complete(given, group))

    def _check_protocol(self, given: Json) -> None:
        name = given.get("protocol")
        name = str(name).lower() if name is not None else None
        number = name is not None and name.isdecimal() and int(name) <= 255
        if name is not None and not number and name not in PROTOCOLS:
            known = f"Only protocol values {[None, *PROTOCOLS]} and integer representations [0 to 255] are supported."
            message = f"Security group rule protocol {name} not supported. {known}"
            raise refusal(400, "SecurityGroupRuleInvalidProtocol", message, True)
        low, high = (
            None if given.get(f"port_range_{end}") is None else int(given[f"port_range_{end}"])
            for end in ("min", "max")
        )
        if low is None and high is None:
            return
        if name is None:
            message = "Must also specify protocol if port range is given."
            raise refusal(400, "SecurityGroupProtocolRequiredWithPorts", message, True)
        if name not in WITH_PORTS:
            return
        for number_ in (low, high):
            if number_ is not None and not 1 <= number_ <= MOST:
                message = f"Invalid value for port {number_}"
                raise refusal(400, "SecurityGroupInvalidPortValue", message, True)
        if low is None or high is None or low > high:
            message = "For TCP/UDP protocols, port_range_min must be <= port_range_max"
            raise refusal(400, "SecurityGroupInvalidPortRange", message, True)

    def _check_remote(self, given: Json) -> None:
        cidr = given.get("remote_ip_prefix")
        if cidr is None:
            return
        if given.get("remote_group_id"):
            kinds = "remote_ip_prefix or remote_group_id or remote_address_group_id"
            raise refusal(400, "SecurityGroupMultipleRemoteEntites", f"Only one of {kinds} may be provided.", True)
        try:
            block = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            raise refusal(400, "InvalidCIDR", f"Invalid CIDR {cidr} given as IP prefix.", True) from None
        ethertype = given.get("ethertype", "IPv4")
        if ethertype != f"IPv{block.version}":
            message = f"Conflicting value ethertype {ethertype} for CIDR {cidr}"
            raise refusal(400, "SecurityGroupRuleParameterConflict", message, True)

    def _complete(self, given: Json, group: Json) -> Json:
        cidr = given.get("remote_ip_prefix")
        ends = {name: given.get(name) for name in ("port_range_min", "port_range_max")}
        return {
            "tenant_id": group["tenant_id"],
            "security_group_id": group["id"],
            "ethertype": given.get("ethertype", "IPv4"),
            "direction": given["direction"],
            "protocol": None if given.get("protocol") is None else str(given["protocol"]).lower(),
            **{name: None if end is None else int(end) for name, end in ends.items()},
            "remote_ip_prefix": cidr,
            "remote_address_group_id": None,
            "normalized_cidr": None if cidr is None else str(ipaddress.ip_network(cidr, strict=False)),
            "remote_group_id": given.get("remote_group_id"),
            "description": given.get("description", ""),
        }
