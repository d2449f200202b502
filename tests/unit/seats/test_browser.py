from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cloudscale.errors import SeatError
from cloudscale.seats.browser import Answer, Browser, Unreachable, UpgradeRefused, http_client, origin
from tests.unit.gateway.test_certificates import Pair
from tests.unit.seats.fake_jupyter import FakeJupyter, answering, running

SEAT = "http://192.0.2.1:4321/kw4h"


def browsing(
    act: Callable[[Browser], Awaitable[object]], *addresses: str, trust: ssl.SSLContext | None = None
) -> object:
    """What comes of something that is done with a browser for these addresses."""

    async def main() -> object:
        return await act(Browser(http_client(), addresses, trust, 10))

    return asyncio.run(main())


# --- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"<html>"])
def test_what_is_no_json_is_named_and_shortened(body: bytes) -> None:
    with pytest.raises(SeatError, match="not JSON") as raised:
        Answer(200, SEAT, body).json(200)
    assert len(raised.value.message) < 1000


def test_another_status_is_named_with_the_reason_if_there_is_one() -> None:
    with pytest.raises(SeatError, match=r"^the server answered 500: out of order$"):
        Answer(500, SEAT, b'{"message": "out\\nof  order"}').check(200, 201)
    for body in (b"", b"[1]", b'{"message": null}', b"[" * 100_000):
        with pytest.raises(SeatError, match=r"^the server answered 500$"):
            Answer(500, SEAT, body).check(200)
    Answer(201, SEAT, b"").check(200, 201)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://192.0.2.1:4321/x", ("http", "192.0.2.1", 4321)),
        ("HTTPS://Class.Example.org/x", ("https", "class.example.org", 443)),
        ("http://[2001:db8::1]/x", ("http", "2001:db8::1", 80)),
        ("http://ann@192.0.2.1/", ("http", "192.0.2.1", 80)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, expected: tuple[str, str, int]) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize("url", ["", "/x", "javascript:alert(1)", "http://[", "http://x:99999999/", "ftp://x/"])
def test_what_is_no_address_of_the_web_has_none(url: str) -> None:
    with pytest.raises(SeatError, match="no address"):
        origin(url)


# --- requests --------------------------------------------------------------------------------


def test_cookies_are_kept_and_shown_to_their_own_path(loopback: str) -> None:
    with running(FakeJupyter(loopback)) as seat:

        async def act(browser: Browser) -> tuple[str, str, int]:
            before = browser.cookie("_xsrf")
            page = await browser.open(seat.url)
            return before, browser.cookie("_xsrf"), page.status

        assert browsing(act, seat.url) == ("", "2|c0ffee", 200)


@pytest.mark.parametrize("act", [lambda b: b.ask("POST", SEAT, form={"password": "x"}), lambda b: b.connect(SEAT)])
def test_another_origin_is_never_asked(act: Callable[[Browser], Awaitable[object]]) -> None:
    with pytest.raises(SeatError, match="another address"):
        browsing(act, "http://192.0.2.1:4322/x", "https://192.0.2.1:4321/")


def test_a_server_that_closes_the_connection_is_unreachable(loopback: str) -> None:
    with answering(loopback, lambda send: None) as url, pytest.raises(Unreachable, match="closes the connection"):
        browsing(lambda browser: browser.ask("GET", url), url)


def test_a_websocket_that_is_refused_says_so_and_its_page_is_not_kept(loopback: str) -> None:
    def page(send: Callable[[bytes], None]) -> None:
        send(b"HTTP/1.1 403 No\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)

    with answering(loopback, page) as url, pytest.raises(UpgradeRefused) as raised:
        browsing(lambda browser: browser.connect(url), url)
    assert raised.value.status == 403


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"x\r\n\r\n"])
def test_what_is_no_websocket_is_an_error_of_the_seat(loopback: str, answer: bytes) -> None:
    with answering(loopback, lambda send: send(answer)) as url, pytest.raises(SeatError):
        browsing(lambda browser: browser.connect(url), url)


# --- certificates ----------------------------------------------------------------------------


class Greeting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, format: str, *args: object) -> None:
        pass


def open_over_tls(host: str, folder: Path, name: str, *, trusted: bool) -> object:
    """The status of a server whose certificate is for a name."""
    pair = Pair(folder, [name])
    own, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.load_cert_chain(pair.certificate, pair.key)
    if trusted:
        trust.load_verify_locations(pair.certificate)
    with HTTPServer((host, 0), Greeting) as server:
        server.socket = own.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"https://{host}:{server.server_address[1]}/"

        async def act(browser: Browser) -> int:
            return (await browser.open(url)).status

        try:
            return browsing(act, url, trust=trust)
        finally:
            thread.join()


def test_a_certificate_that_is_trusted_and_for_the_address_is_taken(loopback: str, tmp_path: Path) -> None:
    assert open_over_tls(loopback, tmp_path, loopback, trusted=True) == 200


@pytest.mark.parametrize(("name", "trusted"), [("127.0.0.1", False), ("192.0.2.7", True)])
def test_another_certificate_is_refused_as_browsers_do(loopback: str, tmp_path: Path, name: str, trusted: bool) -> None:
    with pytest.raises(SeatError, match=r"browsers do not trust the certificate of https://127.0.0.1:\d+ \("):
        open_over_tls(loopback, tmp_path, name, trusted=trusted)


def test_a_server_without_tls_is_named(loopback: str) -> None:
    with answering(loopback, lambda send: send(b"HTTP/1.1 200 OK\r\n\r\n")) as url:
        secure = url.replace("http", "https")
        with pytest.raises(Unreachable, match="does not speak TLS"):
            browsing(lambda browser: browser.ask("GET", secure), secure, trust=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
