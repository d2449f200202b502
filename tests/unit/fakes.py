"""What the ring has instead of a world. Each fake rejects whatever it does not know."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast
from urllib.parse import urlsplit

import docker
import requests
import urllib3

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import USUAL_SEAT, SeatSettings, Settings
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError, ConnectionFailed, EngineError, MachineError, NotSetUp, RequestError
from cloudscale.model import CommandResult, Machine, MachineState, Outcome, Outcomes, Say, Survey
from cloudscale.units import GIB
from tests.unit.api_schema import Json
from tests.unit.fake_api import FakeApi
from tests.unit.fake_swarm import FakeNetwork


class FakeClock:
    def __init__(self) -> None:
        self._now = 0.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        time.sleep(0.001)  # for the other threads of the test, which may be what is waited for
        self._now += seconds
        self.pauses.append(seconds)


def place_of(url: str) -> tuple[str, int]:
    """The host and port of a seat's address, which has a path."""
    address = urlsplit(url)
    assert address.scheme == "http" and re.fullmatch(r"/\w{10}", address.path)
    return str(address.hostname), int(address.port or 0)


class FakeContainers:
    """docker-py's client.containers, as far as an image is looked into; `inside` is what the look finds."""

    def __init__(
        self, inside: bytes | Exception = b"lab\n1000\n100\n/home/jovyan/work\n1048576\n", ended: int = 0
    ) -> None:
        self.inside = inside
        self.ended = ended
        self.runs: list[Json] = []

    def create(
        self, image: str, entrypoint: Sequence[str], command: Sequence[str], network_mode: str, labels: Json
    ) -> FakeLook:
        self.runs.append({"image": image, "network": network_mode, "labels": labels, "removed": False})
        return FakeLook(self.inside, self.ended, self.runs[-1])


class FakeLook:
    """The container of one look inside an image."""

    def __init__(self, inside: bytes | Exception, ended: int, record: Json) -> None:
        self._inside = inside
        self._ended = ended
        self._record = record

    def start(self) -> None:
        if isinstance(self._inside, Exception):
            raise self._inside

    def wait(self, timeout: float) -> Json:
        assert timeout > 0
        return {"StatusCode": self._ended}

    def logs(self, stdout: bool, stderr: bool) -> bytes:
        assert stdout and not stderr and isinstance(self._inside, bytes)
        return self._inside

    def remove(self, force: bool, v: bool) -> None:
        self._record["removed"] = force and v


def fake_engine(api: object, containers: object = None, name: str = "m1", address: str = "192.0.2.1") -> Engine:
    client = SimpleNamespace(api=api, containers=containers or FakeContainers())
    return Engine(Machine(name, address), cast(docker.DockerClient, client))


