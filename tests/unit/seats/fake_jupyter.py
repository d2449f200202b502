"""A Jupyter server as a student's browser finds it, in a thread; and servers that answer what they like."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler

PATH, PASSWORD = "/kw4h7txecd", "kw4h-7txe-cdrp"
COOKIE, XSRF = "username-seat", "2|c0ffee"
TIMEOUT = 10  # seconds
Handler = type[RequestHandler]


@dataclass
class FakeJupyter:
    """A seat's server. `instead`: what it answers to a `METHOD path` (of its own) in place of the right answer.

    `kernel`: what one does that is started: `python`, `other` (can't run Python), `silent`, `dies`, `floods`, `lies`,
    or `fails`. `home`: the address of a gateway at which the students log in.
    """

    host: str
    kernel: str = "python"
    home: str = ""
    instead: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    logins: int = 0
    cells: list[str] = field(default_factory=list)
    socket_status: int = 0  # of a refused WebSocket
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}{PATH}"

    def application(self) -> Application:
        known = {"seat": self}
        return Application(
            [
                (rf"{PATH}", Leads, known),
                (rf"{PATH}/", Page, known),
                (rf"(?:{PATH})?/login", Login, known),
                (rf"(?:{PATH})?/logout", Logout, known),
                (rf"{PATH}/api/sessions", Sessions, known),
                (rf"{PATH}/api/sessions/([\w-]+)", Session, known),
                (rf"{PATH}/api/contents/([\w.-]+)", Contents, known),
                (rf"{PATH}/api/kernels/([\w-]+)/channels", Channels, known),
            ],
            log_function=lambda handler: None,
        )


class Base(RequestHandler):
    def initialize(self, seat: FakeJupyter) -> None:
        self.seat = seat

    def prepare(self) -> None:
        asked = f"{self.request.method} {self.request.path.removeprefix(PATH) or '/'}"
        self.seat.asked.append(asked)
        if asked in self.seat.leads:
            self.redirect(self.seat.leads[asked])
        elif asked in self.seat.instead:
            status, body = self.seat.instead[asked]
            self.set_status(status)
            self.finish(body)

    @property
    def is_known(self) -> bool:
        return self.get_cookie(COOKIE) == PASSWORD


class Api(Base):
    def prepare(self) -> None:
        super().prepare()
        if self._finished:
            return
        if not self.is_known:
            raise HTTPError(403)
        token = self.get_cookie("_xsrf")
        if self.request.method != "GET" and (not token or self.request.headers.get("X-XSRFToken") != token):
            raise HTTPError(403, "no _xsrf")
        if self.request.method != "GET":
            assert self.request.headers["Origin"] == f"http://{self.request.host}"

    def say(self, model: object, status: int = 200) -> None:
        self.set_status(status)
        self.finish(json.dumps(model))


class Leads(Base):
    def get(self) -> None:
        self.redirect(f"{PATH}/")


class Page(Base):
    def get(self) -> None:
        self.set_cookie("_xsrf", XSRF, path=PATH)
        if self.is_known:
            self.finish("<title>JupyterLab</title>")
        else:
            self.redirect(f"{self.seat.home or PATH}/login?next={PATH}/")


class Login(Base):
    def get(self) -> None:
        self.set_cookie("_xsrf", XSRF, path="/")
        self.finish('<form method="post"><input type="password" name="password"></form>')

    def post(self) -> None:
        if self.get_body_argument("_xsrf") != XSRF:
            raise HTTPError(403)
        if self.get_body_argument("password") != PASSWORD:
            self.set_status(401)
            self.finish("no")
            return
        self.seat.logins += 1
        self.set_cookie(COOKIE, PASSWORD, path="/")
        self.redirect(f"{PATH}/")


class Logout(Base):
    def get(self) -> None:
        self.seat.logins -= self.is_known
        self.finish("Bye")


class Sessions(Api):
    def get(self) -> None:
        self.say(list(self.seat.sessions.values()))

    def post(self) -> None:
        model = json.loads(self.request.body)
        assert model["kernel"] == {} and model["type"] == "console"
        kernel = {"id": str(uuid.uuid4()), "connections": 0, "last_activity": "2026-11-27T10:00:00.000000Z"}
        session = {"id": str(uuid.uuid4()), "path": model["path"], "kernel": kernel}
        self.seat.sessions[session["id"]] = session
        self.say(session, 201)


class Session(Api):
    def delete(self, session: str) -> None:
        if self.seat.sessions.pop(session, None) is None:
            raise HTTPError(404)
        self.set_status(204)


class Contents(Api):
    def put(self, name: str) -> None:
        model = json.loads(self.request.body)
        assert (model["type"], model["format"]) == ("file", "text")
        self.seat.files[name] = model["content"]
        self.say({"name": name}, 201)

    def get(self, name: str) -> None:
        if name not in self.seat.files:
            raise HTTPError(404)
        self.say({"name": name, "content": self.seat.files[name]})

    def delete(self, name: str) -> None:
        del self.seat.files[name]
        self.set_status(204)


class Channels(WebSocketHandler):
    """A kernel."""

    def initialize(self, seat: FakeJupyter) -> None:
        self.seat = seat

    def prepare(self) -> None:
        if self.get_cookie(COOKIE) != PASSWORD:
            raise HTTPError(403)
        if self.seat.socket_status:
            raise HTTPError(self.seat.socket_status)

    def open(self, kernel: str) -> None:
        assert kernel in [session["kernel"]["id"] for session in self.seat.sessions.values()]
        self.seat.at_once += 1
        self.seat.most_at_once = max(self.seat.most_at_once, self.seat.at_once)

    def on_close(self) -> None:
        self.seat.at_once -= 1

    async def on_message(self, data: str | bytes) -> None:
        request = json.loads(data)["header"]
        self._parent = request
        if self.seat.kernel == "silent":
            return
        if self.seat.kernel == "closes":
            self.close()
        elif self.seat.kernel == "dies":
            await self.send("status", execution_state="restarting")
        elif self.seat.kernel == "floods":
            for _ in range(100):
                await self.send("stream", text="x" * 100_000)
        elif self.seat.kernel == "nonsense":
            for nonsense in ("[" * 5000, "7", '"x"', '{"header": 3, "content": []}'):
                await self.write_message(nonsense)
            await self.write_message(b"\xff\x00", binary=True)
            await self.answer(request, json.loads(data)["content"])
        else:
            await self.answer(request, json.loads(data)["content"])

    async def answer(self, request: dict[str, str], content: dict[str, Any]) -> None:
        if request["msg_type"] == "kernel_info_request":
            await self.send("kernel_info_reply", status="ok")
            return
        assert request["msg_type"] == "execute_request" and content["store_history"] is False
        code = content["code"]
        self.seat.cells.append(code)
        await self.send("status", execution_state="busy")
        if (self.seat.kernel == "other" and "import" in code) or self.seat.kernel == "fails":
            await self.send("execute_reply", status="error", ename="SyntaxError", evalue="no\nsuch thing")
            return
        if "print" in code:
            await self.print()
        else:
            for name in ast.literal_eval(re.findall(r"\[.*]", code)[0]):
                del self.seat.files[name]
        await self.send("execute_reply", status="ok")
        await self.send("status", execution_state="idle")

    async def print(self) -> None:
        if self.seat.kernel == "lies":
            await self.send("stream", text="43\n")
        elif self.seat.kernel == "other":
            await self.send("display_data", data={"text/plain": "[1] 42"})
        else:
            await self.send("stream", text="42\n")

    async def send(self, kind: str, **content: object) -> None:
        message = {"header": {"msg_type": kind}, "parent_header": self._parent, "content": content}
        await self.write_message(json.dumps(message))


@contextmanager
def running(seat: FakeJupyter) -> Iterator[FakeJupyter]:
    """The server, in a thread."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    listening, seat.port = bind_unused_port(address=seat.host)
    servers: list[HTTPServer] = []

    async def start() -> None:
        servers.append(HTTPServer(seat.application()))
        servers[0].add_socket(listening)

    async def stop() -> None:
        servers[0].stop()
        await servers[0].close_all_connections()
        await asyncio.sleep(0)

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        started.set()
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(TIMEOUT)
    yield seat
    asyncio.run_coroutine_threadsafe(stop(), loop).result(TIMEOUT)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(TIMEOUT)
    loop.close()


@contextmanager
def answering(host: str, send: Callable[[Callable[[bytes], None]], None]) -> Iterator[str]:
    """The address of a server that sends what it likes to each request."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                self.request.recv(65536)
                send(self.request.sendall)
            except OSError:
                pass  # nobody listens any more

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://{host}:{server.server_address[1]}{PATH}"
        server.shutdown()
        thread.join()
