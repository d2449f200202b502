"""A driver that makes machines, as far as a launch sees one, and a course on what it makes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudError, CloudscaleError, MachineError, NotSetUp
from cloudscale.model import Demand, Kind, Machine, MachineState, Order, Outcome, Outcomes, Survey, WorkVolume
from cloudscale.seats import jupyter
from cloudscale.units import GIB
from tests.unit.api_schema import Json
from tests.unit.classroom import Class
from tests.unit.fake_api import FakeApi
from tests.unit.fake_swarm import FakeNetwork
from tests.unit.fakes import FakeHosts, fake_engine, place_of

SMALL = Kind("small", cpus=2, memory=2 * GIB)  # four seats: of memory, and of cores twice as many


class FakeCloud(FakeHosts):
    """Machines bio-1, bio-2, … of one kind, reached at 192.0.2.1, .2, …; a name keeps its address until it is swept.

    `limits`: of servers and cores. `boot_faults` are raised by `boot`; the server stays, unanswered. `stuck`
    servers can't be deleted. `opened` are the ports that students reach, each time they were set.
    """

    def __init__(self, registry: Json) -> None:
        super().__init__()
        self.adopts_swarm = False
        self.registry = registry
        self.network = FakeNetwork()
        self.servers: list[str] = []
        self.ports: set[str] = set()  # in the cloud's network, by the names of their machines
        self.has_group = False
        self.every_api: list[FakeApi] = []
        self.limits = {"servers": 20, "cores": 40}
        self.boot_faults: dict[str, CloudscaleError] = {}
        self.stuck: set[str] = set()
        self.asleep: set[str] = set()
        self.opened: list[set[int]] = []
        self.opened_on: dict[str, set[int]] = {}  # the last of them, by machine
        self.running_before: list[set[int]] = []  # the ports of seats that ran as those were opened
        self.orders: list[int] = []
        self.until: datetime | None = None  # on the security group
        self.mark_fault: CloudscaleError | None = None
        self._lock = threading.Lock()
        self._starting = threading.Barrier(1)

    # --- behind the tool's back ---

    def delete(self, *names: str) -> None:
        """As somebody does in the cloud: the server goes, with its disk; its port stays."""
        for name in names:
            self.servers.remove(name)
            self.engines.pop(name, None)
            self.lost.discard(name)
            self.asleep.discard(name)
            if name in self.apis:
                self.apis.pop(name).go_down()

    def leave_half_made(self, name: str) -> None:
        """As a run that was cut off does."""
        self.servers.append(name)
        self.ports.add(name)

    def shut_off(self, *names: str) -> None:
        """As a cloud does before its own maintenance; they start side by side."""
        self._starting = threading.Barrier(len(names))
        for name in names:
            self.asleep.add(name)
            self.apis[name].go_down()

    # --- what is there ---

    @staticmethod
    def _number(name: str) -> int:
        return int(name.rpartition("-")[2])

    def _address(self, name: str) -> str:
        return f"192.0.2.{self._number(name)}" if name in self.ports else ""

    def machines(self) -> list[Machine]:
        return [Machine(name, self._address(name)) for name in sorted(self.servers, key=self._number)]

    def kind(self) -> Kind:
        return SMALL

    def order(self, count: int, former: Collection[str]) -> Order:
        self.orders.append(count)
        earlier = sorted({*former, *self.ports} - {*self.servers}, key=self._number)
        fresh = (name for n in itertools.count(1) if (name := f"bio-{n}") not in {*earlier, *self.servers})
        names = itertools.islice(itertools.chain(earlier, fresh), count)
        used = len(self.servers)
        each = {"servers": 1, "cores": SMALL.cpus}
        demands = [
            Demand(what, count * size, used * size, self.limits[what])
            for what, size in each.items()  # as the cloud counts them
        ]
        return Order(
            surveys=tuple(self._coming(Machine(name, self._address(name))) for name in names),
            demands=tuple(demands),
            fits=min(count, *(max(0, self.limits[what] // size - used) for what, size in each.items())),
            quota="The project's quota",
            remedy="Ask who runs the cloud for more.",
        )

    @staticmethod
    def _coming(machine: Machine, *, is_asleep: bool = False) -> Survey:
        return Survey(
            machine,
            address="",
            cpus=SMALL.cpus,
            memory=SMALL.memory,
            networks=frozenset({"10.0.0.0/24"}),
            state=MachineState.OFF if is_asleep else MachineState.COMING,
        )

    def survey(self, machine: Machine) -> Survey:
        assert machine.name in self.servers
        if machine.name not in self.apis or machine.name in self.asleep:
            return self._coming(machine, is_asleep=machine.name in self.asleep)
        return super().survey(machine)

    def connect(self, machine: Machine) -> Engine:
        if machine.name not in self.apis:
            raise NotSetUp(f"{machine.name}: it has not come up yet.")
        if machine.name in self.asleep:
            raise MachineError(f"{machine.name}: its server is SHUTOFF.", "invoke themachine sees to it.")
        return super().connect(machine)

    # --- making and deleting ---

    def boot(self, machine: Machine) -> Survey:
        name = machine.name
        with self._lock:
            self.has_group = True
            self.ports.add(name)
            if name not in self.servers:
                self.servers.append(name)
                self.done.append(f"make {name}")
            if name in self.boot_faults:
                raise self.boot_faults[name]
            if name not in self.apis:
                self._boot(name)
            if is_asleep := name in self.asleep:
                self.asleep.remove(name)
                self.done.append(f"start {name}")
                self.apis[name].come_back()
        if is_asleep:
            self._starting.wait(10)
        return self.survey(Machine(name, self._address(name)))

    def _boot(self, name: str) -> None:
        address = f"10.0.0.{self._number(name)}"
        self.network.engines.pop(address, None)  # of the server that was there before
        api = FakeApi(
            name=name,
            address=address,
            network=self.network,
            in_swarm=False,
            cpus=SMALL.cpus,
            memory=SMALL.memory,
        )
        api.registry = self.registry
        self.apis[name] = api
        self.every_api.append(api)
        self.engines[name] = fake_engine(api, name=name, address=self._address(name))
        self.bare.add(name)

    def release(self, machine: Machine) -> str:
        raise AssertionError(f"{machine.name} is to be deleted, not to be given back")

    def check_nodes(self, nodes: int) -> None:
        pass

    def enter_by_first(self, wanted: bool | None) -> bool:
        return False

    def settle_addresses(self) -> Mapping[str, str]:
        return {}

    def check_port(self, port: int) -> None:
        pass

    def claim(self) -> None:
        pass

    def open_ports(self, ports: Mapping[str, Collection[int]], inner: Collection[int] = (), source: str = "") -> None:
        self.running_before.append({port for api in self.apis.values() for port in api.open_ports})
        self.opened.append({*itertools.chain(*ports.values())})
        self.opened_on = {name: {*numbers} for name, numbers in ports.items()}
        self.has_group = True

    def deadline(self) -> datetime | None:
        return self.until

    def mark_deadline(self, until: datetime | None) -> None:
        if self.mark_fault:
            raise self.mark_fault
        self.has_group = self.has_group or until is not None
        self.until = until
        self.done.append(f"mark until {until}")

    def resources(self) -> str:
        counts = {"servers": len(self.servers), "ports": len(self.ports), "security groups": int(self.has_group)}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        outcomes = []
        for name in [name for name in self.servers if only is None or name in only]:
            if name in self.stuck:
                outcomes.append(Outcome[str](f"server {name}", error=CloudError("It does not go: it is ERROR.")))
                continue
            self.delete(name)
            outcomes.append(Outcome(f"server {name}", "deleted"))
        for name in sorted(name for name in self.ports - {*self.servers} if only is None or name in only):
            self.ports.remove(name)
            outcomes.append(Outcome(f"port {name}", "deleted"))
        if only is None and self.has_group and not self.servers:
            self.has_group, self.until = False, None
            outcomes.append(Outcome("security group cloudscale:bio", "deleted"))
        return Outcomes(outcomes)


class FakeCloudWithWork(FakeCloud):
    """The same, with a work volume for each machine that is made. `stuck_work` can't be deleted."""

    def __init__(self, registry: Json) -> None:
        super().__init__(registry)
        self.work: set[str] = set()
        self.stuck_work: set[str] = set()

    def boot(self, machine: Machine) -> Survey:
        self.work.add(machine.name)
        return super().boot(machine)

    def work_volumes(self) -> list[WorkVolume]:
        return [
            WorkVolume(name, f"{name}-work", is_used=True, is_attached=name in self.servers)
            for name in sorted(self.work, key=self._number)
        ]

    def sweep_work(self) -> Outcomes[str]:
        assert not self.servers, "the volumes are still attached"
        outcomes = []
        for name in sorted(self.work, key=self._number):
            if name in self.stuck_work:
                outcomes.append(Outcome[str](f"volume {name}-work", error=CloudError("It is error_deleting.")))
            else:
                self.work.remove(name)
                outcomes.append(Outcome(f"volume {name}-work", "deleted"))
        return Outcomes(outcomes)


