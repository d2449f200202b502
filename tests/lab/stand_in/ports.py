"""Ports of the network API."""

from __future__ import annotations

import ipaddress
import re
import uuid as uuid_
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tests.lab.stand_in.network_fields import NAMED, Field, anything, boolean, refusal, text, uuid, uuids
from tests.lab.stand_in.network_kind import Kind
from tests.lab.stand_in.schema import is_address
from tests.lab.stand_in.wire import Json

if TYPE_CHECKING:
    from tests.lab.stand_in.network import Network


def fixed_ips(value: Any) -> str:
    if not isinstance(value, list):
        return f"Invalid data format for fixed IP: '{value}'."
    for ip in value:
        if not isinstance(ip, dict):
            return f"Invalid data format for fixed IP: '{ip}'."
        if not ip or set(ip) - {"subnet_id", "ip_address"}:
            message = "Invalid input for operation: IP allocation requires subnet_id or ip_address."
            raise refusal(400, "InvalidInput", message, True)
        if "ip_address" in ip and not is_address(str(ip["ip_address"])):
            return f"'{ip['ip_address']}' is not a valid IP address."
        if "subnet_id" in ip and (problem := uuid(ip["subnet_id"])):
            return problem
    return ""


def mac(value: Any) -> str:
    known = isinstance(value, str) and re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", value, re.IGNORECASE)
    return "" if known else f"'{value}' is not a valid MAC address."


class Ports(Kind):
    """Those of the networks in `computes` (ids) only compute may make."""

    one, many = "port", "ports"
    fields: ClassVar[Mapping[str, Field]] = {
        **NAMED,
        "network_id": Field(uuid, put=False, required=True),
        "admin_state_up": Field(boolean),
        "security_groups": Field(uuids),
        "fixed_ips": Field(fixed_ips),
        "device_id": Field(text()),
        "device_owner": Field(text()),
        "port_security_enabled": Field(boolean),
        "tags": Field(anything, put=False),  # taken in silence without an effect, as where bulk tags are not there
        "mac_address": Field(mac, put=False),
        "binding:host_id": Field(text(), foreign=True),
        "binding:profile": Field(anything, foreign=True),
    }
    filters = frozenset({"network_id", "device_id", "device_owner", "mac_address", "status", "admin_state_up"})
    filters |= {"fixed_ips", "ip_address", "subnet_id", "security_groups", "port_security_enabled"}
    gone = ("PortNotFound", "Port {id} could not be found.")

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.computes: set[str] = set()

    def make(self, given: Json) -> Json:
        net = self.network.networks.get(given["network_id"])
        if net["id"] in self.computes:
            raise refusal(403, "PolicyNotAuthorized", "rule:create_port is disallowed by policy")
        if net["tenant_id"] != self.network.project_id and not net["shared"]:
            message = f"Tenant {self.network.project_id} not allowed to create port on this network"
            raise refusal(403, "HTTPForbidden", message)
        given.pop("tags", None)
        for group in given.setdefault("security_groups", [self.network.groups.default["id"]]):
            self.network.groups.get(group)
        wanted = given.pop("fixed_ips", None) or [{"subnet_id": subnet} for subnet in self.network.subnets.of(net)]
        return self.put_in(given, wanted)

    def put_in(self, given: Json, wanted: list[Json], **more: str) -> Json:
        """A port with addresses in its network, which is known to be there."""
        addresses = [self._address(self.network.networks.items[given["network_id"]], ip) for ip in wanted]
        tail = uuid_.uuid4().hex
        return self.added(
            {
                "name": "",
                "mac_address": f"fa:16:3e:{tail[:2]}:{tail[2:4]}:{tail[4:6]}",
                "admin_state_up": True,
                "status": "DOWN",
                "device_id": "",
                "device_owner": "",
                "fixed_ips": addresses,
                "allowed_address_pairs": [],
                "extra_dhcp_opts": [],
                "description": "",
                "security_groups": [],
                "binding:vnic_type": "normal",
                "port_security_enabled": True,
                **given,
                **more,
            }
        )

    def _address(self, net: Json, wanted: Json) -> Json:
        address = wanted.get("ip_address", "")
        if "subnet_id" in wanted:
            self.network.subnets.get(wanted["subnet_id"])
        own = [self.network.subnets.items[id] for id in net["subnets"]]
        own = [subnet for subnet in own if subnet["id"] == wanted.get("subnet_id", subnet["id"])]
        if address:
            own = [s for s in own if ipaddress.ip_address(address) in ipaddress.ip_network(s["cidr"])]
        if not own:
            message = f"IP address {address} is not a valid IP for any of the subnets on the specified network."
            raise refusal(400, "InvalidIpForNetwork", message)
        if (address and "subnet_id" not in wanted) or address != own[0]["gateway_ip"]:
            address = self.network.subnets.take(own[0], address)
        return {"subnet_id": own[0]["id"], "ip_address": address}

    def change(self, item: Json, given: Json) -> None:
        for group in given.get("security_groups", ()):
            self.network.groups.get(group)
        if "fixed_ips" in given:
            self._release(item)
            net = self.network.networks.items[item["network_id"]]
            given["fixed_ips"] = [self._address(net, ip) for ip in given["fixed_ips"]]
        item.update(given)

    def _release(self, item: Json) -> None:
        for ip in item["fixed_ips"]:
            self.network.subnets.taken[ip["subnet_id"]].discard(ip["ip_address"])

    def remove(self, item: Json) -> None:
        if item["device_owner"] == "network:router_interface":
            reason = f"has device owner {item['device_owner']}"
            message = f"Port {item['id']} cannot be deleted directly via the port API: {reason}."
            raise refusal(409, "ServicePortInUse", message)
        self._release(item)
        for floating in self.network.floating_ips.items.values():
            if floating["port_id"] == item["id"]:
                self.network.floating_ips.leave(floating)
        super().remove(item)

    def _matches(self, item: Json, name: str, values: list[str]) -> bool:
        if name == "fixed_ips":
            pairs = [value.partition("=")[::2] for value in values]
            return any(ip.get(key) == value for ip in item["fixed_ips"] for key, value in pairs)
        if name in ("ip_address", "subnet_id"):
            return any(ip[name] in values for ip in item["fixed_ips"])
        if name == "security_groups":
            return bool(set(values) & set(item["security_groups"]))
        return super()._matches(item, name, values)
