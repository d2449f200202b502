"""One student's visit: opens the address, logs in, starts a kernel, runs a cell, saves a file. All seats at once.

What a seat answers is its student's and may be hostile: see seats/browser. One deadline counts for all steps of a
visit, whatever the seat sends. Afterwards nothing of the visit is left in the seat.

The requests are those of JupyterLab (jupyter-server.readthedocs.io, REST API).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tornado.simple_httpclient import SimpleAsyncHTTPClient

from cloudscale.errors import SeatError
from cloudscale.seats.browser import Answer, Browser, Unreachable, UpgradeRefused, http_client
from cloudscale.seats.kernel import KernelLine

LEAVING = 10.0  # seconds after a visit to remove what it made
REMOVING = 5.0  # seconds for the kernel to remove files
NAME = "cloudscale-check-"  # of files and sessions; a random part follows, so it is nobody else's
IDLE = timedelta(minutes=2)  # of a check's kernel that nobody is connected to: longer than one takes to start
FILES = rf"{NAME}[0-9a-f]{{16}}\.txt"
CELL, PRINTS = "print(6 * 7)", "42"  # in Python, R and Julia
GATEWAYS_OWN = (502, 503, 504)  # answers of a gateway in place of a server that does not answer
REFUSALS = {  # of a login
    401: "the password is refused",
    429: "too many wrong passwords came from this network; in a minute, it may work again",
}
NOT_IN_TIME = {
    "open": "the address did not answer",
    "login": "the login did not end",
    "kernel": "the kernel did not answer",
    "run": "the cell did not end",
    "save": "the file was not saved and read back",
}


@dataclass(frozen=True)
class Door:
    """What a student has. `url`: the seat's address, or empty; `home`: that of the class's gateway, if it has one."""

    url: str
    password: str = field(repr=False)
    home: str = ""

    @property
    def login(self) -> str:
        """Where the password is typed."""
        return f"{self.home.rstrip('/') or self.url}/login"


@dataclass(frozen=True)
class Visit:
    """How it went: the step that failed, if any, and why; the seconds until then. `is_absent`: no server is there."""

    step: str
    seconds: float
    cause: str
    is_absent: bool = False


def visit_all(
    doors: Sequence[Door], trust: ssl.SSLContext | None, timeout: float, advance: Callable[[int], None]
) -> list[Visit]:
    """Visits all at once. `trust`: whose certificates count; `timeout`: of each visit, in seconds.

    `advance` gets the number of those that are done.
    """
    return asyncio.run(_visit_all(doors, trust, timeout, advance))


async def _visit_all(
    doors: Sequence[Door], trust: ssl.SSLContext | None, timeout: float, advance: Callable[[int], None]
) -> list[Visit]:
    # connections that nobody waits for any more may end in any way
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    client = http_client()
    slots = asyncio.Semaphore(_most_at_once())
    done = 0

    async def one(door: Door) -> Visit:
        nonlocal done
        async with slots:
            if not door.url:
                return Visit("open", 0.0, "the seat has no address", is_absent=True)
            visit = await _visit(_Student(door, client, trust, timeout + LEAVING), timeout)
        done += 1
        advance(done)
        return visit

    return await asyncio.gather(*map(one, doors))


def _most_at_once() -> int:
    """A visit has two connections open, and files are needed for other things too."""
    return max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)


async def _visit(student: _Student, timeout: float) -> Visit:
    start = time.monotonic()
    cause, is_absent = "", False
    try:
        async with asyncio.timeout(timeout):
            await student.work()
    except TimeoutError:
        cause = f"{NOT_IN_TIME[student.step]} within {timeout:g} s"
        is_absent = student.step == "open"
    except SeatError as error:
        cause, is_absent = error.message, student.step == "open" and isinstance(error, Unreachable)
    except Exception as error:  # whatever a hostile answer provokes; the others' visits go on
        cause = f"what the server answers can't be understood ({type(error).__name__})"
    finally:  # of an interrupted run, too
        seconds = round(time.monotonic() - start, 1)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LEAVING):
                await student.leave()
    return Visit(student.step if cause else "", seconds, cause, is_absent)


class _Student:
    """`step`: what is being done."""

    def __init__(
        self, door: Door, client: SimpleAsyncHTTPClient, trust: ssl.SSLContext | None, patience: float
    ) -> None:
        self.step = "open"
        self._door = door
        self._browser = Browser(client, [door.url, door.login], trust, patience)
        self._file = f"{NAME}{secrets.token_hex(8)}.txt"
        self._start: asyncio.Future[Answer] | None = None  # of the session with the kernel
        self._line: KernelLine | None = None
        self._is_saved = False

    async def work(self) -> None:
        """All steps. Raises SeatError where one fails."""
        self._check_page(await self._browser.open(self._door.url))
        self.step = "login"
        await self._log_in()
        self.step = "kernel"
        kernel = await self._start_kernel()
        self.step = "run"
        if PRINTS not in (output := await kernel.run(CELL)):
            raise SeatError(f"the cell {CELL} did not print {PRINTS}, but {output[:100]!r}")
        self.step = "save"
        await self._save()

    def _check_page(self, page: Answer) -> None:
        if page.status in GATEWAYS_OWN:  # also after the login: only then the gateway leads to the seat
            self.step = "open"
            raise Unreachable(f"the server answered {page.status}: it does not run, or is starting")
        page.check(200)

    async def _log_in(self) -> None:
        page = await self._browser.open(self._door.login)
        page.check(200)
        if not re.search(rb"<input[^>]{0,1000}password", page.body):
            raise SeatError("its login page has no field for the password: something else answers there")
        form = {"password": self._door.password, "_xsrf": self._browser.cookie("_xsrf")}
        answer = await self._browser.ask("POST", self._door.login, form=form)
        if answer.status in REFUSALS:
            raise SeatError(REFUSALS[answer.status])
        answer.check(302, 303)
        self._check_page(await self._browser.open(self._door.url, answer))
        if (await self._ask("GET", "api/sessions")).status != 200:
            raise SeatError("the password is accepted, but the server does not know the student afterwards")

    async def _start_kernel(self) -> KernelLine:
        """Starts the default kernel, as for a console, and waits for its first answer."""
        model = {"path": self._file, "name": self._file, "type": "console", "kernel": {}}
        # the server goes on with it if the visit ends meanwhile
        self._start = asyncio.ensure_future(self._ask("POST", "api/sessions", model))
        session = (await asyncio.shield(self._start)).json(201)
        kernel = _id_of(session.get("kernel") if isinstance(session, dict) else None)
        address = f"{self._door.url}/api/kernels/{kernel}/channels"
        try:
            self._line = KernelLine(await self._browser.connect(address))
        except UpgradeRefused as error:
            if error.status >= 500:
                raise SeatError(f"the kernel does not come up: {error.message}") from None
            self.step = "run"
            raise
        await self._line.ask_who()
        return self._line

    async def _save(self) -> None:
        path, text = f"api/contents/{self._file}", secrets.token_hex(16)
        self._is_saved = True  # or half of it
        (await self._ask("PUT", path, {"type": "file", "format": "text", "content": text})).check(200, 201)
        model = (await self._ask("GET", path)).json(200)
        if not isinstance(model, dict) or model.get("content") != text:
            raise SeatError("the file was read back with another content than it was saved with")
        await self._remove([self._file])
        self._is_saved = False

    async def _remove(self, files: Sequence[str]) -> None:
        """By the kernel: Jupyter's own removal moves them into a trash on the student's volume. Raises SeatError."""
        if self._line and files:
            code = f"import os\nfor name in {list(files)}:\n    os.remove(name)"
            with contextlib.suppress(SeatError, TimeoutError):
                async with asyncio.timeout(REMOVING):
                    await self._line.run(code)
        for path in (f"api/contents/{file}" for file in files):
            if (await self._ask("GET", f"{path}?content=0")).status != 404:  # the kernel is not one of Python
                (await self._ask("DELETE", path)).check(204)

    async def _ask(self, method: str, path: str, model: object = None) -> Answer:
        return await self._browser.ask(method, f"{self._door.url}/{path}", json_body=model)

    # --- afterwards --------------------------------------------------------------------------

    async def leave(self) -> None:
        """Removes what the visit made, as far as the seat lets it: file, kernel and login."""
        try:
            if self._start:
                await self._clear(_id_of((await self._start).json(201)))
        finally:
            if self._line:
                self._line.close()
            if self.step not in ("open", "login"):
                await self._ask("GET", "logout")

    async def _clear(self, own: str) -> None:
        """Removes the own session, and what an earlier check left that was killed."""
        sessions = [(self._file if self._is_saved else "", own)]
        with contextlib.suppress(SeatError):
            sessions += _leftovers((await self._ask("GET", "api/sessions")).json(200))
        with contextlib.suppress(SeatError):
            await self._remove([file for file, _ in sessions if file])
        for _, session in sessions:
            await self._ask("DELETE", f"api/sessions/{session}")


def _id_of(model: object) -> str:
    """The id of a session or a kernel, which becomes part of an address. Raises SeatError if there is none."""
    found = model.get("id") if isinstance(model, dict) else None
    if not isinstance(found, str) or not re.fullmatch(r"[A-Za-z0-9-]{1,64}", found):
        raise SeatError("the server answered without the id of a kernel")
    return found


def _leftovers(sessions: object) -> list[tuple[str, str]]:
    """File and session of checks that were killed, among a seat's sessions: nobody is connected, for a while."""
    checks = []
    for session in sessions if isinstance(sessions, list) else ():
        match session:
            case {"path": str(path), "kernel": {"connections": int(lines), "last_activity": str(when)}}:
                with contextlib.suppress(ValueError, SeatError):
                    if re.fullmatch(FILES, path):
                        checks.append((datetime.fromisoformat(when).replace(tzinfo=UTC), lines, path, _id_of(session)))
    now = max((when for when, *_ in checks), default=None)  # by the seat's clock: the visit's own is among them
    return [(path, own) for when, lines, path, own in checks if now and now - when > IDLE and lines <= 0]
