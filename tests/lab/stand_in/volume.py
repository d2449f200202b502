"""Block storage v3 (cinder): volumes, from their creation to their end with a server."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from tests.lab.stand_in import schema
from tests.lab.stand_in.image import Images
from tests.lab.stand_in.service import Route, Service
from tests.lab.stand_in.wire import Answer, Json, Refused, Request, html, new_id, now

NEWEST = "3.70"
KINDS = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 406: "computeFault", 413: "overLimit"}
QUOTAS = {"volumes": 10, "gigabytes": 1000, "snapshots": 10, "backups": 10, "backup_gigabytes": 1000}
FILTERS = {"name", "status", "metadata", "bootable", "limit", "marker"}
GIB = 1024**3
AVAILABLE, CREATING, DELETING, IN_USE = "available", "creating", "deleting", "in-use"
RESERVED, ATTACHING, DETACHING = "reserved", "attaching", "detaching"
FREE, ATTACHED = (CREATING, DETACHING), (RESERVED, ATTACHING)  # what becomes available, and what becomes in-use
METADATA: Json = {
    "type": "object",
    "patternProperties": {"^[^;]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}
CREATE: Json = {
    "type": "object",
    "properties": {
        "volume": {
            "type": "object",
            "properties": {
                "size": {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 1},
                "name": {"type": ["string", "null"], "maxLength": 255},
                "description": {"type": ["string", "null"], "maxLength": 255},
                "imageRef": {"type": ["string", "null"]},
                "image_id": {"type": ["string", "null"]},
                "metadata": {**METADATA, "type": ["object", "null"]},
                "availability_zone": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
                "volume_type": {"type": ["string", "null"], "maxLength": 255},
            },
            "required": ["size"],
            "additionalProperties": False,
        }
    },
    "required": ["volume"],
    "additionalProperties": False,
}
BUSY = (
    "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing"
    " and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated"
    " from snapshots after volume transfer."
)


class Volumes(Service):
    """`looks_to_create`, `looks_to_delete`, `looks_to_attach`, `looks_to_detach`: so many looks it needs for that.

    `attachments_fail`: so many of the next ones. `creations_fail`: the same of volumes, which end in error.
    `type_quotas`: of volumes and gigabytes, by the name of a type.
    """

    def __init__(
        self, url: str, prefix: str, known: Callable[[str], bool], *, project_id: str, user_id: str, images: Images
    ) -> None:
        self.project_id, self.user_id, self.images = project_id, user_id, images
        self.volumes: dict[str, Json] = {}
        self.quotas = dict(QUOTAS)
        self.types = {name: new_id() for name in ("__DEFAULT__", "ssd")}
        self.zones = ["ceph"]
        self.looks_to_create = self.looks_to_delete = self.looks_to_attach = self.looks_to_detach = 0
        self.attachments_fail = self.creations_fail = 0
        self.type_quotas: dict[str, dict[str, int]] = {}
        self.failed: Callable[[str, str], None] = lambda volume, server: None
        """What compute does when a volume could not be attached to a server."""
        self._looks: dict[str, int] = {}
        self._coming: dict[str, Json] = {}  # attachments, by volume
        self._failing: set[str] = set()
        super().__init__(url, prefix, known)

    def routes(self) -> list[Route]:
        base = f"/v3/{self.project_id}"
        return [
            *(Route("GET", path, self._versions, public=True) for path in ("", "/")),
            *(Route("GET", path, self._version, public=True) for path in ("/v3", "/v3/")),
            Route("GET", f"{base}/limits", self._limits),
            Route("GET", f"{base}/os-quota-sets/{{id}}", self._show_quotas, query={"usage"}),
            Route("GET", f"{base}/volumes", self._list, query=FILTERS),
            Route("GET", f"{base}/volumes/detail", self._list, query=FILTERS),
            Route("POST", f"{base}/volumes", self._create),
            Route("GET", f"{base}/volumes/{{id}}", self._show),
            Route("DELETE", f"{base}/volumes/{{id}}", self._delete, query={"cascade", "force"}),
            Route("POST", f"{base}/volumes/{{id}}/metadata", self._add_metadata),
            Route("GET", f"{base}/types", self._list_types),
            Route("GET", f"{base}/os-availability-zone", self._list_zones),
        ]

    # --- what there is to choose from ---

    def _list_types(self, request: Request) -> Answer:
        about: Json = {"description": None, "is_public": True, "extra_specs": {}, "qos_specs_id": None}
        return Answer(200, {"volume_types": [{"id": id, "name": name, **about} for name, id in self.types.items()]})

    def _list_zones(self, request: Request) -> Answer:
        zones = [{"zoneName": name, "zoneState": {"available": True}} for name in self.zones]
        return Answer(200, {"availabilityZoneInfo": zones})

    # --- for tests and for compute ---

    def make(
        self,
        *,
        size: int,
        name: str = "",
        image: str = "",
        metadata: Json | None = None,
        text: str = "",
        kind: str = "__DEFAULT__",
    ) -> Json:
        self._check_quota(size, kind)
        volume: Json = {
            "id": new_id(),
            "name": name,
            "description": text or None,
            "size": size,
            "status": CREATING,
            "created_at": f"{now()[:-1]}.000000",
            "updated_at": None,
            "attachments": [],
            "availability_zone": "nova",
            "volume_type": kind,
            "snapshot_id": None,
            "source_volid": None,
            "metadata": metadata or {},
            "user_id": self.user_id,
            "bootable": "true" if image else "false",
            "encrypted": False,
            "replication_status": None,
            "consistencygroup_id": None,
            "multiattach": False,
            "migration_status": None,
            "os-vol-tenant-attr:tenant_id": self.project_id,
        }
        own = f"volumes/{volume['id']}"
        volume["links"] = [
            {"rel": "self", "href": f"{self.url}/v3/{self.project_id}/{own}"},
            {"rel": "bookmark", "href": f"{self.url}/{self.project_id}/{own}"},
        ]
        if image:
            volume["volume_image_metadata"] = {"image_id": image, "image_name": self.images.images[image]["name"]}
        self.volumes[volume["id"]] = volume
        self._looks[volume["id"]] = self.looks_to_create
        return volume

    def reserve(self, id: str) -> None:
        """For a server, before it is attached. Refuses one that is not free (cinder's attachment_create)."""
        status = self._get(id)["status"]
        if status not in (AVAILABLE, "downloading"):
            message = f"Invalid volume: Volume {id} status must be available or downloading to reserve, but the current"
            raise self._refusal(400, f"{message} status is {status}.")
        self.volumes[id]["status"] = RESERVED

    def attach(self, volume: Json, server: str, device: str = "/dev/vda") -> None:
        """At once where `looks_to_attach` is 0."""
        if self.attachments_fail:
            self.attachments_fail -= 1
            self._failing.add(volume["id"])
        one = {"id": volume["id"], "volume_id": volume["id"], "server_id": server, "device": device}
        one |= {"attachment_id": new_id(), "attached_at": f"{now()[:-1]}.000000", "host_name": None}
        self._coming[volume["id"]] = one
        volume["status"] = ATTACHING
        self._looks[volume["id"]] = self.looks_to_attach
        if not self.looks_to_attach:
            self._settle(volume)

    def detach(self, id: str, goes: bool) -> None:
        """At once where `looks_to_detach` is 0; with `goes` it is deleted."""
        if id not in self.volumes:
            return
        if goes:
            del self.volumes[id]
            return
        self._coming.pop(id, None)
        self._looks[id] = self.looks_to_detach
        self.volumes[id] |= {"status": DETACHING}
        if not self.looks_to_detach:
            self._settle(self.volumes[id])

    def _settle(self, volume: Json) -> None:
        """It becomes what it is on its way to."""
        volume["updated_at"] = f"{now()[:-1]}.000000"
        coming = self._coming.pop(volume["id"], None)
        if volume["status"] == CREATING and self.creations_fail:
            self.creations_fail -= 1
            volume["status"] = "error"
        elif volume["status"] in FREE:
            volume |= {"status": AVAILABLE, "attachments": []}
        elif coming and volume["id"] in self._failing:
            self._failing.remove(volume["id"])
            volume |= {"status": AVAILABLE, "attachments": []}
            self.failed(volume["id"], coming["server_id"])
        elif coming:
            volume |= {"status": IN_USE, "attachments": [coming]}

    # --- refusals ---

    def unknown_path(self, request: Request) -> Answer:
        return html(404, "Not Found", "The resource could not be found.")

    def unknown_query(self, request: Request, names: list[str]) -> Answer:
        return self._refusal(400, f"Invalid filters {','.join(names)} are found in query options.").answer

    def _refusal(self, status: int, message: str, *, violation: bool = False) -> Refused:
        body: Json = {KINDS[status]: {"code": status, "message": message}}
        return Refused(Answer(status, body), message if violation else "")

    def _check_quota(self, size: int, kind: str) -> None:
        used = self.used()
        for name, most in self.type_quotas.get(kind, {}).items():
            if 0 <= most < self.used(kind)[name] + {"volumes": 1, "gigabytes": size}[name]:
                message = f"Maximum number of {name} allowed ({most}) exceeded for quota '{name}_{kind}'."
                raise self._over(f"VolumeLimitExceeded: {message}")
        if 0 <= self.quotas["volumes"] < used["volumes"] + 1:
            message = f"Maximum number of volumes allowed ({self.quotas['volumes']}) exceeded for quota 'volumes'."
            raise self._over(f"VolumeLimitExceeded: {message}")
        most = self.quotas["gigabytes"]
        if 0 <= most < used["gigabytes"] + size:
            consumed = f"Requested {size}G, quota is {most}G and {used['gigabytes']}G has been consumed."
            message = f"Requested volume or snapshot exceeds allowed gigabytes quota. {consumed}"
            raise self._over(f"VolumeSizeExceedsAvailableQuota: {message}")

    def _over(self, message: str) -> Refused:
        refused = self._refusal(413, message)
        refused.answer.body["overLimit"]["retryAfter"] = "0"
        refused.answer.headers = {"Retry-After": "0"}
        return refused

    # --- requests ---

    def _about(self) -> Json:
        media = {"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}
        links = [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": f"{self.url}/v3/"},
        ]
        return {
            "id": "v3.0",
            "status": "CURRENT",
            "version": NEWEST,
            "min_version": "3.0",
            "updated": "2022-08-31T00:00:00Z",
            "links": links,
            "media-types": [media],
        }

    def _versions(self, request: Request) -> Answer:
        return Answer(300, {"versions": [self._about()]})

    def _version(self, request: Request) -> Answer:
        return Answer(200, {"versions": [self._about()]})

    def used(self, kind: str = "") -> dict[str, int]:
        """By volumes, or by those of one type."""
        volumes = [volume for volume in self.volumes.values() if kind in ("", volume["volume_type"])]
        return {"volumes": len(volumes), "gigabytes": sum(volume["size"] for volume in volumes)}

    def _show_quotas(self, request: Request, id: str) -> Answer:
        """Of every type, too, as cinder does."""
        if id != self.project_id:
            message = "Policy doesn't allow volume_extension:quotas:show to be performed."
            raise self._refusal(403, message)
        limits = {name: (limit, self.used().get(name, 0)) for name, limit in self.quotas.items()}
        for kind in self.types:
            given, used = self.type_quotas.get(kind, {}), self.used(kind)
            limits |= {f"{name}_{kind}": (given.get(name, -1), used[name]) for name in used}
        if request.one("usage").lower() != "true":
            return Answer(200, {"quota_set": {"id": id, **{name: limit for name, (limit, _) in limits.items()}}})
        quotas = {
            name: {"limit": limit, "in_use": used, "reserved": 0, "allocated": 0}
            for name, (limit, used) in limits.items()
        }
        return Answer(200, {"quota_set": {"id": id, **quotas}})

    def _limits(self, request: Request) -> Answer:
        used, quotas = self.used(), self.quotas
        absolute = {
            "totalSnapshotsUsed": 0,
            "maxTotalBackups": quotas["backups"],
            "totalBackupsUsed": 0,
            "maxTotalVolumeGigabytes": quotas["gigabytes"],
            "maxTotalSnapshots": quotas["snapshots"],
            "maxTotalBackupGigabytes": quotas["backup_gigabytes"],
            "totalBackupGigabytesUsed": 0,
            "maxTotalVolumes": quotas["volumes"],
            "totalVolumesUsed": used["volumes"],
            "totalGigabytesUsed": used["gigabytes"],
        }
        return Answer(200, {"limits": {"rate": [], "absolute": absolute}})

    def _get(self, id: str) -> Json:
        """One look at it."""
        volume = self.volumes.get(id)
        if volume is None:
            raise self._refusal(404, f"Volume {id} could not be found.")
        if volume["status"] in (*FREE, ATTACHING, DELETING):
            self._looks[id] -= 1
            if self._looks[id] < 0 and volume["status"] == DELETING:
                del self.volumes[id]
                raise self._refusal(404, f"Volume {id} could not be found.")
            if self._looks[id] < 0:
                self._settle(volume)
        return volume

    def _list(self, request: Request) -> Answer:
        for id in list(self.volumes):
            try:
                self._get(id)
            except Refused:
                continue
        found = [volume for volume in reversed(self.volumes.values()) if self._fits(volume, request)]
        if marker := request.one("marker"):
            ids = [volume["id"] for volume in found]
            if marker not in ids:
                raise self._refusal(404, f"Volume {marker} could not be found.")
            found = found[ids.index(marker) + 1 :]
        given = request.one("limit", "1000")
        if not given.isdecimal():
            raise self._refusal(400, f"limit param must be an integer: {given}", violation=True)
        page = found[: min(int(given), 1000)]
        if not request.path.endswith("/detail"):
            body: Json = {"volumes": [{name: volume[name] for name in ("id", "links", "name")} for volume in page]}
        else:
            body = {"volumes": page}
        if page and len(page) == min(int(given), 1000):
            kept = [(n, v) for n, values in request.query.items() if n != "marker" for v in values]
            href = f"{self.root}{request.path}?{urlencode([*kept, ('marker', page[-1]['id'])])}"
            body["volumes_links"] = [{"rel": "next", "href": href}]
        return Answer(200, body)

    def _fits(self, volume: Json, request: Request) -> bool:
        for name in ("name", "status", "bootable"):
            if name in request.query and volume[name] != request.one(name):
                return False
        if "metadata" not in request.query:
            return True
        try:
            wanted: Any = ast.literal_eval(request.one("metadata"))
            return set(wanted.items()) <= set(volume["metadata"].items())
        except (AttributeError, SyntaxError, ValueError):
            raise self._refusal(400, "Invalid metadata filter", violation=True) from None

    def _create(self, request: Request) -> Answer:
        try:
            body = request.json()
        except ValueError:
            raise self._refusal(400, "Malformed request body", violation=True) from None
        if found := schema.problem(body, CREATE):
            where = f"Invalid input for field/attribute {found.field}. Value: {found.value}. " if found.field else ""
            raise self._refusal(400, where + found.reason, violation=True)
        given = body["volume"]
        for name, known in (("volume_type", {*self.types, *self.types.values()}), ("availability_zone", self.zones)):
            if given.get(name) and given[name] not in known:
                raise self._refusal(400, f"Invalid input received: {name} {given[name]} is invalid.")
        image, size = given.get("imageRef") or given.get("image_id") or "", int(given["size"])
        if image and image not in self.images.images:
            raise self._refusal(400, "Invalid image identifier or unable to access requested image.")
        if image and (least := self.images.images[image]["min_disk"]) > size:
            message = f"Volume size {size}GB cannot be smaller than the image minDisk size {least}GB."
            raise self._refusal(400, f"Invalid input received: {message}")
        if image and self.images.images[image]["size"] > size * GIB:
            real = -(-self.images.images[image]["size"] // GIB)
            message = f"Size of specified image {real}GB is larger than volume size {size}GB."
            raise self._refusal(400, f"Invalid input received: {message}")
        metadata, text = given.get("metadata"), given.get("description") or ""
        kinds = {id: name for name, id in self.types.items()}
        kind = kinds.get(given.get("volume_type") or "", given.get("volume_type") or "__DEFAULT__")
        volume = self.make(
            size=size, name=given.get("name") or "", image=image, metadata=metadata, text=text, kind=kind
        )
        return Answer(202, {"volume": {n: v for n, v in volume.items() if n != "volume_image_metadata"}})

    def _add_metadata(self, request: Request, id: str) -> Answer:
        volume, body = self._get(id), request.json()
        expected: Json = {"type": "object", "properties": {"metadata": METADATA}, "required": ["metadata"]}
        if found := schema.problem(body, {**expected, "additionalProperties": False}):
            raise self._refusal(400, found.reason, violation=True)
        volume["metadata"] = {**volume["metadata"], **body["metadata"]}
        return Answer(200, {"metadata": volume["metadata"]})

    def _show(self, request: Request, id: str) -> Answer:
        return Answer(200, {"volume": self._get(id)})

    def _delete(self, request: Request, id: str) -> Answer:
        volume = self._get(id)
        if volume["status"] not in (AVAILABLE, "error"):
            raise self._refusal(400, BUSY)
        volume["status"] = DELETING
        self._looks[id] = self.looks_to_delete
        if not self.looks_to_delete:
            del self.volumes[id]
        return Answer(202)
