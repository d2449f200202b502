"""An image from one host to N - 1 others over lines of a limited rate: the tool's own way, against others.

Ours is the stage of a launch that delivers an image, with real logins and engines. In turns with it: one host after the
other (`docker save | ssh docker load`), and BitTorrent (aria2). The floor is the time that the line takes for one copy,
and what one host takes to load it when nothing else is done.

Needs root, and Debian's aria2. The hosts are the tests' lab's, so not both at once; each has a line of its own, shaped
by tc(8) in both directions. All of them are one computer: with many hosts and a fast line its CPU is the limit, and not
the line. So the share of the CPU that was busy is printed, and that of others before each run.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cloudscale.course.folder import CourseFolder
from cloudscale.drivers.generic import Generic
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.hosts.target import Target
from cloudscale.images.delivery import Delivery, Sources
from cloudscale.waiting import poll
from tests.lab.hosts import DEBIAN_13, LabHost, LabHosts
from tests.lab.stock import GATEWAY

IMAGE = "cloudscale/benchmark:1"  # a name that is never looked for in a registry
LAYERS = 8
MIB = 1 << 20
PIECE = 1 * MIB  # of a torrent
TRACKER_PORT = 6969
PATIENCE = 1800.0  # seconds for one way
BITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
SHARED = "/var/lib/docker/benchmark"  # a folder of each host, as the host sees it


class Bench:
    """The hosts, with engines that the tool has set up; the first one has the image."""

    def __init__(self, folder: Path, lab: LabHosts, size: int) -> None:
        self._folder = folder
        self._lab = lab
        self._first, *self._others = lab.hosts
        for host in lab.hosts:
            shared(host).mkdir()
        shutil.copy(lab.key, shared(self._first) / "key")
        targets = {host.name: Target(host.address, label=host.name, key_file=lab.key) for host in lab.hosts}
        self._driver = Generic(targets, CourseFolder("benchmark", folder / "home"), lambda text: None)
        machines = self._driver.machines()
        self._surveys = fan_out(self._driver.survey, machines, name=lambda machine: machine.name).values
        prepared = fan_out(self._driver.prepare, machines, name=lambda machine: machine.name)
        self._engines = [outcome.get() for outcome in prepared]
        write_image(shared(self._first) / "made.tar", size)
        self._first.run("docker", "load", "--quiet", "--input", f"{SHARED}/made.tar")
        (shared(self._first) / "made.tar").unlink()
        self._first.run("docker", "save", "--output", f"{SHARED}/image.tar", IMAGE)
        self.size = (shared(self._first) / "image.tar").stat().st_size

    def clear(self) -> None:
        """Nobody but the first host has the image, and nothing is still being written."""
        fan_out(lambda host: host.run("docker", "image", "prune", "--all", "--force"), self._others)
        for host in self._others:
            for path in shared(host).iterdir():
                path.unlink()
        os.sync()

    def has_arrived(self) -> bool:
        done = [host.run("docker", "image", "inspect", IMAGE, check=False).returncode for host in self._lab.hosts]
        return not any(done)

    def ours(self) -> None:
        sources = Sources(lambda: None, engines=self._engines[:1], copy=self._driver.copy_image)
        said: list[str] = []
        delivery = Delivery(IMAGE, "benchmark", sources, bytes_done=lambda done, of: None, say=said.append)
        outcomes = fan_out(
            lambda engine: delivery.deliver(engine, self._surveys[engine.name]), self._engines, width=MACHINES_WIDTH
        )
        for outcome in outcomes:
            outcome.get()
        if any("this computer" in text for text in said):
            raise SystemExit("\n".join(said))

    def one_after_the_other(self) -> None:
        options = f"-i {SHARED}/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        for host in self._others:
            line = f"docker save {IMAGE} | ssh {options} root@{host.address} docker load --quiet"
            self._first.run("sh", "-c", line)

    def bittorrent(self) -> None:
        """As one would by hand: the image saved, a torrent of it, a tracker, and all hosts load what they got."""
        tar, torrent = shared(self._first) / "torrent.tar", self._folder / "torrent"
        self._first.run("docker", "save", "--output", f"{SHARED}/torrent.tar", IMAGE)
        with ExitStack() as ending:
            ending.enter_context(tracker(self._lab))
            ending.callback(tar.unlink)
            torrent.write_bytes(torrent_of(tar))
            hook = self._folder / "hook"
            hook.write_text('#!/bin/sh\n: >"$3.complete"\n')
            hook.chmod(0o755)
            for host in self._lab.hosts:
                ending.enter_context(self._peer(host, torrent, hook))
            for outcome in fan_out(self._load_from_peers, self._others, width=MACHINES_WIDTH):
                outcome.get()

    @contextmanager
    def _peer(self, host: LabHost, torrent: Path, hook: Path) -> Iterator[None]:
        """A BitTorrent client in the host's network, and on its disk. `hook` runs when it has all."""
        command = [
            *("aria2c", "--no-conf", "--quiet", f"--dir={shared(host)}", f"--on-bt-download-complete={hook}"),
            *("--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--seed-ratio=0"),
            *("--bt-seed-unverified=true", "--allow-overwrite=true", "--file-allocation=none"),
            *(f"--bt-external-ip={host.address}", "--listen-port=6881", str(torrent)),
        ]
        with (self._folder / "aria2.log").open("ab") as log:
            peer = subprocess.Popen(host.in_its_network(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
        finally:
            peer.kill()
            peer.wait(30)

    def _load_from_peers(self, host: LabHost) -> None:
        if not poll((shared(host) / "torrent.tar.complete").exists, timeout=PATIENCE, interval=0.05):
            raise SystemExit(f"BitTorrent: {host.name} did not get all of it in {PATIENCE:g} s.")
        host.run("docker", "load", "--quiet", "--input", f"{SHARED}/torrent.tar")

    def load_alone(self) -> float:
        """Seconds that one host takes to load what lies on its disk."""
        host = self._others[0]
        shutil.copy(shared(self._first) / "image.tar", shared(host))
        os.sync()
        start = time.perf_counter()
        host.run("docker", "load", "--quiet", "--input", f"{SHARED}/image.tar")
        return time.perf_counter() - start


def shared(host: LabHost) -> Path:
    return host.docker_data / "benchmark"


def shape(lab: LabHosts, rate: str) -> None:
    """Gives each host a line of the rate, in both directions."""
    for host in lab.hosts:
        shaping = ("root", "tbf", "rate", rate, "burst", "1mb", "latency", "50ms")
        lab.namespace.run("tc", "qdisc", "replace", "dev", host.port, *shaping)
        host.run("tc", "qdisc", "replace", "dev", "host0", *shaping)


def seconds_on_the_line(size: int, rate: str) -> float:
    unit = next(unit for unit in BITS if rate.endswith(unit))
    return size * 8 / (float(rate.removesuffix(unit)) * BITS[unit])


# --- the image, as docker-save(1) writes it -----------------------------------------------------


def write_image(path: Path, size: int) -> None:
    """An image of several layers, whose data can't be compressed."""
    layers = [layer(size // LAYERS, number) for number in range(LAYERS)]
    digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    config = {"architecture": "amd64", "os": "linux", "created": "2025-01-01T00:00:00Z", "config": {},
              "rootfs": {"type": "layers", "diff_ids": digests}}  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": [f"{n}.tar" for n in range(LAYERS)]}]
    with tarfile.open(path, "w") as archive:
        for number, data in enumerate(layers):
            add(archive, f"{number}.tar", data)
        add(archive, "config.json", json.dumps(config).encode())
        add(archive, "manifest.json", json.dumps(manifest).encode())


def layer(size: int, number: int) -> bytes:
    """Files of different sizes, as packages have them."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        left = size
        for at, share in enumerate(itertools.cycle((16 * MIB, MIB, 64 << 10))):
            add(archive, f"opt/{number}/{at}", os.urandom(min(share, left)))
            left -= share
            if left <= 0:
                return written.getvalue()
    raise AssertionError


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


# --- BitTorrent (BEP 3, BEP 23) -----------------------------------------------------------------


def bencoded(value: object) -> bytes:
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, dict):
        return b"d%se" % b"".join(bencoded(key) + bencoded(value[key]) for key in sorted(value))
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"%d:%s" % (len(data), data)


def torrent_of(file: Path) -> bytes:
    pieces = []
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            pieces.append(hashlib.sha1(piece, usedforsecurity=False).digest())
    info = {"length": file.stat().st_size, "name": file.name, "piece length": PIECE, "pieces": b"".join(pieces)}
    return bencoded({"announce": f"http://{GATEWAY}:{TRACKER_PORT}/announce", "info": info})


@contextmanager
def tracker(lab: LabHosts) -> Iterator[None]:
    """A BitTorrent tracker on the hosts' network, which tells each peer about all others."""
    peers: set[bytes] = set()

    class Announce(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # a peer that was ended in the middle of an answer
                super().handle()

        def do_GET(self) -> None:
            port = int(parse_qs(urlsplit(self.path).query)["port"][0])
            peers.add(bytes(map(int, self.client_address[0].split("."))) + port.to_bytes(2))
            body = bencoded({"interval": 1, "min interval": 1, "peers": b"".join(peers)})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with lab.namespace.entered(), http.server.ThreadingHTTPServer((GATEWAY, TRACKER_PORT), Announce) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


# --- measuring ----------------------------------------------------------------------------------


def cpu() -> tuple[int, int]:
    """Ticks of this computer since it started: all, and those in which it had something to do."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4]


@contextmanager
def busy_share(shares: list[float]) -> Iterator[None]:
    total, busy = cpu()
    yield
    total_now, busy_now = cpu()
    shares.append((busy_now - busy) / max(total_now - total, 1))


class Way:
    """One of the ways, and what was measured of it."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self._run = run
        self.seconds: list[float] = []
        self._busy: list[float] = []
        self._others: list[float] = []

    def measure(self, bench: Bench) -> None:
        bench.clear()
        with busy_share(self._others):
            time.sleep(2)
        start = time.perf_counter()
        with busy_share(self._busy):
            self._run()
        self.seconds.append(time.perf_counter() - start)
        if not bench.has_arrived():
            raise SystemExit(f"{self.name}: the image did not arrive everywhere.")

    def row(self, floor: float) -> str:
        median = statistics.median(self.seconds)
        spread = f"{min(self.seconds):.1f} to {max(self.seconds):.1f}"
        return (
            f"  {self.name:20} {median:7.1f} s ({spread}), {median / floor:5.2f} of the floor;"
            f" CPU {statistics.median(self._busy):.0%} busy (before: {statistics.median(self._others):.0%})"
        )


def measure(bench: Bench, lab: LabHosts, rate: str, rounds: int, only: list[str]) -> None:
    shape(lab, rate)
    ways = [
        Way("ours", bench.ours),
        Way("one after the other", bench.one_after_the_other),
        Way("BitTorrent", bench.bittorrent),
    ]
    ways = [way for way in ways if not only or way.name in only]
    loads: list[float] = []
    for at in range(rounds):
        bench.clear()
        loads.append(bench.load_alone())
        for way in ways if at % 2 else reversed(ways):
            way.measure(bench)
    line, load = seconds_on_the_line(bench.size, rate), statistics.median(loads)
    print(f"{bench.size / 1e6:.0f} MB to {len(lab.hosts) - 1} of {len(lab.hosts)} hosts, lines of {rate}")
    print(f"  {'floor':20} {line + load:7.1f} s: the line {line:.1f} s, one load alone {load:.1f} s")
    for way in ways:
        print(way.row(line + load), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--size", type=int, default=512, help="MB")
    parser.add_argument("--rate", nargs="+", default=["1gbit"], help="of each host's line, such as 1gbit or 200mbit")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="ways to measure, such as 'ours'; all without it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        lab = LabHosts(Path(place) / "lab", [DEBIAN_13] * chosen.hosts)
        try:
            lab.start()
            with lab.namespace.entered():
                bench = Bench(Path(place), lab, chosen.size * 10**6)
                for rate in chosen.rate:
                    measure(bench, lab, rate, chosen.rounds, chosen.only)
        finally:
            lab.stop()


if __name__ == "__main__":
    main()
