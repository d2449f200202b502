"""A browser, as far as a check needs one: cookies, redirects, WebSockets. What answers it may be hostile.

Nothing is sent to an origin that was not named beforehand, and every answer is limited in size. The time of all of it
together is limited by `asyncio.timeout` around the calls.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.cookiejar import CookieJar
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import Request

from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

from cloudscale.errors import SeatError
from cloudscale.units import MIB

LONGEST_ANSWER = MIB  # bytes; the page of JupyterLab has some ten thousand
LONGEST_HEAD = 65536
LONGEST_REDIRECT = 10  # answers, one after another
LONGEST_REASON = 300  # characters of a server's own words
NO_LIMIT = 10_000  # connections; the number of visits at once limits them


class Unreachable(SeatError):
    """Nothing answers at the address."""


class UpgradeRefused(SeatError):
    """A server answers, and opens no WebSocket. `status`: of its answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


UNTRUSTED = "browsers do not trust the certificate of"


@dataclass(frozen=True)
class Answer:
    """An HTTP response. `location`: where it leads, as an address; empty for one that leads nowhere."""

    status: int
    url: str
    body: bytes
    location: str = ""

    def json(self, *statuses: int) -> Any:
        """What the server says. Raises SeatError for another status, or what is not JSON."""
        self.check(*statuses)
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise SeatError(f"the server answered {_short(self.body.decode(errors='replace'))!r}, not JSON") from None

    def check(self, *statuses: int) -> None:
        """Raises SeatError, with the reason that the server gives, unless the status is one of these."""
        if self.status not in statuses:
            raise SeatError(f"the server answered {self.status}{self._reason()}")

    def _reason(self) -> str:
        try:
            answer = json.loads(self.body)
        except (ValueError, RecursionError):
            return ""
        words = answer.get("message") if isinstance(answer, dict) else None
        return f": {_short(str(words))}" if words else ""


def http_client() -> SimpleAsyncHTTPClient:
    """What the browsers of one event loop share."""
    # what a hostile server provokes is no news for the user's terminal
    log = logging.getLogger("tornado")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return SimpleAsyncHTTPClient(
        force_instance=True,
        max_clients=NO_LIMIT,
        max_buffer_size=LONGEST_ANSWER,
        max_header_size=LONGEST_HEAD,
        max_body_size=LONGEST_ANSWER,
    )


