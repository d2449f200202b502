"""What a workflow asks of a source of machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from cloudscale.engines.client import Engine
from cloudscale.model import CommandResult, Kind, Machine, OnOutput, Order, Outcomes, Survey


class Driver(Protocol):
    """What a workflow asks of a source of machines. Safe to use from several threads."""

    adopts_swarm: bool
    """Whether a swarm that a machine manages already is used, whoever made it, rather than refused."""

    makes_machines: bool
    """Whether machines are made for the course, and deleted with it; else they are there before and after."""

    def machines(self) -> list[Machine]:
        """The machines that are there now, the first being the Swarm's first manager; read back, not remembered."""

    def kind(self) -> Kind | None:
        """What a machine is that can be made; None where none can. Raises RequestError, with what is wrong by name."""

    def order(self, count: int, former: Collection[str]) -> Order:
        """So many machines more, `former` names first, with what they take of the quota. Makes nothing."""

    def survey(self, machine: Machine) -> Survey:
        """What the machine is. Changes nothing. Raises CloudscaleError where it is lost, or serves others."""

    def bring(self, machine: Machine) -> Survey:
        """Makes a machine that was ordered, or waits for one that boots, until it can be logged in to. Idempotent."""

    def open_ports(self, ports: Mapping[str, Collection[int]]) -> None:
        """Lets students reach just these ports of the machines, by a machine's name."""

    def prepare(self, machine: Machine) -> Engine:
        """The machine's engine, installed, set up for the course and started as far as it is not. Idempotent."""

    def connect(self, machine: Machine) -> Engine:
        """The machine's engine as it is. Raises EngineError where it is absent or closed."""

    def copy_image(self, source: Machine, target: Machine, image: str, on_output: OnOutput) -> None:
        """Sends an image from one machine to another; `heard` is told what dd(1) says of the bytes sent."""

    def release(self, machine: Machine) -> str:
        """After a course: takes away what `prepare` brought, and returns what was done, in words ("" for nothing)."""

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        """Runs a shell command on the machine; past `timeout` seconds it is ended, with exit code 124."""

    def check_nodes(self, nodes: int) -> None:
        """Raises RequestError where the driver can't give that many machines (0: as many as needed)."""

    def resources(self) -> str:
        """All that was made for the course, in words; empty where nothing is there."""

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        """Deletes all that was made for the course, or for the machines of these names, for good."""

    def add(self, name: str) -> str:
        """Adds a machine with an engine, and returns what was done, in words."""

    def remove(self, name: str) -> str:
        """Takes away what `add` brought, and returns what was done, in words."""

    def removal(self, name: str) -> str:
        """What `remove` would take away, as a question's first half. Raises RequestError where there is nothing."""
