"""Through the gateway's proxy against straight to a seat, and against other proxies with TLS: HAProxy and, if npm is
there, configurable-http-proxy (which JupyterHub uses).

The seat is a stand-in that answers at once, with a page of the size and the number of requests of JupyterLab's; so what
is measured is the way to it. With `--jupyterlab PYTHON`, one that has JupyterLab, its real page is measured too: every
request that Chromium makes for it. All of it is on loopback, and nothing needs an engine. The proxy has the
configuration that a class of `--seats` has.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from cloudscale.gateway.certificates import Certificates
from cloudscale.gateway.program import DEBIAN
from cloudscale.gateway.routes import COOKIE, FOLDER, Route, caddy_config
from cloudscale.images.packages import fetch_file
from cloudscale.seats.address import Entrance
from cloudscale.waiting import poll

PAGE = [*[2_000_000] * 2, *[400_000] * 5, *[60_000] * 15, *[4_000] * 30]  # bytes of each request of a page
CONNECTIONS = 6  # of one browser to one address
CHP = "5.3.0"  # configurable-http-proxy's release
PATH, TOKEN = "/kw4h7txecd", "ab" * 32

SEAT = """
import asyncio, sys
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

class Bytes(RequestHandler):
    def get(self, size):
        self.finish(b"x" * int(size))

class Echo(WebSocketHandler):
    def on_message(self, message):
        self.write_message(message)

async def main():
    Application([(r"/\\w+/bytes/(\\d+)", Bytes), (r"/\\w+/echo", Echo)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Way:
    """One way to the seat. `process`: the proxy's, if there is one."""

    name: str
    port: int
    context: ssl.SSLContext | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def memory(self) -> int:
        """Bytes that the proxy has in memory (RSS)."""
        return int(psutil.Process(self.process.pid).memory_info().rss) if self.process else 0


# --- what is measured ------------------------------------------------------------------------


async def fetch(way: Way, paths: Sequence[str], connections: int) -> None:
    """Requests these paths, over a number of connections that stay open."""
    left = list(reversed(paths))

    async def one() -> None:
        host = "127.0.0.1" if way.context else None
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port, ssl=way.context, server_hostname=host)
        while left:
            head = f"GET {PATH}{left.pop()} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {COOKIE}={TOKEN}\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", answer)
            assert b" 200 " in answer.split(b"\r\n")[0] and size, answer
            await reader.readexactly(int(size[1]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))


async def echo(way: Way, connections: int, times: int) -> None:
    async def one() -> None:
        line = await connect(way)
        for _ in range(times):
            await line.write_message("hello")
            assert await line.read_message() == "hello"
        line.close()

    await asyncio.gather(*(one() for _ in range(connections)))


async def idle(way: Way, connections: int) -> int:
    """The bytes that the proxy takes for each WebSocket."""
    before = way.memory
    lines = [await connect(way) for _ in range(connections)]
    taken = way.memory - before
    for line in lines:
        line.close()
    return taken // connections


async def connect(way: Way) -> WebSocketClientConnection:
    scheme = "wss" if way.context else "ws"
    headers = {"Cookie": f"{COOKIE}={TOKEN}"}
    return await websocket_connect(
        HTTPRequest(f"{scheme}://127.0.0.1:{way.port}{PATH}/echo", headers=headers, ssl_options=way.context)
    )


def seconds(work: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    asyncio.run(_awaited(work))
    return time.perf_counter() - start


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


# --- the ways --------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def caddy(folder: Path, seat: int, seats: int) -> tuple[list[str], int]:
    port = free_port()
    others = [
        Route(f"/other{n}", f"label{n}", f"127.0.0.1:{seat}", "password", f"{n:064}", "secret")
        for n in range(seats - 1)
    ]
    routes = [*others, Route(PATH, "label", f"127.0.0.1:{seat}", "password", TOKEN, "secret")]
    config = json.dumps(caddy_config(Entrance("127.0.0.1", port), routes, Certificates("files"), probe="probe"))
    (folder / "caddy.json").write_text(config.replace(FOLDER, str(folder)).replace("unix//tmp", f"unix/{folder}"))
    program = folder / "caddy"
    program.write_bytes(fetch_file("caddy", "usr/bin/caddy", sources=f"{DEBIAN}\n", architecture="amd64"))
    program.chmod(0o700)
    return [str(program), "run", "--config", str(folder / "caddy.json")], port


def haproxy(folder: Path, seat: int) -> tuple[list[str], int]:
    port = free_port()
    (folder / "haproxy.cfg").write_text(f"""
global
  maxconn 5000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:{port} ssl crt {folder}/both.pem
  acl own req.cook({COOKIE}) -m str {TOKEN}
  acl path path_beg {PATH}/
  use_backend seat if own path
backend seat
  server seat 127.0.0.1:{seat}
""")
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], port


def install_chp(folder: Path) -> Path:
    """The program configurable-http-proxy, installed in a folder."""
    package = f"configurable-http-proxy@{CHP}"
    subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), package], check=True)
    return folder / "node_modules" / ".bin" / "configurable-http-proxy"


