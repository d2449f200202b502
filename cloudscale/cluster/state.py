"""A course as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloudscale.drivers.protocols import Driver, MakesMachines
from cloudscale.engines.client import Engine
from cloudscale.errors import CloudscaleError, NotSetUp, SwarmError
from cloudscale.model import Machine, Node
from cloudscale.seats.services import RunningSeat
from cloudscale.swarm.nodes import SwarmNode


@dataclass(frozen=True)
class Cluster:
    """The course as it is now.

    `engines` and `nodes` are of the machines that can be used; `lost` has the others, with the cause.
    `managers` are the engines that speak for the swarm, `swarm` its nodes by id. `cut_off` has the
    engines whose swarm has too few managers left to be asked; `is_beheaded`: they will not come back, being deleted.
    """

    driver: Driver
    machines: tuple[Machine, ...]
    engines: Mapping[str, Engine]
    nodes: Mapping[str, Node]
    lost: Mapping[str, CloudscaleError]
    managers: tuple[Engine, ...]
    swarm: Mapping[str, SwarmNode]
    seats: tuple[RunningSeat, ...]
    cut_off: Mapping[str, Engine]
    is_beheaded: bool = False

    @property
    def maker(self) -> MakesMachines | None:
        """The driver, where it makes machines."""
        return self.driver if isinstance(self.driver, MakesMachines) else None

    @property
    def in_swarm(self) -> bool:
        return bool(self.managers)

    def head_lost(self) -> SwarmError:
        return SwarmError(
            "The swarm has too few managers left to be asked or changed;"
            f" what runs on {', '.join(self.cut_off)} goes on."
        )

    def check_head(self, remedy: str) -> None:
        """Raises SwarmError where the swarm has lost its managers."""
        if self.cut_off:
            raise CloudscaleError("\n".join(map(str, self.lost.values())) + f"\n{self.head_lost().message}", remedy)

    def ports(self, seats: Iterable[RunningSeat]) -> dict[str, set[int]]:
        """The ports of these seats, by machine."""
        ports: dict[str, set[int]] = {}
        for seat in seats:
            ports.setdefault(self.machine_of(seat), set()).add(seat.port)
        return ports

    @property
    def manager(self) -> Engine:
        """An engine that speaks for the swarm; without a swarm, the first. Raises CloudscaleError for want of any."""
        for engine in (*self.managers, *self.engines.values()):
            return engine
        raise CloudscaleError("No machine can be used.\n" + "\n".join(str(error) for error in self.lost.values()))

    @property
    def swarm_machines(self) -> set[str]:
        """The names of the machines that the swarm has, lost ones too."""
        return {node.machine for node in self.swarm.values()} - {""}

    @property
    def hosts(self) -> dict[str, str]:
        return {machine.name: machine.address for machine in self.machines}

    @property
    def failures(self) -> dict[str, CloudscaleError]:
        """The lost machines that the course uses; one that was never set up for it is none."""
        used = {node.machine for node in self.swarm.values()}
        return {n: error for n, error in self.lost.items() if n in used or not isinstance(error, NotSetUp)}

    def machine_of(self, seat: RunningSeat) -> str:
        """The name of the machine that a seat is pinned to; empty where the swarm does not have it any more."""
        # the label first: a clone claims to be the same node
        name = self.swarm[seat.node_id].machine if seat.node_id in self.swarm else ""
        name = name or next((name for name, node in self.nodes.items() if node.id == seat.node_id), "")
        return name

    @property
    def strays(self) -> tuple[str, ...]:
        """What to say of machines that are in the swarm and not among the course's any more."""
        strays = sorted({node.machine for node in self.swarm.values()} - {"", *self.hosts})
        if self.maker:
            return tuple(f"{name}: it was deleted.\n  invoke themachine makes it again." for name in strays)
        return tuple(
            f"{name}: it is in the course's swarm, but not among its machines any more; what is on it stays as it is."
            f"\n  Put it back; before it is left out, invoke driver_reset --only {name}."
            for name in strays
        )

    def names_of(self, seat: RunningSeat) -> tuple[str, ...]:
        return (seat.name, seat.student_id, seat.student_name, self.machine_of(seat))
