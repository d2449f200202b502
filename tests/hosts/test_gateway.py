"""A class behind its gateway: one address, one login, and a student's server that is hostile to the others'."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import pytest
import requests

from cloudscale.engines.client import Engine
from cloudscale.gateway.certificates import shown
from cloudscale.gateway.volume import GatewayVolume
from cloudscale.model import Machine
from cloudscale.seats.address import Entrance
from cloudscale.waiting import poll
from tests.hosts.conftest import EMMETT, JENNIFER, MARTY, STATE, Roster, seat_containers
from tests.lab.browser import Browser
from tests.lab.caddy_image import load_caddy_image
from tests.lab.engine import LabEngine
from tests.lab.namespace import Namespace, run
from tests.lab.tool import Tool
from tests.lab.websockets import Line, Page, answer_of_terminal, downloaded, open_lines, upload

DOMAIN = "class.test"
BIFF = "4;Biff;Tannen;"
MARTY_, JENNIFER_ = "Marty McFly", "Jennifer O'Parker"
LARGE = 64 << 20  # bytes
Seat = dict[str, Any]

# Marty's own program, in place of his Jupyter server: he may answer whatever he likes
HOSTILE = '''
import http.server

PAGE = """<!doctype html><title>start</title><body><script>
const seen = {};
const theirs = new URLSearchParams(location.search).get("victim");
async function attack() {
  document.cookie = "planted=1; path=/";
  document.cookie = "planted=2; path=/; domain=" + location.hostname.split(".").slice(-2).join(".");
  document.cookie = "__Host-Http-seat=mine; path=/; secure";
  seen.cookie = document.cookie;
  seen.worker = await navigator.serviceWorker.register("./evil.js", {scope: "/"}).then(() => "taken", e => e.name);
  seen.read = await fetch(theirs + "/api/contents", {credentials: "include"}).then(r => r.status, e => e.name);
  seen.socket = await new Promise(done => {
    const line = new WebSocket(theirs.replace("https", "wss") + "/api/events/subscribe");
    line.onopen = () => done("open");
    line.onerror = () => done("refused");
  });
  seen.frame = await new Promise(done => {
    const frame = document.createElement("iframe");
    frame.onload = () => {
      try { done(frame.contentDocument.body.innerText.slice(0, 200)); } catch (error) { done(error.name); }
    };
    frame.src = theirs + "/lab";
    document.body.append(frame);
  });
  return JSON.stringify(seen);
}
attack().then(text => { window.found = text; document.title = "done"; });
</script>"""


class Hostile(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_code = self.path.endswith(".js")
        self.send_response(200)
        self.send_header("Service-Worker-Allowed", "/")
        self.send_header("Set-Cookie", "server=1; Domain=DOMAIN; Path=/")
        self.send_header("Clear-Site-Data", '"*"')
        self.send_header("Content-Type", "text/javascript" if is_code else "text/html")
        self.end_headers()
        code = "onfetch = event => event.respondWith(new Response('taken'));"
        answer = '{"version": "1"}' if self.path.endswith("/api") else code if is_code else PAGE
        self.wfile.write(answer.encode())


http.server.ThreadingHTTPServer(("0.0.0.0", 9999), Hostile).serve_forever()
'''


@pytest.fixture(scope="module")
def tool(engine: LabEngine, image: str) -> Iterator[Tool]:
    load_caddy_image(engine.client, STATE / "caddy")
    used = Tool(engine, STATE / "gateway", {"INVOKE_CLOUDSCALE_IMAGE": image})
    yield used
    left = used("driver_reset", "--yes")
    assert left.code == 0, left.err


@pytest.fixture(scope="module")
def roster() -> Roster:
    return Roster(STATE / "gateway.csv")


@pytest.fixture(scope="module")
def seats(tool: Tool, roster: Roster) -> dict[str, Seat]:
    """Two seats behind the gateway, at its machine's address."""
    launched = tool.launch("--gateway", "path", *roster(MARTY, JENNIFER))
    return {row["student"]: row for row in launched.rows}


