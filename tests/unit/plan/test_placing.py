from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudscale.course.settings import SeatSettings
from cloudscale.errors import CapacityError
from cloudscale.model import Machine, Node, Place, Student
from cloudscale.plan.placing import Plan, Situation, make_plan
from cloudscale.plan.ports import PortRange
from cloudscale.units import GIB

LIMITS = SeatSettings()  # 512 MiB a seat, 4 seats a core
PORTS = PortRange(4321)


def node(name: str, room: int = 8, taken: tuple[int, ...] = (), cpus: int = 64) -> Node:
    """A machine with memory for `room` seats."""
    return Node(Machine(name, f"{name}.example"), "", cpus, room * LIMITS.reserve, frozenset(taken))


def people(count: int, first: int = 0) -> list[Student]:
    return [Student(str(at), f"Student {at}") for at in range(first, first + count)]


def plan_of(
    students: Sequence[Student],
    nodes: Sequence[Node],
    seated: Mapping[str, Place],
    remembered: Mapping[str, Place],
    ports: PortRange,
    limits: SeatSettings,
    **more: Any,
) -> Plan:
    return make_plan(students, Situation(nodes, ports, limits, seated=seated, remembered=remembered, **more))


def places(plan: Plan) -> dict[str, Place]:
    return {seat.student.id: seat.place for seat in plan.seats}


# --- any course ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    students: list[Student]
    nodes: list[Node]
    seated: dict[str, Place]
    remembered: dict[str, Place]
    ports: PortRange

    def plan(self, *, prune: bool = False) -> Plan | None:
        try:
            return plan_of(self.students, self.nodes, self.seated, self.remembered, self.ports, LIMITS, pruned=prune)
        except CapacityError:
            return None


@st.composite
def courses(draw: st.DrawFn, *, seated: bool = True) -> Course:
    start = 4321
    nodes = [
        node(f"m{at}", draw(st.integers(0, 8)), tuple(draw(st.sets(st.integers(start, start + 6), max_size=4))))
        for at in range(draw(st.integers(1, 4)))
    ]
    spots = st.builds(Place, st.sampled_from([n.machine.name for n in nodes]), st.integers(start - 1, start + 6))
    ids = draw(st.lists(st.integers(0, 30), max_size=14, unique=True))
    sitting = draw(st.dictionaries(st.integers(0, 30).map(str), spots, max_size=6)) if seated else {}
    assume(len(set(sitting.values())) == len(sitting))
    return Course(
        students=[Student(str(id), f"Student {id}") for id in ids],
        nodes=nodes,
        seated=sitting,
        remembered=draw(st.dictionaries(st.integers(0, 30).map(str), spots, max_size=6)),
        ports=PortRange(start, draw(st.sampled_from([0, start + 3, start + 6]))),
    )


@given(courses())
def test_everyone_gets_a_place_of_their_own_in_the_order_of_the_roster(course: Course) -> None:
    if plan := course.plan():
        assert [seat.student for seat in plan.seats] == course.students
        assert len({*places(plan).values()} | {*course.seated.values()}) == len(plan.seats) + len(plan.leavers)


@given(courses(), st.booleans())
def test_whoever_sits_stays(course: Course, prune: bool) -> None:
    if plan := course.plan(prune=prune):
        for student, place in course.seated.items():
            assert places(plan).get(student, place) == place


@given(courses(), st.data())
def test_whoever_comes_or_goes_nobody_else_moves(course: Course, data: st.DataObject) -> None:
    if first := course.plan():
        stay = data.draw(st.lists(st.sampled_from(course.students), unique=True)) if course.students else []
        later = Course([*people(3, first=100), *stay], course.nodes, places(first), course.remembered, course.ports)
        if second := later.plan():
            assert all(places(second)[student.id] == places(first)[student.id] for student in stay)


@given(courses())
def test_a_new_seat_keeps_to_the_range_and_to_ports_that_nobody_has(course: Course) -> None:
    taken = {n.machine.name: n.taken_ports for n in course.nodes}
    if plan := course.plan():
        for student, place in places(plan).items():
            if student not in course.seated:
                assert course.ports.start <= place.port <= course.ports.last
                assert place.port not in taken[place.machine]


