"""What a workflow asks of a source of machines: small protocols. A driver has the methods of what it can do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from cloudscale.engines.client import Engine
from cloudscale.model import CommandResult, Kind, Machine, OnOutput, Order, Outcomes, Survey


class Driver(Protocol):
    """Every source of machines. Safe to use from several threads."""

    adopts_swarm: bool
    """Whether a swarm that a machine manages already is used, whoever made it, rather than refused."""

    def machines(self) -> list[Machine]:
        """The machines of the course as they are now, the Swarm's first manager first; read back, not remembered."""

    def check_nodes(self, nodes: int) -> None:
        """Raises RequestError where the driver can't provide that many machines (0: as many as needed)."""

    def survey(self, machine: Machine) -> Survey:
        """What the machine is. Changes nothing. Raises CloudscaleError where it is lost, or in use by others."""

    def prepare(self, machine: Machine) -> Engine:
        """The machine's engine, installed, set up for the course and started as far as it is not. Idempotent."""

    def connect(self, machine: Machine) -> Engine:
        """The machine's engine as it is. Raises EngineError where it is absent or closed."""

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        """Runs a shell command on the machine; past `timeout` seconds it is ended, with exit code 124."""


@runtime_checkable
class SetsUpEngines(Protocol):
    """Several machines, each with an engine that the course sets up over SSH."""

    def copy_image(self, source: Machine, target: Machine, image: str, on_output: OnOutput) -> None:
        """Sends an image from one machine to another; `on_output` gets what dd(1) prints of the bytes sent."""

    def release(self, machine: Machine) -> str:
        """After a course: undoes what `prepare` did, and returns what was done, in words ("" for nothing)."""


@runtime_checkable
class MakesMachines(Protocol):
    """Machines that are made for the course and deleted with it."""

    def kind(self) -> Kind:
        """What each machine will be. Raises RequestError, with what is wrong by name."""

    def order(self, count: int, former: Collection[str]) -> Order:
        """So many more machines, `former` names first, with what they take of the quota. Makes nothing."""

    def boot(self, machine: Machine) -> Survey:
        """Makes or starts a machine, and waits until it can be logged in to. Idempotent."""

    def open_ports(self, ports: Mapping[str, Collection[int]]) -> None:
        """Lets students reach exactly these ports of the machines, by a machine's name."""

    def resources(self) -> str:
        """Everything that was made for the course, in words; empty where there is nothing."""

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        """Deletes everything that was made for the course, or for the machines of these names, for good."""


@runtime_checkable
class SingleMachines(Protocol):
    """One machine at a time, by a name that the user chooses."""

    def add(self, name: str) -> str:
        """Adds a machine with an engine, and returns what was done, in words."""

    def describe_removal(self, name: str) -> str:
        """What `remove` would remove, as the first half of a question. Raises RequestError where there is nothing."""

    def remove(self, name: str) -> str:
        """Removes what `add` made, and returns what was done, in words."""