def in_browser(namespace: Namespace, folder: Path, host: str) -> contextlib.closing[Browser]:
    names = f"--host-resolver-rules=MAP {DOMAIN} {host}, MAP *.{DOMAIN} {host}"
    return contextlib.closing(Browser(namespace, folder, names, "--ignore-certificate-errors"))


def log_in(browser: Browser, address: str, seat: Seat, then: str) -> None:
    """As a student: the password on the start page, and then a page of the seat."""
    browser.open(f"{address}/.gateway/start")
    browser.wait("location.pathname === '/' && document.querySelector('input[name=password]') !== null")
    browser.run(f"document.querySelector('input[name=password]').value = {json.dumps(seat['password'])}")
    browser.run("document.querySelector('button').click()")
    browser.wait(f"location.pathname.startsWith({json.dumps(urlsplit(seat['url']).path)})")
    browser.open(f"{seat['url']}/{then}")


def make_hostile(client: docker.DockerClient) -> None:
    """Lets a program of Marty's answer in place of his server."""
    marty = client.containers.get(seat_containers(client)["1"])
    code = HOSTILE.replace("DOMAIN", DOMAIN)
    marty.exec_run(["python3", "-c", code], detach=True)
    # in place of taking his own server's port, which he can as well, but not in a line
    redirect = "-t nat -A PREROUTING -p tcp --dport 8888 -j REDIRECT --to-ports 9999"
    run("nsenter", "--net", "--target", str(marty.attrs["State"]["Pid"]), "iptables", *redirect.split())


def origin(url: str) -> str:
    return "{0.scheme}://{0.netloc}".format(urlsplit(url))


def authority(tool: Tool) -> str:
    return str(next(tool.home.glob("**/web-ca.pem")))


class Person:
    """Somebody without a browser, who trusts the course's own authority."""

    def __init__(self, tool: Tool) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = authority(tool)

    def log_in(self, seat: Seat, password: str = "") -> requests.Response:
        form = {"password": password or seat["password"]}
        return self.session.post(f"{origin(seat['url'])}/login", data=form, timeout=30, allow_redirects=False)

    def status(self, seat: Seat, path: str = "/api/contents") -> int:
        return self.session.get(seat["url"] + path, timeout=30, allow_redirects=False).status_code


def test_a_password_opens_its_seat_at_the_one_address_and_no_other(tool: Tool, seats: dict[str, Seat]) -> None:
    marty, jennifer = seats[MARTY_], seats[JENNIFER_]
    assert origin(marty["url"]) == origin(jennifer["url"]) == f"https://{marty['host']}"
    person = Person(tool)
    assert person.log_in(marty, "wrong").status_code == 401
    assert person.status(marty) == 303  # to the start page
    typed = marty["password"].replace("-", " ").upper()  # as some type it
    assert person.log_in(marty, typed).headers["Location"] == f"{urlsplit(marty['url']).path}/"
    assert person.status(marty) == 200 and person.status(jennifer) == 303
    person.log_in(jennifer)  # ends the first
    assert person.status(marty) == 303 and person.status(jennifer) == 200
    # past the gateway, Jupyter's own login stands
    behind = f"http://{marty['host']}:{marty['port']}{urlsplit(marty['url']).path}/api/contents"
    for headers in ({}, {"X-Cloudscale-Seat": ""}, {"X-Cloudscale-Seat": "0" * 64}):
        assert requests.get(behind, headers=headers, timeout=30).status_code == 403
    # plain HTTP leads here
    moved = requests.get(f"http://{marty['host']}/x?y", timeout=30, allow_redirects=False)
    assert (moved.status_code, moved.headers["Location"]) == (308, f"https://{marty['host']}/x?y")


