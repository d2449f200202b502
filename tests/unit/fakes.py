"""What the ring has instead of a world. Each fake rejects whatever it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import docker

from cloudscale.engine import Engine
from cloudscale.errors import RequestError
from cloudscale.model import CommandResult, Machine
from cloudscale.settings import Settings
from tests.unit.api_schema import Json
from tests.unit.fake_api import FakeApi


class FakeClock:
    def __init__(self) -> None:
        self._now = 0.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self._now += seconds
        self.pauses.append(seconds)


class FakeContainers:
    """docker-py's client.containers, as far as an image is looked into; `inside` is what the look finds."""

    def __init__(self, inside: bytes | Exception = b"lab\n1000\n100\n/home/jovyan/work\n") -> None:
        self.inside = inside
        self.runs: list[Json] = []

    def create(
        self, image: str, entrypoint: Sequence[str], command: Sequence[str], network_mode: str, labels: Json
    ) -> FakeLook:
        self.runs.append({"image": image, "network": network_mode, "labels": labels, "removed": False})
        return FakeLook(self.inside, self.runs[-1])


class FakeLook:
    """The container of one look inside an image."""

    def __init__(self, inside: bytes | Exception, record: Json) -> None:
        self._inside = inside
        self._record = record

    def start(self) -> None:
        if isinstance(self._inside, Exception):
            raise self._inside

    def wait(self, timeout: float) -> Json:
        assert timeout > 0
        return {"StatusCode": 0}

    def logs(self, stdout: bool, stderr: bool) -> bytes:
        assert stdout and not stderr and isinstance(self._inside, bytes)
        return self._inside

    def remove(self, force: bool, v: bool) -> None:
        self._record["removed"] = force and v


def fake_engine(api: object, containers: object = None, name: str = "m1", address: str = "192.0.2.1") -> Engine:
    client = SimpleNamespace(api=api, containers=containers or FakeContainers())
    return Engine(Machine(name, address), cast(docker.DockerClient, client))


class FakeDriver:
    """One machine with the given engine."""

    def __init__(self, api: FakeApi, held: frozenset[int] = frozenset()) -> None:
        self.engine = fake_engine(api)
        self.held = held
        self.done: list[str] = []

    def machines(self) -> list[Machine]:
        return [self.engine.machine]

    def connect(self, machine: Machine) -> Engine:
        assert machine == self.engine.machine
        return self.engine

    def held_ports(self, machine: Machine) -> frozenset[int]:
        return self.held

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        return CommandResult(0, f"{machine.name}: {command} within {timeout:g}\n", "")

    def check_nodes(self, nodes: int) -> None:
        if nodes > 1:
            raise RequestError(f"There is one machine, not {nodes}.")

    def add(self, name: str) -> str:
        return f"added {name}"

    def remove(self, name: str) -> str:
        self.done.append(f"removed {name}")
        return f"removed {name}"

    def removal(self, name: str) -> str:
        return f"The machine {name}"

    def __call__(self, settings: Settings) -> FakeDriver:
        """In the place of load_driver."""
        return self
