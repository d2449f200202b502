"""What the ring has instead of a world. Each fake rejects whatever it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import docker
from docker.errors import ContainerError

from cloudscale.engine import Engine
from cloudscale.model import CommandResult, Machine
from cloudscale.settings import Settings
from tests.unit.fake_api import FakeApi, Json


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

    def run(
        self,
        image: str,
        entrypoint: Sequence[str],
        command: Sequence[str],
        network_mode: str,
        labels: Json,
        remove: bool,
    ) -> bytes:
        self.runs.append({"image": image, "network": network_mode, "labels": labels, "remove": remove})
        if isinstance(self.inside, Exception):
            raise self.inside
        return self.inside


def failed_look() -> ContainerError:
    return ContainerError(None, 3, ["sh"], "image", b"")  # type: ignore[no-untyped-call, arg-type, unused-ignore]


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
        pass

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