class Browser:
    """One student's browser. Only the origins of `addresses` are ever asked.

    `trust`: for HTTPS. `patience`: seconds after which a connection is given up that nobody waits for any more.
    """

    def __init__(
        self, client: SimpleAsyncHTTPClient, addresses: Iterable[str], trust: ssl.SSLContext | None, patience: float
    ) -> None:
        self._client = client
        self._origins = {origin(address) for address in addresses}
        self._trust = trust
        self._patience = patience
        self._jar = CookieJar()

    async def open(self, url: str, answer: Answer | None = None) -> Answer:
        """A page, and where it leads; or where an answer leads. Raises SeatError."""
        answer = answer or await self.ask("GET", url)
        for _ in range(LONGEST_REDIRECT):
            if not answer.location:
                return answer
            answer = await self.ask("GET", answer.location)
        raise SeatError(f"its address leads from one to the next, more than {LONGEST_REDIRECT} times")

    async def ask(
        self, method: str, url: str, *, json_body: object = None, form: Mapping[str, str] | None = None
    ) -> Answer:
        """One request. Raises SeatError if there is no answer, Unreachable if nothing can be connected to."""
        headers = {}
        body = None
        if method != "GET":
            headers = {"Origin": _printed(self._checked(url)), "X-XSRFToken": self.cookie("_xsrf")}
        if json_body is not None:
            headers["Content-Type"], body = "application/json", json.dumps(json_body)
        elif form is not None:
            headers["Content-Type"], body = "application/x-www-form-urlencoded", urlencode(form)
        request = self._request(url, method, headers, body)
        try:
            response = await self._client.fetch(request, raise_error=False)
        except Exception as error:  # whatever a hostile answer provokes
            raise _no_answer(url, error) from None
        self._keep_cookies(url, response.headers)
        return Answer(response.code, url, response.body, _location(response))

    async def connect(self, url: str) -> WebSocketClientConnection:
        """A WebSocket at an address that is given as http(s). Raises SeatError, UpgradeRefused."""
        request = self._request(url, "GET", {"Origin": _printed(self._checked(url))}, None)
        request.url = url.replace("http", "ws", 1)
        request.streaming_callback = lambda piece: None  # of what is no WebSocket, nothing is kept
        try:
            return await websocket_connect(request, max_message_size=LONGEST_ANSWER)
        except HTTPClientError as error:
            if not error.response:
                raise _no_answer(url, error) from None
            raise UpgradeRefused(f"the server opens no WebSocket (it answered {error.code})", error.code) from None
        except Exception as error:
            raise _no_answer(url, error) from None

    def cookie(self, name: str) -> str:
        return next((cookie.value or "" for cookie in self._jar if cookie.name == name), "")

    def _checked(self, url: str) -> tuple[str, str, int]:
        """Its origin. Raises SeatError for one that a student's password or cookies must not reach."""
        if (own := origin(url)) not in self._origins:
            raise SeatError(f"it leads to another address: {_short(url)}")
        return own

    def _request(self, url: str, method: str, headers: dict[str, str], body: str | None) -> HTTPRequest:
        self._checked(url)
        cookies = Request(url)
        self._jar.add_cookie_header(cookies)
        return HTTPRequest(
            url,
            method,
            headers | ({"Cookie": cookie} if (cookie := cookies.get_header("Cookie")) else {}),
            body,
            connect_timeout=self._patience,
            request_timeout=self._patience,
            follow_redirects=False,
            decompress_response=False,
            ssl_options=self._trust,
            user_agent="cloudscale check",
        )

    def _keep_cookies(self, url: str, headers: HTTPHeaders) -> None:
        message = Message()
        for line in headers.get_list("Set-Cookie"):
            message["Set-Cookie"] = line
        self._jar.extract_cookies(cast(Any, SimpleNamespace(info=lambda: message)), Request(url))


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454). Raises SeatError for what is no address of the web."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise SeatError(f"it leads to {_short(url)!r}, which is no address") from None
    return parts.scheme, parts.hostname or "", port


def _printed(of: tuple[str, str, int]) -> str:
    """An origin as browsers send it."""
    scheme, host, port = of
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if port == {"http": 80, "https": 443}[scheme] else f"{scheme}://{host}:{port}"


def _location(response: HTTPResponse) -> str:
    """Raises SeatError for what is no address."""
    given = response.headers.get("Location", "") if 300 <= response.code < 400 else ""
    if not given:
        return ""
    try:
        return urljoin(response.request.url, given)
    except ValueError:
        raise SeatError(f"it leads to {_short(given)!r}, which is no address") from None


def _no_answer(url: str, error: Exception) -> SeatError:
    """Why there is no answer, in the user's words."""
    where = _printed(origin(url))
    if isinstance(error, HTTPClientError) and "imeout" in str(error):
        raise TimeoutError
    if isinstance(error, ssl.SSLCertVerificationError):
        return SeatError(f"{UNTRUSTED} {where} ({error.verify_message})")
    if isinstance(error, ssl.SSLError):
        return Unreachable(f"{where} does not speak TLS ({_short(error.reason or 'no reason given')})")
    if isinstance(error, socket.gaierror):
        return Unreachable(f"the name {origin(url)[1]} leads nowhere ({error.strerror})")
    if isinstance(error, OSError) and error.strerror:
        return Unreachable(f"{where} does not answer ({error.strerror})")
    if "Stream closed" in str(error):  # before an answer came
        return Unreachable(f"{where} closes the connection without an answer")
    return SeatError(f"what {where} answers is no HTTP, or longer than {LONGEST_ANSWER // MIB} MiB")


def _short(text: str) -> str:
    """The beginning of a server's own words, on one line."""
    text = " ".join(text[: 4 * LONGEST_REASON].split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
