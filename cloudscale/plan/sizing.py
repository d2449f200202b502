"""Pure: how many machines a class needs."""

from __future__ import annotations

from collections.abc import Collection

from cloudscale.course.settings import SeatSettings
from cloudscale.errors import CapacityError
from cloudscale.model import Kind
from cloudscale.units import gib


def seats_in(cpus: int, memory: int, limits: SeatSettings) -> int:
    """How many seats a plan gives a machine of so many cores and bytes, where it may choose."""
    return max(0, min(memory // limits.reserve, int(cpus * limits.per_core)))


def machines_to_make(seats: int, rooms: Collection[int], kind: Kind, limits: SeatSettings) -> int:
    """How many more machines so many seats need. `rooms`: how many seats each existing machine takes.

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
