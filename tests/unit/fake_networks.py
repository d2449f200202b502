"""The networks of a fake engine: its own bridge, that of the swarm, and those that are made from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from tests.unit.api_schema import Json, api_error
from tests.unit.fake_calls import call
from tests.unit.fake_services import FakeServices
from tests.unit.fake_swarm import FakeNetwork

MTU = "com.docker.network.driver.mtu"


class FakeNetworks(FakeServices):
    """`networks_` are the names of those that have no more to them. `mtu`: of the engine's own bridge."""

    def __init__(self, name: str, network: FakeNetwork) -> None:
        super().__init__(name, network)
        self.networks_: list[str] = []
        self.configurations: list[Json] = []
        self.mtu = "1500"

    @call
    def networks(self, names: Sequence[str] | None = None, filters: Mapping[str, Any] | None = None) -> list[Json]:
        """By parts of their names, or what lies in the swarm by its scope."""
        if filters is not None:
            assert filters == {"scope": "swarm"}
            return [{"Name": "ingress", "Ingress": True, "Labels": {}}, *deepcopy(self.overlays)]
        plain = [{"Name": name, "Id": name} for name in self.networks_]
        found = [*plain, *self.configurations, *self.overlays]
        return deepcopy([n for n in found if names is None or any(part in n.get("Name", "") for part in names)])

    @call
    def inspect_network(self, net_id: str) -> Json:
        if net_id != "bridge" or not self.mtu:
            raise api_error(404, f"network {net_id} not found")
        return {"Name": "bridge", "Options": {MTU: self.mtu}}

    @call
    def remove_network(self, net_id: str) -> None:
        (found,) = [each for each in [*self.configurations, *self.overlays] if each.get("Name") == net_id] or [None]
        if found and any(each.get("ConfigFrom") == {"Network": net_id} for each in self.overlays):
            raise api_error(403, f"configuration network {net_id!r} is in use")
        if found and any(f"'{found['Id']}'" in str(service["Spec"]) for service in self.swarm.services.values()):
            raise api_error(400, f"network {found['Id']} is in use by a service")
        if found:
            (self.configurations if found in self.configurations else self.overlays).remove(found)
        elif net_id not in self.networks_:
            raise api_error(404, f"network {net_id} not found")
        elif self.node_id:
            raise api_error(403, f"error while removing network: network {net_id} has active endpoints")
        else:
            self.networks_.remove(net_id)
        self._changed(f"remove network {net_id}")

    # --- what docker-py's own call does not know ---

    def _url(self, path: str) -> str:
        return path

    def _result(self, answer: Json, json: bool) -> Json:
        assert json
        return answer

    @call
    def _post_json(self, path: str, data: Json) -> Json:
        assert path == "/networks/create"
        made = {"Id": self.swarm.id("network"), **data}
        if data.get("ConfigOnly"):
            assert {*data} == {"Name", "ConfigOnly", "Options", "Labels"}
            self.configurations.append(made)
        else:
            self._manager()
            if {*data} != {"Name", "Driver", "Scope", "ConfigFrom"}:
                raise api_error(403, "user specified configurations are not supported")
            if data["ConfigFrom"]["Network"] not in {each["Name"] for each in self.configurations}:
                raise api_error(404, f"network {data['ConfigFrom']['Network']} not found")
            self.overlays.append(made)
        self._changed(f"create network {data['Name']}")
        return {"Id": made["Id"]}
