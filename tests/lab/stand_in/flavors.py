"""What compute offers: flavors, key pairs and availability zones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tests.lab.stand_in.service import Route
from tests.lab.stand_in.wire import Answer, Json, Request, now

if TYPE_CHECKING:
    from tests.lab.stand_in.compute import Compute

PAGING = {"limit", "marker"}
FLAVORS = {*PAGING, "is_public", "minRam", "minDisk"}


class Offers:
    def __init__(self, compute: Compute) -> None:
        self.compute = compute

    def routes(self) -> Iterable[Route]:
        yield Route("GET", "/v2.1/flavors", self._flavors, query=FLAVORS)
        yield Route("GET", "/v2.1/flavors/detail", self._flavors, query=FLAVORS)
        yield Route("GET", "/v2.1/flavors/{id}", self._flavor)
        yield Route("GET", "/v2.1/flavors/{id}/os-extra_specs", self._extra_specs)
        yield Route("GET", "/v2.1/os-keypairs", self._keypairs, query=PAGING)
        yield Route("GET", "/v2.1/os-keypairs/{name}", self._keypair)
        yield Route("GET", "/v2.1/os-availability-zone", self._zones)
        yield Route("GET", "/v2.1/os-availability-zone/detail", self._zone_details)

    def _shown_flavor(self, flavor: Json, version: tuple[int, int], detailed: bool = True) -> Json:
        shown = dict(flavor) if detailed else {name: flavor[name] for name in ("id", "name", "links")}
        extra_specs = shown.pop("extra_specs", {})
        if detailed and version < (2, 75):
            shown["swap"] = flavor["swap"] or ""
        if version >= (2, 55):
            shown["description"] = None
        return shown | ({"extra_specs": extra_specs} if detailed and version >= (2, 61) else {})

    def _flavors(self, request: Request) -> Answer:
        least = {"ram": self._least(request, "minRam"), "disk": self._least(request, "minDisk")}
        found = sorted(self.compute.flavors.values(), key=lambda flavor: str(flavor["id"]))
        found = [flavor for flavor in found if all(flavor[name] >= number for name, number in least.items())]
        page, more = self._page(found, request, "flavors", "id")
        detailed = request.path.endswith("/detail")
        return Answer(200, {"flavors": [self._shown_flavor(f, request.version, detailed) for f in page], **more})

    def _least(self, request: Request, name: str) -> int:
        given = request.one(name, "0")
        if not given.isdecimal():
            raise self.compute.refusal(400, f"Invalid {name} filter [{given}]", violation=True)
        return int(given)

    def _page(self, found: list[Json], request: Request, many: str, key: str) -> tuple[list[Json], Json]:
        if marker := request.one("marker"):
            ids = [item[key] for item in found]
            if marker not in ids:
                raise self.compute.refusal(400, f"marker [{marker}] not found")
            found = found[ids.index(marker) + 1 :]
        limit = min(self.compute.number(request, "limit") or 1000, 1000)
        page = found[:limit]
        more = (
            {f"{many}_links": [self.compute.next_link(request, page[-1][key])]} if page and len(page) == limit else {}
        )
        return page, more

    def _get_flavor(self, id: str) -> Json:
        if id not in self.compute.flavors:
            raise self.compute.refusal(404, f"Flavor {id} could not be found.")
        return self.compute.flavors[id]

    def _flavor(self, request: Request, id: str) -> Answer:
        return Answer(200, {"flavor": self._shown_flavor(self._get_flavor(id), request.version)})

    def _extra_specs(self, request: Request, id: str) -> Answer:
        self._get_flavor(id)
        return Answer(200, {"extra_specs": {}})

    def _keypairs(self, request: Request) -> Answer:
        kind = {"type": "ssh"} if request.version >= (2, 2) else {}
        found = sorted(self.compute.keypairs.values(), key=lambda pair: str(pair["name"]))
        page, more = self._page(found, request, "keypairs", "name")
        return Answer(200, {"keypairs": [{"keypair": pair | kind} for pair in page], **more})

    def _keypair(self, request: Request, name: str) -> Answer:
        if name not in self.compute.keypairs:
            raise self.compute.refusal(404, f"Keypair {name} not found for user {self.compute.user_id}")
        more = {
            "user_id": self.compute.user_id,
            "created_at": f"{now()[:-1]}.000000",
            "deleted": False,
            "deleted_at": None,
        }
        more |= {"id": 1, "updated_at": None, **({"type": "ssh"} if request.version >= (2, 2) else {})}
        return Answer(200, {"keypair": self.compute.keypairs[name] | more})

    def _zones(self, request: Request) -> Answer:
        zone = {"zoneName": self.compute.zone, "zoneState": {"available": True}, "hosts": None}
        return Answer(200, {"availabilityZoneInfo": [zone]})

    def _zone_details(self, request: Request) -> Answer:
        action = "os_compute_api:os-availability-zone:detail"
        raise self.compute.refusal(403, f"Policy doesn't allow {action} to be performed.")
