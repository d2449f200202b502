from __future__ import annotations

import pytest

from cloudscale.cluster.look import look
from cloudscale.course.flags import Launch, read_flags
from cloudscale.course.session import Session
from cloudscale.errors import CapacityError, RequestError
from cloudscale.model import Student, Survey
from cloudscale.plan.placing import Plan
from cloudscale.units import GIB
from cloudscale.workflow.planning import low_disks, place
from tests.unit.classroom import Class

ANN, BOB, CID = Student("1", "Ann", "Lee"), Student("2", "Bob", "Ray"), Student("3", "Cid", "Kim")


def surveys(lab: Class) -> dict[str, Survey]:
    """Of the machines that can be reached."""
    there = [machine for machine in lab.driver.machines() if machine.name not in lab.driver.lost]
    return {machine.name: lab.driver.survey(machine) for machine in there}


def plan(
    lab: Class, *students: Student, session: Session | None = None, given_up: tuple[str, ...] = (), **flags: object
) -> Plan:
    session = session or lab.session()
    known = surveys(lab)
    cluster = look(session, lab.driver, known)
    return place(cluster, [*known], students, session, read_flags(Launch, **flags), given_up=given_up)


def places(found: Plan) -> dict[str, str]:
    return {seat.student.name: f"{seat.place.machine}:{seat.place.port}" for seat in found.seats}


def test_machines_that_are_to_be_set_up_yet_are_planned_with_what_they_have(lab: Class) -> None:
    lab.apis[0].memory = lab.apis[2].memory = GIB // 2
    assert places(plan(lab, ANN, BOB, CID)) == {"Ann": "m2:4321", "Bob": "m2:4322", "Cid": "m2:4323"}
    assert {need.machine: need.free_memory for need in plan(lab, ANN).needs} == {
        "m1": GIB // 2,
        "m2": 16 * GIB,
        "m3": GIB // 2,
    }


def test_a_disk_that_is_small_for_its_seats_is_warned_of(lab: Class) -> None:
    lab.driver.free_disk = {"m1": GIB // 2 - 1, "m2": GIB // 2}
    found = plan(lab, ANN, BOB)
    (warning,) = low_disks(look(lab.session(), lab.driver, surveys(lab)), found)
    assert warning.startswith("m1: its disk has 0.5 GiB free, which its seats (1) share.")
    lab.enrol(3)
    lab.launch(plan=True)
    assert sum("its disk has" in line for line in lab.said.lines) == 1


def test_who_sits_stays_and_newcomers_go_where_there_is_most_room(lab: Class) -> None:
    lab.launch()  # Ann and Bob
    before = places(plan(lab, ANN, BOB))
    after = places(plan(lab, CID, BOB, ANN))
    assert {name: after[name] for name in before} == before
    assert after["Cid"] == "m3:4321"


def test_nobody_is_seated_on_a_lost_machine_and_who_is_there_stays(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m1")
    found = places(plan(lab, ANN, BOB, CID))
    assert found["Ann"] == "m1:4321"
    assert not found["Cid"].startswith("m1")


def test_who_sits_on_a_machine_that_is_given_up_is_seated_elsewhere(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m1")
    found = places(plan(lab, ANN, BOB, given_up=("m1",)))
    assert not found["Ann"].startswith("m1")


def test_lost_machines_give_no_room(lab: Class) -> None:
    for api in lab.apis:
        api.memory = GIB // 2
    lab.driver.lose("m3")
    with pytest.raises(CapacityError, match="the 2 machines have"):
        plan(lab, ANN, BOB, CID)


def test_the_seats_own_ports_are_not_in_their_way(lab: Class) -> None:
    lab.launch()
    assert not plan(lab, ANN, BOB).warnings


def test_ports_that_others_listen_on_are_passed_over_before_the_engine_is_there(lab: Class) -> None:
    lab.driver.held = frozenset({4321})
    found = plan(lab, ANN)
    assert places(found) == {"Ann": "m1:4322"}
    assert "Port 4321 of m1" in found.warnings[0]


def test_a_student_who_was_moved_is_remembered_where_the_newest_volume_is(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m1")
    (moved,) = [row for row in lab.rows(lab.launch(replace_lost=True)) if row["student"] == "Ann Lee"]
    lab.driver.find("m1")
    lab.launch()
    for service in list(lab.apis[1].services_):
        lab.apis[1].remove_service(service)
    assert places(plan(lab, ANN, BOB))["Ann"] == f"{moved['node']}:{moved['port']}"


@pytest.mark.parametrize(
    ("flags", "left"),
    [({"only": "Ann Lee"}, ["Ann"]), ({"skip": "2"}, ["Ann", "Cid"]), ({"only": "m2"}, ["Bob"])],
    ids=["a name", "an id", "a machine"],
)
def test_seats_are_chosen_by_name_id_and_machine(lab: Class, flags: dict[str, str], left: list[str]) -> None:
    assert list(places(plan(lab, ANN, BOB, CID, session=lab.session(**flags)))) == left


def test_a_machine_without_a_seat_can_be_named_and_one_that_is_not_there_can_not(lab: Class) -> None:
    assert places(plan(lab, ANN, session=lab.session(only="m3"))) == {}
    with pytest.raises(RequestError, match="m7"):
        plan(lab, ANN, session=lab.session(only="m7"))


def test_who_left_is_chosen_from_those_who_sit(lab: Class) -> None:
    lab.launch()
    assert plan(lab, ANN, prune=True).leavers == ("2",)
    assert plan(lab, ANN, prune=True, session=lab.session(skip="Bob Ray")).leavers == ()
