"""Images v2 (glance): what there is to boot from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from tests.lab.stand_in.service import Route, Service
from tests.lab.stand_in.wire import Answer, Json, Refused, Request, html, new_id, now

LIMIT = 25  # images of a page, unless the client asks for another number
MOST = 1000
FILTERS = {"id", "name", "status", "visibility", "owner", "tag", "os_hidden", "protected"}
PAGING = {"limit", "marker", "sort", "sort_key", "sort_dir"}
SORTED_BY = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")
TITLES = {400: "Bad Request", 404: "Not Found"}


class Images(Service):
    """`images` are all of them, as they are shown."""

    def __init__(self, url: str, prefix: str, known: Callable[[str], bool]) -> None:
        self.images: dict[str, Json] = {}
        super().__init__(url, prefix, known)

    def add_image(
        self, name: str, *, size: int = 500 * 1024**2, min_disk: int = 0, min_ram: int = 0, **more: Any
    ) -> Json:
        """`min_disk` in GB, `min_ram` in MB. `more`: any further property."""
        id = new_id()
        image: Json = {
            "name": name,
            "disk_format": "qcow2",
            "container_format": "bare",
            "visibility": "public",
            "size": size,
            "virtual_size": None,
            "status": "active",
            "protected": False,
            "checksum": hashlib.md5(name.encode()).hexdigest(),
            "min_ram": min_ram,
            "min_disk": min_disk,
            "owner": hashlib.md5(b"owner").hexdigest(),
            "os_hidden": False,
            "os_hash_algo": "sha512",
            "os_hash_value": hashlib.sha512(name.encode()).hexdigest(),
            "id": id,
            "created_at": now(),
            "updated_at": now(),
            "tags": [],
            "self": f"/v2/images/{id}",
            "file": f"/v2/images/{id}/file",
            "schema": "/v2/schemas/image",
            **more,
        }
        self.images[id] = image
        return image

    def routes(self) -> list[Route]:
        return [
            *(Route("GET", path, self._versions, public=True) for path in ("", "/")),
            Route("GET", "/v2/images", self._list, query=FILTERS | PAGING),
            Route("GET", "/v2/images/{id}", self._show),
        ]

    def unknown_path(self, request: Request) -> Answer:
        return html(404, "Not Found", "The resource could not be found.")

    def unknown_query(self, request: Request, names: list[str]) -> Answer:
        # glance itself takes it for a property that no image has, and finds nothing
        return html(400, "Bad Request", f"unknown parameters {names}")

    def unauthorized(self) -> Answer:
        text = "This server could not verify that you are authorized to access the document you requested. Either you"
        text += (
            " supplied the wrong credentials (e.g., bad password), or your browser does not understand how to supply"
        )
        answer = html(401, "Unauthorized", f"{text} the credentials required.")
        answer.headers = {**answer.headers, **super().unauthorized().headers}
        return answer

    def _refusal(self, status: int, text: str, violation: str = "") -> Refused:
        return Refused(html(status, TITLES[status], text), violation)

    def _versions(self, request: Request) -> Answer:
        links = [{"rel": "self", "href": f"{self.url}/v2/"}]
        numbers = ["v2.15", *(f"v2.{minor}" for minor in (13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))]
        versions = [{"id": id, "status": "SUPPORTED", "links": links} for id in numbers]
        return Answer(300, {"versions": [versions[0] | {"status": "CURRENT"}, *versions[1:]]})

    def _show(self, request: Request, id: str) -> Answer:
        if id not in self.images:
            raise self._refusal(404, f"No image found with ID {id}")
        return Answer(200, self.images[id])

    def _sorted(self, found: list[Json], request: Request) -> list[Json]:
        pairs = [pair.partition(":")[::2] for pair in request.one("sort").split(",") if pair]
        directions = request.query.get("sort_dir", ["desc"])
        for at, key in enumerate(request.query.get("sort_key", ())):
            pairs.append((key, directions[min(at, len(directions) - 1)]))
        for key, direction in reversed(pairs):
            if key not in SORTED_BY:
                text = f"Invalid sort key: {key}. It must be one of the following: {', '.join(SORTED_BY)}."
                raise self._refusal(400, text, text)
            found.sort(key=lambda image: str(image[key]), reverse=direction != "asc")
        return found

    def _list(self, request: Request) -> Answer:
        given = request.one("limit", str(LIMIT))
        if not given.isdecimal():
            text = "limit param must be an integer"
            raise self._refusal(400, text, text)
        limit = min(int(given), MOST)
        found = self._sorted([image for image in reversed(self.images.values()) if _fits(image, request)], request)
        if marker := request.one("marker"):
            ids = [image["id"] for image in found]
            if marker not in ids:
                raise self._refusal(400, f"No image found with ID {marker}")
            found = found[ids.index(marker) + 1 :]
        page = found[:limit]
        kept = [(n, v) for n, values in request.query.items() if n != "marker" for v in values]
        first = f"/v2/images?{urlencode(kept)}" if kept else "/v2/images"
        body = {"images": page, "first": first, "schema": "/v2/schemas/images"}
        if page and len(page) == limit:
            body["next"] = f"/v2/images?{urlencode([*kept, ('marker', page[-1]['id'])])}"
        return Answer(200, body)


def _fits(image: Json, request: Request) -> bool:
    if image["os_hidden"] != (request.one("os_hidden", "false").lower() == "true"):
        return False
    for name, values in request.query.items():
        if name in ("id", "name", "status", "visibility", "owner") and image[name] not in _choices(values):
            return False
        if name == "protected" and image[name] != (values[-1].lower() == "true"):
            return False
        if name == "tag" and not set(values) <= set(image["tags"]):
            return False
    return True


def _choices(values: list[str]) -> list[str]:
    """`in:` stands before several."""
    return values[-1][3:].split(",") if values[-1].startswith("in:") else [values[-1]]
