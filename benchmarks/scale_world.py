"""One launch, or its floor, in a process of its own: prints what it took as JSON, for `python -m benchmarks.scale`.

Real are the tool from roster to table, openstacksdk, and the HTTP between it and the cloud's stand-in. Stood in for,
inside this process, are SSH, the engines with their swarm, and the seats' servers, by the fakes of the unit tests; the
CPU time that these take is counted apart.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from openstack.config import OpenStackConfig
from openstack.connection import Connection

from cloudscale.course.flags import Common, Launch, read_flags
from cloudscale.course.session import Session
from cloudscale.course.settings import read_settings
from cloudscale.drivers.openstack import inventory, watch
from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.drivers.openstack.making import Maker
from cloudscale.engines import client
from cloudscale.fanout import fan_out
from cloudscale.hosts import first_login, ssh
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.target import Target
from cloudscale.model import Machine, Survey
from cloudscale.progress import Lines
from cloudscale.seats import jupyter
from cloudscale.waiting import SystemClock
from cloudscale.workflow import machines as stage
from cloudscale.workflow import themachine
from cloudscale.workflow.machines import bring_up
from tests.unit.fake_api import FakeApi
from tests.unit.fake_host import FRESH, WITH_ENGINE, FakeHost
from tests.unit.fake_swarm import FakeNetwork
from tests.unit.fakes import FakeContainers, place_of

IMAGE = "quay.io/jupyter/lab:1"
IN_REGISTRY = {IMAGE: {"Id": "sha256:11", "RepoDigests": ["quay.io/jupyter/lab@sha256:aa"]}}
MIB = 1024**2
FLAVOR, CORES, MEMORY = "m1.large", 4, 4000 * MIB  # the largest that the stand-in offers
SEAT = {"cpus": 0.5, "memory": "64M", "reserve": "32M", "per_core": 30}  # a hundred of these fit on one
INTERVAL = 2.0  # seconds between two looks at all servers
AT_ONCE = 10  # requests: openstacksdk keeps as many connections open
USER_DATA = "QUJD" * 1600  # about as long as ours
MEETING = 300.0  # seconds for all machines to be there
SLOW_INTERVAL, SLOW_FOR = 0.02, 0.3  # seconds, of looks that take longer than the pause between them
STOOD_IN, PASSWORDS = "stood in", "passwords"


class Meter:
    """What the process has used so far, at moments that have names.

    `apart`: CPU seconds by kind, of what is stood in for and of what is slow on purpose. `calls`: how often each
    call of an engine was made, and `listed` how many items it gave.
    """

    def __init__(self) -> None:
        self.moments: dict[str, dict[str, float]] = {}
        self.apart = {STOOD_IN: 0.0, PASSWORDS: 0.0}
        self.calls: Counter[str] = Counter()
        self.listed: Counter[str] = Counter()
        self.threads = 0
        self._lock = threading.Lock()

    def moment(self, name: str) -> None:
        self.moments[name] = {
            "wall": time.perf_counter(),
            "cpu": time.process_time(),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "looks": self.calls["read_servers"],
            "calls": self.calls.total() - self.calls["read_servers"],
            **self.apart,
        }

    def timed(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Its CPU time is counted apart."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - start
                with self._lock:
                    self.apart[kind] += took

        return call

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """How often it is called is counted, and how much it gives."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            with self._lock:
                self.calls[function.__name__] += 1
                self.listed[function.__name__] += len(result) if isinstance(result, list) else 0
            return result

        return call

    def counting_threads(self, start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
        """Thread.start, which counts how many there are at once."""

        def started(thread: threading.Thread) -> None:
            start(thread)
            self.threads = max(self.threads, threading.active_count())

        return started


class Timed:
    """Something that is stood in for, whose calls are counted, and their time apart."""

    def __init__(self, thing: object, meter: Meter) -> None:
        self._thing, self._meter = thing, meter

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        return self._meter.timed(STOOD_IN, self._meter.counted(found)) if callable(found) else found


class Host(FakeHost):
    """Keeps nothing of what it is sent: a real one's memory is not the tool's."""

    def run_root(self, *args: Any, **kwargs: Any) -> Any:
        result = super().run_root(*args, **kwargs)
        self.sent.clear()
        self.data = b""
        return result


class World:
    """The machines behind the cloud's stand-in: hosts, their engines, and what the students would reach."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._network = FakeNetwork()
        self._lock = threading.Lock()
        self._own: dict[str, str] = {}  # the fixed address, by the floating one
        self._hosts: dict[str, Host] = {}
        self._apis: dict[str, FakeApi] = {}

    def overhearing(self, floating_ip: Callable[..., Any]) -> Callable[..., Any]:
        """Maker.floating_ip, which tells what a machine is reached by."""

        def bound(maker: Maker, name: str, port: inventory.Port) -> Any:
            ip = floating_ip(maker, name, port)
            self._own[ip.address] = port.address
            return ip

        return bound

    def connect(self, target: Target, *, timeout: float, known: KnownHosts, over: object = None) -> Any:
        known.kinds(target)
        with self._lock:
            if target.host not in self._hosts:
                self._hosts[target.host] = Host(target, values(self._own[target.host]))
        return Timed(self._hosts[target.host], self._meter)

    def over_tls(self, machine: str, host: str, port: int, *, ca: Path, certificate: tuple[Path, Path]) -> Any:
        with self._lock:
            if host not in self._apis:
                size: Any = {"memory": MEMORY, "cpus": CORES}
                where: Any = {"address": self._own[host], "network": self._network, "in_swarm": False}
                self._apis[host] = FakeApi(name=machine, **where, **size)
                self._apis[host].registry = IN_REGISTRY
        return SimpleNamespace(api=Timed(self._apis[host], self._meter), containers=FakeContainers())

    def answers(self, url: str) -> bool:
        host, port = place_of(url)
        return port in self._apis[host].open_ports


def values(address: str) -> dict[str, str]:
    """What facts.sh prints of a machine whose first boot has installed the engine."""
    own = {name: value.replace("192.0.2.11", address) for name, value in FRESH.items()}
    there = {name: WITH_ENGINE[name] for name in ("engine", "start")}
    size = {"cores": f"{CORES}\n", "memory": f"MemTotal: {MEMORY // 1024} kB\n"}
    return {**own, **there, **size, "installed_at_boot": "yes\n", "installed_by_course": "docker.io\n"}


@contextlib.contextmanager
def stood_in(meter: Meter, machines: int) -> Iterator[None]:
    """The tool with what it does not do itself stood in for, and with moments between its stages.

    All machines wait for the last one between cloud and engine, so that these can be kept apart.
    """
    world, bring = World(meter), OpenStack.boot
    all_there = threading.Barrier(machines, action=lambda: meter.moment("brought"))

    def bring_and_meet(driver: OpenStack, machine: Machine) -> Survey:
        try:
            survey = bring(driver, machine)
        except BaseException:
            all_there.abort()
            raise
        all_there.wait(MEETING)
        return survey

    def between_moments(*args: Any) -> Any:
        meter.moment("planned")
        brought = bring_up(*args)
        meter.moment("up")
        return brought

    with contextlib.ExitStack() as stack:
        for place, name, other in (
            (first_login, "_answers", lambda target, over: True),
            (first_login, "connect", world.connect),
            (ssh, "connect", world.connect),
            (client, "over_tls", meter.timed(STOOD_IN, meter.counted(world.over_tls))),
            (jupyter, "answers", meter.timed(STOOD_IN, meter.counted(world.answers))),
            (jupyter, "hash_password", meter.timed(PASSWORDS, jupyter.hash_password)),
            (Maker, "floating_ip", world.overhearing(Maker.floating_ip)),
            (inventory, "read_servers", meter.counted(inventory.read_servers)),
            (OpenStack, "boot", bring_and_meet),
            (stage, "bring_up", between_moments),
            (threading.Thread, "start", meter.counting_threads(threading.Thread.start)),
        ):
            stack.enter_context(mock.patch.object(place, name, other))
        yield


def launch(folder: Path, machines: int, seats: int, meter: Meter) -> str:
    """The tool, from nothing to a table; returns what went wrong, if anything."""
    roster = folder / "students.csv"
    roster.write_text("".join(f"{n};Student;No {n};no{n}@example.org\n" for n in range(seats)))
    settings = read_settings(
        {
            "driver": "openstack",
            "image": IMAGE,
            "students": str(roster),
            "seat": SEAT,
            "openstack": {"cloud": "course", "flavor": FLAVOR},
        }
    )
    session = Session(settings, read_flags(Common, format="json"), Lines(io.StringIO()), lambda question: None)
    with stood_in(meter, machines):
        meter.moment("start")
        report = themachine.themachine(session, read_flags(Launch, nodes=machines))
        meter.moment("done")
    states = Counter(row["state"] for row in json.loads(report.text))
    places = len({row["node"] for row in json.loads(report.text)})
    whole = states["ready"] == seats and places == min(machines, seats)
    return "\n".join(report.problems) or ("" if whole else f"seats on {places} machines: {dict(states)}")


def floor(machines: int, meter: Meter) -> None:
    """What a cloud has to be asked for machines, written straight: one look at all of them at a time."""
    cloud = Connection(config=OpenStackConfig().get_one("course"))
    network, compute = cloud.network, cloud.compute
    net, public = network.find_network("course-net"), network.find_network("public")
    image, flavor = cloud.image.find_image("debian-13"), compute.find_flavor(FLAVOR)
    assert net and public and image and flavor
    group = network.create_security_group(name="floor")
    meter.moment("planned")

    def make(number: int) -> None:
        name = f"floor-{number}"
        port = network.create_port(network_id=net.id, name=name, security_groups=[group.id])
        network.put(f"/ports/{port.id}/tags/floor")
        ip = network.create_ip(floating_network_id=public.id, port_id=port.id)
        network.put(f"/floatingips/{ip.id}/tags/floor")
        wanted = {"name": name, "image_id": image.id, "flavor_id": flavor.id, "networks": [{"port": port.id}]}
        compute.create_server(**wanted, tags=["floor"], user_data=USER_DATA)

    def finish(server: Any) -> None:
        compute.get_server_console_output(server.id)
        compute.put(f"/servers/{server.id}/tags/answered", microversion="2.52")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(make, range(machines)))
        while True:
            servers = list(compute.servers(details=True, tags="floor"))
            meter.calls["read_servers"] += 1
            if all(server.status == "ACTIVE" for server in servers):
                break
            time.sleep(INTERVAL)
        list(pool.map(finish, servers))
    meter.moment("brought")


def slow_looks(waiting: int) -> int:
    """How often a list is read that takes longer than the pause between two looks, for so many who wait together."""
    looks: list[float] = []
    end = time.monotonic() + SLOW_FOR

    def read() -> list[float]:
        looks.append(time.monotonic())
        time.sleep(SLOW_INTERVAL * 1.5)
        return [time.monotonic()]

    with mock.patch.object(watch, "INTERVAL", SLOW_INTERVAL):
        looking = watch.Watch(read, SystemClock())
        fan_out(
            lambda _: looking.until(lambda seen: True if seen[0] > end else None, MEETING),
            range(waiting),
            width=waiting,
        )
    return len(looks)


def main() -> None:
    what, machines, seats, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    meter, problems = Meter(), ""
    if what == "launch":
        problems = launch(folder, machines, seats, meter)
    elif what == "floor":
        floor(machines, meter)
    else:
        meter.calls["looks"] = slow_looks(machines)
    measured = {"moments": meter.moments, "calls": meter.calls, "listed": meter.listed, "threads": meter.threads}
    print(json.dumps({**measured, "problems": problems}))


if __name__ == "__main__":
    main()