@given(courses())
def test_no_machine_is_given_more_seats_than_its_memory_holds(course: Course) -> None:
    if plan := course.plan():
        before = Counter(place.machine for place in course.seated.values())
        after = before + Counter(place.machine for id, place in places(plan).items() if id not in course.seated)
        for n in course.nodes:
            assert after[n.machine.name] <= max(before[n.machine.name], n.memory // LIMITS.reserve)


@given(courses(seated=False))
def test_a_course_is_refused_only_where_it_does_not_fit(course: Course) -> None:
    ports = range(course.ports.start, course.ports.last + 1)
    room = sum(min(n.memory // LIMITS.reserve, len(ports) - len(n.taken_ports & {*ports})) for n in course.nodes)
    assert (course.plan() is not None) == (len(course.students) <= room)


@given(st.integers(1, 5), st.integers(0, 20))
def test_equal_machines_get_equally_many(machines: int, students: int) -> None:
    nodes = [node(f"m{at}", room=20) for at in range(machines)]
    plan = plan_of(people(students), nodes, {}, {}, PORTS, LIMITS)
    count = [need.seats for need in plan.needs]
    assert sum(count) == students
    assert max(count) - min(count) <= 1


# --- places ----------------------------------------------------------------------------------


def test_the_first_ports_are_used_first() -> None:
    plan = plan_of(people(3), [node("m1")], {}, {}, PORTS, LIMITS)
    assert [place.port for place in places(plan).values()] == [4321, 4322, 4323]


@pytest.mark.parametrize(
    "nodes",
    [[node("small", 4), node("large", 12)], [node("slow", 99, cpus=1), node("fast", 99, cpus=3)]],
    ids=["memory", "cores"],
)
def test_seats_are_spread_as_the_machines_memory_and_cores_are(nodes: list[Node]) -> None:
    plan = plan_of(people(8), nodes, {}, {}, PORTS, LIMITS)
    assert [need.seats for need in plan.needs] == [2, 6]


def test_cores_are_no_limit_where_there_is_memory() -> None:
    plan = plan_of(people(9), [node("m1", 4), node("m2", 99, cpus=1)], {}, {}, PORTS, LIMITS)
    assert sum(need.seats for need in plan.needs) == 9


def test_an_old_place_is_given_back() -> None:
    old = Place("m2", 4329)
    plan = plan_of(people(2), [node("m1"), node("m2")], {}, {"1": old}, PORTS, LIMITS)
    assert places(plan)["1"] == old


def test_an_old_place_is_not_taken_by_a_newcomer_before() -> None:
    plan = plan_of(people(2), [node("m1")], {}, {"1": Place("m1", 4321)}, PORTS, LIMITS)
    assert places(plan) == {"0": Place("m1", 4322), "1": Place("m1", 4321)}


@pytest.mark.parametrize(
    "old",
    [Place("gone", 4321), Place("m1", 4322), Place("m1", 4330), Place("m1", 80), Place("full", 4321)],
    ids=["machine gone", "somebody sits there", "port held", "out of the range", "machine full"],
)
def test_an_old_place_that_is_not_free_is_replaced(old: Place) -> None:
    nodes = [node("m1", taken=(4330,)), node("full", room=0)]
    plan = plan_of(people(2), nodes, {"0": Place("m1", 4322)}, {"1": old}, PORTS, LIMITS)
    assert places(plan) == {"0": Place("m1", 4322), "1": Place("m1", 4321)}


def test_old_places_do_not_fill_a_machine_beyond_its_memory() -> None:
    old = {"0": Place("m1", 4321), "1": Place("m1", 4322)}
    plan = plan_of(people(2), [node("m1", room=1), node("m2", room=1)], {}, old, PORTS, LIMITS)
    assert places(plan) == {"0": Place("m1", 4321), "1": Place("m2", 4321)}


def test_a_full_machine_is_planned_again_with_whoever_sits_there() -> None:
    first = plan_of(people(8), [node("m1", room=8)], {}, {}, PORTS, LIMITS)
    assert plan_of(people(8), [node("m1", room=8)], places(first), {}, PORTS, LIMITS).seats == first.seats
    assert plan_of(people(8), [node("m1", room=8)], {}, places(first), PORTS, LIMITS).seats == first.seats


def test_a_seat_whose_machine_is_gone_gets_a_new_place() -> None:
    plan = plan_of(people(1), [node("m1")], {"0": Place("gone", 4321)}, {}, PORTS, LIMITS)
    assert places(plan) == {"0": Place("m1", 4321)}


def test_ports_that_something_else_holds_are_passed_over_and_reported() -> None:
    plan = plan_of(people(2), [node("m1", taken=(4321, 4322, 5000))], {}, {}, PORTS, LIMITS)
    assert [place.port for place in places(plan).values()] == [4323, 4324]
    assert [warning.partition(" is held")[0] for warning in plan.warnings] == ["Port 4321 of m1", "Port 4322 of m1"]


def test_leavers_are_listed_and_keep_their_place() -> None:
    plan = plan_of(people(1), [node("m1")], {"gone": Place("m1", 4321)}, {}, PORTS, LIMITS)
    assert plan.leavers == ("gone",)
    assert places(plan) == {"0": Place("m1", 4322)}
    assert plan.needs[0].seats == 2


def test_pruned_leavers_are_listed_and_make_room() -> None:
    seated = {"gone": Place("m1", 4321)}
    plan = plan_of(people(1), [node("m1", room=1)], seated, {}, PORTS, LIMITS, pruned=True)
    assert plan.leavers == ("gone",)
    assert places(plan) == {"0": Place("m1", 4321)}
    assert plan.needs[0].seats == 1


# --- the plan from before ---------------------------------------------------------------------


def test_who_was_planned_somewhere_goes_there_unless_they_had_a_seat_elsewhere() -> None:
    nodes = [node("m1"), node("m2")]
    preferred = {"0": Place("m2", 4325), "1": Place("m2", 4326)}
    plan = plan_of(people(3), nodes, {}, {"1": Place("m1", 4330)}, PORTS, LIMITS, preferred=preferred)
    assert places(plan) == {"0": Place("m2", 4325), "1": Place("m1", 4330), "2": Place("m1", 4321)}


def test_who_was_planned_on_a_machine_that_did_not_come_up_goes_elsewhere() -> None:
    preferred = {"0": Place("gone", 4321)}
    assert places(plan_of(people(1), [node("m1")], {}, {}, PORTS, LIMITS, preferred=preferred)) == {
        "0": Place("m1", 4321)
    }


# --- machines that are lost ------------------------------------------------------------------


def test_a_seat_on_a_lost_machine_stays_there() -> None:
    seated = {"0": Place("gone", 4321), "1": Place("m1", 4321)}
    plan = plan_of(people(3), [node("m1")], seated, {}, PORTS, LIMITS, lost=["gone"])
    assert places(plan) == {**seated, "2": Place("m1", 4322)}
    assert plan.leavers == ()
    assert [(need.machine, need.seats) for need in plan.needs] == [("m1", 2)]


def test_a_lost_machine_takes_nobody_else() -> None:
    plan = plan_of(people(1), [node("m1")], {}, {"0": Place("gone", 4321)}, PORTS, LIMITS, lost=["gone"])
    assert places(plan) == {"0": Place("m1", 4321)}


def test_what_sits_on_a_lost_machine_needs_no_room_elsewhere() -> None:
    seated = {"0": Place("gone", 4321), "1": Place("gone", 4322)}
    plan = plan_of(people(3), [node("m1", room=1)], seated, {}, PORTS, LIMITS, lost=["gone"])
    assert places(plan)["2"] == Place("m1", 4321)
    with pytest.raises(CapacityError, match="2 seats need"):
        plan_of(people(4), [node("m1", room=1)], seated, {}, PORTS, LIMITS, lost=["gone"])


def test_whoever_left_a_lost_machine_is_a_leaver_all_the_same() -> None:
    seated = {"gone": Place("lost", 4321), "0": Place("lost", 4322)}
    for prune in (False, True):
        plan = plan_of(people(1), [node("m1")], seated, {}, PORTS, LIMITS, pruned=prune, lost=["lost"])
        assert plan.leavers == ("gone",)
        assert places(plan) == {"0": Place("lost", 4322)}


def test_a_machine_that_is_given_up_seats_its_students_again() -> None:
    seated = {"0": Place("gone", 4321), "1": Place("lost", 4321)}
    plan = plan_of(people(2), [node("m1")], seated, {}, PORTS, LIMITS, lost=["lost"])
    assert places(plan) == {"0": Place("m1", 4321), "1": Place("lost", 4321)}


@given(courses(), st.data())
def test_whatever_is_lost_nobody_moves_and_nobody_comes(course: Course, data: st.DataObject) -> None:
    lost = data.draw(st.sets(st.sampled_from([n.machine.name for n in course.nodes])))
    up = [n for n in course.nodes if n.machine.name not in lost]
    try:
        plan = plan_of(course.students, up, course.seated, course.remembered, course.ports, LIMITS, lost=lost)
    except CapacityError:
        return
    for student, place in places(plan).items():
        assert course.seated.get(student, place) == place
        assert student in course.seated or place.machine not in lost
    assert len({*places(plan).values()} | {*course.seated.values()}) == len(plan.seats) + len(plan.leavers)


# --- limits ----------------------------------------------------------------------------------


def test_too_little_memory_is_refused_with_the_numbers() -> None:
    with pytest.raises(CapacityError) as raised:
        plan_of(people(30), [node("m1", room=20)], {}, {}, PORTS, LIMITS)
    assert raised.value.message == (
        "30 seats need 15.0 GiB of memory (512 MiB each), and m1 has 10.0 GiB for them: room for 20."
    )


def test_memory_that_others_reserve_is_not_there() -> None:
    crowded = Node(Machine("m1", ""), "", 4, 4 * GIB, taken_memory=3 * GIB)
    assert plan_of(people(2), [crowded], {}, {}, PORTS, LIMITS).needs[0].free_memory == GIB
    with pytest.raises(CapacityError, match=r"has 1\.0 GiB for them: room for 2"):
        plan_of(people(3), [crowded], {}, {}, PORTS, LIMITS)


def test_a_machine_with_less_than_nothing_left_takes_nothing_from_the_others() -> None:
    crowded = Node(Machine("m1", ""), "", 4, 4 * GIB, taken_memory=8 * GIB)
    plan = plan_of(people(2), [crowded, node("m2", room=2)], {}, {}, PORTS, LIMITS)
    assert [need.seats for need in plan.needs] == [0, 2]
    with pytest.raises(CapacityError, match=r"the 2 machines have 1\.0 GiB for them: room for 2"):
        plan_of(people(3), [crowded, node("m2", room=2)], {}, {}, PORTS, LIMITS)


def test_leavers_count_against_the_memory() -> None:
    with pytest.raises(CapacityError, match="3 seats need"):
        plan_of(people(2), [node("m1", room=2)], {"gone": Place("m1", 4321)}, {}, PORTS, LIMITS)


def test_too_few_ports_are_refused_with_the_numbers() -> None:
    with pytest.raises(CapacityError) as raised:
        plan_of(people(5), [node("m1", taken=(4321,))], {}, {}, PortRange(4321, 4323), LIMITS)
    assert raised.value.message == "5 more seats need 5 ports, and of 4321 to 4323 only 2 are free."
    assert "--end 4326" in raised.value.remedy
    with pytest.raises(CapacityError, match="on each of the 2 machines only 2 are free"):
        plan_of(people(5), [node("m1"), node("m2")], {}, {}, PortRange(4321, 4321), LIMITS)


def test_where_a_machine_runs_out_of_ports_no_other_is_filled_beyond_its_memory() -> None:
    nodes = [node("small", room=1), node("large", room=4)]
    assert len(plan_of(people(3), nodes, {}, {}, PortRange(4321, 4322), LIMITS).seats) == 3
    with pytest.raises(CapacityError):
        plan_of(people(4), nodes, {}, {}, PortRange(4321, 4322), LIMITS)


def test_the_end_that_the_refusal_names_is_enough() -> None:
    plan = plan_of(people(5), [node("m1", taken=(4321,))], {}, {}, PortRange(4321, 4326), LIMITS)
    assert len(plan.seats) == 5


def test_ports_end_where_tcp_does() -> None:
    with pytest.raises(CapacityError, match="of 65535 to 65535 only 1 are free"):
        plan_of(people(2), [node("m1")], {}, {}, PortRange(65535), LIMITS)


def test_too_few_cores_are_only_a_warning() -> None:
    (warning,) = plan_of(people(5), [node("m1", cpus=1)], {}, {}, PORTS, LIMITS).warnings
    assert "5 seats on m1" in warning
    assert "4 for each of its 1 cores" in warning
    assert not plan_of(people(4), [node("m1", cpus=1)], {}, {}, PORTS, LIMITS).warnings


def test_a_seat_that_may_use_more_cores_than_a_machine_has_is_refused() -> None:
    wide = SeatSettings(cpus=2.5)
    assert plan_of(people(1), [node("m1", cpus=3)], {}, {}, PORTS, wide).seats
    with pytest.raises(CapacityError, match=r"2\.5 cores .* m2 has 2"):
        plan_of(people(1), [node("m1", cpus=3), node("m2", cpus=2)], {}, {}, PORTS, wide)


def test_the_needs_are_reported_for_each_machine() -> None:
    (need,) = plan_of(people(6), [node("m1", room=8, cpus=2)], {}, {}, PORTS, LIMITS).needs
    assert (need.machine, need.seats, need.memory, need.free_memory) == ("m1", 6, 3 * GIB, 4 * GIB)
    assert (need.cores, need.free_cores) == (1.5, 2)


# --- machines behind one address -------------------------------------------------------------


def test_machines_behind_one_address_share_its_ports() -> None:
    nodes = [replace(node(name), machine=Machine(name, "127.0.0.1")) for name in ("vm-1", "vm-2")]
    plan = plan_of(people(4), nodes, {}, {}, PortRange(4321), SeatSettings())
    assert sorted(seat.place.port for seat in plan.seats) == [4321, 4322, 4323, 4324]
    assert {seat.place.machine for seat in plan.seats} == {"vm-1", "vm-2"}


def test_so_do_those_that_are_lost() -> None:
    hosts = {"vm-1": "127.0.0.1", "vm-2": "127.0.0.1"}
    here = replace(node("vm-1"), machine=Machine("vm-1", "127.0.0.1"))
    (first, second) = people(2)
    seated = {first.id: Place("vm-2", 4321)}
    plan = plan_of([first, second], [here], seated, {}, PortRange(4321), SeatSettings(), lost=["vm-2"], addresses=hosts)
    assert [seat.place for seat in plan.seats] == [Place("vm-2", 4321), Place("vm-1", 4322)]