def test_a_large_class_gets_in_in_the_same_second(tool: Tool, seats: dict[str, Seat]) -> None:
    """From one address, as behind a router."""
    logins = [(Person(tool), seat) for _ in range(150) for seat in seats.values()]
    with ThreadPoolExecutor(len(logins)) as pool:
        answers = list(pool.map(lambda login: login[0].log_in(login[1]).status_code, logins))
    assert set(answers) == {303}


def test_a_check_goes_through_it_as_students_do(tool: Tool, seats: dict[str, Seat]) -> None:
    checked = tool("check", "--format", "json")
    assert checked.code == 0, checked.err
    assert [(row["student"], row["url"], row["state"], row["cause"]) for row in checked.rows] == [
        (name, seats[name]["url"], "ok", "") for name in (MARTY_, JENNIFER_)
    ]


def test_again_nothing_changes_and_what_is_asked_for_stays(tool: Tool, seats: dict[str, Seat], roster: Roster) -> None:
    again = tool.launch(*roster(MARTY, JENNIFER))
    assert "Gateway: unchanged" in again.err and "2 unchanged" in again.err
    assert {row["student"]: row["url"] for row in again.rows} == {name: seat["url"] for name, seat in seats.items()}
    rows = json.loads(tool("status", "--details", "--format", "json").out)
    assert {row["state"] for row in rows} == {"ready"}
    assert all(row["kernels"] is not None and row["last_activity"] for row in rows)


def test_terminals_and_large_files_go_through_it(tool: Tool, seats: dict[str, Seat]) -> None:
    page = Page(seats[MARTY_], authority(tool))
    shown = asyncio.run(answer_of_terminal(page, "grep -a NoNewPrivs /proc/self/status; echo =$((6 * 7))", "=42"))
    assert "NoNewPrivs:\t1" in shown
    upload(page, "film.mkv", LARGE)
    assert downloaded(page, "film.mkv") == LARGE
    page.ask("DELETE", "/api/contents/film.mkv")


def test_a_login_takes_neither_a_mouse_nor_eyes(seats: dict[str, Seat], namespace: Namespace, tmp_path: Path) -> None:
    marty = seats[MARTY_]
    with in_browser(namespace, tmp_path / "login", marty["host"]) as browser:
        browser.open(f"{origin(marty['url'])}/nowhere")
        browser.wait("document.readyState === 'complete' && document.activeElement.name === 'password'")
        spoken = browser.read_aloud()
        assert (
            "textbox Password" in spoken and "button Open my notebook" in spoken and "heading Your notebook" in spoken
        )
        browser.type("wrong")
        browser.wait("document.querySelector('[role=alert]') !== null && document.readyState === 'complete'")
        assert "alert" in browser.read_aloud() and browser.run("document.title").startswith("Error")
        assert browser.run("document.activeElement.name") == "password"
        browser.type(marty["password"])
        browser.wait(f"location.pathname.startsWith({json.dumps(urlsplit(marty['url']).path)})")


def test_nobodys_line_drops_when_others_come_and_go(tool: Tool, seats: dict[str, Seat], roster: Roster) -> None:
    async def lesson() -> None:
        lines = await forty_lines(tool, seats)
        launch = asyncio.to_thread(tool.launch, *roster(MARTY, JENNIFER, EMMETT, BIFF))
        assert len((await launch).rows) == 4
        reset = asyncio.to_thread(tool, "containers_reset", "--only", "Emmett Brown", "--yes")
        assert (await reset).code == 0
        prune = asyncio.to_thread(tool.launch, "--prune", *roster(MARTY, JENNIFER))
        assert "Biff" in (await prune).err
        await still_answer(lines)

    asyncio.run(lesson())


async def forty_lines(tool: Tool, seats: dict[str, Seat]) -> list[Line]:
    return [line for name in (MARTY_, JENNIFER_) for line in await open_lines(seats[name], 20, authority(tool))]


