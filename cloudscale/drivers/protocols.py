"""What a workflow can ask of a source of machines: small protocols. A driver implements those that it supports."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cloudscale.course.settings import USUAL_SEAT, SeatSettings
from cloudscale.model import CommandResult, Finding, Kind, Machine, Order, Outcomes, Survey, WorkVolume

if TYPE_CHECKING:
    from cloudscale.engines.client import Engine


class Driver(Protocol):
    """Every source of machines. Safe to use from several threads."""

    adopts_swarm: bool
    """Whether to use the swarm that a machine already manages, whoever created it; if false, it is refused."""

    def machines(self) -> list[Machine]:
        """The machines of the course as they are now, the first manager of the swarm first. Always read again."""

    def check_nodes(self, nodes: int) -> None:
        """Raises RequestError if the driver can't provide that many machines (0: as many as needed)."""

    def survey(self, machine: Machine) -> Survey:
        """What the machine is. Changes nothing. Raises CloudscaleError if it is lost, or in use by others."""

    def prepare(self, machine: Machine, seat: SeatSettings = USUAL_SEAT) -> Engine:
        """Installs, sets up and starts the machine's engine, as far as necessary, and returns it. Idempotent.

        `reach`: what seats may reach in the machine's networks; a machine that is not the course's alone has no walls.
        """

    def connect(self, machine: Machine) -> Engine:
        """The machine's engine as it is. Raises EngineError if there is none, or if it can't be used."""

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        """Runs a shell command on the machine. After `timeout` seconds it is ended, with exit code 124."""


@runtime_checkable
class SetsUpEngines(Protocol):
    """Several machines, each with an engine that the course sets up over SSH."""

    def copy_image(
        self,
        source: Machine,
        targets: Sequence[Machine],
        image: str,
        on_bytes: Callable[[int], None],
        on_arrival: Callable[[str], None],
    ) -> Outcomes[None]:
        """Sends an image from one machine through others, each of which passes it on while it receives it.

        `on_bytes` gets how many have left the source, `on_arrival` each machine's name as soon as it has the image.
        """

    def release(self, machine: Machine) -> str:
        """After a course: undoes what `prepare` did, and describes what was undone ("" for nothing)."""


@runtime_checkable
class KeepsOthersAway(Protocol):
    """Machines that trainers at several computers can change, and one of which keeps all runs but one away."""

    def exclusive(self, who: str) -> contextlib.AbstractContextManager[None]:
        """Keeps other runs of the course away, as far as a machine can be logged in to. Raises Busy (CloudscaleError).

        `who`: what the others read about this run.
        """


@runtime_checkable
class MakesMachines(Protocol):
    """Machines that are made for the course and deleted with it."""

    def kind(self) -> Kind:
        """What each machine will be. Raises RequestError, which names the wrong setting."""

    def enter_by_first(self, wanted: bool | None) -> bool:
        """Says whether the first machine alone is to have a public address, so that the others are reached through it.

        To be called before anything is ordered or booted. None: as it is. Returns what holds from now on.
        """

    def settle_addresses(self) -> Mapping[str, str]:
        """Gives and takes public addresses, until just those machines have one that should.

        Returns the new addresses of the machines that got one. Raises CloudscaleError.
        """

    def check_port(self, port: int) -> None:
        """Raises RequestError if no machine's port of this number can be reached by students, whatever runs there."""

    def claim(self) -> None:
        """Before anything is made: whoever shares the place with this user knows that the course is this folder's.

        Raises RequestError if it is another one's.
        """

    def order(self, count: int, former: Collection[str]) -> Order:
        """Plans `count` more machines and their share of the quota; uses `former` names first. Makes nothing."""

    def boot(self, machine: Machine) -> Survey:
        """Makes or starts a machine, and waits until a login works. Idempotent."""

    def open_ports(self, ports: Mapping[str, Collection[int]], inner: Collection[int] = (), source: str = "") -> None:
        """Machine name → the ports of it that students can reach; all other ports are closed to them.

        `inner`: ports of any machine that the machine with the address `source` alone can reach.
        """

    def resources(self) -> str:
        """Describes everything that was made for the course; "" for nothing."""

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        """Permanently deletes everything that was made for the course, or for the machines of these names.

        Work volumes stay (KeepsWork).
        """


@runtime_checkable
class KeepsWork(Protocol):
    """Machines whose students' work may be on volumes that survive them."""

    def work_volumes(self) -> Sequence[WorkVolume]:
        """The work volumes of the course, whether or not their machines exist."""

    def sweep_work(self) -> Outcomes[str]:
        """Permanently deletes the work volumes, once their machines are gone."""


@runtime_checkable
class Examines(Protocol):
    """What only the driver knows of, and a launch would meet only after it has begun."""

    def examine(self) -> Iterable[Finding]:
        """What is wrong or worth knowing, for `doctor`. Changes nothing. Raises CloudscaleError."""


@runtime_checkable
class KeepsDeadline(Protocol):
    """Machines that cost money: the course's deadline can be read even if none of their engines answers."""

    def deadline(self) -> datetime | None:
        """The course's deadline, as `machines` read it."""

    def mark_deadline(self, until: datetime | None) -> None:
        """Marks what was made with it, before any machine is made; None takes the mark away. Idempotent."""


@runtime_checkable
class SingleMachines(Protocol):
    """One machine at a time, with a name that the user chooses."""

    def add(self, name: str) -> str:
        """Adds a machine with an engine, and describes what was done."""

    def describe_removal(self, name: str) -> str:
        """What `remove` would remove, as the start of a question. Raises RequestError if there is nothing."""

    def remove(self, name: str) -> str:
        """Removes what `add` made, and describes what was done."""
