"""An HTTP/1.1 server on loopback that does nothing but what its one client library needs, and that quickly."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import uuid
from collections.abc import Callable
from http import HTTPStatus
from io import BufferedReader
from typing import cast

from tests.lab.stand_in.wire import Answer, Request

LOOPBACK = "127.0.0.1"
PHRASES = {status.value: status.phrase for status in HTTPStatus}
REQUEST = re.compile(r"([A-Z]+) (/\S*) HTTP/1\.1\r\n")
MALFORMED = Answer(400, {"message": "Malformed request"})


class Server:
    """Listens from its start to its end. `answer` is called in a thread of each connection; None drops that."""

    def __init__(self, answer: Callable[[Request], Answer | None], port: int = 0) -> None:
        self._answer = answer
        self._listener = socket.create_server((LOOPBACK, port), backlog=512)
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._accepting = threading.Thread(target=self._accept, name="stand-in", daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Ends every connection, and returns when nothing is going on any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            open_ones = dict(self._connections)
        for connection, thread in open_ones.items():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError), connection.makefile("rb") as reader:
            while (request := _read(reader)) is not None:
                answer = self._answer(request) if isinstance(request, Request) else request
                if answer is None:
                    break
                connection.sendall(_written(answer, request))
                if request is MALFORMED:
                    break
        with self._lock:
            del self._connections[connection]


def _read(reader: BufferedReader) -> Request | Answer | None:
    """None: the client has no more."""
    line = reader.readline(65536)
    if not line:
        return None
    parsed = REQUEST.fullmatch(line.decode("latin-1"))
    headers = {}
    while (line := reader.readline(65536)) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    length = headers.get("content-length", "0")
    if not parsed or not length.isdecimal() or "transfer-encoding" in headers:
        return MALFORMED
    raw = reader.read(int(length)) if length != "0" else b""
    return Request(parsed[1], parsed[2], headers, raw)


def _written(answer: Answer, request: Request | Answer) -> bytes:
    body, kind = answer.body, "application/json"
    if body is None:
        content = b""
    elif isinstance(body, bytes):
        content = body
    elif isinstance(body, str):
        content, kind = body.encode(), "text/html; charset=UTF-8"
    else:
        content = json.dumps(body, separators=(",", ":")).encode()
    lines = [f"HTTP/1.1 {answer.status} {PHRASES[answer.status]}", f"X-Openstack-Request-Id: req-{uuid.uuid4()}"]
    if content and "Content-Type" not in answer.headers:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    if answer.status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(content)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if cast(Request, request).method == "HEAD" else head + content