def chp(folder: Path, seat: int) -> tuple[list[str], int]:
    port = free_port()
    program = install_chp(folder)
    keys = ["--ssl-key", str(folder / "tls/key.pem"), "--ssl-cert", str(folder / "tls/certificate.pem")]
    api = ["--api-ip", "127.0.0.1", "--api-port", str(free_port())]
    target = f"http://127.0.0.1:{seat}"
    return [str(program), "--ip", "127.0.0.1", "--port", str(port), *keys, *api, "--default-target", target], port


@contextlib.contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        assert poll(lambda: _listens(port), timeout=30), log.read_text()
        yield process
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def stand_in(folder: Path, stack: contextlib.ExitStack) -> int:
    """The port of a seat that answers at once."""
    port = free_port()
    stack.enter_context(running([sys.executable, "-c", SEAT, str(port)], port, folder / "seat.log"))
    return port


def jupyterlab(python: str, folder: Path, stack: contextlib.ExitStack) -> int:
    """The port of a real one."""
    port = free_port()
    settings = {
        "ServerApp.port": port,
        "ServerApp.base_url": PATH,
        "ServerApp.root_dir": folder,
        "IdentityProvider.token": "",
        "LabApp.news_url": "",
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    command = [python, "-m", "jupyterlab", "--no-browser", "--allow-root", *flags]
    stack.enter_context(running(command, port, folder / "jupyterlab.log"))
    return port


def page_of(port: int, folder: Path) -> list[str]:
    """The paths that a browser fetches for JupyterLab's page, in its order."""
    log = folder / "network.json"
    where = f"http://127.0.0.1:{port}{PATH}/lab"
    flags = ["--headless", "--no-sandbox", f"--user-data-dir={folder}/browser", f"--log-net-log={log}"]
    command = ["chromium", *flags, "--virtual-time-budget=30000", "--dump-dom", where]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    asked = re.findall(rf'"line":"GET {PATH}(/[^ "]*) HTTP', log.read_text())
    return [path for path in dict.fromkeys(asked) if "subscribe" not in path]  # which is a WebSocket


def ways(folder: Path, seat: int, seats: int, stack: contextlib.ExitStack) -> list[Way]:
    """Straight to the seat, ours, and those peers that are there."""
    (folder / "tls").mkdir(parents=True)
    pair = ["-keyout", str(folder / "tls/key.pem"), "-out", str(folder / "tls/certificate.pem")]
    subject = ["-subj", "/CN=benchmark", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", *kind, *pair, *subject], check=True, capture_output=True)
    both = (folder / "tls/certificate.pem").read_bytes() + (folder / "tls/key.pem").read_bytes()
    (folder / "both.pem").write_bytes(both)
    context = ssl.create_default_context(cafile=str(folder / "tls/certificate.pem"))
    found = [Way("straight", seat)]
    makers: dict[str, Callable[[], tuple[list[str], int]]] = {"gateway": lambda: caddy(folder, seat, seats)}
    if shutil.which("haproxy"):
        makers["HAProxy"] = lambda: haproxy(folder, seat)
    if shutil.which("npm"):
        makers["configurable-http-proxy"] = lambda: chp(folder, seat)
    for name, make in makers.items():
        command, port = make()
        process = stack.enter_context(running(command, port, folder / f"{name}.log"))
        found.append(Way(name, port, context, process))
    return found


def compare(what: str, work: Callable[[Way], Awaitable[None]], all_ways: Sequence[Way], rounds: int) -> None:
    taken: dict[str, list[float]] = {way.name: [] for way in all_ways}
    for at in range(rounds + 1):
        for way in all_ways if at % 2 else reversed(all_ways):
            spent = seconds(partial(work, way))
            if at:  # the first round warms up
                taken[way.name].append(spent)
    straight = taken["straight"]
    for way in all_ways:
        ratios = [mine / floor for mine, floor in zip(taken[way.name], straight, strict=True)]
        middle = statistics.median(taken[way.name])
        print(f"{what}, {way.name}: {middle:.3f} s, ratio to straight {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seats", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--jupyterlab", metavar="PYTHON", default="")
    chosen = parser.parse_args()
    measures: dict[str, Callable[[Way], Awaitable[None]]] = {
        "a page (52 requests, 8 MB)": lambda way: fetch(way, [f"/bytes/{size}" for size in PAGE], CONNECTIONS),
        "2,000 small requests": lambda way: fetch(way, ["/bytes/200"] * 2000, 16),
        "4,000 WebSocket echoes": lambda way: echo(way, 20, 200),
    }
    with tempfile.TemporaryDirectory(prefix="cloudscale-benchmark-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        if chosen.jupyterlab:
            real = jupyterlab(chosen.jupyterlab, folder, stack)
            paths = page_of(real, folder)
            what = f"JupyterLab's page ({len(paths)} requests)"
            compare(
                what,
                lambda way: fetch(way, paths, CONNECTIONS),
                ways(folder / "real", real, chosen.seats, stack),
                chosen.rounds,
            )
        all_ways = ways(folder / "stand-in", stand_in(folder, stack), chosen.seats, stack)
        for what, work in measures.items():
            compare(what, work, all_ways, chosen.rounds)
        for way in all_ways[1:]:
            each = asyncio.run(idle(way, chosen.sockets))
            sockets = f"{chosen.sockets} idle WebSockets, {way.name}"
            print(f"{sockets}: {each / 1024:.0f} KiB each, {way.memory >> 20} MiB in all")


if __name__ == "__main__":
    main()
