"""Requests of compute that are about servers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tests.lab.stand_in import compute_schema as schema
from tests.lab.stand_in.booting import boot, reserve
from tests.lab.stand_in.machines import ACTIVE, BUILD, ERROR, SHUTOFF, STATUSES, Server, brief, details, links
from tests.lab.stand_in.schema import problem
from tests.lab.stand_in.service import Route
from tests.lab.stand_in.wire import Answer, Json, Request, now

if TYPE_CHECKING:
    from tests.lab.stand_in.compute import Compute

MOST = 1000  # servers of a page
TAGS = ("tags", "tags-any", "not-tags", "not-tags-any")
FILTERS = {"name", "status", "flavor", "image", "uuid", "all_tenants", *TAGS, "limit", "marker"}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")


class Servers:
    def __init__(self, compute: Compute) -> None:
        self.compute = compute

    def routes(self) -> Iterable[Route]:
        this = "/v2.1/servers/{id}"
        yield Route("GET", "/v2.1/servers", self._list, query=FILTERS)
        yield Route("GET", "/v2.1/servers/detail", self._list, query=FILTERS)
        yield Route("POST", "/v2.1/servers", self._create)
        yield Route("GET", this, self._show)
        yield Route("DELETE", this, self._delete)
        yield Route("POST", f"{this}/action", self._act)
        yield Route("POST", f"{this}/metadata", self._add_metadata)
        yield Route("POST", f"{this}/os-volume_attachments", self._attach)
        yield Route("GET", f"{this}/tags", self._tags)
        yield Route("PUT", f"{this}/tags", self._put_tags)
        yield Route("DELETE", f"{this}/tags", self._delete_tags)
        yield Route("GET", f"{this}/tags/{{tag}}", self._check_tag)
        yield Route("PUT", f"{this}/tags/{{tag}}", self._put_tag)
        yield Route("DELETE", f"{this}/tags/{{tag}}", self._delete_tag)

    def get(self, id: str) -> Server:
        server = self.compute.servers.get(id)
        if server is None:
            raise self.compute.refusal(404, f"Instance {id} could not be found.")
        return server

    # --- to look ---

    def look(self, server: Server) -> None:
        """Every look is a step of what is going on with it."""
        if server.last_looks is not None:
            server.last_looks -= 1
            if server.last_looks < 0:
                self.compute.remove(server)
        elif server.status == BUILD:
            server.looks -= 1
            if server.looks < 0:
                self.compute.finish(server)

    def _list(self, request: Request) -> Answer:
        for server in list(self.compute.servers.values()):
            self.look(server)
        self._check(request)
        found = [server for server in reversed(self.compute.servers.values()) if _fits(server, request)]
        if marker := request.one("marker"):
            ids = [server.id for server in found]
            if marker not in ids:
                raise self.compute.refusal(400, f"marker [{marker}] not found")
            found = found[ids.index(marker) + 1 :]
        limit = min(self.compute.number(request, "limit") or MOST, MOST)
        page = found[:limit]
        if request.path.endswith("/detail"):
            leading = self.compute.network.floating_ips.leading()
            shown = [details(self.compute, server, request.version, leading, alone=False) for server in page]
        else:
            shown = [brief(self.compute, server) for server in page]
        body: Json = {"servers": shown}
        if page and len(page) == limit:
            body["servers_links"] = [self.compute.next_link(request, page[-1].id)]
        return Answer(200, body)

    def _check(self, request: Request) -> None:
        if "all_tenants" in request.query:
            action = "os_compute_api:servers:detail:get_all_tenants"
            raise self.compute.refusal(403, f"Policy doesn't allow {action} to be performed.")
        if request.version < (2, 26) and set(TAGS) & set(request.query):
            # ignored by the service, which then shows all there are
            raise self.compute.refusal(400, "there are no tags before 2.26", violation=True)
        name = request.one("name")
        try:
            re.compile(name)
        except re.error:
            message = f"Invalid input for query parameters name. Value: {name}. {name!r} is not a 'regex'"
            raise self.compute.refusal(400, message, violation=True) from None
        if any(status.upper() not in STATUSES for status in request.query.get("status", ())):
            raise self.compute.refusal(400, "Invalid status value", violation=True)

    def _show(self, request: Request, id: str) -> Answer:
        self.look(self.get(id))
        leading = self.compute.network.floating_ips.leading()
        return Answer(200, {"server": details(self.compute, self.get(id), request.version, leading, alone=True)})

    # --- to make and to end ---

    def _create(self, request: Request) -> Answer:
        body = self.compute.checked(request, schema.create_server(request.version))
        server = boot(self.compute, body, request.version)
        groups = body["server"].get("security_groups") or [{"name": "default"}]
        own = links(self.compute, f"servers/{server.id}")
        answer: Json = {"id": server.id, "links": own, "OS-DCF:diskConfig": "MANUAL", "security_groups": groups}
        answer["adminPass"] = body["server"].get("adminPass") or uuid.uuid4().hex[:12]
        return Answer(202, {"server": answer}, {"Location": own[0]["href"]})

    def _delete(self, request: Request, id: str) -> Answer:
        server = self.get(id)
        if server.last_looks is None:
            server.last_looks = self.compute.looks_to_delete
            server.updated = now()
        if not self.compute.looks_to_delete:
            self.compute.remove(server)
        return Answer(204)

    def _add_metadata(self, request: Request, id: str) -> Answer:
        body = self.compute.checked(request, schema.METADATA_OF_SERVER)
        server = self.get(id)
        server.metadata = {**server.metadata, **body["metadata"]}
        return Answer(200, {"metadata": server.metadata})

    # --- volumes ---

    def _attach(self, request: Request, id: str) -> Answer:
        """Asynchronous: the volume is reserved when this returns, and in use later, or available again."""
        body, server = self.compute.checked(request, schema.ATTACH), self.get(id)
        self._in(server, "attach_volume", ACTIVE, SHUTOFF)
        volume, volumes = body["volumeAttachment"]["volumeId"], self.compute.volumes
        if volumes is None or volume not in volumes.volumes:
            raise self.compute.refusal(404, f"Volume {volume} could not be found.")
        reserve(self.compute, volume)
        server.volumes[volume] = False
        # what compute expects; the machine may name it otherwise
        device = f"/dev/vd{'abcdefgh'[len(server.volumes)]}"
        answer: Json = {"id": volume, "serverId": server.id, "volumeId": volume, "device": device}
        volumes.attach(volumes.volumes[volume], server.id, device)
        return Answer(200, {"volumeAttachment": answer})

    # --- actions ---

    def _act(self, request: Request, id: str) -> Answer:
        server = self.get(id)
        body = self.compute.json(request)
        names = list(body) if isinstance(body, dict) else []
        if len(names) != 1 or names[0] not in schema.ACTIONS:
            message = f"There is no such action: {names[0]}" if len(names) == 1 else "Malformed request body"
            raise self.compute.refusal(400, message, violation=True)
        (name,) = names
        self.compute.check(body, schema.action(name))
        actions: dict[str, Callable[[Server, Json], Answer]] = {
            "os-getConsoleOutput": self._console,
            "os-start": self._start,
            "os-stop": self._stop,
            "reboot": self._reboot,
        }
        return actions[name](server, body[name])

    def _console(self, server: Server, given: Json) -> Answer:
        text = self.compute.consoles.get(server.name, server.console)
        if text is None:
            raise self.compute.refusal(404, "Guest does not have a console available.")
        if not server.is_placed:
            raise self.compute.refusal(409, f"Instance {server.id} is not ready")
        length = int(-1 if given.get("length") is None else given["length"])
        if length >= 0:
            text = "\n".join(text.split("\n")[-length:]) if length else ""
        return Answer(200, {"output": CONTROL.sub("", text)})

    def _in(self, server: Server, action: str, *statuses: str) -> None:
        state = f"vm_state {server.status.lower()}" if server.status not in (BUILD, SHUTOFF) else ""
        state = state or ("vm_state building" if server.status == BUILD else "vm_state stopped")
        if server.last_looks is not None:
            state = "task_state deleting"
        elif server.status in statuses:
            return
        message = f"Cannot '{action}' instance {server.id} while it is in {state}"
        raise self.compute.refusal(409, message)

    def _start(self, server: Server, given: Json) -> Answer:
        self._in(server, "start", SHUTOFF)
        server.become(ACTIVE)
        return Answer(202)

    def _stop(self, server: Server, given: Json) -> Answer:
        if server.status == ERROR:
            raise self.compute.refusal(409, f"Instance {server.id} is not ready")
        self._in(server, "stop", ACTIVE)
        server.become(SHUTOFF)
        return Answer(202)

    def _reboot(self, server: Server, given: Json) -> Answer:
        hard = given["type"].upper() == "HARD"
        self._in(server, "reboot", ACTIVE, *((SHUTOFF,) if hard else ()))
        server.become(ACTIVE)
        return Answer(202)

    # --- tags ---

    def _tagged(self, request: Request, id: str) -> Server:
        if request.version < (2, 26):
            raise self.compute.refusal(404, "The resource could not be found.", violation=True)
        if id not in self.compute.servers:
            raise self.compute.refusal(404, f"Instance {id} has no mapping to a cell.")
        return self.compute.servers[id]

    def _tags(self, request: Request, id: str) -> Answer:
        return Answer(200, {"tags": self._tagged(request, id).tags})

    def _put_tags(self, request: Request, id: str) -> Answer:
        server = self._tagged(request, id)
        server.tags = sorted(set(self.compute.checked(request, schema.PUT_TAGS)["tags"]))
        return Answer(200, {"tags": server.tags})

    def _delete_tags(self, request: Request, id: str) -> Answer:
        self._tagged(request, id).tags = []
        return Answer(204)

    def _check_tag(self, request: Request, id: str, tag: str) -> Answer:
        if tag not in self._tagged(request, id).tags:
            raise self.compute.refusal(404, f"Server {id} has no tag '{tag}'")
        return Answer(204)

    def _put_tag(self, request: Request, id: str, tag: str) -> Answer:
        server = self._tagged(request, id)
        if found := problem(tag, schema.TAG):
            message = f"Tag '{tag}' is invalid. It must be a non empty string without characters '/' and ','."
            raise self.compute.refusal(400, f"{message} Validation error message: {found.reason}", violation=True)
        if tag in server.tags:
            return Answer(204)
        if len(server.tags) >= schema.MOST_TAGS:
            message = f"The number of tags exceeded the per-server limit {schema.MOST_TAGS}"
            raise self.compute.refusal(400, message)
        server.tags = sorted([*server.tags, tag])
        return Answer(201, headers={"Location": f"{self.compute.url}/v2.1/servers/{id}/tags/{tag}"})

    def _delete_tag(self, request: Request, id: str, tag: str) -> Answer:
        server = self._tagged(request, id)
        if tag not in server.tags:
            raise self.compute.refusal(404, f"Instance {id} has no tag '{tag}'")
        server.tags = [known for known in server.tags if known != tag]
        return Answer(204)


def _fits(server: Server, request: Request) -> bool:
    query = request.query
    if "name" in query and not re.search(query["name"][-1], server.name):
        return False
    if "status" in query and server.status not in [status.upper() for status in query["status"]]:
        return False
    exact = {"flavor": server.flavor["id"], "image": server.image, "uuid": server.id}
    if any(name in query and own not in query[name] for name, own in exact.items()):
        return False
    for name in TAGS:
        if name in query:
            wanted, own_tags = set(query[name][-1].split(",")), set(server.tags)
            found = bool(wanted & own_tags) if name.endswith("any") else wanted <= own_tags
            if found == name.startswith("not"):
                return False
    return True
