"""The configurations of the proxy and of the login service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudscale.course.passwords import Passwords
from cloudscale.gateway.certificates import Certificates
from cloudscale.gateway.routes import ORIGIN_HEADERS, Json, Route, caddy_config, login_table, seat_route
from cloudscale.model import Place, Seat, Student
from cloudscale.seats.address import Entrance
from cloudscale.seats.jupyter import PASS_HEADER, PROBE_HEADER
from tests.unit.gateway.conftest import KEY

ANN, BOB = (Seat(Student(str(n), name), Place("m1", 4320 + n)) for n, name in ((1, "Ann"), (2, "Bob")))
PATH, NAMES = Entrance("192.0.2.7"), Entrance("class.test", by_name=True)
INTERNAL = Certificates("internal", version="v1")


@pytest.fixture
def routes() -> list[Route]:
    return [seat_route(Passwords(KEY), b"names", seat, "10.0.0.1") for seat in (ANN, BOB)]


def config(entrance: Entrance, routes: list[Route], certificates: Certificates = INTERNAL) -> Json:
    return caddy_config(entrance, routes, certificates, probe="the tool")


def server(whole: Json) -> Json:
    found: Json = whole["apps"]["http"]["servers"]["gateway"]
    return found


def test_a_seat_is_found_by_its_path_and_token_and_no_other(routes: list[Route]) -> None:
    probed, opened = server(config(PATH, routes))["routes"][0]["handle"]
    assert [way["input"] for way in probed["mappings"]] == [route.path for route in routes]
    assert [way["input"] for way in opened["mappings"]] == [f"{route.path} {route.token}" for route in routes]
    assert [way["outputs"] for way in opened["mappings"]] == [[route.upstream, route.secret] for route in routes]
    assert routes[0].upstream == "10.0.0.1:4321"
    assert len({route.token for route in routes} | {route.secret for route in routes}) == 4


def test_with_names_it_is_found_by_its_name_too(routes: list[Route]) -> None:
    _, opened = server(config(NAMES, routes))["routes"][0]["handle"]
    assert opened["mappings"][0]["input"] == f"{routes[0].label}.class.test{routes[0].path} {routes[0].token}"


def test_what_no_token_opens_goes_to_the_login(routes: list[Route]) -> None:
    last = server(config(PATH, routes))["routes"][-1]
    assert "match" not in last
    assert last["handle"][0]["upstreams"] == [{"dial": "unix//tmp/login.sock"}]
    # a class that comes in one second is more than the socket may hold
    assert last["handle"][0]["load_balancing"] == {"try_duration": "10s"}


def test_only_the_tool_may_look_without_a_login(routes: list[Route]) -> None:
    probe = server(config(PATH, routes))["routes"][1]
    assert probe["match"][0]["header"] == {PROBE_HEADER: ["the tool"]}
    assert probe["match"][0]["path"] == ["/*/api", "/*/api/status"]
    assert {PASS_HEADER, PROBE_HEADER, "Cookie"} == {*probe["handle"][0]["headers"]["request"]["delete"]}


def test_a_servers_answer_counts_for_its_own_seat_alone(routes: list[Route]) -> None:
    (proxy,) = server(config(PATH, routes))["routes"][2]["handle"][0]["routes"][1]["handle"]
    response = proxy["headers"]["response"]
    assert {*ORIGIN_HEADERS} <= {*response["delete"]} and "Clear-Site-Data" in ORIGIN_HEADERS
    assert any("domain|path" in each["search_regexp"] for each in response["replace"]["Set-Cookie"])
    assert proxy["headers"]["request"]["set"] == {PASS_HEADER: ["{pass}"]}


def test_the_port_for_http_leads_to_https_only_from_the_usual_one(routes: list[Route]) -> None:
    assert config(PATH, routes)["apps"]["http"]["servers"]["http"]["listen"] == [":80"]
    other = config(Entrance("192.0.2.7", 8443), routes)["apps"]["http"]
    assert list(other["servers"]) == ["gateway"] and other["servers"]["gateway"]["listen"] == [":8443"]


@pytest.mark.parametrize(
    ("certificates", "issuers"),
    [
        (INTERNAL, ["internal"]),
        (Certificates("acme", "https://acme.test/dir", "t@example.org"), ["acme", "internal"]),
        (Certificates("acme", "https://acme.test/dir", short=True), ["acme", "acme", "internal"]),
    ],
)
def test_the_courses_own_authority_stands_in_for_the_other(
    routes: list[Route], certificates: Certificates, issuers: list[str]
) -> None:
    (policy,) = config(PATH, routes, certificates)["apps"]["tls"]["automation"]["policies"]
    assert [issuer["module"] for issuer in policy["issuers"]] == issuers
    first = policy["issuers"][0]
    assert first.get("email", "") == certificates.email
    assert (first.get("profile") == "shortlived") == certificates.short


def test_names_get_certificates_of_their_own_where_no_wildcard_can_be_had(routes: list[Route]) -> None:
    acme = Certificates("acme", "https://acme.test/dir")
    own = {f"{route.label}.class.test" for route in routes}
    assert {*config(NAMES, routes, acme)["apps"]["tls"]["certificates"]["automate"]} == {"class.test", *own}
    assert config(NAMES, routes)["apps"]["tls"]["certificates"]["automate"] == ["class.test", "*.class.test"]


def test_the_trainers_files_are_read_again_when_they_change(routes: list[Route]) -> None:
    old, new = (config(PATH, routes, Certificates("files", version=version)) for version in ("v1", "v2"))
    assert "pki" not in old["apps"]
    assert old != new


def test_the_login_service_knows_no_password(routes: list[Route]) -> None:
    table = login_table("Bio", PATH, routes, b"salt")
    assert table["mode"] == "path" and table["address"] == "192.0.2.7"
    assert all(route.password not in json.dumps(table) for route in routes)
    same = login_table("Bio", PATH, [_with(routes[0], password=routes[0].password.replace("-", " ").upper())], b"salt")
    assert same["seats"][0]["password"] == table["seats"][0]["password"]
    assert login_table("Bio", NAMES, routes, b"salt")["seats"][0]["host"] == f"{routes[0].label}.class.test"


def test_no_secret_shows_in_a_message(routes: list[Route]) -> None:
    shown = repr(routes[0])
    assert not any(secret in shown for secret in (routes[0].password, routes[0].token, routes[0].secret))


def _with(route: Route, **changed: Any) -> Route:
    return Route(**{**vars(route), **changed})