class CloudClass(Class):
    """A course `bio` with Ann and Bob in a cloud that has nothing of it yet; a machine takes four seats.

    A seat answers where its port is open.
    """

    driver: FakeCloud

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        super().__init__(monkeypatch, tmp_path)
        self.driver = FakeCloud(self.registry)
        self.apis = self.driver.every_api
        self.kind = "openstack"
        # the real one is slow on purpose, and these are many seats
        monkeypatch.setattr(jupyter, "hash_password", lambda password, salt: "argon2:$argon2id$x")

    @property
    def folder(self) -> Path:
        return CourseFolder.named(self.course, self.kind).folder

    def _answers(self, url: str, *, at: str = "", probe: str = "") -> bool:
        host, port = place_of(url)
        reached = [machine.name for machine in self.driver.machines() if machine.address == host]
        (name,) = [name for name in reached if name in self.driver.apis]
        api = self.driver.apis[name]
        return not api.is_down and port in api.open_ports & self.driver.opened_on.get(name, set()) - self.mute

    def seats(self) -> dict[str, tuple[str, int, str]]:
        """Machine, port and password, by student, as a launch that changes nothing tells them."""
        return {row["student"]: (row["node"], row["port"], row["password"]) for row in self.rows(self.launch())}

    def made(self) -> list[str]:
        """The machines that the run before made."""
        return sorted(done.removeprefix("make ") for done in self.driver.done if done.startswith("make "))

    def session(self, **common: Any) -> Any:
        self.driver.orders.clear()
        self.driver.opened[:-1] = []
        self.driver.running_before.clear()
        return super().session(**common)


def boot_fault(name: str) -> MachineError:
    return MachineError(f"{name}: its server is in ERROR (No valid host was found).", "Run again.")
