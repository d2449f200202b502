"""One kind of thing of the network API: what it may have, how it is found, paged, shown and tagged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from tests.lab.stand_in.network_fields import FALSE, TRUE, Field, refusal, text
from tests.lab.stand_in.service import Route
from tests.lab.stand_in.wire import Answer, Json, Request, new_id, now

if TYPE_CHECKING:
    from tests.lab.stand_in.network import Network

PAGING = {"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields"}
COMMON = {"project_id", "tenant_id", "revision_number", "created_at", "updated_at"}
TAGS = {"tags", "tags-any", "not-tags", "not-tags-any"}
LONGEST_TAG = 255


class Kind:
    """`items` are all there are, as they are shown."""

    one = ""
    many = ""
    fields: ClassVar[Mapping[str, Field]] = {}
    filters: frozenset[str] = frozenset()
    """Fields to find by, besides those of `COMMON`."""
    named = tagged = True
    made = deleted = True
    """Whether clients may make some, and delete them."""
    changed = True
    gone = ("NotFound", "{id} could not be found.")
    """The type and the message of what is not there."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.items: dict[str, Json] = {}

    @property
    def path(self) -> str:
        return self.many.replace("_", "-")

    def routes(self) -> Iterable[Route]:
        all_of_them, this = f"/v2.0/{self.path}", f"/v2.0/{self.path}/{{id}}"
        names = {"id", "description", *(["name"] if self.named else [])}
        query = COMMON | names | self.filters | PAGING | (TAGS if self.tagged else set())
        yield Route("GET", all_of_them, self._list, query=query)
        yield Route("GET", this, lambda request, id: self._shown(self.get(id), request), query={"fields"})
        if self.made:
            yield Route("POST", all_of_them, self._post)
        if self.changed:
            yield Route("PUT", this, self._put)
        if self.deleted:
            yield Route("DELETE", this, self._delete)
        if self.tagged:
            yield Route("GET", f"{this}/tags", lambda request, id: Answer(200, {"tags": sorted(self._of(id)["tags"])}))
            yield Route("PUT", f"{this}/tags", self._put_tags)
            yield Route("DELETE", f"{this}/tags", self._delete_tags)
            yield Route("GET", f"{this}/tags/{{tag}}", self._check_tag)
            yield Route("PUT", f"{this}/tags/{{tag}}", self._put_tag)
            yield Route("DELETE", f"{this}/tags/{{tag}}", self._delete_tag)

    # --- what the kinds say themselves ---

    def make(self, given: Json) -> Json:
        """A new one; `given` is checked."""
        raise NotImplementedError

    def change(self, item: Json, given: Json) -> None:
        item.update(given)

    def remove(self, item: Json) -> None:
        del self.items[item["id"]]

    def view(self, item: Json) -> Json:
        return item

    # --- for the kinds ---

    def added(self, fields: Json) -> Json:
        """Puts one among the others, with what all have."""
        item = {"id": new_id(), "tenant_id": self.network.project_id, **fields, "tags": []}
        item |= {"created_at": now(), "updated_at": now(), "revision_number": 0, "project_id": item["tenant_id"]}
        if not self.tagged:
            del item["tags"]
        self.items[item["id"]] = item
        return item

    def get(self, id: str) -> Json:
        if id not in self.items:
            kind, message = self.gone
            raise refusal(404, kind, message.format(id=id))
        return self.items[id]

    def touch(self, item: Json) -> None:
        item["updated_at"] = now()
        item["revision_number"] += 1

    def checked(self, request: Request, new: bool) -> Json:
        """The body's fields, every one of which is known and of the right form."""
        try:
            body = request.json()
        except ValueError:
            raise refusal(400, "HTTPBadRequest", "Body contains invalid data", True) from None
        given = body.get(self.one) if isinstance(body, dict) else None
        if not isinstance(given, dict) or len(body) != 1:
            raise refusal(400, "HTTPBadRequest", f"Unable to find '{self.one}' in request body", True)
        read_only = {"id", "tags", "status", *COMMON, *self.filters, *(TAGS if self.tagged else ())} - set(self.fields)
        if fixed := [name for name in given if name in read_only]:
            message = (
                f"Attribute '{fixed[0]}' not allowed in POST"
                if new
                else f"Cannot update read-only attribute {fixed[0]}"
            )
            raise refusal(400, "HTTPBadRequest", message, True)
        if unknown := [name for name in given if name not in self.fields]:
            listed = ", ".join(f"'{name}'" for name in unknown)
            raise refusal(400, "HTTPBadRequest", f"Unrecognized attribute(s) {listed}", True)
        if new and (missing := [n for n, field in self.fields.items() if field.required and n not in given]):
            message = f"Failed to parse request. Required attribute '{missing[0]}' not specified"
            raise refusal(400, "HTTPBadRequest", message, True)
        for name, value in given.items():
            self._check(name, value, new)
        return dict(given)

    def _check(self, name: str, value: Any, new: bool) -> None:
        field = self.fields[name]
        if field.foreign:
            rule = f"{'create' if new else 'update'}_{self.one}"
            raise refusal(403, "PolicyNotAuthorized", f"(rule:{rule} and rule:{rule}:{name}) is disallowed by policy")
        if not new and not field.put:
            raise refusal(400, "HTTPBadRequest", f"Cannot update read-only attribute {name}", True)
        if new and not field.post:
            raise refusal(400, "HTTPBadRequest", f"Attribute '{name}' not allowed in POST", True)
        if reason := field.check(value):
            raise refusal(400, "HTTPBadRequest", f"Invalid input for {name}. Reason: {reason}", True)

    # --- requests ---

    def _post(self, request: Request) -> Answer:
        given = self.checked(request, new=True)
        self.network.check_quota(self.one, len(self.items))
        return Answer(201, {self.one: self.view(self.make(given))})

    def _put(self, request: Request, id: str) -> Answer:
        item = self.get(id)
        self.change(item, self.checked(request, new=False))
        self.touch(item)
        return self._shown(item, request)

    def _delete(self, request: Request, id: str) -> Answer:
        self.remove(self.get(id))
        return Answer(204)

    def _shown(self, item: Json, request: Request) -> Answer:
        return Answer(200, {self.one: self._fields(self.view(item), request)})

    def _fields(self, view: Json, request: Request) -> Json:
        wanted = request.query.get("fields")
        return view if wanted is None else {name: view[name] for name in wanted if name in view}

    def _list(self, request: Request) -> Answer:
        found = [item for item in self.items.values() if self.fits(item, request)]
        page, links = self._page(self._sorted(found, request), request)
        body: Json = {self.many: [self._fields(self.view(item), request) for item in page]}
        return Answer(200, body | links)

    def fits(self, item: Json, request: Request) -> bool:
        return all(self._matches(item, name, values) for name, values in request.query.items() if name not in PAGING)

    def _matches(self, item: Json, name: str, values: list[str]) -> bool:
        if name in TAGS:
            wanted, own = set(",".join(values).split(",")), set(item["tags"])
            found = bool(wanted & own) if name.endswith("any") else wanted <= own
            return found != name.startswith("not")
        own_value = item[name]
        if isinstance(own_value, bool):
            return own_value in [self._truth(value) for value in values]
        return ("" if own_value is None else str(own_value)) in values

    def _truth(self, value: str) -> bool:
        if value.lower() not in TRUE | FALSE:
            message = f"Invalid input for operation: '{value}' cannot be converted to boolean."
            raise refusal(400, "InvalidInput", message, True)
        return value.lower() in TRUE

    def _sorted(self, found: list[Json], request: Request) -> list[Json]:
        keys, directions = request.query.get("sort_key", []), request.query.get("sort_dir", [])
        if len(keys) != len(directions):
            message = "The number of sort_keys and sort_dirs must be same"
            raise refusal(400, "HTTPBadRequest", message, True)
        found.sort(key=lambda item: str(item["id"]))
        for key, direction in reversed(list(zip(keys, directions, strict=True))):
            if any(key not in item for item in found) or direction not in ("asc", "desc"):
                raise refusal(400, "HTTPBadRequest", f"['{key}'] is invalid attribute for sort_keys", True)
            found = sorted(found, key=lambda item: str(item[key]), reverse=direction == "desc")
        return found

    def _page(self, found: list[Json], request: Request) -> tuple[list[Json], Json]:
        if "limit" not in request.query:
            return found, {}
        given = request.one("limit")
        if not given.isdecimal():
            message = f"Bad limit request: Limit must be an integer 0 or greater and not '{given}'."
            raise refusal(400, "BadRequest", message, True)
        if "page_reverse" in request.query:
            raise refusal(400, "HTTPBadRequest", "page_reverse is not served here", True)
        limit = int(given) or len(found)
        if marker := request.one("marker"):
            ids = [item["id"] for item in found]
            self.get(marker)
            found = found[ids.index(marker) + 1 :] if marker in ids else []
        page = found[:limit]
        kept = [(n, v) for n, values in request.query.items() if n != "marker" for v in values]
        base, links = f"{self.network.url}/v2.0/{self.path}?", []
        if len(page) == limit and page:
            links.append({"rel": "next", "href": base + urlencode([*kept, ("marker", page[-1]["id"])])})
        back = [*kept, *([("marker", page[0]["id"])] if page else []), ("page_reverse", "True")]
        links.append({"rel": "previous", "href": base + urlencode(back)})
        return page, {f"{self.many}_links": links}

    # --- tags ---

    def _of(self, id: str) -> Json:
        if id not in self.items:
            raise refusal(404, "TagResourceNotFound", f"Resource {self.many} {id} could not be found.")
        return self.items[id]

    def _set_tags(self, id: str, tags: list[str]) -> None:
        item = self._of(id)
        item["tags"] = tags
        self.touch(item)

    def _tag_problem(self, tags: Any) -> str:
        if not isinstance(tags, list):
            return f"'{tags}' is not a list."
        for first, second in pairwise(sorted(map(str, tags))):
            if first == second:
                return f"Duplicate items in the list: '{first}'."
        return next(filter(None, map(text(LONGEST_TAG), tags)), "")

    def _put_tags(self, request: Request, id: str) -> Answer:
        try:
            body = request.json()
        except ValueError:
            body = None
        known = isinstance(body, dict) and set(body) == {"tags"}
        if problem := self._tag_problem(body["tags"]) if known else "Invalid tags body.":
            raise refusal(400, "InvalidInput", f"Invalid input for operation: {problem}", True)
        self._set_tags(id, body["tags"])
        return Answer(200, {"tags": body["tags"]})

    def _delete_tags(self, request: Request, id: str) -> Answer:
        self._set_tags(id, [])
        return Answer(204)

    def _check_tag(self, request: Request, id: str, tag: str) -> Answer:
        if tag not in self._of(id)["tags"]:
            raise refusal(404, "TagNotFound", f"Tag {tag} could not be found.")
        return Answer(204)

    def _put_tag(self, request: Request, id: str, tag: str) -> Answer:
        if problem := self._tag_problem([tag]):
            raise refusal(400, "InvalidInput", f"Invalid input for operation: {problem}", True)
        self._set_tags(id, sorted({*self._of(id)["tags"], tag}))
        return Answer(201, b"null")

    def _delete_tag(self, request: Request, id: str, tag: str) -> Answer:
        self._check_tag(request, id, tag)
        self._set_tags(id, [known for known in self._of(id)["tags"] if known != tag])
        return Answer(204)
