"""Server groups of compute."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tests.lab.stand_in.compute_schema import create_group
from tests.lab.stand_in.service import Route
from tests.lab.stand_in.wire import Answer, Json, Request, new_id

if TYPE_CHECKING:
    from tests.lab.stand_in.compute import Compute


class Groups:
    """`items` have no members of their own: these are the servers that say so."""

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.items: dict[str, Json] = {}

    def routes(self) -> Iterable[Route]:
        yield Route("GET", "/v2.1/os-server-groups", self._list, query={"limit", "offset"})
        yield Route("POST", "/v2.1/os-server-groups", self._create)
        yield Route("GET", "/v2.1/os-server-groups/{id}", self._show)
        yield Route("DELETE", "/v2.1/os-server-groups/{id}", self._delete)

    def members(self, id: str) -> list[str]:
        return [server.id for server in self.compute.servers.values() if server.group == id]

    def _shown(self, group: Json, version: tuple[int, int]) -> Json:
        shown: Json = {"id": group["id"], "name": group["name"]}
        if version >= (2, 64):
            shown |= {"policy": group["policy"], "rules": group["rules"]}
        else:
            shown |= {"policies": [group["policy"]], "metadata": {}}
        shown["members"] = self.members(group["id"])
        if version >= (2, 13):
            shown |= {"project_id": self.compute.network.project_id, "user_id": self.compute.user_id}
        return shown

    def _list(self, request: Request) -> Answer:
        start, most = self.compute.number(request, "offset"), self.compute.number(request, "limit") or 1000
        page = list(self.items.values())[start : start + most]
        return Answer(200, {"server_groups": [self._shown(group, request.version) for group in page]})

    def _create(self, request: Request) -> Answer:
        given = self.compute.checked(request, create_group(request.version))["server_group"]
        policy = given["policy"] if "policy" in given else given["policies"][0]
        if given.get("rules") and policy != "anti-affinity":
            message = "Only anti-affinity policy supports rules."
            raise self.compute.refusal(400, message, violation=True)
        if 0 <= self.compute.quotas["server_groups"] <= len(self.items):
            raise self.compute.refusal(403, "Quota exceeded, too many server groups.")
        group = {"id": new_id(), "name": given["name"], "policy": policy, "rules": given.get("rules", {})}
        self.items[group["id"]] = group
        return Answer(200, {"server_group": self._shown(group, request.version)})

    def _get(self, id: str) -> Json:
        if id not in self.items:
            raise self.compute.refusal(404, f"Instance group {id} could not be found.")
        return self.items[id]

    def _show(self, request: Request, id: str) -> Answer:
        return Answer(200, {"server_group": self._shown(self._get(id), request.version)})

    def _delete(self, request: Request, id: str) -> Answer:
        del self.items[self._get(id)["id"]]
        return Answer(204)
