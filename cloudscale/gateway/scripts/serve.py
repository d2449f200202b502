"""The gateway's process: starts Caddy, answers for the login service, and reads the files again on SIGHUP.

It ends when Caddy ends, and Caddy with it. Needs Python 3.8 and tornado, which every Jupyter server has.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import login
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket

FOLDER = Path(__file__).resolve().parent
CADDY, CONFIG, TABLE, STATE = (FOLDER / name for name in ("caddy", "caddy.json", "login.json", "state.json"))
LOGIN_SOCKET, ADMIN_SOCKET = "/tmp/login.sock", "/tmp/caddy.sock"
LARGEST_BODY = 64 * 1024  # bytes of a login
LARGEST_HEAD = 1 << 20  # bytes: as Caddy; a page of a seat may have planted many cookies
CLASS = 1024  # logins that wait to be read: a whole class may come in one second
STARTING = 30  # seconds for Caddy to take a configuration
LONGEST_ANSWER = 1 << 20
PIECE = 1 << 16
LONGEST_LINE = 1 << 16  # bytes of what Caddy says that are looked at
REFUSED = (OSError, ValueError, KeyError, TypeError, asyncio.TimeoutError)  # by a file, or by Caddy


async def main():
    loop, changed, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    # before anything is read: a signal without a handler ends the process, or is lost if its number is 1
    loop.add_signal_handler(signal.SIGHUP, changed.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    service = login.Service(FOLDER / "pages")
    server = HTTPServer(service.application(), max_body_size=LARGEST_BODY, max_header_size=LARGEST_HEAD)
    while not ended.is_set():  # the files may not be there yet, or not whole
        changed.clear()
        try:
            first, table = CONFIG.read_bytes(), read_table(service)
            break
        except REFUSED as error:
            write_state({"error": "" if isinstance(error, FileNotFoundError) else str(error) or repr(error)})
        await first_of(changed.wait(), ended.wait(), asyncio.sleep(1))
    else:
        return 0
    server.add_socket(bind_unix_socket(LOGIN_SOCKET, 0o600, backlog=CLASS))
    caddy = await asyncio.create_subprocess_exec(
        str(CADDY), "run", "--config", str(CONFIG), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HOME": "/tmp", "XDG_DATA_HOME": "/tmp", "XDG_CONFIG_HOME": "/tmp"},
    )  # fmt: skip
    words = Words()
    reading = asyncio.ensure_future(words.read(caddy.stderr))
    tending = asyncio.ensure_future(tend(service, changed, digest(first), table))
    await first_of(caddy.wait(), ended.wait())
    if ended.is_set() and caddy.returncode is None:
        caddy.terminate()
    code = await caddy.wait()
    tending.cancel()
    await reading
    if code:
        write_state({"error": words.last()})
    return code


async def first_of(*waits):
    """Waits until one of these is over."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def tend(service, changed, caddy_digest, table_digest):
    """Says what is in effect, and takes over what changes."""
    state = {"caddy": "", "login": table_digest, "error": ""}
    if await answers():
        state["caddy"] = caddy_digest
    write_state(state)
    while True:
        await changed.wait()
        changed.clear()
        state["error"] = ""
        try:
            config = CONFIG.read_bytes()
            # the login service first: nobody is let in to a seat that Caddy does not know, which says so
            state["login"] = read_table(service)
            if digest(config) != state["caddy"]:
                await load(config)
                state["caddy"] = digest(config)
        except REFUSED as error:
            state["error"] = str(error) or repr(error)
        write_state(state)


def read_table(service):
    data = TABLE.read_bytes()
    service.know(json.loads(data))
    return digest(data)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def write_state(state):
    beside = STATE.with_suffix(".new")
    beside.write_text(json.dumps(state))
    os.replace(beside, STATE)


async def answers():
    """Whether Caddy works with the configuration that it was started with."""
    for _ in range(STARTING * 10):
        try:
            await ask("GET", "/config/apps/http/http_port", b"")
            return True
        except (OSError, ValueError):
            await asyncio.sleep(0.1)
    return False


async def load(config):
    """Gives Caddy a configuration. Raises ValueError with what is wrong with it; the one before is kept then."""
    await asyncio.wait_for(ask("POST", "/load", config), STARTING)


async def ask(method, path, body):
    reader, writer = await asyncio.open_unix_connection(ADMIN_SOCKET, limit=LONGEST_ANSWER)
    try:
        head = f"{method} {path} HTTP/1.0\r\nHost: caddy\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        answer = await reader.read(LONGEST_ANSWER)
    finally:
        writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    if b" 200 " not in top.split(b"\r\n", 1)[0] + b" ":
        try:
            raise ValueError(json.loads(rest)["error"])
        except (KeyError, TypeError, json.JSONDecodeError):
            raise ValueError(rest.decode(errors="replace")[:500] or "Caddy does not answer") from None


class Words:
    """What Caddy says on its standard error, handed on; the last error is kept."""

    def __init__(self):
        self._last = ""

    async def read(self, stream):
        # not line by line: one without an end, which a request can cause, would end the reading, and then Caddy waits
        rest = b""
        while True:
            piece = await stream.read(PIECE)
            sys.stderr.buffer.write(piece)
            sys.stderr.buffer.flush()
            *lines, rest = (rest + (piece or b"\n")).split(b"\n")
            rest = rest[:LONGEST_LINE]
            for line in lines:
                self._keep(line[:LONGEST_LINE])
            if not piece:
                return

    def _keep(self, line):
        text = line.decode(errors="replace").strip()
        if text and not text.startswith(('{"level":"info"', '{"level":"warn"')):
            self._last = text

    def last(self):
        try:
            said = json.loads(self._last)
            return str(said.get("error") or said.get("msg"))[:500]
        except (ValueError, AttributeError, RecursionError):
            return self._last[:500] or "Caddy ended"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
