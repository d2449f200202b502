"""Compute v2.1 (nova): flavors, key pairs, quotas, groups, and the servers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from tests.lab.stand_in import schema
from tests.lab.stand_in.flavors import Offers
from tests.lab.stand_in.image import Images
from tests.lab.stand_in.machines import BUILD, ERROR, Server, links
from tests.lab.stand_in.network import Network
from tests.lab.stand_in.server_groups import Groups
from tests.lab.stand_in.servers import Servers
from tests.lab.stand_in.service import Route, Service
from tests.lab.stand_in.volume import Volumes
from tests.lab.stand_in.wire import Answer, Json, Refused, Request, html, new_id

JSON = {"Content-Type": "application/json; charset=UTF-8"}
OLDEST, NEWEST = (2, 1), (2, 93)
KINDS = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 409: "conflictingRequest", 406: "computeFault"}
QUOTAS = {"instances": 10, "cores": 20, "ram": 51200, "key_pairs": 100, "metadata_items": 128}
QUOTAS |= {"server_groups": 10, "server_group_members": 10}


def _version_headers(version: str) -> dict[str, str]:
    return {
        "OpenStack-API-Version": f"compute {version}",
        "X-OpenStack-Nova-API-Version": version,
        "Vary": "OpenStack-API-Version, X-OpenStack-Nova-API-Version",
    }


class Compute(Service):
    """`outcomes` say what becomes of the next servers of a name: `ACTIVE`, `ERROR: why`, `BUILD` (for ever).

    `consoles` are texts by the name of a server; None: it has no console. `looks_to_build` and `looks_to_delete`:
    so many looks at it a server needs for that. `quotas`: -1 is without a limit.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        known: Callable[[str], bool],
        *,
        user_id: str,
        network: Network,
        images: Images,
        volumes: Volumes | None,
    ) -> None:
        self.user_id, self.network, self.images, self.volumes = user_id, network, images, volumes
        self.zone = "nova"
        self.servers: dict[str, Server] = {}
        self.flavors: dict[str, Json] = {}
        self.keypairs: dict[str, Json] = {}
        self.quotas = dict(QUOTAS)
        self.outcomes: dict[str, list[str]] = {}
        self.consoles: dict[str, str | None] = {}
        self.looks_to_build = self.looks_to_delete = 0
        self.groups = Groups(self)
        if volumes is not None:
            volumes.failed = self._not_attached
        super().__init__(url, prefix, known)

    # --- for tests ---

    def add_flavor(self, name: str, *, vcpus: int, ram: int, disk: int, **extra_specs: str) -> Json:
        """`ram` in MB, `disk` in GB."""
        flavor: Json = {
            "id": new_id(),
            "name": name,
            "ram": ram,
            "disk": disk,
            "swap": 0,
            "OS-FLV-EXT-DATA:ephemeral": 0,
            "OS-FLV-DISABLED:disabled": False,
            "vcpus": vcpus,
            "os-flavor-access:is_public": True,
            "rxtx_factor": 1.0,
            "extra_specs": extra_specs,
        }
        flavor["links"] = links(self, f"flavors/{flavor['id']}")
        self.flavors[flavor["id"]] = flavor
        return flavor

    def add_keypair(self, name: str, public_key: str) -> Json:
        digest = hashlib.md5(public_key.encode()).hexdigest()
        fingerprint = ":".join(re.findall("..", digest))
        self.keypairs[name] = {"name": name, "public_key": public_key, "fingerprint": fingerprint}
        return self.keypairs[name]

    def add_server(self, name: str, flavor: str = "", **more: Any) -> Server:
        """One that nobody asked for over the API, such as somebody else's in the project; it is up."""
        chosen = next(f for f in self.flavors.values() if flavor in ("", f["name"]))
        image = next(iter(self.images.images), "")
        server = Server(name=name, flavor=chosen, image=image, hostname=name, zone=self.zone, **more)
        self.servers[server.id] = server
        self.finish(server)
        return server

    def server(self, name: str) -> Server:
        """The only one of a name."""
        (server,) = (server for server in self.servers.values() if server.name == name)
        return server

    # --- what becomes of servers ---

    def finish(self, server: Server) -> None:
        """It becomes what it is to become."""
        if server.fate == BUILD:
            return
        server.become(server.fate)
        if server.status == ERROR:
            self._let_go(server)

    def remove(self, server: Server) -> None:
        self._let_go(server)
        if self.volumes is not None:
            for id, goes in server.volumes.items():
                self.volumes.detach(id, goes)
        del self.servers[server.id]

    def ports_of(self, server: Server) -> list[Json]:
        """Those that are still there, and still its own."""
        known = (self.network.ports.items.get(id) for id in server.ports)
        return [port for port in known if port is not None and port["device_id"] == server.id]

    def _let_go(self, server: Server) -> None:
        """Its ports are free again, or gone with it."""
        for port in self.ports_of(server):
            self.network.unbind(port)
            if port["id"] in server.own_ports:
                self.network.ports.remove(port)
        server.ports = []

    def _not_attached(self, volume: str, server_id: str) -> None:
        """A server that boots with a volume fails; one that runs goes on without it."""
        server = self.servers.get(server_id)
        if server and server.status == BUILD:
            server.fate = f"{ERROR}: Build of instance {server.id} aborted: Volume {volume} could not be attached."
        elif server:
            server.volumes.pop(volume, None)

    # --- the service ---

    def routes(self) -> list[Route]:
        return [
            *(Route("GET", path, self._versions, public=True) for path in ("", "/")),
            *(Route("GET", path, self._version, public=True) for path in ("/v2.1", "/v2.1/")),
            Route("GET", "/v2.1/limits", self._limits, query={"tenant_id"}),
            *Offers(self).routes(),
            *self.groups.routes(),
            *Servers(self).routes(),
        ]

    def answer(self, request: Request) -> Answer:
        request.version = self._microversion(request)
        if request.path in (self.prefix, f"{self.prefix}/"):
            return super().answer(request)
        headers = _version_headers(".".join(map(str, request.version)))
        try:
            answer = super().answer(request)
        except Refused as refused:
            if refused.answer.status != 401 and not isinstance(refused.answer.body, str):
                refused.answer.headers = {**headers, **refused.answer.headers}
            raise
        answer.headers = {**headers, **answer.headers}
        return answer

    def _microversion(self, request: Request) -> tuple[int, int]:
        kind, _, given = request.headers.get("openstack-api-version", "").partition(" ")
        if kind.lower() != "compute":
            given = request.headers.get("x-openstack-nova-api-version", "")
        if not given:
            return OLDEST
        if given == "latest":
            return NEWEST
        numbers = re.fullmatch(r"([1-9]\d*)\.([1-9]\d*|0)", given)
        if not numbers:
            message = f"API Version String {given} is of invalid format. Must be of format MajorNum.MinorNum."
            raise self.refusal(400, message, violation=True)
        version = int(numbers[1]), int(numbers[2])
        if not OLDEST <= version <= NEWEST:
            message = f"Version {given} is not supported by the API. Minimum is 2.1 and maximum is 2.93."
            refused = self.refusal(406, message, violation=True)
            refused.answer.headers = {**refused.answer.headers, **_version_headers(given)}
            raise refused
        return version

    def unknown_path(self, request: Request) -> Answer:
        return html(404, "Not Found", "The resource could not be found.")

    def unknown_query(self, request: Request, names: list[str]) -> Answer:
        # before 2.75 the service ignores them
        message = f"Additional properties are not allowed ('{names[0]}' was unexpected)"
        if "/servers" in request.path:
            message = f"'{names[0]}' does not match any of the regexes: '^_'"
        return self.refusal(400, message).answer

    def refusal(self, status: int, message: str, *, violation: bool = False) -> Refused:
        body = {KINDS[status]: {"code": status, "message": message}}
        return Refused(Answer(status, body, JSON), message if violation else "")

    def json(self, request: Request) -> Any:
        try:
            return request.json()
        except ValueError:
            raise self.refusal(400, "Malformed request body", violation=True) from None

    def checked(self, request: Request, expected: Json) -> Json:
        body: Json = self.json(request)
        self.check(body, expected)
        return body

    def check(self, body: Any, expected: Json) -> None:
        found = schema.problem(body, expected)
        if found is None:
            return
        where = f"Invalid input for field/attribute {found.field}. Value: {found.value}. " if found.field else ""
        raise self.refusal(400, where + found.reason, violation=True)

    def number(self, request: Request, name: str) -> int:
        """A parameter's value; 0 where there is none."""
        given = request.one(name)
        if given and not given.isdecimal():
            message = f"Invalid input for query parameters {name}. Value: {given}. {given!r} does not match '^[0-9]*$'"
            raise self.refusal(400, message, violation=True)
        return int(given or 0)

    def next_link(self, request: Request, marker: str) -> Json:
        kept = [(n, v) for n, values in sorted(request.query.items()) if n != "marker" for v in values]
        return {"rel": "next", "href": f"{self.root}{request.path}?{urlencode([*kept, ('marker', marker)])}"}

    # --- versions ---

    def _about(self) -> Json:
        return {
            "id": "v2.1",
            "status": "CURRENT",
            "version": "2.93",
            "min_version": "2.1",
            "updated": "2013-07-23T11:33:21Z",
            "links": [{"rel": "self", "href": f"{self.url}/v2.1/"}],
        }

    def _versions(self, request: Request) -> Answer:
        old = {"id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "updated": "2011-01-21T11:33:21Z"}
        old_links = [{"rel": "self", "href": f"{self.url}/v2/"}]
        return Answer(200, {"versions": [old | {"links": old_links}, self._about()]})

    def _version(self, request: Request) -> Answer:
        about = self._about()
        about["links"].append({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})
        media = {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}
        return Answer(200, {"version": about | {"media-types": [media]}})

    # --- quotas ---

    def used(self) -> dict[str, int]:
        flavors = [server.flavor for server in self.servers.values()]
        cores, ram = sum(flavor["vcpus"] for flavor in flavors), sum(flavor["ram"] for flavor in flavors)
        return {"instances": len(flavors), "cores": cores, "ram": ram}

    def check_quota(self, flavor: Json, count: int) -> None:
        used = self.used()
        wanted = {"instances": count, "cores": count * flavor["vcpus"], "ram": count * flavor["ram"]}
        overs = [n for n in sorted(used) if 0 <= self.quotas[n] < used[n] + wanted[n]]
        if overs:
            names = ", ".join(overs)
            asked, had, most = (", ".join(str(of[n]) for n in overs) for of in (wanted, used, self.quotas))
            message = f"Quota exceeded for {names}: Requested {asked}, but already used {had} of {most} {names}"
            raise self.refusal(403, message)

    def _limits(self, request: Request) -> Answer:
        quotas, used, old = self.quotas, self.used(), request.version < (2, 57)
        absolute = {
            "maxTotalInstances": quotas["instances"],
            "maxTotalCores": quotas["cores"],
            "maxTotalRAMSize": quotas["ram"],
            "maxServerMeta": quotas["metadata_items"],
            **({"maxImageMeta": 128} if request.version < (2, 39) else {}),
            **({"maxPersonality": 5, "maxPersonalitySize": 10240} if old else {}),
            "maxTotalKeypairs": quotas["key_pairs"],
            "maxServerGroups": quotas["server_groups"],
            "maxServerGroupMembers": quotas["server_group_members"],
            "totalRAMUsed": used["ram"],
            "totalCoresUsed": used["cores"],
            "totalInstancesUsed": used["instances"],
            "totalServerGroupsUsed": len(self.groups.items),
        }
        if request.version < (2, 36):
            absolute |= {"maxTotalFloatingIps": -1, "maxSecurityGroups": -1, "maxSecurityGroupRules": -1}
            absolute |= {"totalFloatingIpsUsed": 0, "totalSecurityGroupsUsed": 0}
        return Answer(200, {"limits": {"rate": [], "absolute": absolute}})
