"""Networking v2.0 (neutron): what is served of it, its quotas, and what compute has to do with it."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from tests.lab.stand_in.floating_ips import FloatingIps
from tests.lab.stand_in.network_fields import refusal
from tests.lab.stand_in.networks import Networks, Routers, Subnets
from tests.lab.stand_in.ports import Ports
from tests.lab.stand_in.security_groups import DEFAULT, Groups, Rules
from tests.lab.stand_in.service import Route, Service
from tests.lab.stand_in.wire import Answer, Json, Refused, Request, html

EXTENSIONS = (
    *("address-scope", "allowed-address-pairs", "availability_zone", "binding", "empty-string-filtering"),
    *("ext-gw-mode", "external-net", "extra_dhcp_opt", "extraroute", "filter-validation", "fip-port-details"),
    *("net-mtu", "network_availability_zone", "pagination", "port-security", "port-security-groups-filtering"),
    *("project-id", "quota_details", "quotas", "router", "security-group", "security-groups-normalized-cidr"),
    *("security-groups-remote-address-group", "security-groups-shared-filtering", "service-type", "sorting"),
    *("standard-attr-description", "standard-attr-revisions", "standard-attr-tag", "standard-attr-timestamp"),
    *("stateful-security-group", "subnet_allocation"),
)
QUOTAS = {"network": 100, "subnet": 100, "subnetpool": -1, "port": 500, "router": 10, "floatingip": 50}
QUOTAS |= {"rbac_policy": 10, "security_group": 10, "security_group_rule": 100}


class Network(Service):
    """`quotas` may be changed; -1 is without a limit. What is used is what there is."""

    def __init__(self, url: str, prefix: str, known: Callable[[str], bool], project_id: str) -> None:
        self.project_id, self.provider_id = project_id, uuid.uuid4().hex
        self.quotas = dict(QUOTAS)
        self.networks, self.subnets, self.routers = Networks(self), Subnets(self), Routers(self)
        self.ports, self.floating_ips = Ports(self), FloatingIps(self)
        self.groups, self.rules = Groups(self), Rules(self)
        self.groups.add(DEFAULT, "Default security group")
        super().__init__(url, prefix, known)

    def routes(self) -> list[Route]:
        kinds = (self.networks, self.subnets, self.routers, self.ports, self.floating_ips, self.groups, self.rules)
        quotas = "/v2.0/quotas/{project}"
        return [
            *(Route("GET", path, self._versions, public=True) for path in ("", "/")),
            Route("GET", "/v2.0/", self._resources),
            Route("GET", "/v2.0/extensions", self._extensions),
            Route("GET", "/v2.0/extensions/{alias}", self._extension),
            Route("GET", quotas, self._quotas),
            Route("PUT", quotas, self._set_quotas),
            *(Route("GET", f"{quotas}/{name}", self._quota_details) for name in ("details", "details.json")),
            *(route for kind in kinds for route in kind.routes()),
        ]

    def unknown_path(self, request: Request) -> Answer:
        return refusal(404, "HTTPNotFound", "The resource could not be found.").answer

    def unknown_query(self, request: Request, names: list[str]) -> Answer:
        return refusal(400, "HTTPBadRequest", f"{names} is invalid attribute for filtering").answer

    # --- what there is ---

    def _versions(self, request: Request) -> Answer:
        links = [{"rel": "self", "href": f"{self.url}/v2.0/"}]
        return Answer(200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})

    def _resources(self, request: Request) -> Answer:
        def about(name: str) -> Json:
            link = {"rel": "self", "href": f"{self.url}/v2.0/{name}s"}
            return {"name": name, "collection": f"{name}s", "links": [link]}

        return Answer(200, {"resources": [about(name) for name in ("network", "subnet", "subnetpool", "port")]})

    def _about(self, alias: str) -> Json:
        names = {"name": alias, "alias": alias, "description": f"What {alias} adds"}
        return {**names, "updated": "2016-01-01T10:00:00-00:00", "links": []}

    def _extensions(self, request: Request) -> Answer:
        return Answer(200, {"extensions": [self._about(alias) for alias in EXTENSIONS]})

    def _extension(self, request: Request, alias: str) -> Answer:
        if alias not in EXTENSIONS:
            text = f"The resource could not be found.<br /><br />\nExtension with alias {alias} does not exist"
            raise Refused(html(404, "Not Found", text))
        return Answer(200, {"extension": self._about(alias)})

    # --- quotas ---

    def used(self) -> dict[str, int]:
        counted = {kind.one: len(kind.items) for kind in (self.ports, self.floating_ips, self.groups, self.rules)}
        owned = (self.networks, self.subnets, self.routers)
        return counted | {
            kind.one: sum(item["project_id"] == self.project_id for item in kind.items.values()) for kind in owned
        }

    def check_quota(self, name: str, used: int, more: int = 1) -> None:
        if 0 <= self.quotas[name] < used + more:
            raise refusal(409, "OverQuota", f"Quota exceeded for resources: ['{name}'].")

    def _check_project(self, project: str) -> None:
        if project != self.project_id:
            reason = "Only admin is authorized to access quotas for another project."
            raise refusal(403, "AdminRequired", f"User does not have admin privileges: {reason}")

    def _quotas(self, request: Request, project: str) -> Answer:
        if project != self.project_id:
            raise refusal(403, "PolicyNotAuthorized", "rule:get_quota is disallowed by policy")
        return Answer(200, {"quota": self.quotas})

    def _set_quotas(self, request: Request, project: str) -> Answer:
        raise refusal(403, "PolicyNotAuthorized", "rule:update_quota is disallowed by policy")

    def _quota_details(self, request: Request, project: str) -> Answer:
        self._check_project(project)
        used = self.used()
        details = {
            name: {"limit": limit, "used": used.get(name, 0), "reserved": 0} for name, limit in self.quotas.items()
        }
        return Answer(200, {"quota": details})

    # --- for compute ---

    def bind(self, port: Json, server: str, zone: str) -> None:
        port |= {"device_id": server, "device_owner": f"compute:{zone}", "status": "ACTIVE"}
        self.ports.touch(port)

    def unbind(self, port: Json) -> None:
        port |= {"device_id": "", "device_owner": "", "status": "DOWN"}
        self.ports.touch(port)

    def new_port(self, network_id: str, groups: list[str]) -> Json:
        """As compute makes one for a server that names a network."""
        net = self.networks.items[network_id]
        self.check_quota("port", len(self.ports.items))
        given: Json = {"network_id": network_id, "security_groups": groups or [self.groups.default["id"]]}
        return self.ports.put_in(given, [{"subnet_id": subnet} for subnet in self.subnets.of(net)])

    def group_of(self, name: str) -> Json:
        """By its name or id, as compute takes it."""
        for group in self.groups.items.values():
            if name in (group["name"], group["id"]):
                return group
        raise Refused(Answer(400), f"no security group {name}")
