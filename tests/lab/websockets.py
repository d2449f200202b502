"""A seat's page, as the scripts in it use the server: requests, and WebSockets to a kernel and to a terminal."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

TIMEOUT = 60  # seconds
COMMAND = 240  # seconds for what a command in a terminal does


async def close(connection: WebSocketClientConnection) -> None:
    connection.close()
    async with asyncio.timeout(TIMEOUT):
        while await connection.read_message() is not None:
            pass  # until the other end has closed it too


@dataclass(frozen=True)
class Line:
    """A WebSocket to a kernel."""

    connection: WebSocketClientConnection

    async def answers(self) -> bool:
        """Whether the kernel still answers through it."""
        number = uuid.uuid4().hex
        header = {
            "msg_id": number,
            "username": "",
            "session": number,
            "msg_type": "kernel_info_request",
            "version": "5.3",
        }
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": {}, "channel": "shell"}
        await self.connection.write_message(json.dumps(message))
        while (answer := await asyncio.wait_for(self.connection.read_message(), TIMEOUT)) is not None:
            if json.loads(answer)["parent_header"].get("msg_id") == number:
                return True
        return False

    async def close(self) -> None:
        await close(self.connection)


class Page:
    """A seat's page after the login. `authority`: the file to trust, if the seat is behind a gateway."""

    def __init__(self, seat: dict[str, Any], authority: str = "") -> None:
        self._url = seat["url"]
        self._authority = authority
        self._session = requests.Session()
        self._session.trust_env, self._session.verify = False, authority or True
        token = uuid.uuid4().hex  # Jupyter compares the cookie with the header or the form
        form = {"password": seat["password"], "_xsrf": token}
        login = f"https://{urlsplit(self._url).netloc}/login" if authority else f"{self._url}/login"
        own = {"Cookie": f"_xsrf={token}"}
        answer = self._session.post(login, data=form, headers=own, timeout=TIMEOUT, allow_redirects=False)
        self._cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in answer.cookies if cookie.name != "_xsrf")
        self._headers = {"Cookie": f"{self._cookie}; _xsrf={token}", "X-XSRFToken": token}
        self._session.cookies.clear()

    def ask(self, method: str, path: str, **words: Any) -> requests.Response:
        answer = self._session.request(method, self._url + path, headers=self._headers, timeout=TIMEOUT, **words)
        answer.raise_for_status()
        return answer

    async def connect(self, path: str) -> WebSocketClientConnection:
        where = self._url.replace("http", "ws", 1) + path
        context = ssl.create_default_context(cafile=self._authority) if self._authority else None
        return await websocket_connect(HTTPRequest(where, headers={"Cookie": self._cookie}, ssl_options=context))


async def open_lines(seat: dict[str, Any], count: int, authority: str) -> list[Line]:
    """WebSockets to one kernel of a seat that is behind a gateway, after a login. `authority`: a file to trust."""
    page = Page(seat, authority)
    kernel = page.ask("POST", "/api/kernels", json={}).json()["id"]
    return [Line(await page.connect(f"/api/kernels/{kernel}/channels")) for _ in range(count)]


async def answer_of_terminal(page: Page, command: str, ending: str) -> str:
    """What a new terminal shows until a text comes that the command prints."""
    name = page.ask("POST", "/api/terminals").json()["name"]
    connection = await page.connect(f"/terminals/websocket/{name}")
    await connection.write_message(json.dumps(["stdin", f"{command}\r"]))
    shown = ""
    async with asyncio.timeout(COMMAND):
        while ending not in shown and (answer := await connection.read_message()) is not None:
            kind, *words = json.loads(answer)
            shown += words[0] if kind == "stdout" else ""
    await close(connection)
    return shown


def upload(page: Page, name: str, size: int) -> None:
    """Uploads a file as JupyterLab does: in pieces of 1 MiB, the last of which has the number -1."""
    piece = base64.b64encode(bytes(range(256)) * 4096).decode()
    numbers = [*range(1, -(-size // (1 << 20))), -1]
    for number in numbers:
        body = {"type": "file", "format": "base64", "content": piece, "chunk": number}
        page.ask("PUT", f"/api/contents/{name}", json=body)


def downloaded(page: Page, name: str) -> int:
    """How many bytes a file has, as a browser saves it."""
    with page.ask("GET", f"/files/{name}", stream=True) as answer:
        return sum(len(piece) for piece in answer.iter_content(1 << 20))