class FakeDriver:
    """One machine, whose swarm is adopted as by `local`; or several, whose engines serve one course as with `generic`.

    Students reach m1 at 192.0.2.1, m2 at 192.0.2.2, …, and they each other at the engines' own addresses.
    `bare` machines have no engine for the course until they are prepared; `lost` ones do not answer.
    `faults` are raised by `prepare`, and `refusals` by `survey`.
    """

    def __init__(self, *apis: FakeApi, held: frozenset[int] = frozenset()) -> None:
        self.apis = {api.name: api for api in apis}
        self.engines = {api.name: fake_engine(api, name=api.name, address=f"192.0.2.{api.name[1:]}") for api in apis}
        self.adopts_swarm = len(apis) == 1
        self.held = held
        self.bare = set() if self.adopts_swarm else set(self.apis)
        self.lost: set[str] = set()
        self.faults: dict[str, CloudscaleError] = {}
        self.refusals: dict[str, CloudscaleError] = {}
        self.free_disk: dict[str, int] = {}
        self.done: list[str] = []
        self.cut_off: set[str] = set()  # machines that no other one reaches

    def lose(self, *names: str) -> None:
        for name in names:
            self.lost.add(name)
            self.apis[name].go_down()

    def find(self, *names: str) -> None:
        for name in names:
            self.lost.remove(name)
            self.apis[name].come_back()

    def machines(self) -> list[Machine]:
        return [engine.machine for engine in self.engines.values()]

    def _reach(self, machine: Machine) -> FakeApi:
        assert machine == self.engines[machine.name].machine
        if machine.name in self.lost:
            raise ConnectionFailed(f"{machine.name}: no answer in 15 s.")
        return self.apis[machine.name]

    def survey(self, machine: Machine) -> Survey:
        api = self._reach(machine)
        if machine.name in self.refusals:
            raise self.refusals[machine.name]
        if self.adopts_swarm:
            return Survey(machine, "127.0.0.1", held_ports=self.held, free_disk=self.free_disk.get(machine.name))
        return Survey(
            machine,
            api.address,
            addresses=frozenset({api.address}),
            cpus=api.cpus,
            memory=api.memory,
            free_disk=self.free_disk.get(machine.name, 100 * GIB),
            held_ports=self.held | api.open_ports,
            networks=frozenset({"10.0.0.0/24"}),
            state=MachineState.BARE if machine.name in self.bare else MachineState.SERVING,
        )

    def prepare(self, machine: Machine, seat: SeatSettings = USUAL_SEAT) -> Engine:
        self._reach(machine)
        if machine.name in self.faults:
            raise self.faults[machine.name]
        if machine.name in self.bare:
            self.bare.remove(machine.name)
            self.done.append(f"set up {machine.name}")
        return self.connect(machine)

    def connect(self, machine: Machine) -> Engine:
        if machine.name in self.bare:
            raise NotSetUp(f"{machine.name}: the course has not set it up.")
        if machine.name in self.lost:
            raise EngineError(f"{machine.name}: its Docker Engine, port 2376, can't be reached (no answer).")
        return self.engines[machine.name]

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        self._reach(machine)
        return CommandResult(0, f"{machine.name}: {command} within {timeout:g}\n", "")

    def check_nodes(self, nodes: int) -> None:
        if nodes > len(self.apis):
            raise RequestError(f"There are {len(self.apis)} machines, not {nodes}.")

    def add(self, name: str) -> str:
        return f"added {name}"

    def remove(self, name: str) -> str:
        self.done.append(f"removed {name}")
        return f"removed {name}"

    def describe_removal(self, name: str) -> str:
        return f"The machine {name}"

    def __call__(self, settings: Settings, course: CourseFolder, say: Say, patience: float | None = None) -> FakeDriver:
        """In the place of load_driver."""
        return self


class FakeHosts(FakeDriver):
    """Several machines, whose engines the course sets up, as with `generic`."""

    def copy_image(
        self,
        source: Machine,
        targets: Sequence[Machine],
        image: str,
        on_bytes: Callable[[int], None],
        on_arrival: Callable[[str], None],
    ) -> Outcomes[None]:
        """Each passes it on to the next; behind one that is `cut_off` nothing arrives."""
        found = self._reach(source).inspect_image(image)
        on_bytes(1048576)
        results: list[Outcome[None]] = []
        before = source.name
        for at, target in enumerate(targets):
            if self.cut_off & {machine.name for machine in targets[: at + 1]}:
                cause = f"{target.name}: could not pass the image to it from {source.name} (port 22 is closed)."
                results.append(Outcome(target.name, error=MachineError(cause)))
                continue
            self._reach(target).receive(image, found)
            self.done.append(f"copy {image} from {before} to {target.name}")
            before = target.name
            on_arrival(target.name)
            results.append(Outcome(target.name))
        return Outcomes(results)

    def release(self, machine: Machine) -> str:
        api = self._reach(machine)
        if machine.name in self.bare:
            return ""
        assert "cloudscale.course" not in api.swarm.labels, f"{machine.name} is given back while it is in the swarm"
        self.bare.add(machine.name)
        self.done.append(f"release {machine.name}")
        return "engine as before"


def fake_driver(*apis: FakeApi) -> FakeDriver:
    """One machine as with `local`, or several as with `generic`."""
    return FakeDriver(*apis) if len(apis) == 1 else FakeHosts(*apis)


def fake_apis(*names: str, in_swarm: bool = False) -> list[FakeApi]:
    """Engines in one network, at 10.0.0.1, .2, …: in no swarm, or all in one whose managers the first three are."""
    network = FakeNetwork()
    apis = [
        FakeApi(name=name, address=f"10.0.0.{number}", network=network, in_swarm=in_swarm and number == 1)
        for number, name in enumerate(names, start=1)
    ]
    for number, api in enumerate(apis[1:] if in_swarm else [], start=2):
        role = "Manager" if number <= 3 <= len(apis) else "Worker"
        token = apis[0].inspect_swarm()["JoinTokens"][role]
        api.join_swarm(["10.0.0.1:2377"], token, api.address, api.address, api.address)
    for api in apis:
        api.changes.clear()
    return apis


def http_answer(body: bytes, status: int = 200) -> requests.Response:
    """An answer of which nothing was read."""
    answer = requests.Response()
    answer.status_code, answer.raw = status, urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
    return answer
