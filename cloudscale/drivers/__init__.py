"""Where machines come from: one module a driver, behind one small protocol."""

from __future__ import annotations

from typing import Protocol

from cloudscale.engine import Engine
from cloudscale.errors import RequestError
from cloudscale.model import CommandResult, Machine
from cloudscale.settings import Settings


class Driver(Protocol):
    """What a workflow asks of a source of machines."""

    def machines(self) -> list[Machine]:
        """The machines that are there now, the first being the Swarm's manager; read back, not remembered."""

    def connect(self, machine: Machine) -> Engine:
        """The machine's engine. Raises EngineError where it is absent or closed."""

    def held_ports(self, machine: Machine) -> frozenset[int]:
        """TCP ports that something on the machine listens on, as far as the driver can tell."""

    def run(self, machine: Machine, command: str, timeout: float) -> CommandResult:
        """Runs a shell command on the machine; past `timeout` seconds it is ended, with exit code 124."""

    def check_nodes(self, nodes: int) -> None:
        """Raises RequestError where the driver can't give that many machines (0: as many as needed)."""

    def add(self, name: str) -> str:
        """Adds a machine with an engine, and returns what was done, in words."""

    def remove(self, name: str) -> str:
        """Takes away what `add` brought, and returns what was done, in words."""

    def removal(self, name: str) -> str:
        """What `remove` would take away, as a question's first half. Raises RequestError where there is nothing."""


def load_driver(settings: Settings) -> Driver:
    """The driver that the settings name. Raises RequestError for one that is not there yet."""
    if settings.driver == "local":
        from cloudscale.drivers.local import Local

        return Local(settings.local)
    raise RequestError(
        f"The driver {settings.driver} is not there yet in this version.",
        "Use this computer with --driver local, or set cloudscale.driver in invoke.yaml.",
    )
