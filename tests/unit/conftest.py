"""The ring's walls: no connection, no process, no state of this machine; fixtures allow exceptions."""

from __future__ import annotations

import builtins
import datetime
import gc
import io
import os
import pwd
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from cloudscale import waiting
from cloudscale.course import deadline
from cloudscale.engines import certificates
from cloudscale.hosts import known_hosts, ssh_config
from cloudscale.images import chains
from tests.unit.classroom import Class
from tests.unit.fakes import FakeClock

# Repeatable and without a stopwatch; HYPOTHESIS_PROFILE=search looks further, at other examples each time.
settings.register_profile("ring", deadline=None, derandomize=True, database=None, max_examples=60)
settings.register_profile("search", deadline=None, database=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ring"))


# The state of this machine and of the user who runs the ring: a test that looks at it depends on the machine.
OWN_FILES = (
    *("/run/docker.", "/var/run/docker.", "/etc/docker/", "/etc/ssh/", "/var/lib/docker/", "/var/lib/cloudscale/"),
    *(f"{home}/.ssh/" for home in {os.path.expanduser("~"), pwd.getpwuid(os.getuid()).pw_dir}),
)


class OutsideWorldError(Exception):
    """A test tried to reach something outside itself."""


@dataclass
class Walls:
    """What the running test may reach: nothing, unless a fixture allows it. `breaches` are its attempts."""

    reachable: Callable[[object], bool] = lambda address: False
    processes: bool = False
    breaches: list[str] = field(default_factory=list)

    def refuse(self, what: str) -> OutsideWorldError:
        self.breaches.append(what)
        return OutsideWorldError(what)


# pathlib, shutil and os.path end in these
FILE_CALLS = (
    *((module, "open") for module in (builtins, io, os)),
    *((os, name) for name in ("access", "listdir", "lstat", "mkdir", "remove", "scandir", "stat", "unlink")),
)


def guard_network(walls: Walls, monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(name: str) -> Callable[..., Any]:
        connect = getattr(socket.socket, name)

        def guarded_connect(self: socket.socket, address: Any) -> Any:
            if not walls.reachable(address):
                raise walls.refuse(f"connect to {address}")
            return connect(self, address)

        return guarded_connect

    lookup = socket.getaddrinfo

    def guarded_lookup(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if not walls.reachable((host, port)):
            raise walls.refuse(f"look up {host}")
        return lookup(host, port, *args, **kwargs)

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(name))
    monkeypatch.setattr(socket, "getaddrinfo", guarded_lookup)


def guard_processes(walls: Walls, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen.__init__

    def guarded_start(self: subprocess.Popen[Any], args: Any, *rest: Any, **kwargs: Any) -> None:
        if not walls.processes:
            raise walls.refuse(f"start {args}")
        start(self, args, *rest, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", guarded_start)


def guard_files(walls: Walls, monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded_call(*args: Any, **kwargs: Any) -> Any:
            path = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(path, (str, bytes, os.PathLike)) and f"{os.fsdecode(path)}/".startswith(OWN_FILES):
                raise walls.refuse(f"{call.__name__} {os.fsdecode(path)}")
            return call(*args, **kwargs)

        return guarded_call

    for module, name in FILE_CALLS:
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))
    # shutil looks its functions up in it
    monkeypatch.setattr(os, "supports_follow_symlinks", {*os.supports_follow_symlinks, os.stat, os.access})


@pytest.fixture(autouse=True)
def walls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Walls]:
    walls = Walls()
    for guard in (guard_network, guard_processes, guard_files):
        guard(walls, monkeypatch)
    for name in [name for name in os.environ if name.startswith(("CLOUDSCALE_", "DOCKER_", "INVOKE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    system = tmp_path / "etc" / "ssh"
    monkeypatch.setattr(ssh_config, "SYSTEM", system / "ssh_config")
    monkeypatch.setattr(known_hosts, "GLOBAL_FILES", (str(system / "ssh_known_hosts"),))
    yield walls
    # an attempt counts even if the code under test swallowed its error
    assert not walls.breaches


@pytest.fixture(autouse=True)
def no_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines don't wait for others that come at the same time."""
    monkeypatch.setattr(chains, "GATHERING", 0.0)


@pytest.fixture
def processes(walls: Walls) -> None:
    """For tests of commands on this computer."""
    walls.processes = True


@pytest.fixture
def loopback(walls: Walls) -> str:
    """For tests with a server of their own; returns the address to listen on."""
    walls.reachable = lambda address: isinstance(address, tuple) and address[0] == "127.0.0.1"
    return "127.0.0.1"


@pytest.fixture
def no_engine(walls: Walls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A DOCKER_HOST without an engine, which may be connected to."""
    nowhere = str(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{nowhere}")
    walls.reachable = lambda address: address == nowhere
    yield
    # docker-py does not close the socket of a connection that failed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits make their usual number of attempts, and take no time."""
    monkeypatch.setattr(waiting, "SystemClock", FakeClock)


@pytest.fixture
def bio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Class:
    """A course with Ann and Bob, on one fake machine."""
    return Class(monkeypatch, tmp_path)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Class:
    """The same on three fake machines, none of which is set up yet."""
    return Class(monkeypatch, tmp_path, machines=3)


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime.timedelta], None]:
    """Moves the clock of certificates forward or back."""
    now = certificates._now

    def pass_by(span: datetime.timedelta) -> None:
        monkeypatch.setattr(certificates, "_now", lambda: now() + span)

    return pass_by


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """It is noon on Friday, 2026-11-27, by the clock for deadlines, in UTC; a call makes it so many hours later."""
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    noon = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)

    def later(hours: float) -> None:
        monkeypatch.setattr(deadline, "now", lambda: noon + datetime.timedelta(hours=hours))

    later(0)
    yield later
    monkeypatch.undo()
    time.tzset()
