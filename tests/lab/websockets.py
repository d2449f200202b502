"""Open WebSockets of a seat, as JupyterLab has them: to a kernel, through the gateway."""

from __future__ import annotations

import asyncio
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
        self.connection.close()
        while await asyncio.wait_for(self.connection.read_message(), TIMEOUT) is not None:
            pass  # until the other end has closed it too


async def open_lines(seat: dict[str, Any], count: int, authority: str) -> list[Line]:
    """WebSockets to one kernel of a seat that is behind a gateway, after a login. `authority`: a file to trust."""
    address = urlsplit(seat["url"])
    session = requests.Session()
    session.trust_env, session.verify = False, authority
    answer = session.post(
        f"https://{address.netloc}/login", data={"password": seat["password"]}, timeout=TIMEOUT, allow_redirects=False
    )
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    token = uuid.uuid4().hex  # Jupyter compares the cookie with the header
    headers = {"Cookie": f"{cookie}; _xsrf={token}", "X-XSRFToken": token}
    kernel = session.post(f"{seat['url']}/api/kernels", headers=headers, json={}, timeout=TIMEOUT)
    kernel.raise_for_status()
    where = f"wss://{address.netloc}{address.path}/api/kernels/{kernel.json()['id']}/channels"
    context = ssl.create_default_context(cafile=authority)
    return [
        Line(await websocket_connect(HTTPRequest(where, headers={"Cookie": cookie}, ssl_options=context)))
        for _ in range(count)
    ]
