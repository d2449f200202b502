"""`themachine` where machines are made for the course."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from cloudscale.cli.report import Report
from cloudscale.errors import CapacityError, CloudscaleError, MachineError, RequestError
from cloudscale.workflow import status
from tests.unit.api_schema import Json
from tests.unit.fake_cloud import CloudClass, boot_fault


def plan_of(cloud: CloudClass, **flags: Any) -> Json:
    found: Json = json.loads(cloud.launch(plan=True, **flags).text)
    return found


def all_ready(cloud: CloudClass, report: Report) -> bool:
    return report.problems == () and {row["state"] for row in cloud.rows(report)} == {"ready"}


# --- as many as are needed -------------------------------------------------------------------


@pytest.mark.parametrize(("students", "machines"), [(1, 1), (4, 1), (5, 2), (10, 3), (12, 3), (13, 4)])
def test_as_many_machines_are_made_as_the_roster_needs(cloud: CloudClass, students: int, machines: int) -> None:
    cloud.enrol(students)
    report = cloud.launch()
    assert all_ready(cloud, report)
    assert cloud.made() == [f"bio-{number}" for number in range(1, machines + 1)]
    assert len(cloud.rows(report)) == students
    assert list(cloud.members().values()) == ["manager"] * (3 if machines >= 3 else 1) + ["worker"] * (
        machines - 3 if machines >= 3 else machines - 1
    )


def test_students_reach_their_seats_where_the_machines_came_up(cloud: CloudClass) -> None:
    cloud.enrol(6)
    rows = cloud.rows(cloud.launch())
    places = {f"http://{host}:{port}" for host in ("192.0.2.1", "192.0.2.2") for port in (4321, 4322, 4323)}
    assert {row["url"].rpartition("/")[0] for row in rows} == places
    assert all(row["host"] == f"192.0.2.{row['node'][-1]}" for row in rows)


def test_a_second_run_makes_none_and_says_the_same(cloud: CloudClass) -> None:
    cloud.enrol(10)
    first = cloud.launch()
    assert cloud.launch() == first
    assert cloud.changes == cloud.driver.done == []
    assert cloud.driver.orders == []  # the quota need not be asked


def test_one_more_is_made_only_where_there_is_no_room(cloud: CloudClass) -> None:
    cloud.enrol(7)
    before = cloud.seats()
    cloud.enrol(8)
    assert all_ready(cloud, cloud.launch())
    assert cloud.made() == []
    cloud.enrol(9)
    report = cloud.launch()
    assert all_ready(cloud, report)
    assert cloud.made() == ["bio-3"]
    assert cloud.driver.orders == [1]
    after = cloud.seats()
    assert {student: after[student] for student in before} == before
    assert after["Student 9"][0] == "bio-3"


def test_those_who_left_take_room_until_they_are_pruned(cloud: CloudClass) -> None:
    cloud.enrol(4)
    cloud.launch()
    cloud.roster.write_text("".join(f"{number};Student;{number}\n" for number in (1, 2, 3, 5)))
    assert plan_of(cloud, prune=True)["machines"][0]["seats"] == 4
    assert cloud.driver.orders == []
    cloud.launch()
    assert cloud.made() == ["bio-2"]


def test_as_many_as_are_wanted_are_made(cloud: CloudClass) -> None:
    report = cloud.launch(nodes="3")
    assert all_ready(cloud, report)
    assert cloud.made() == ["bio-1", "bio-2", "bio-3"]
    assert Counter(cloud.nodes_of(report)) == {"bio-1": 1, "bio-2": 1}
    cloud.launch(nodes="3")
    assert cloud.made() == []
    cloud.launch(nodes="4")
    assert cloud.made() == ["bio-4"]
    cloud.launch(nodes="1")  # those that are in the swarm are used all the same
    assert (cloud.made(), len(cloud.driver.servers)) == ([], 4)


def test_fewer_than_are_needed_is_refused_and_nothing_is_made(cloud: CloudClass) -> None:
    cloud.enrol(9)
    with pytest.raises(CapacityError, match=r"9 seats need 4\.5 GiB .* room for 8") as raised:
        cloud.launch(nodes="2")
    assert raised.value.exit_code == 2
    assert cloud.driver.servers == []


def test_a_run_for_machines_that_are_named_makes_none(cloud: CloudClass) -> None:
    cloud.enrol(4)
    cloud.launch()
    cloud.enrol(5)
    with pytest.raises(CapacityError):
        cloud.launch(common={"only": "bio-1"})
    assert (cloud.made(), cloud.changes) == ([], [])
    cloud.enrol(4)
    assert all_ready(cloud, cloud.launch(common={"only": "bio-1"}, nodes="3"))
    assert cloud.made() == []


def test_a_run_for_students_who_are_named_makes_none_either(cloud: CloudClass) -> None:
    cloud.enrol(3)
    cloud.launch()
    cloud.enrol(4)
    report = cloud.launch(common={"only": "4"})
    assert [row["student"] for row in cloud.rows(report)] == ["Student 4"]
    assert cloud.made() == []


def test_before_there_is_a_machine_a_run_for_some_says_why_it_makes_none(cloud: CloudClass) -> None:
    with pytest.raises(CloudscaleError, match="--only"):
        cloud.launch(common={"only": "1"})
    assert cloud.driver.servers == []


def test_a_machine_that_is_left_out_has_another_made_for_it(cloud: CloudClass) -> None:
    cloud.enrol(4)
    cloud.launch()
    cloud.enrol(5)
    report = cloud.launch(common={"skip": "bio-1"})
    assert report.problems == ()
    assert cloud.made() == ["bio-2"]
    assert cloud.nodes_of(report) == ["bio-2"]


# --- before a class --------------------------------------------------------------------------


def test_a_machine_that_is_not_made_yet_can_not_be_named(cloud: CloudClass) -> None:
    with pytest.raises(RequestError, match="bio-1"):
        cloud.launch(onlycreate=True, common={"skip": "bio-1"})
    assert cloud.made() == []


def test_onlycreate_makes_what_the_roster_needs(cloud: CloudClass) -> None:
    cloud.enrol(6)
    rows = cloud.rows(cloud.launch(onlycreate=True))
    assert [(row["machine"], row["address"], row["seats"]) for row in rows] == [
        ("bio-1", "192.0.2.1", 0),
        ("bio-2", "192.0.2.2", 0),
    ]
    report = cloud.launch()
    assert all_ready(cloud, report)
    assert cloud.made() == []


def test_onlycreate_with_a_number_needs_no_roster(cloud: CloudClass) -> None:
    cloud.roster.unlink()
    cloud.launch(onlycreate=True, nodes="2")
    assert cloud.made() == ["bio-1", "bio-2"]
    with pytest.raises(RequestError, match=r"class\.csv"):
        cloud.launch(onlycreate=True)


def test_a_plan_makes_nothing_and_lists_what_is_to_come(cloud: CloudClass) -> None:
    cloud.enrol(6)
    plan = plan_of(cloud)
    assert cloud.driver.servers == cloud.driver.done == []
    assert cloud.driver.opened == []
    assert [(machine["machine"], machine["seats"]) for machine in plan["machines"]] == [("bio-1", 3), ("bio-2", 3)]
    assert {seat["node"]: seat["host"] for seat in plan["seats"]} == {"bio-1": "", "bio-2": ""}
    assert plan["quota"] == [
        {"resource": "servers", "need": 2, "used": 0, "limit": 20},
        {"resource": "cores", "need": 4, "used": 0, "limit": 40},
    ]
    assert not cloud.folder.exists()
    planned = {seat["student"]: (seat["node"], seat["port"]) for seat in plan["seats"]}
    assert {student: place[:2] for student, place in cloud.seats().items()} == planned


def test_a_plan_tells_what_is_there_from_what_is_to_come(cloud: CloudClass) -> None:
    cloud.enrol(4)
    cloud.launch()
    cloud.enrol(5)
    plan = plan_of(cloud)
    assert {seat["node"]: seat["host"] for seat in plan["seats"]} == {"bio-1": "192.0.2.1", "bio-2": ""}
    assert [demand["need"] for demand in plan["quota"]] == [1, 2]
    assert cloud.driver.servers == ["bio-1"]


def test_a_plan_for_machines_only_seats_nobody(cloud: CloudClass) -> None:
    cloud.enrol(6)
    plan = plan_of(cloud, onlycreate=True)
    assert plan["seats"] == []
    assert [machine["machine"] for machine in plan["machines"]] == ["bio-1", "bio-2"]


# --- the quota -------------------------------------------------------------------------------


def test_a_quota_that_is_too_small_is_reported_in_full_and_nothing_is_made(cloud: CloudClass) -> None:
    cloud.enrol(20)
    cloud.driver.limits = {"servers": 3, "cores": 4}
    with pytest.raises(CapacityError) as raised:
        cloud.launch()
    assert raised.value.exit_code == 2
    said = raised.value.message.splitlines()
    assert "5 machines of the kind small" in said[0]
    assert [line.split() for line in said[3:5]] == [["servers", "5", "0", "3"], ["cores", "10", "0", "4"]]
    assert said[5] == "What would fit: 2 more machines, with room for 8 seats in all."
    assert cloud.driver.servers == []
    with pytest.raises(CapacityError):
        plan_of(cloud)


def test_of_a_quota_only_what_is_short_is_reported(cloud: CloudClass) -> None:
    cloud.enrol(8)
    cloud.driver.limits = {"servers": 1, "cores": 40}
    with pytest.raises(CapacityError) as raised:
        cloud.launch()
    assert "servers" in str(raised.value)
    assert "cores" not in str(raised.value)


def test_what_fits_counts_the_machines_that_are_there(cloud: CloudClass) -> None:
    cloud.enrol(4)
    cloud.launch()
    cloud.enrol(13)
    cloud.driver.limits["servers"] = 2
    with pytest.raises(CapacityError, match="1 more machines, with room for 8 seats in all"):
        cloud.launch()
    assert (cloud.made(), cloud.changes) == ([], [])


def test_a_quota_that_is_used_up_does_not_matter_where_nothing_is_made(cloud: CloudClass) -> None:
    first = cloud.launch()
    cloud.driver.limits = {"servers": 0, "cores": 0}
    assert cloud.launch() == first


# --- machines that do not come up ------------------------------------------------------------


def test_a_machine_that_does_not_come_up_is_named_and_the_others_go_on(cloud: CloudClass) -> None:
    cloud.enrol(8)
    cloud.driver.boot_faults["bio-2"] = boot_fault("bio-2")
    report = cloud.launch(nodes="3")
    assert report.problems == (str(boot_fault("bio-2")),)
    assert Counter(cloud.nodes_of(report)) == {"bio-1": 4, "bio-3": 4}
    assert {row["state"] for row in cloud.rows(report)} == {"ready"}
    assert cloud.members().keys() == {"bio-1", "bio-3"}


def test_the_first_one_may_be_among_them(cloud: CloudClass) -> None:
    cloud.driver.boot_faults["bio-1"] = boot_fault("bio-1")
    report = cloud.launch(nodes="2")
    assert report.problems == (str(boot_fault("bio-1")),)
    assert cloud.nodes_of(report) == ["bio-2", "bio-2"]


def test_where_none_comes_up_the_cause_is_reported(cloud: CloudClass) -> None:
    cloud.driver.boot_faults["bio-1"] = boot_fault("bio-1")
    with pytest.raises(MachineError, match="No valid host was found"):
        cloud.launch()


def test_where_those_that_come_up_are_too_few_both_is_reported(cloud: CloudClass) -> None:
    cloud.enrol(8)
    cloud.driver.boot_faults["bio-2"] = boot_fault("bio-2")
    with pytest.raises(CloudscaleError, match="No valid host was found") as raised:
        cloud.launch()
    assert "Without them: 8 seats need" in str(raised.value)
    assert raised.value.exit_code == 1


def test_the_next_run_goes_on_with_it(cloud: CloudClass) -> None:
    cloud.enrol(8)
    cloud.driver.boot_faults["bio-2"] = boot_fault("bio-2")
    with pytest.raises(CloudscaleError):
        cloud.launch()
    del cloud.driver.boot_faults["bio-2"]
    assert all_ready(cloud, cloud.launch())
    assert cloud.made() == []
    assert cloud.driver.servers == ["bio-1", "bio-2"]


def test_what_a_run_that_was_cut_off_had_begun_is_used(cloud: CloudClass) -> None:
    cloud.enrol(8)
    cloud.driver.leave_half_made("bio-1")
    report = cloud.launch()
    assert all_ready(cloud, report)
    assert cloud.made() == ["bio-2"]
    assert cloud.driver.orders == [1]


def test_what_was_begun_is_asked_of_the_quota_too(cloud: CloudClass) -> None:
    """A server without its port needs one yet."""
    cloud.driver.leave_half_made("bio-1")
    assert all_ready(cloud, cloud.launch())
    assert (cloud.made(), cloud.driver.orders) == ([], [0])


def test_a_plan_counts_what_was_begun(cloud: CloudClass) -> None:
    cloud.enrol(8)
    cloud.driver.leave_half_made("bio-1")
    plan = plan_of(cloud)
    assert [machine["machine"] for machine in plan["machines"]] == ["bio-1", "bio-2"]
    assert cloud.driver.servers == ["bio-1"]


def test_the_status_tells_of_seats_while_a_machine_is_on_its_way(cloud: CloudClass) -> None:
    first = cloud.rows(cloud.launch())
    cloud.driver.leave_half_made("bio-2")
    report = status.status(cloud.session())
    assert report.problems == ()
    assert [(row["student"], row["state"]) for row in cloud.rows(report)] == [(r["student"], "ready") for r in first]


# --- ports -----------------------------------------------------------------------------------


def test_ports_are_opened_for_just_the_seats_and_before_they_start(cloud: CloudClass) -> None:
    cloud.enrol(5)
    cloud.launch(start="5000")
    assert cloud.driver.opened == [{5000, 5001, 5002}]
    assert cloud.driver.running_before == [set()]
    cloud.enrol(8)
    cloud.launch(start="5000")
    assert cloud.driver.opened[-1] == {5000, 5001, 5002, 5003}
    assert cloud.driver.running_before == [{5000, 5001, 5002}]


def test_a_run_for_some_leaves_the_ports_of_the_others_open(cloud: CloudClass) -> None:
    cloud.enrol(4)
    cloud.launch()
    cloud.launch(common={"only": "1"})
    assert cloud.driver.opened[-1] == {4321, 4322, 4323, 4324}


def test_ports_of_those_who_left_stay_open_until_their_seats_are_removed(cloud: CloudClass) -> None:
    cloud.enrol(3)
    cloud.launch()
    cloud.enrol(2)
    cloud.launch()
    assert cloud.driver.opened[-1] == {4321, 4322, 4323}
    cloud.launch(prune=True)
    assert cloud.driver.opened[-1] == {4321, 4322}


def test_machines_without_seats_open_none(cloud: CloudClass) -> None:
    cloud.launch(onlycreate=True)
    assert cloud.driver.opened == []
