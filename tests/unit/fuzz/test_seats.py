"""What the students' servers answer: HTTP, JSON, pages, cookies, and the messages of kernels."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example
from hypothesis import strategies as st
from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders

from cloudscale.seats import jupyter, visit
from cloudscale.seats.browser import Answer, Browser, UpgradeRefused, origin
from cloudscale.seats.kernel import KernelLine
from cloudscale.seats.visit import Door
from tests.unit.fuzz.inputs import EDITS, Edit, changed_bytes, changed_json, changed_text, edited, fuzz, reading

URL = "http://192.0.2.1:4321/kw4h"

# --- is it there, and how is it used ---------------------------------------------------------------

STATUS = {"version": "2.21.0", "kernels": 2, "connections": 1, "last_activity": "2026-11-27T07:00:00.123456Z"}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps(STATUS).encode()


@fuzz(answer=changed_bytes(ANSWER) | changed_json(STATUS).map(lambda body: ANSWER.partition(b"{")[0] + body))
@example(answer=b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 20_000)
@example(answer=b'HTTP/1.0 200 OK\r\n\r\n{"last_activity": "0001-01-01T00:00:00+23:59"}')
def test_any_answer_of_a_server(answer: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch, reading():
        patch.setattr(jupyter, "_get", lambda *asked: answer)
        jupyter.answers(URL)
        used = jupyter.activity(URL)
        assert used.kernels is None or 0 <= used.kernels <= jupyter.MOST_KERNELS


# --- a browser -------------------------------------------------------------------------------------

PAGE = b'<html><form action="/kw4h/login"><input type="password" name="password"></form></html>'
COOKIES = (
    "_xsrf=2|0011|aa; Path=/kw4h/",
    "username-192-0-2-1=x; expires=Sat, 28 Nov 2026 07:00:00 GMT; HttpOnly; Path=/",
)
PLACES = ("/kw4h/lab?", "http://192.0.2.1:4321/kw4h/login?next=%2F", "//elsewhere/x", "https://[::1]:1/", "")


class Client:
    """The way to a server that answers with these, again and again."""

    def __init__(self, answers: Callable[[str, str], tuple[int, dict[str, list[str]], bytes]]) -> None:
        self._answers = answers

    async def fetch(self, request: HTTPRequest, raise_error: bool) -> HTTPResponse:
        code, given, body = self._answers(request.method, request.url)
        headers = HTTPHeaders()
        for name, values in given.items():
            for value in values:
                headers.add(name, value)
        return HTTPResponse(request, code, headers, io.BytesIO(body))


def header(text: str) -> str:
    """A text as tornado gives it on: it refuses the rest."""
    return "".join(sign for sign in text.encode("utf-8", "replace").decode("latin-1") if sign not in "\0\r\n")


@fuzz(
    code=st.sampled_from([200, 201, 302, 303, 307, 404, 500, 502]),
    cookie=changed_text(*COOKIES).map(header),
    place=changed_text(*PLACES).map(header),
    body=changed_bytes(PAGE) | changed_json({"message": "no such file"}),
)
@example(code=302, cookie="", place="http://[x", body=b"")
@example(code=302, cookie="", place="http://192.0.2.1:99999/", body=b"")
@example(code=500, cookie="", place="", body=b"[" * 20_000)
def test_any_answer_to_a_browser(code: int, cookie: str, place: str, body: bytes) -> None:
    def answers(method: str, url: str) -> tuple[int, dict[str, list[str]], bytes]:
        return code, {"Set-Cookie": [cookie, cookie], "Location": [place]}, body

    browser = Browser(Client(answers), [URL], None, 1)  # type: ignore[arg-type]
    for ask in (opening, logging_in, asking):
        with reading():
            asyncio.run(ask(browser, code))


async def opening(browser: Browser, code: int) -> object:
    return await browser.open(URL)


async def logging_in(browser: Browser, code: int) -> object:
    return await browser.ask("POST", f"{URL}/login", form={"password": "x"})


async def asking(browser: Browser, code: int) -> object:
    return (await browser.ask("GET", f"{URL}/api/sessions")).json(code)


@fuzz(url=changed_text(*PLACES), body=changed_json({"message": "no"}))
def test_any_address_and_reason(url: str, body: bytes) -> None:
    with reading():
        origin(url)
    with reading():
        Answer(404, URL, body).json(200)


# --- a kernel --------------------------------------------------------------------------------------


def message(kind: str, **content: object) -> dict[str, object]:
    return {"header": {"msg_type": kind}, "parent_header": {"msg_id": "ID"}, "content": content}


MESSAGES = [
    message("status", execution_state="busy"),
    message("kernel_info_reply", status="ok"),
    message("stream", name="stdout", text="42\n"),
    message("display_data", data={"text/plain": "42"}),
    message("execute_reply", status="ok"),
    message("status", execution_state="idle"),
    message("execute_reply", status="error", ename="NameError", evalue="name 'x' is not defined"),
]


class Line:
    """A WebSocket on which these messages come, as answers to what was asked last."""

    def __init__(self, messages: list[str | bytes]) -> None:
        self._messages = list(messages)
        self._asked = ""

    async def write_message(self, message: str) -> None:
        self._asked = json.loads(message)["header"]["msg_id"]

    async def read_message(self) -> str | bytes | None:
        if not self._messages:
            return None
        message = self._messages.pop(0)
        if isinstance(message, bytes):
            return message.replace(b'"ID"', f'"{self._asked}"'.encode())
        return message.replace('"ID"', f'"{self._asked}"')

    def close(self) -> None:
        pass


def sent(edits: list[Edit], raw: bytes) -> list[str | bytes]:
    messages = edited(MESSAGES, edits)
    texts = [json.dumps(message) for message in messages] if isinstance(messages, list) else [json.dumps(messages)]
    return [*texts[:1], raw, *texts[1:]]


@fuzz(edits=EDITS, raw=changed_bytes(json.dumps(MESSAGES[2]).encode()), code=st.booleans())
@example(edits=[], raw=b"[" * 20_000, code=True)
def test_any_messages_of_a_kernel(edits: list[Edit], raw: bytes, code: bool) -> None:
    line = KernelLine(Line(sent(edits, raw)))
    with reading():
        printed = asyncio.run(line.run("print(6 * 7)") if code else line.ask_who())
        assert len(printed or "") <= 4096


# --- a whole visit ---------------------------------------------------------------------------------


def session(id: str, path: str, connections: int) -> dict[str, object]:
    kernel = {"id": "4455", "connections": connections, "last_activity": "2026-11-27T06:00:00Z"}
    return {"id": id, "path": path, "kernel": kernel}


SESSIONS = [session("0011-2233", f"{visit.NAME}{'0' * 16}.txt", 0), session("6677", "lesson.ipynb", 1)]
Answered = tuple[int, dict[str, list[str]], bytes]


class OddServer:
    """A Jupyter server, one of whose answers is another than it should be."""

    def __init__(self, what: str, edits: list[Edit], raw: bytes) -> None:
        self._what, self._edits, self._raw = what, edits, raw

    def answer(self, method: str, url: str) -> Answered:
        path = url.removeprefix(URL)
        if path.startswith("/api/contents"):
            return self._contents(method, path)
        if path.startswith("/api/sessions"):
            return self._sessions(method)
        if (method, path) == ("POST", "/login"):
            return 302, {"Location": [f"{URL}/lab"]}, b""
        return 200, {}, self._raw if self._what == path else PAGE

    def _sessions(self, method: str) -> Answered:
        if method == "DELETE":
            return 204, {}, b""
        return (
            (201, {}, self._say("start", SESSIONS[0])) if method == "POST" else (200, {}, self._say("list", SESSIONS))
        )

    def _contents(self, method: str, path: str) -> Answered:
        if method != "GET" or "?" in path:
            return {"PUT": 201, "DELETE": 204}.get(method, 404), {}, b""
        return 200, {}, self._say("contents", {"content": "0011", "type": "file"})

    def _say(self, what: str, value: Any) -> bytes:
        return json.dumps(edited(value, self._edits) if what == self._what else value).encode()

    async def connect(self, url: str) -> Line:
        if not url.endswith("/4455/channels"):
            raise UpgradeRefused("the server opens no WebSocket (it answered 404)", 404)
        edits = self._edits if self._what == "kernel" else []
        return Line(sent(edits, b"{}") + sent(edits, self._raw))


ODDITIES = ("list", "start", "contents", "kernel", "/login", "/lab", "")


@fuzz(what=st.sampled_from(ODDITIES), edits=EDITS, raw=changed_bytes(PAGE))
def test_any_visit(what: str, edits: list[Edit], raw: bytes) -> None:
    server = OddServer(what, edits, raw)
    with pytest.MonkeyPatch.context() as patch, reading():
        patch.setattr(Browser, "connect", lambda browser, url: server.connect(url))
        patch.setattr(secrets, "token_hex", lambda size: "0011")
        student = visit._Student(Door(URL, "secret"), Client(server.answer), None, 10)  # type: ignore[arg-type]
        made = asyncio.run(visit._visit(student, 5))
        assert len(made.cause) < 1000 and "can't be understood" not in made.cause
        assert what or not made.cause
