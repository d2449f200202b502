"""Pure: the seats of a class in, what the proxy (Caddy) and the login service are configured with out.

The proxy decides alone who may see a seat: whoever has its token in a cookie. So a login costs one request to the login
service, and every other request none. See docs/architecture.md for the way of a request.

Caddy's configuration: caddyserver.com/docs/json.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudscale.course import naming
from cloudscale.course.passwords import Passwords
from cloudscale.gateway.certificates import Certificates
from cloudscale.networks import endpoint
from cloudscale.seats.address import HTTPS, Entrance, Placed
from cloudscale.seats.jupyter import PASS_HEADER, PROBE_HEADER

Json = dict[str, Any]

FOLDER = "/gateway"  # where the gateway's container has its files
STORE = f"{FOLDER}/store"  # Caddy's own: the ACME account, certificates
TLS = f"{FOLDER}/tls"
LOGIN = "unix//tmp/login.sock"
ADMIN = "unix//tmp/caddy.sock"
HTTP = 80

COOKIE = "__Host-Http-seat"
STARTING = "/.gateway/starting"  # the login service's page for a seat that does not answer
STANDING_IN = "2h"  # for so long counts a certificate of the course's, where another one could not be had
BUSY = "10s"  # for so long a login waits if more have come at once than its service's socket holds
CLOSING = "24h"  # a WebSocket survives a change of the configuration for this long

# A server's answer counts for its own seat only. These count for the whole address, and would outlive the visit.
ORIGIN_HEADERS = (
    *("Alt-Svc", "Clear-Site-Data", "NEL", "Origin-Agent-Cluster", "Report-To", "Reporting-Endpoints"),
    *("Service-Worker-Allowed", "Strict-Transport-Security"),
)


@dataclass(frozen=True)
class Route:
    """The way to one seat. `upstream`: host and port that the gateway's machine reaches its server at."""

    path: str
    label: str
    upstream: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    secret: str = field(repr=False)


def seat_route(passwords: Passwords, names: bytes, seat: Placed, host: str) -> Route:
    """The way to a seat whose machine has the address `host` for the gateway's machine.

    `passwords`: the course's; `names`: the key of the seats' host names.
    """
    student = seat.student.id
    return Route(
        path=naming.seat_path(passwords.key, student),
        label=naming.seat_label(names, student),
        upstream=endpoint(host, seat.place.port),
        password=passwords.of(student),
        token=passwords.token(student),
        secret=passwords.gateway_pass(student),
    )


# --- the login service -----------------------------------------------------------------------


def login_table(title: str, entrance: Entrance, routes: Iterable[Route], salt: bytes) -> Json:
    """What the login service knows of the seats; it has no password in clear."""
    return {
        "title": title,
        "mode": "subdomain" if entrance.by_name else "path",
        "address": entrance.at(),
        "salt": salt.hex(),
        "seats": [
            {
                "password": hmac.digest(salt, _typed(route.password).encode(), "sha256").hex(),
                "token": route.token,
                "path": route.path,
                "host": entrance.at(route.label) if entrance.by_name else "",
            }
            for route in routes
        ],
    }


def _typed(password: str) -> str:
    """A password without what people leave out or add when they type it from paper."""
    return re.sub(r"[\s-]", "", password).lower()


# --- the proxy -------------------------------------------------------------------------------


