"""Identity v3 (keystone): who may come in, and where everything is."""

from __future__ import annotations

import base64
import datetime
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.lab.stand_in.service import Route, Service
from tests.lab.stand_in.wire import Answer, Json, Refused, Request

DOMAIN = {"id": "default", "name": "Default"}
VARY = {"Vary": "X-Auth-Token"}
LIFETIME = 3600  # seconds, of a token
ROLES = [{"id": uuid.uuid5(uuid.NAMESPACE_DNS, name).hex, "name": name} for name in ("reader", "member")]
METHODS = {"password", "application_credential", "token"}
MALFORMED = "The server could not comply with the request since it is either malformed or otherwise incorrect."
MALFORMED += " The client is assumed to be in error."
# What the parts of an authentication may have; the service itself ignores what it does not know.
KNOWN: Mapping[str, set[str]] = {
    "auth": {"identity", "scope"},
    "identity": {"methods", *METHODS},
    "password": {"user"},
    "user": {"id", "name", "domain", "password"},
    "application_credential": {"id", "name", "secret", "user"},
    "token": {"id"},
    "project": {"id", "name", "domain"},
    "domain": {"id", "name"},
}


@dataclass(frozen=True)
class Credential:
    """An application credential. `expires`: seconds since the epoch; never, if 0."""

    secret: str
    name: str = "cloudscale"
    expires: float = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass
class Token:
    methods: list[str]
    expires: float
    scoped: bool
    credential: Credential | None = None
    audits: list[str] = field(default_factory=lambda: [_audit()])
    issued: float = field(default_factory=time.time)


def _audit() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


