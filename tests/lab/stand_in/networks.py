"""Networks, subnets and routers of the network API; clients only look at them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.lab.stand_in.network_fields import refusal
from tests.lab.stand_in.network_kind import Kind
from tests.lab.stand_in.wire import Json, Request

if TYPE_CHECKING:
    from tests.lab.stand_in.network import Network


class Networks(Kind):
    one, many = "network", "networks"
    filters = frozenset({"admin_state_up", "status", "shared", "router:external", "mtu", "port_security_enabled"})
    made = deleted = changed = False
    gone = ("NetworkNotFound", "Network {id} could not be found.")

    def add(self, name: str, *, external: bool = False, shared: bool = False) -> Json:
        """Of the project; or of the provider, for all to use from outside (`external`), or to join (`shared`)."""
        return self.added(
            {
                "name": name,
                "tenant_id": self.network.provider_id if external or shared else self.network.project_id,
                "admin_state_up": True,
                "mtu": 1450,
                "status": "ACTIVE",
                "subnets": [],
                "shared": shared,
                "availability_zone_hints": [],
                "availability_zones": ["nova"],
                "ipv4_address_scope": None,
                "ipv6_address_scope": None,
                "router:external": external,
                "description": "",
                **({"is_default": False} if external else {}),
                "port_security_enabled": True,
            }
        )


class Subnets(Kind):
    """`taken` are the addresses that something has, by subnet. Of networks that are `hidden` (ids), none is listed."""

    one, many = "subnet", "subnets"
    filters = frozenset({"network_id", "ip_version", "cidr", "gateway_ip", "enable_dhcp", "ipv6_ra_mode"})
    filters |= {"ipv6_address_mode", "subnetpool_id"}
    made = deleted = changed = False
    gone = ("SubnetNotFound", "Subnet {id} could not be found.")

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.taken: dict[str, set[str]] = {}
        self.hidden: set[str] = set()
        self._free: dict[str, Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]] = {}

    def add(self, name: str, network: Json, cidr: str) -> Json:
        block = ipaddress.ip_network(cidr)
        gateway = block[1]
        item = self.added(
            {
                "name": name,
                "tenant_id": network["tenant_id"],
                "network_id": network["id"],
                "ip_version": block.version,
                "subnetpool_id": None,
                "enable_dhcp": True,
                "ipv6_ra_mode": None,
                "ipv6_address_mode": None,
                "gateway_ip": str(gateway),
                "cidr": str(block),
                "allocation_pools": [{"start": str(block[2]), "end": str(block[-2])}],
                "host_routes": [],
                "dns_nameservers": [],
                "description": "",
                "service_types": [],
            }
        )
        network["subnets"].append(item["id"])
        self.taken[item["id"]] = {str(gateway)}
        self._free[item["id"]] = block.hosts()
        return item

    def fits(self, item: Json, request: Request) -> bool:
        return item["network_id"] not in self.hidden and super().fits(item, request)

    def of(self, network: Json) -> list[str]:
        """The subnets in which a new port gets an address: one for each version of the protocol."""
        own = {self.items[id]["ip_version"]: id for id in reversed(network["subnets"])}
        return [own[number] for number in sorted(own)]

    def take(self, subnet: Json, address: str = "") -> str:
        """The address that was asked for, or the next free one."""
        taken = self.taken[subnet["id"]]
        if address:
            if address in taken:
                message = f"IP address {address} already allocated in subnet {subnet['id']}"
                raise refusal(409, "IpAddressAlreadyAllocated", message)
        else:
            address = self._next(subnet["id"], taken)
        taken.add(address)
        return address

    def _next(self, id: str, taken: set[str]) -> str:
        for _ in range(2):
            for address in self._free[id]:
                if str(address) not in taken:
                    return str(address)
            self._free[id] = ipaddress.ip_network(self.items[id]["cidr"]).hosts()
        network = self.items[id]["network_id"]
        message = f"No more IP addresses available on network {network}."
        raise refusal(409, "IpAddressGenerationFailure", message)


class Routers(Kind):
    one, many = "router", "routers"
    filters = frozenset({"admin_state_up", "status", "flavor_id"})
    made = deleted = changed = False
    gone = ("RouterNotFound", "Router {id} could not be found")

    def add(self, name: str, external: Json, inner: Json) -> Json:
        """Between an external network and the first subnet of an inner one."""
        outside = self.network.subnets.items[external["subnets"][0]]
        address = self.network.subnets.take(outside)
        router = self.added(
            {
                "name": name,
                "admin_state_up": True,
                "status": "ACTIVE",
                "external_gateway_info": {
                    "network_id": external["id"],
                    "enable_snat": True,
                    "external_fixed_ips": [{"subnet_id": outside["id"], "ip_address": address}],
                },
                "description": "",
                "availability_zones": ["nova"],
                "availability_zone_hints": [],
                "routes": [],
                "flavor_id": None,
            }
        )
        gateway = self.network.subnets.items[inner["subnets"][0]]
        self.network.ports.put_in(
            {"network_id": inner["id"], "security_groups": []},
            [{"subnet_id": gateway["id"], "ip_address": gateway["gateway_ip"]}],
            device_id=router["id"],
            device_owner="network:router_interface",
            status="ACTIVE",
        )
        return router

    def reaching(self, subnet: str, external: str) -> Json | None:
        """The router between a subnet and an external network."""
        owned = (p for p in self.network.ports.items.values() if p["device_owner"] == "network:router_interface")
        here = {port["device_id"] for port in owned if subnet in {ip["subnet_id"] for ip in port["fixed_ips"]}}
        between = (r for r in self.items.values() if r["external_gateway_info"]["network_id"] == external)
        return next((router for router in between if router["id"] in here), None)