def caddy_config(entrance: Entrance, routes: Sequence[Route], certificates: Certificates, *, probe: str) -> Json:
    """The whole configuration of the proxy. `probe`: what the tool shows when it looks at whether a seat answers."""
    servers: Json = {
        "gateway": {
            "listen": [f":{entrance.port}"],
            "protocols": ["h1", "h2"],
            "automatic_https": {"disable_redirects": True},
            # whoever asks for a bare address names no server (RFC 6066, 3)
            "tls_connection_policies": [{"default_sni": entrance.host}],
            "routes": _routes(entrance, routes, probe),
            "errors": {"routes": [_starting()]},
        }
    }
    if entrance.port == HTTPS:  # the port for HTTP is its own too
        where = "{http.request.host}" if entrance.by_name else entrance.at()
        servers["http"] = {
            "listen": [f":{HTTP}"],
            "protocols": ["h1"],
            "automatic_https": {"disable": True},
            "routes": [{"handle": [_answer(308, Location=[f"https://{where}{{http.request.uri}}"])]}],
        }
    return {
        "admin": {"listen": ADMIN, "config": {"persist": False}},
        # each request to a seat that does not answer is logged there, with what it shows
        "logging": {"logs": {"default": {"level": "WARN", "exclude": ["http.log.error"]}}},
        "storage": {"module": "file_system", "root": STORE},
        "apps": {
            "http": {"http_port": HTTP, "https_port": entrance.port, "servers": servers},
            **_tls(entrance, routes, certificates),
        },
    }


def _routes(entrance: Entrance, routes: Sequence[Route], probe: str) -> list[Json]:
    """The first one that matches counts: what belongs to a seat, then everything else."""
    place = "{http.request.host}/{http.request.uri.path.0}" if entrance.by_name else "/{http.request.uri.path.0}"
    of = {route: f"{route.label}.{entrance.host}{route.path}" if entrance.by_name else route.path for route in routes}
    probed = [{"input": of[route], "outputs": [route.upstream]} for route in routes]
    seat = [{"input": f"{of[route]} {route.token}", "outputs": [route.upstream, route.secret]} for route in routes]
    return [
        # which seat it is: by the address alone, and with the cookie too
        {
            "handle": [
                _map(place, ("probed",), probed),
                _map(f"{place} {{http.request.cookie.{COOKIE}}}", ("seat", "pass"), seat),
            ]
        },
        # the tool's own look at whether a server runs, and how it is used. Nobody else's: what answers is a student's,
        # and a browser would take it for a page of the whole class
        {
            "match": [
                {
                    "method": ["GET"],
                    "path": ["/*/api", "/*/api/status"],
                    "header": {PROBE_HEADER: [probe]},
                    **_is_set("probed"),
                },
            ],
            "handle": [_proxy("{probed}")],
            "terminal": True,
        },
        {
            "match": [{"not": [{"vars": {"{seat}": [""]}}, {"path": ["/*/login", "/*/logout"]}]}],
            "handle": [
                {
                    "handler": "subroute",
                    "routes": [
                        {
                            "match": [_FOREIGN],
                            "handle": [_answer(403, "Refused: the request comes from another site.\n")],
                            "terminal": True,
                        },
                        {"handle": [_proxy("{seat}", secret="{pass}")]},
                    ],
                }
            ],
            "terminal": True,
        },
        {"handle": [_to_login()]},
    ]


def _map(source: str, names: Sequence[str], mappings: list[Json]) -> Json:
    return {
        "handler": "map",
        "source": source,
        "destinations": [f"{{{name}}}" for name in names],
        "mappings": mappings,
        "defaults": [""] * len(names),
    }


def _is_set(name: str) -> Json:
    return {"not": [{"vars": {f"{{{name}}}": [""]}}]}


# A page of another origin may lead to a seat, and nothing else: no request that changes something, no frame, no
# WebSocket (Fetch Metadata, w3c.github.io/webappsec-fetch-metadata). Seats of one class are "same-site".
_FOREIGN: Json = {
    "header": {"Sec-Fetch-Site": ["cross-site", "same-site"]},
    "not": [{"method": ["GET", "HEAD"], "header": {"Sec-Fetch-Mode": ["navigate"], "Sec-Fetch-Dest": ["document"]}}],
}


def _answer(status: int, body: str = "", **headers: list[str]) -> Json:
    return {"handler": "static_response", "status_code": status, "body": body, "headers": headers}


