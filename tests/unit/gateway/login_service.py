"""The gateway's login service as it runs beside the proxy, asked through its socket."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket

import cloudscale.gateway
from cloudscale.gateway.routes import Route, login_table
from cloudscale.seats.address import Entrance

SCRIPTS = Path(cloudscale.gateway.__file__).parent / "scripts"
TIMEOUT = 10  # seconds


def script(name: str) -> Any:
    """A module of those that run in the gateway's container."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    return importlib.import_module(name)


def route(name: str) -> Route:
    return Route(f"/{name}path", f"{name}label", "10.0.0.1:4321", f"{name}-pass-word", f"{name}token", f"{name}secret")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    cookies: list[str]
    text: str


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class LoginService:
    """With the seats of Ann and Bob."""

    def __init__(self, folder: Path, entrance: Entrance) -> None:
        self.time = Time()
        self.service = script("login").Service(SCRIPTS / "pages", self.time)
        self.address = entrance.at()
        self.service.know(login_table("Bio & Chem", entrance, [route("ann"), route("bob")], b"salt"))
        self._socket = str(folder / "login.sock")
        self._loop = asyncio.new_event_loop()
        self._server: HTTPServer | None = None
        started = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._start())
            started.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(TIMEOUT)

    async def _start(self) -> None:
        serve = script("serve")
        limits = {"max_body_size": serve.LARGEST_BODY, "max_header_size": serve.LARGEST_HEAD}
        self._server = HTTPServer(self.service.application(), **limits)
        self._server.add_socket(bind_unix_socket(self._socket))

    def close(self) -> None:
        async def stop() -> None:
            assert self._server
            self._server.stop()
            await self._server.close_all_connections()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        self._loop.close()

    def ask(self, method: str, path: str, body: str = "", host: str = "", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("gateway", timeout=TIMEOUT)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT)
        connection.sock.connect(self._socket)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, {"Host": host or self.address, **named})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        cookies = answer.headers.get_all("Set-Cookie") or []
        return Answer(answer.status, dict(answer.headers), cookies, text)

    def tell(self, data: bytes) -> bytes:
        """What it answers to these bytes, and to no more."""
        answer = b""
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(ConnectionError):
            connection.settimeout(TIMEOUT)
            connection.connect(self._socket)
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def log_in(self, password: str, path: str = "/login", *, way: str = "", **headers: str) -> Answer:
        headers.setdefault("X_Forwarded_For", "192.0.2.50")
        return self.ask("POST", path, urlencode({"password": password, "next": way}), **headers)
