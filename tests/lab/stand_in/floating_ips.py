"""Floating IPs of the network API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tests.lab.stand_in.network_fields import Field, anything, refusal, text, uuid, uuid_or_none
from tests.lab.stand_in.network_kind import Kind
from tests.lab.stand_in.wire import Answer, Json, Request, new_id


class FloatingIps(Kind):
    one, many = "floatingip", "floatingips"
    named = False
    fields: ClassVar[Mapping[str, Field]] = {
        "description": Field(text()),
        "floating_network_id": Field(uuid, put=False, required=True),
        "port_id": Field(uuid_or_none),
        "fixed_ip_address": Field(anything),
        "floating_ip_address": Field(anything, foreign=True),
    }
    filters = frozenset({"port_id", "floating_network_id", "floating_ip_address", "fixed_ip_address", "router_id"})
    filters |= {"status"}
    gone = ("FloatingIPNotFound", "Floating IP {id} could not be found")

    def make(self, given: Json) -> Json:
        net = self.network.networks.get(given["floating_network_id"])
        if not net["router:external"]:
            message = f"Bad floatingip request: Network {net['id']} is not a valid external network."
            raise refusal(400, "BadRequest", message)
        port = self.network.ports.get(given["port_id"]) if given.get("port_id") else None
        address = self.network.subnets.take(self.network.subnets.items[net["subnets"][0]])
        try:
            place = self._place(given, port, net["id"], address)
        except BaseException:
            self.network.subnets.taken[net["subnets"][0]].discard(address)
            raise
        return self.added(
            {
                "floating_ip_address": address,
                "floating_network_id": net["id"],
                **place,
                "status": "DOWN",
                "description": given.get("description", ""),
            }
        )

    def _place(self, given: Json, port: Json | None, external: str, address: str, own: str = "") -> Json:
        """Where it leads to."""
        if port is None:
            return {"router_id": None, "port_id": None, "fixed_ip_address": None}
        ip = next(
            (i for i in port["fixed_ips"] if i["ip_address"] == given.get("fixed_ip_address", i["ip_address"])), None
        )
        if ip is None:
            message = f"Bad floatingip request: Port {port['id']} does not have fixed ip {given['fixed_ip_address']}."
            raise refusal(400, "BadRequest", message)
        for other in self.items.values():
            if other["port_id"] == port["id"] and other["id"] != own and other["fixed_ip_address"] == ip["ip_address"]:
                message = f"Cannot associate floating IP {address} ({own or new_id()}) with port {port['id']} using"
                message += (
                    f" fixed IP {ip['ip_address']}, as that fixed IP already has a floating IP on external network"
                )
                raise refusal(409, "FloatingIPPortAlreadyAssociated", f"{message} {external}.")
        router = self.network.routers.reaching(ip["subnet_id"], external)
        if router is None:
            message = f"External network {external} is not reachable from subnet {ip['subnet_id']}.  Therefore, cannot"
            message += f" associate Port {port['id']} with a Floating IP."
            raise refusal(404, "ExternalGatewayForFloatingIPNotFound", message)
        return {"router_id": router["id"], "port_id": port["id"], "fixed_ip_address": ip["ip_address"]}

    def change(self, item: Json, given: Json) -> None:
        if "port_id" in given:
            port = self.network.ports.get(given["port_id"]) if given["port_id"] else None
            place = self._place(given, port, item["floating_network_id"], item["floating_ip_address"], item["id"])
            item |= place | {"status": "ACTIVE" if port else "DOWN"}
        if "description" in given:
            item["description"] = given["description"]

    def leading(self) -> dict[str, list[str]]:
        """The addresses, by the port that they lead to."""
        found: dict[str, list[str]] = {}
        for item in self.items.values():
            if item["port_id"]:
                found.setdefault(item["port_id"], []).append(item["floating_ip_address"])
        return found

    def leave(self, item: Json) -> None:
        item |= {"router_id": None, "port_id": None, "fixed_ip_address": None, "status": "DOWN"}
        self.touch(item)

    def remove(self, item: Json) -> None:
        subnet = self.network.networks.items[item["floating_network_id"]]["subnets"][0]
        self.network.subnets.taken[subnet].discard(item["floating_ip_address"])
        super().remove(item)

    def view(self, item: Json) -> Json:
        port = self.network.ports.items.get(item["port_id"] or "")
        names = ("name", "network_id", "mac_address", "admin_state_up", "status", "device_id", "device_owner")
        return item | {"port_details": {name: port[name] for name in names} if port else None}

    def _post(self, request: Request) -> Answer:
        answer = super()._post(request)
        item = self.items[answer.body[self.one]["id"]]
        if item["port_id"]:  # active a moment later
            item["status"] = "ACTIVE"
        return answer
