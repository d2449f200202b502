"""Pure: students, nodes and what runs already in; seats out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloudscale.course.settings import SeatSettings
from cloudscale.errors import CapacityError
from cloudscale.model import Kind, Node, Place, Seat, Student
from cloudscale.units import gib, mib

LAST_PORT = 65535


@dataclass(frozen=True)
class Need:
    """What the seats of one machine need against what it has: memory in bytes, cores, seats."""

    machine: str
    seats: int
    memory: int
    free_memory: int
    cores: float
    free_cores: int


@dataclass(frozen=True)
class Plan:
    """Where every student sits; `leavers` are the ids of seats whose students left the roster."""

    seats: tuple[Seat, ...]
    leavers: tuple[str, ...]
    needs: tuple[Need, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PortRange:
    """Host ports for seats, on each machine: from `start` to `end`, 0 being as far as needed."""

    start: int
    end: int = 0

    @property
    def last(self) -> int:
        return self.end or LAST_PORT


def make_plan(
    students: Sequence[Student],
    nodes: Sequence[Node],
    seated: Mapping[str, Place],
    remembered: Mapping[str, Place],
    ports: PortRange,
    limits: SeatSettings,
    *,
    prune: bool = False,
    lost: Collection[str] = (),
    hosts: Mapping[str, str] | None = None,
) -> Plan:
    """Places every student.

    Those `seated` (by id) stay, on `lost` machines too, which take nobody else. The others go where they
    are `remembered` to have been, as far as that is free, else to the machine that is least full, on its
    lowest free port. Room is what memory and cores allow; memory and ports are limits, cores are not. Seats
    of students who left count, unless they are pruned. `hosts`: the addresses of the machines, of lost ones too;
    those behind one address share its ports. Raises CapacityError, with the numbers.
    """
    enrolled = {student.id for student in students}
    room = {node.machine.name: max(0, node.memory - node.taken_memory) // limits.reserve for node in nodes}
    leavers = tuple(sorted(id for id in seated if id not in enrolled))
    kept = {id: place for id, place in seated.items() if not (prune and id not in enrolled)}
    stranded = {id: place for id, place in kept.items() if place.machine in lost}
    places = {id: place for id, place in kept.items() if place.machine in room}
    new = [student for student in students if student.id not in {**places, **stranded}]
    for node in nodes:
        if limits.cpus > node.cpus:
            raise CapacityError(
                f"A seat may use {limits.cpus:g} cores (seat.cpus), and {node.machine.name} has {node.cpus}.",
                "Lower seat.cpus in the configuration, or use a larger machine.",
            )
    if len(places) + len(new) > sum(room.values()):
        raise _too_little_memory(len(places) + len(new), nodes, sum(room.values()), limits)

    free_ports = _FreePorts(nodes, kept.values(), ports, hosts or {})
    load = Counter(place.machine for place in places.values())
    # everyone's old place first, so that no newcomer takes it
    for student in new:
        old = remembered.get(student.id)
        if old and load[old.machine] < room.get(old.machine, 0) and free_ports.take(old):
            places[student.id] = old
            load[old.machine] += 1
    comfort = {
        node.machine.name: min(room[node.machine.name], node.cpus * limits.per_core) for node in nodes
    }  # seats without a warning
    unplaced = [student for student in new if student.id not in places]
    for at, student in enumerate(unplaced):
        # sorted is stable: of equals, the first machine comes first
        by_room = sorted((n for n in room if load[n] < room[n]), key=lambda name: (load[name] + 1) / comfort[name])
        place = next(filter(None, map(free_ports.lowest, by_room)), None)
        if place is None:
            raise _too_few_ports(len(unplaced), at, len(nodes), ports)
        places[student.id] = place
        load[place.machine] += 1

    needs = tuple(
        Need(
            machine=node.machine.name,
            seats=load[node.machine.name],
            memory=load[node.machine.name] * limits.reserve,
            free_memory=node.memory - node.taken_memory,
            cores=round(load[node.machine.name] / limits.per_core, 2),
            free_cores=node.cpus,
        )
        for node in nodes
    )
    everyone = {**stranded, **places}
    return Plan(
        seats=tuple(Seat(student, everyone[student.id]) for student in students),
        leavers=leavers,
        needs=needs,
        warnings=(*_crowded(needs, limits), *free_ports.warnings()),
    )


def _too_little_memory(seats: int, nodes: Sequence[Node], room: int, limits: SeatSettings) -> CapacityError:
    free = sum(max(0, node.memory - node.taken_memory) for node in nodes)
    those = f"{nodes[0].machine.name} has" if len(nodes) == 1 else f"the {len(nodes)} machines have"
    return CapacityError(
        f"{seats} seats need {gib(seats * limits.reserve)} of memory"
        f" ({mib(limits.reserve)} each), and {those} {gib(free)} for them: room for {room}.",
        "Use more or larger machines, shorten the students' file, or lower seat.reserve in the configuration.",
    )


def _too_few_ports(wanted: int, found: int, machines: int, ports: PortRange) -> CapacityError:
    on = "" if machines == 1 else f" on each of the {machines} machines"
    return CapacityError(
        f"{wanted} more seats need {wanted} ports, and of {ports.start} to {ports.last}{on} only {found} are free.",
        f"Choose a wider range: --end {min(LAST_PORT, ports.last + wanted - found)} or more (0: as far as needed),"
        " or another --start.",
    )


def _crowded(needs: Sequence[Need], limits: SeatSettings) -> list[str]:
    return [
        f"{need.seats} seats on {need.machine} are more than {limits.per_core:g} for each of its"
        f" {need.free_cores} cores (seat.per_core): it will be slow when all work at once."
        for need in needs
        if need.cores > need.free_cores
    ]


def seats_in(cpus: int, memory: int, limits: SeatSettings) -> int:
    """How many seats a plan gives a machine of so many cores and bytes, where it may choose."""
    return max(0, min(memory // limits.reserve, int(cpus * limits.per_core)))


def machines_to_make(seats: int, rooms: Collection[int], kind: Kind, limits: SeatSettings) -> int:
    """How many machines more so many seats need; `rooms`: how many each machine takes that is there.

    Raises CapacityError where not one seat fits a machine.
    """
    room = seats_in(kind.cpus, kind.memory, limits)
    if not room or limits.cpus > kind.cpus:
        raise CapacityError(
            f"Not one seat fits a machine of kind {kind.name}: it has {kind.cpus} cores and"
            f" {gib(kind.memory)} for seats; a seat takes {gib(limits.reserve)} (seat.reserve)"
            f" and up to {limits.cpus:g} cores (seat.cpus), with at most {limits.per_core:g} a core (seat.per_core).",
            "Choose larger machines, or lower seat.reserve or seat.cpus, or raise seat.per_core.",
        )
    return -(-max(0, seats - sum(rooms)) // room)


class _FreePorts:
    """Which ports of each machine's range nobody has."""

    def __init__(
        self, nodes: Sequence[Node], places: Iterable[Place], ports: PortRange, hosts: Mapping[str, str]
    ) -> None:
        self._range = range(ports.start, ports.last + 1)
        self._others = {node.machine.name: node.taken_ports for node in nodes}
        addresses = {**hosts, **{node.machine.name: node.machine.address for node in nodes}}
        # one that is to be made yet has no address, and all of its ports
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
