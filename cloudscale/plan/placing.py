"""Pure: students, nodes and what runs already in; seats out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from cloudscale.course.settings import SeatSettings
from cloudscale.errors import CapacityError
from cloudscale.model import Node, Place, Seat, Student
from cloudscale.plan.ports import LAST_PORT, PortLedger, PortRange
from cloudscale.units import gib, mib


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
class Situation:
    """What a plan is made from.

    `nodes` take seats. `seated`: who has a seat, by id, and where; they stay, on `lost` machines too, which take no
    others. `remembered`: where students had a seat before, `preferred`: where an earlier plan has them; they go there
    as far as it is free. `pruned`: the seats of students who left are removed, and do not count. `addresses`: of all
    machines, of lost ones too.
    """

    nodes: Sequence[Node]
    ports: PortRange
    limits: SeatSettings
    seated: Mapping[str, Place] = field(default_factory=dict)
    remembered: Mapping[str, Place] = field(default_factory=dict)
    preferred: Mapping[str, Place] = field(default_factory=dict)
    lost: Collection[str] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    pruned: bool = False


def make_plan(students: Sequence[Student], now: Situation) -> Plan:
    """Places every student.

    Who has a seat stays. The others go where they were before, else to the machine that is least full, on its
    lowest free port. Room is what memory and cores allow; memory and ports are limits, cores are not. Raises
    CapacityError, with the numbers.
    """
    enrolled = {student.id for student in students}
    room = {node.machine.name: max(0, node.memory - node.taken_memory) // now.limits.reserve for node in now.nodes}
    kept = {id: place for id, place in now.seated.items() if not (now.pruned and id not in enrolled)}
    stranded = {id: place for id, place in kept.items() if place.machine in now.lost}
    staying = {id: place for id, place in kept.items() if place.machine in room}
    new = [student for student in students if student.id not in {**staying, **stranded}]
    _check_size(len(staying) + len(new), sum(room.values()), now)
    ledger = PortLedger(now.nodes, kept.values(), now.ports, now.addresses)
    load = Counter(place.machine for place in staying.values())
    placed = _place(new, room, load, ledger, now)
    needs = tuple(_need(node, load[node.machine.name], now.limits) for node in now.nodes)
    everyone = {**stranded, **staying, **placed}
    return Plan(
        seats=tuple(Seat(student, everyone[student.id]) for student in students),
        leavers=tuple(sorted(id for id in now.seated if id not in enrolled)),
        needs=needs,
        warnings=(*_crowded(needs, now.limits), *ledger.warnings()),
    )


def _check_size(seats: int, room: int, now: Situation) -> None:
    for node in now.nodes:
        if now.limits.cpus > node.cpus:
            raise CapacityError(
                f"A seat may use {now.limits.cpus:g} cores (seat.cpus), and {node.machine.name} has {node.cpus}.",
                "Lower seat.cpus in the configuration, or use a larger machine.",
            )
    if seats > room:
        raise _too_little_memory(seats, now.nodes, room, now.limits)


def _place(
    students: Sequence[Student], room: Mapping[str, int], load: Counter[str], ledger: PortLedger, now: Situation
) -> dict[str, Place]:
    """A place for each of them. `load`: the seats of each machine, which grows."""
    placed: dict[str, Place] = {}
    # everyone's own place first, so that no newcomer takes it
    for former in (now.remembered, now.preferred):
        for student in students:
            place = None if student.id in placed else former.get(student.id)
            if place and load[place.machine] < room.get(place.machine, 0) and ledger.take(place):
                placed[student.id] = place
                load[place.machine] += 1
    # seats without a warning
    comfort = {node.machine.name: min(room[node.machine.name], node.cpus * now.limits.per_core) for node in now.nodes}
    unplaced = [student for student in students if student.id not in placed]
    for at, student in enumerate(unplaced):
        # sorted is stable: of equals, the first machine comes first
        by_room = sorted((n for n in room if load[n] < room[n]), key=lambda name: (load[name] + 1) / comfort[name])
        place = next(filter(None, map(ledger.lowest, by_room)), None)
        if place is None:
            raise _too_few_ports(len(unplaced), at, len(now.nodes), now.ports)
        placed[student.id] = place
        load[place.machine] += 1
    return placed


def _need(node: Node, seats: int, limits: SeatSettings) -> Need:
    return Need(
        machine=node.machine.name,
        seats=seats,
        memory=seats * limits.reserve,
        free_memory=node.memory - node.taken_memory,
        cores=round(seats / limits.per_core, 2),
        free_cores=node.cpus,
    )


def _too_little_memory(seats: int, nodes: Sequence[Node], room: int, limits: SeatSettings) -> CapacityError:
    free = sum(max(0, node.memory - node.taken_memory) for node in nodes)
    those = f"{nodes[0].machine.name} has" if len(nodes) == 1 else f"the {len(nodes)} machines have"
    return CapacityError(
        f"{seats} seats need {gib(seats * limits.reserve)} of memory"
        f" ({mib(limits.reserve)} each), and {those} {gib(free)} for them: room for {room}.",
        "Use more or larger machines, shorten the students' file, or lower seat.reserve in the configuration.",
    )


def _too_few_ports(wanted: int, free: int, machines: int, ports: PortRange) -> CapacityError:
    on = "" if machines == 1 else f" on each of the {machines} machines"
    return CapacityError(
        f"{wanted} more seats need {wanted} ports, and of {ports.start} to {ports.last}{on} only {free} are free.",
        f"Choose a wider range: --end {min(LAST_PORT, ports.last + wanted - free)} or more (0: as far as needed),"
        " or another --start.",
    )


def _crowded(needs: Sequence[Need], limits: SeatSettings) -> list[str]:
    return [
        f"{need.seats} seats on {need.machine} are more than {limits.per_core:g} for each of its"
        f" {need.free_cores} cores (seat.per_core): it will be slow when all work at once."
        for need in needs
        if need.cores > need.free_cores
    ]
