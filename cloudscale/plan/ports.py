"""The one ledger of ports: which ports of each machine seats may use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloudscale.model import Node, Place

LAST_PORT = 65535


@dataclass(frozen=True)
class PortRange:
    """Host ports for seats, on each machine: from `start` to `end`, 0 being as far as needed."""

    start: int
    end: int = 0

    @property
    def last(self) -> int:
        return self.end or LAST_PORT


class PortLedger:
    """Which ports of each machine's range are free.

    Machines behind one address share its ports. `nodes` know what others hold, without what the course's own
    seats hold; `places` are those of the seats that stay.
    """

    def __init__(
        self, nodes: Sequence[Node], places: Iterable[Place], ports: PortRange, hosts: Mapping[str, str]
    ) -> None:
        self._range = range(ports.start, ports.last + 1)
        self._others = {node.machine.name: node.taken_ports for node in nodes}
        addresses = {**hosts, **{node.machine.name: node.machine.address for node in nodes}}
        # a machine that is not made yet has no address, and all of its ports are free
        self._address = {name: address or name for name, address in addresses.items()}
        self._taken: defaultdict[str, set[int]] = defaultdict(set)  # by address
        self._passed: set[Place] = set()
        for node in nodes:
            self._taken[self._address[node.machine.name]] |= node.taken_ports
        for place in places:
            self._taken[self._address.get(place.machine, place.machine)].add(place.port)

    def take(self, place: Place) -> bool:
        taken = self._taken[self._address[place.machine]]
        if place.port not in self._range or place.port in taken:
            return False
        taken.add(place.port)
        return True

    def lowest(self, machine: str) -> Place | None:
        for port in self._range:
            if self.take(Place(machine, port)):
                return Place(machine, port)
            if port in self._others[machine]:
                self._passed.add(Place(machine, port))
        return None

    def warnings(self) -> list[str]:
        return [
            f"Port {place.port} of {place.machine} is held by something else and was passed over."
            for place in sorted(self._passed, key=lambda place: (place.machine, place.port))
        ]