async def still_answer(lines: list[Line]) -> None:
    assert [await line.answers() for line in lines] == [True] * 40
    for line in lines:
        await line.close()


def test_nor_does_it_when_one_of_them_gets_another_password(
    tool: Tool, seats: dict[str, Seat], client: docker.DockerClient
) -> None:
    marty = seats[MARTY_]
    behind = f"http://{marty['host']}:{marty['port']}{urlsplit(marty['url']).path}/api/contents"
    inside = client.containers.get(seat_containers(client)["1"])
    printed: Any = inside.exec_run(["cat", "/etc/jupyter/jupyter_server_config.json"]).output
    config = json.loads(printed)
    stolen = {"X-Cloudscale-Seat": config["SeatIdentityProvider"]["gateway_pass"]}

    async def lesson() -> None:
        lines = await open_lines(seats[JENNIFER_], 20, authority(tool))
        before, person = Person(tool), Person(tool)
        before.log_in(marty)
        assert before.status(marty) == requests.get(behind, headers=stolen, timeout=30).status_code == 200
        renewed = await asyncio.to_thread(tool, "seat_password", MARTY_, "--format", "json")
        assert renewed.code == 0, renewed.err
        (row,) = renewed.rows
        assert row == {**marty, "password": row["password"]}
        assert before.status(marty) == 303 and person.log_in(marty).status_code == 401
        assert requests.get(behind, headers=stolen, timeout=30).status_code == 403
        assert person.log_in(row).status_code == 303 and person.status(row) == 200
        marty["password"] = row["password"]
        restarted = await asyncio.to_thread(tool, "seat_restart", MARTY_)
        assert restarted.code == 0, restarted.err
        assert person.status(marty) == 200
        assert [await line.answers() for line in lines] == [True] * 20
        for line in lines:
            await line.close()

    asyncio.run(lesson())


def test_nor_does_it_when_a_certificate_is_renewed(
    tool: Tool, seats: dict[str, Seat], client: docker.DockerClient, image: str
) -> None:
    host = seats[MARTY_]["host"]
    serials: list[int] = []

    def has_another() -> bool:
        found = shown(host, Entrance(host))
        if found and found.serial_number not in serials:
            serials.append(found.serial_number)
            return True
        return False

    async def lesson() -> None:
        lines = await forty_lines(tool, seats)
        serials.clear()
        assert has_another()  # renewed by itself, since it was restarted
        assert await asyncio.to_thread(poll, has_another, timeout=60)
        await still_answer(lines)

    assert has_another()
    with GatewayVolume(Engine(Machine("m1", host), client), "course", image).opened() as files:
        config = json.loads(files.read("caddy.json") or b"")
        automation = config["apps"]["tls"]["automation"]
        automation["renew_interval"] = "1s"  # counts from the start on
        automation["policies"][0]["issuers"][0]["lifetime"] = "15s"
        # another authority's, so that the one that is there does not count
        files.write({"caddy.json": json.dumps(config).replace('"course"', '"short"').encode()})
    (gateway,) = client.containers.list(filters={"label": "cloudscale.role=gateway"})
    gateway.kill()
    assert poll(has_another, timeout=60)
    asyncio.run(lesson())


def test_a_port_that_is_taken_is_named_with_the_setting(tool: Tool, seats: dict[str, Seat], roster: Roster) -> None:
    with socket.create_server((seats[MARTY_]["host"], 8443)):
        refused = tool("themachine", *roster(MARTY, JENNIFER), INVOKE_CLOUDSCALE_GATEWAY_PORT="8443")
    assert refused.code == 2 and "8443" in refused.err and "gateway.port" in refused.err