class Identity(Service):
    """One user with one project. `places` are the regions with their services: type → (name, URL)."""

    def __init__(self, url: str, places: Mapping[str, Mapping[str, tuple[str, str]]]) -> None:
        self.user, self.password, self.project = "trainer", "pass-{}:word", "course"
        self.user_id, self.project_id = uuid.uuid4().hex, uuid.uuid4().hex
        self.credentials = [Credential("a secret")]
        self.lifetime = LIFETIME
        self.tokens: dict[str, Token] = {}
        self.places = places
        super().__init__(url, "/identity", self.knows)

    def knows(self, token: str) -> bool:
        known = self.tokens.get(token)
        return known is not None and known.expires > time.time()

    def expire_all(self) -> None:
        """From now on every token that was given out is refused."""
        self.tokens.clear()

    def routes(self) -> list[Route]:
        tokens = "/v3/auth/tokens"
        return [
            *(Route("GET", path, self._versions, public=True) for path in ("", "/")),
            *(Route("GET", path, self._version, public=True) for path in ("/v3", "/v3/")),
            Route("POST", tokens, self._authenticate, query={"nocatalog"}, public=True),
            Route("GET", tokens, self._validate, query={"nocatalog"}),
            Route("HEAD", tokens, self._validate, query={"nocatalog"}),
            Route("DELETE", tokens, self._revoke),
            Route("GET", "/v3/auth/catalog", self._show_catalog),
            Route("GET", "/v3/auth/projects", self._projects),
            Route("GET", "/v3/users/{user}/application_credentials/{id}", self._credential),
        ]

    def answer(self, request: Request) -> Answer:
        try:
            answer = super().answer(request)
        except Refused as refused:
            refused.answer.headers = {**refused.answer.headers, **VARY}
            raise
        answer.headers = {**answer.headers, **VARY}
        return answer

    def unknown_path(self, request: Request) -> Answer:
        return Answer(404, "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n")

    def unknown_query(self, request: Request, names: list[str]) -> Answer:
        return self._error(400, f"Unknown query parameters {names}").answer

    def _error(self, code: int, message: str, violation: str = "") -> Refused:
        titles = {400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}
        body = {"error": {"code": code, "message": message, "title": titles[code]}}
        return Refused(Answer(code, body), violation)

    # --- versions ---

    def _about(self) -> Json:
        media = {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}
        return {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self.url}/v3/"}],
            "media-types": [media],
        }

    def _versions(self, request: Request) -> Answer:
        return Answer(300, {"versions": {"values": [self._about()]}}, {"Location": f"{self.url}/v3/"})

    def _version(self, request: Request) -> Answer:
        return Answer(200, {"version": self._about()})

    # --- tokens ---

    def _authenticate(self, request: Request) -> Answer:
        try:
            body = request.json()
        except ValueError:
            raise self._malformed("valid JSON", "request body") from None
        auth = self._part({"request body": body}, "request body", "auth")
        identity = self._part(auth, "auth", "identity")
        methods = identity.get("methods")
        if not isinstance(methods, list) or len(methods) != 1:
            raise self._malformed("methods", "identity")
        method = str(methods[0])
        ways: Mapping[str, Callable[[Json], Token]] = {
            "password": self._by_password,
            "token": self._by_token,
            "application_credential": self._by_credential,
        }
        if method not in ways:
            raise self._malformed(method, "identity")
        token = ways[method](self._part(identity, "identity", method))
        self._scope(token, auth.get("scope"))
        secret = f"gAAAAA{uuid.uuid4().hex}{uuid.uuid4().hex}"
        self.tokens[secret] = token
        shown = self._shown(token, catalog="nocatalog" not in request.query)
        return Answer(201, {"token": shown}, {"X-Subject-Token": secret})

    def _part(self, of: Json, where: str, name: str) -> Json:
        """A part of a body, which has to be there and to hold only what is known."""
        whole = of[where] if where == "request body" else of
        part = whole.get(name) if isinstance(whole, dict) else None
        if not isinstance(part, dict):
            raise self._malformed(name, where)
        if strange := set(part) - KNOWN[name]:
            raise self._error(400, f"Unknown in {name}: {sorted(strange)}", f"unknown in {name}: {sorted(strange)}")
        return part

    def _malformed(self, name: str, where: str) -> Refused:
        return self._error(400, f"Expecting to find {name} in {where}. {MALFORMED}", f"no {name} in {where}")

    @property
    def _no(self) -> Refused:
        return Refused(self.unauthorized())

    def _is_domain(self, of: Json, where: str) -> bool:
        domain = self._part(of, where, "domain")
        return all(DOMAIN[name] == value for name, value in domain.items())

    def _is_user(self, user: Json) -> bool:
        if "id" in user:
            return bool(user["id"] == self.user_id)
        return self._is_domain(user, "user") and user.get("name") == self.user

    def _by_password(self, password: Json) -> Token:
        user = self._part(password, "password", "user")
        if not self._is_user(user) or user.get("password") != self.password:
            raise self._no
        return Token(["password"], time.time() + self.lifetime, scoped=False)

    def _by_credential(self, given: Json) -> Token:
        if "id" in given:
            known = next((c for c in self.credentials if c.id == given["id"]), None)
            if known is None:
                raise self._error(404, f"Could not find Application Credential: {given['id']}.")
        else:
            mine = self._is_user(self._part(given, "application_credential", "user"))
            known = next((c for c in self.credentials if mine and c.name == given.get("name")), None)
        if known is None or given.get("secret") != known.secret or 0 < known.expires < time.time():
            raise self._no
        return Token(["application_credential"], time.time() + self.lifetime, scoped=True, credential=known)

    def _credential(self, request: Request, user: str, id: str) -> Answer:
        known = next((c for c in self.credentials if c.id == id and user == self.user_id), None)
        if known is None:
            raise self._error(404, f"Could not find Application Credential: {id}.")
        # without a zone, as keystone has it
        expires = _time(known.expires).removesuffix("Z") if known.expires else None
        about: Json = {"id": id, "name": known.name, "project_id": self.project_id, "expires_at": expires}
        about |= {"description": None, "roles": ROLES, "unrestricted": False, "system": None}
        return Answer(200, {"application_credential": about})

    def _by_token(self, given: Json) -> Token:
        old = self.tokens.get(str(given.get("id")))
        if old is None or not self.knows(given["id"]):
            raise self._error(404, "Could not recognize Fernet token")
        return Token(["token", *old.methods], old.expires, scoped=False, audits=[_audit(), *old.audits])

    def _scope(self, token: Token, scope: object) -> None:
        if token.credential is not None:
            if scope is not None:
                message = "Application credentials cannot request a scope."
                raise self._error(401, f"Error authenticating with application credential: {message}", message)
            return
        if scope is None or scope == "unscoped" or scope == {"unscoped": {}}:
            return
        if not isinstance(scope, dict) or "project" not in scope:
            raise self._no
        project = self._part(scope, "scope", "project")
        if "id" in project:
            known = project["id"] == self.project_id
        else:
            known = self._is_domain(project, "project") and project.get("name") == self.project
        if not known:
            raise self._no
        token.scoped = True

    def _validate(self, request: Request) -> Answer:
        secret = request.headers.get("x-subject-token", "")
        if not self.knows(secret):
            raise self._error(404, "Could not recognize Fernet token")
        shown = self._shown(self.tokens[secret], catalog="nocatalog" not in request.query)
        return Answer(200, {"token": shown}, {"X-Subject-Token": secret})

    def _revoke(self, request: Request) -> Answer:
        if self.tokens.pop(request.headers.get("x-subject-token", ""), None) is None:
            raise self._error(404, "Could not recognize Fernet token")
        return Answer(204)

    def _shown(self, token: Token, *, catalog: bool) -> Json:
        user = {"domain": DOMAIN, "id": self.user_id, "name": self.user, "password_expires_at": None}
        shown: Json = {
            "methods": token.methods,
            "user": user,
            "audit_ids": token.audits,
            "expires_at": _time(token.expires),
            "issued_at": _time(token.issued),
        }
        if token.scoped:
            shown["project"] = {"domain": DOMAIN, "id": self.project_id, "name": self.project}
            shown |= {"is_domain": False, "roles": ROLES}
            if catalog:
                shown["catalog"] = self._catalog()
        if token.credential is not None:
            names = {"id": token.credential.id, "name": token.credential.name}
            shown["application_credential"] = {**names, "restricted": True}
        return shown

    # --- what is where ---

    def _catalog(self) -> list[Json]:
        services: dict[str, Json] = {}
        for region, place in self.places.items():
            for kind, (name, url) in place.items():
                about = {"id": uuid.uuid5(uuid.NAMESPACE_DNS, kind).hex, "type": kind, "name": name}
                entry = services.setdefault(kind, {"endpoints": [], **about})
                for interface in ("public", "internal", "admin"):
                    endpoint = {"id": uuid.uuid5(uuid.NAMESPACE_URL, f"{region}{kind}{interface}").hex, "url": url}
                    endpoint |= {"interface": interface, "region_id": region, "region": region}
                    entry["endpoints"].append(endpoint)
        return list(services.values())

    def _show_catalog(self, request: Request) -> Answer:
        links = {"next": None, "self": f"{self.url}/v3/auth/catalog", "previous": None}
        return Answer(200, {"catalog": self._catalog(), "links": links})

    def _projects(self, request: Request) -> Answer:
        project = {
            "id": self.project_id,
            "name": self.project,
            "domain_id": DOMAIN["id"],
            "description": "",
            "enabled": True,
            "parent_id": DOMAIN["id"],
            "is_domain": False,
            "tags": [],
            "options": {},
            "links": {"self": f"{self.url}/v3/projects/{self.project_id}"},
        }
        links = {"next": None, "self": f"{self.url}/v3/auth/projects", "previous": None}
        return Answer(200, {"projects": [project], "links": links})
