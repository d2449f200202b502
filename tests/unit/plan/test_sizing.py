"""How many machines a course takes, so that a plan finds a seat for everyone on them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.course.settings import SeatSettings
from cloudscale.errors import CapacityError
from cloudscale.model import Kind, Machine, Node, Student
from cloudscale.plan.placing import Situation, make_plan
from cloudscale.plan.ports import PortRange
from cloudscale.plan.sizing import machines_to_make, seats_in
from cloudscale.units import GIB

LIMITS = SeatSettings()  # 512 MiB a seat, 4 seats a core
PORTS = PortRange(4321)


def people(count: int) -> list[Student]:
    return [Student(str(at), f"Student {at}") for at in range(count)]


def kind(room: int, cpus: int = 64) -> Kind:
    """Machines with memory for `room` seats."""
    return Kind("m1.small", cpus, room * LIMITS.reserve)


KINDS = st.builds(kind, st.integers(1, 12), st.integers(1, 4))


@pytest.mark.parametrize(
    ("cpus", "memory", "seats"),
    [(2, 8 * GIB, 8), (64, 8 * GIB, 16), (4, 8 * GIB - 1, 15), (4, GIB // 2, 1), (4, GIB // 2 - 1, 0), (4, -GIB, 0)],
)
def test_a_machine_takes_as_many_seats_as_its_memory_and_its_cores_allow(cpus: int, memory: int, seats: int) -> None:
    assert seats_in(cpus, memory, LIMITS) == seats


def test_a_machine_takes_whole_seats() -> None:
    assert seats_in(3, 64 * GIB, SeatSettings(per_core=1.5)) == 4
    assert seats_in(1, 64 * GIB, SeatSettings(per_core=0.5)) == 0


@given(KINDS)
def test_as_many_seats_as_a_machine_takes_are_planned_on_it_without_a_word(kind: Kind) -> None:
    there = Node(Machine("m1", ""), "", kind.cpus, kind.memory)
    room = seats_in(kind.cpus, kind.memory, LIMITS)
    assert not make_plan(people(room), Situation([there], PORTS, LIMITS)).warnings
    with contextlib.suppress(CapacityError):
        assert make_plan(people(room + 1), Situation([there], PORTS, LIMITS)).warnings


@given(seats=st.integers(0, 60), rooms=st.lists(st.integers(0, 12), max_size=5), kind=KINDS)
def test_as_many_machines_are_made_as_are_needed_and_not_one_too_many(seats: int, rooms: list[int], kind: Kind) -> None:
    count = machines_to_make(seats, rooms, kind, LIMITS)
    room = seats_in(kind.cpus, kind.memory, LIMITS)
    assert count >= 0
    assert sum(rooms) + count * room >= seats
    assert not count or sum(rooms) + (count - 1) * room < seats


@given(seats=st.integers(0, 40), rooms=st.lists(st.integers(0, 8), max_size=3), kind=KINDS)
def test_a_plan_finds_everyone_a_seat_on_what_is_made(seats: int, rooms: list[int], kind: Kind) -> None:
    count = machines_to_make(seats, rooms, kind, LIMITS)
    there = [Node(Machine(f"m{at}", ""), "", 64, room * LIMITS.reserve) for at, room in enumerate(rooms)]
    made = [Node(Machine(f"new{at}", ""), "", kind.cpus, kind.memory) for at in range(count)]
    plan = make_plan(people(seats), Situation([*there, *made], PORTS, LIMITS))
    assert len(plan.seats) == seats
    assert not plan.warnings


@given(seats=st.integers(0, 40), more=st.integers(1, 10), rooms=st.lists(st.integers(0, 12), max_size=3), kind=KINDS)
def test_once_they_are_made_no_more_are(seats: int, more: int, rooms: list[int], kind: Kind) -> None:
    count = machines_to_make(seats, rooms, kind, LIMITS)
    room = seats_in(kind.cpus, kind.memory, LIMITS)
    assert machines_to_make(seats, [*rooms, *[room] * count], kind, LIMITS) == 0
    assert machines_to_make(seats + more, rooms, kind, LIMITS) >= count


@pytest.mark.parametrize(
    ("kind", "limits", "setting"),
    [
        (Kind("tiny", 4, GIB // 4), LIMITS, "seat.reserve"),
        (Kind("tiny", 1, 8 * GIB), SeatSettings(cpus=1.5), "seat.cpus"),
        (Kind("tiny", 1, 8 * GIB), SeatSettings(per_core=0.5), "seat.per_core"),
    ],
)
def test_machines_that_take_not_one_seat_are_refused_with_what_is_too_small(
    kind: Kind, limits: SeatSettings, setting: str
) -> None:
    with pytest.raises(CapacityError, match="Not one seat fits a machine of kind tiny") as raised:
        machines_to_make(1, [], kind, limits)
    assert raised.value.exit_code == 2
    assert setting in raised.value.message
    assert setting in raised.value.remedy