def test_it_moves_to_another_port_and_back(tool: Tool, seats: dict[str, Seat], roster: Roster) -> None:
    person = Person(tool)
    moved = tool.launch(*roster(MARTY, JENNIFER), INVOKE_CLOUDSCALE_GATEWAY_PORT="8443").rows[0]
    assert origin(moved["url"]) == f"https://{moved['host']}:8443"
    assert person.log_in(moved).status_code == 303 and person.status(moved) == 200
    with pytest.raises(requests.ConnectionError):
        person.status(seats[MARTY_])
    back = tool.launch(*roster(MARTY, JENNIFER))
    assert {row["url"] for row in back.rows} == {seat["url"] for seat in seats.values()}


def test_a_hostile_seat_reaches_no_other_in_a_browser(
    tool: Tool,
    seats: dict[str, Seat],
    roster: Roster,
    client: docker.DockerClient,
    namespace: Namespace,
    tmp_path: Path,
) -> None:
    jennifer, marty = seats[JENNIFER_], seats[MARTY_]
    make_hostile(client)
    address = origin(marty["url"])
    with in_browser(namespace, tmp_path / "path", marty["host"]) as browser:
        # Jennifer follows a link to it: she comes to the start page, and from there to her own seat
        log_in(browser, address, jennifer, "api/status")
        browser.wait("document.body.innerText.includes('last_activity')")
        browser.open(f"{marty['url']}/evil")
        browser.wait(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")
        assert browser.run("document.title") != "done" and "evil" not in str(browser.run("location.pathname"))

        # the trainer looks into Jennifer's seat, and then into Marty's
        log_in(browser, address, marty, f"evil?victim={jennifer['url']}")
        browser.wait("document.title === 'done'")
        seen = json.loads(browser.run("window.found"))
        assert seen["worker"] == "SecurityError" and seen["read"] == 401
        assert "__Host-Http-seat" not in seen["cookie"]
        assert seen["socket"] == "refused" and "kernel" not in seen["frame"].lower()
        # and Jennifer's seat is as it was
        log_in(browser, address, jennifer, "api/status")
        browser.wait("document.body.innerText.includes('last_activity')")
        assert "planted=1" not in browser.run("document.cookie")

    by_name = {"INVOKE_CLOUDSCALE_GATEWAY_DOMAIN": DOMAIN, "INVOKE_CLOUDSCALE_GATEWAY_TLS": "internal"}
    launched = tool.launch("--gateway", "subdomain", *roster(MARTY, JENNIFER), **by_name)
    assert "No seat restarts" in launched.err and "2 unchanged" in launched.err
    own = {row["student"]: row for row in launched.rows}
    assert {urlsplit(seat["url"]).netloc.partition(".")[2] for seat in own.values()} == {DOMAIN}
    with in_browser(namespace, tmp_path / "names", marty["host"]) as browser:
        log_in(browser, f"https://{DOMAIN}", own[JENNIFER_], "api/status")
        browser.wait("document.body.innerText.includes('last_activity')")
        log_in(browser, f"https://{DOMAIN}", own[MARTY_], f"evil?victim={own[JENNIFER_]['url']}")  # both at once
        browser.wait("document.title === 'done'")
        seen = json.loads(browser.run("window.found"))
        assert seen["read"] == "TypeError" and seen["socket"] == "refused" and seen["frame"] == "TypeError"
        assert "__Host-Http-seat" not in seen["cookie"]
        browser.open(f"{own[JENNIFER_]['url']}/api/status")
        browser.wait("document.body.innerText.includes('last_activity')")


def test_without_it_nothing_of_it_is_left_and_no_seat_restarts(
    tool: Tool, seats: dict[str, Seat], roster: Roster, client: docker.DockerClient
) -> None:
    before = seat_containers(client)
    launched = tool.launch("--gateway", "none", *roster(MARTY, JENNIFER))
    assert {urlsplit(row["url"]).scheme for row in launched.rows} == {"http"}
    assert seat_containers(client) == before
    marks: Any = {"label": "cloudscale.role=gateway"}
    found = (
        client.services.list(filters=marks),
        client.volumes.list(filters=marks),
        client.containers.list(True, filters=marks),
    )
    assert found == ([], [], [])