def _proxy(upstream: str, *, secret: str = "") -> Json:
    """To a seat's server: without the gateway's cookie, and with the secret that stands for the login there."""
    request: Json = {"replace": {"Cookie": [{"search_regexp": f"{COOKIE}=[^;]*(; )?", "replace": ""}]}}
    if secret:
        request["set"] = {PASS_HEADER: [secret]}
    else:
        request["delete"] = [PASS_HEADER, PROBE_HEADER, "Cookie"]
    cookies = [
        {"search_regexp": f"^[\\s=]*{COOKIE}\\s*=.*$", "replace": "ignored=; Max-Age=0"},
        # one for the whole domain, or for other paths, would reach other seats (blanks: RFC 6265, 5.2)
        {"search_regexp": "(?i);\\s*(?:domain|path)\\b[^;]*", "replace": ""},
        {"search_regexp": "$", "replace": "; Path=/{http.request.uri.path.0}/"},
    ]
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": upstream}],
        "flush_interval": -1,
        "stream_close_delay": CLOSING,
        "headers": {
            "request": request,
            "response": {"delete": [*ORIGIN_HEADERS], "replace": {"Set-Cookie": cookies}},
        },
        "transport": {"protocol": "http", "dial_timeout": "5s", "versions": ["1.1"]},
    }


def _to_login(rewrite: str = "") -> Json:
    proxy: Json = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": LOGIN}],
        "load_balancing": {"try_duration": BUSY},
        "headers": {"request": {"set": {"X-Forwarded-Host": ["{http.request.hostport}"]}}},
    }
    if rewrite:
        proxy["rewrite"] = {"method": "GET", "uri": rewrite}
    return proxy


def _starting() -> Json:
    """A seat's server that does not answer is starting, as far as anybody can tell."""
    return {
        "match": [{"vars": {"{http.error.status_code}": ["502", "503", "504"]}}],
        "handle": [_to_login(STARTING)],
    }


# --- certificates ----------------------------------------------------------------------------


def _tls(entrance: Entrance, routes: Sequence[Route], certificates: Certificates) -> Json:
    if certificates.source == "files":
        files: Json = {"certificate": f"{TLS}/certificate.pem", "key": f"{TLS}/key.pem", "tags": [certificates.version]}
        return {"tls": {"certificates": {"load_files": [files]}}}
    # under another name, so that what the course's own authority signed before is not taken for the other one's
    ca, lifetime = ("stand-in", STANDING_IN) if certificates.source == "acme" else ("course", "168h")
    own: Json = {"module": "internal", "ca": ca, "lifetime": lifetime}
    acme: Json = {"module": "acme", "ca": certificates.acme, "trusted_roots_pem_files": [f"{TLS}/roots.pem"]}
    if certificates.email:
        acme["email"] = certificates.email
    # Let's Encrypt signs for a bare address with this profile alone; others may not know it
    asked = [{**acme, "profile": "shortlived"}, acme] if certificates.short else [acme]
    of_seats = [f"{route.label}.{entrance.host}" for route in routes] if entrance.by_name else []
    if entrance.by_name and certificates.source == "internal":
        of_seats = [f"*.{entrance.host}"]
    names = [entrance.host, *of_seats]
    # the course's own authority stands in until the other one answers
    issuers = [*asked, own] if certificates.source == "acme" else [own]
    # Caddy makes an authority of its own, `local`, whether it is needed or not
    authority = {
        "name": f"cloudscale {certificates.version}",
        "install_trust": False,
        "root": {"certificate": f"{TLS}/root.pem"},
        "intermediate": {"certificate": f"{TLS}/intermediate.pem", "private_key": f"{TLS}/intermediate.key"},
    }
    return {
        "tls": {
            "certificates": {"automate": names},
            "automation": {"policies": [{"subjects": names, "issuers": issuers}]},
        },
        "pki": {"certificate_authorities": {ca: authority, "local": {"install_trust": False}}},
    }


def digest(data: bytes) -> str:
    """Identifies the content of a file."""
    return hashlib.sha256(data).hexdigest()
