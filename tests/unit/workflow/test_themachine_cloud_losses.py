"""`themachine` where machines that were made for the course are deleted in the cloud, or lost."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from cloudscale.course.settings import SeatSettings
from cloudscale.errors import CapacityError, CloudscaleError, ConnectionFailed
from cloudscale.model import Machine
from tests.unit.classroom import messages, states
from tests.unit.fake_cloud import CloudClass
from tests.unit.fake_swarm import FakeSwarm


def started(cloud: CloudClass, students: int) -> dict[str, tuple[str, int, str]]:
    """Everyone's seat once the class has begun."""
    cloud.enrol(students)
    assert cloud.launch().problems == ()
    return cloud.seats()


# --- deleted in the cloud --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bio-1", "bio-2", "bio-3", "bio-4"])
def test_a_machine_that_was_deleted_is_made_again_under_its_name(cloud: CloudClass, name: str) -> None:
    started(cloud, 16)
    cloud.driver.delete(name)
    report = cloud.launch()
    assert report.problems == ()
    assert cloud.made() == [name]
    assert {row["state"] for row in cloud.rows(report)} == {"ready"}
    assert sorted(cloud.members()) == ["bio-1", "bio-2", "bio-3", "bio-4"]
    assert not any(role.endswith("?") for role in cloud.members().values())  # what it was before is removed
    assert Counter(cloud.members().values()) == {"manager": 3, "worker": 1}


@pytest.mark.parametrize("name", ["bio-1", "bio-2", "bio-3"])
def test_its_students_keep_their_addresses_and_passwords(cloud: CloudClass, name: str) -> None:
    """Ports that are not those that newcomers would be given, and others who have left room elsewhere."""
    started(cloud, 12)
    cloud.roster.write_text("".join(f"{n};Student;{n}\n" for n in (2, 5, 6, 7, 8, 9, 10, 11, 12)))
    cloud.launch(prune=True)
    before = cloud.seats()
    cloud.driver.delete(name)
    report = cloud.launch(nodes="3")
    assert report.problems == ()
    assert cloud.made() == [name]
    assert {row["state"] for row in cloud.rows(report)} == {"ready"}
    assert cloud.seats() == before


def test_the_others_seats_go_on_meanwhile(cloud: CloudClass) -> None:
    before = started(cloud, 8)
    cloud.driver.delete("bio-2")
    cloud.launch()
    (kept,) = [api for api in cloud.apis if api.name == "bio-1"]
    updated = [change for change in kept.changes if change.startswith("update service")]
    assert len(updated) == sum(node == "bio-2" for node, _, _ in before.values())
    assert not any(change.startswith(("create service", "remove service")) for change in kept.changes)


def test_a_plan_for_a_machine_that_was_deleted_says_what_is_done(cloud: CloudClass) -> None:
    before = started(cloud, 8)
    cloud.driver.delete("bio-2")
    plan = json.loads(cloud.launch(plan=True).text)
    assert {seat["student"]: (seat["node"], seat["port"]) for seat in plan["seats"]} == {
        student: place[:2] for student, place in before.items()
    }
    assert [demand["need"] for demand in plan["quota"]] == [1, 2]
    assert cloud.driver.servers == ["bio-1"]


def test_once_it_is_there_again_nothing_more_changes(cloud: CloudClass) -> None:
    started(cloud, 8)
    cloud.driver.delete("bio-2")
    report = cloud.launch()
    assert cloud.launch() == report
    assert cloud.changes == cloud.driver.done == []


def test_where_the_others_have_room_no_machine_is_made_again(cloud: CloudClass) -> None:
    cloud.enrol(4)
    cloud.launch(nodes="3")
    first = cloud.rows(cloud.launch())
    cloud.driver.delete("bio-2")
    report = cloud.launch()
    assert report.problems == ()
    assert cloud.made() == []
    assert "bio-2" not in cloud.nodes_of(report)
    assert {row["state"] for row in cloud.rows(report)} == {"ready"}
    for row, before in zip(cloud.rows(report), first, strict=True):
        assert row == before or before["node"] == "bio-2"
        assert row["password"] == before["password"]
    assert sorted(cloud.members()) == ["bio-1", "bio-3"]
    assert "its machines any more" not in messages(report)


def test_the_swarm_is_given_time_to_notice(cloud: CloudClass) -> None:
    started(cloud, 8)
    swarm, node_id = cloud.driver.apis["bio-1"].swarm, cloud.driver.apis["bio-2"].node_id
    swarm.unnoticed.add(node_id)
    cloud.driver.delete("bio-2")
    report = cloud.launch()
    assert report.problems == ()
    assert {row["state"] for row in cloud.rows(report)} == {"ready"}
    assert sorted(cloud.members()) == ["bio-1", "bio-2"]


def test_all_were_deleted_and_all_are_made_again(cloud: CloudClass) -> None:
    before = started(cloud, 8)
    cloud.driver.delete("bio-1", "bio-2")
    report = cloud.launch()
    assert report.problems == ()
    assert cloud.made() == ["bio-1", "bio-2"]
    after = cloud.seats()
    assert {student: seat[2] for student, seat in after.items()} == {s: seat[2] for s, seat in before.items()}


def test_a_quota_that_does_not_allow_for_it_is_reported_and_nothing_changes(cloud: CloudClass) -> None:
    started(cloud, 8)
    cloud.driver.delete("bio-2")
    cloud.driver.limits["servers"] = 1
    with pytest.raises(CapacityError, match="0 more machines, with room for 4 seats"):
        cloud.launch()
    assert (cloud.made(), cloud.changes) == ([], [])


# --- the managers ----------------------------------------------------------------------------


def test_the_only_manager_was_deleted_and_the_swarm_is_created_again(cloud: CloudClass) -> None:
    before = started(cloud, 8)
    assert cloud.members() == {"bio-1": "manager", "bio-2": "worker"}
    cloud.driver.delete("bio-1")
    report = cloud.launch()
    assert report.problems == ()
    assert any("new swarm" in line for line in cloud.said.lines)
    assert sorted(cloud.members()) == ["bio-1", "bio-2"]
    assert {row["state"] for row in cloud.rows(report)} == {"ready"}
    after = cloud.seats()
    assert {student: seat[2] for student, seat in after.items()} == {s: seat[2] for s, seat in before.items()}
    for student, (node, port, _) in before.items():  # whose work is there sits there
        assert node == "bio-1" or after[student][:2] == (node, port)


def test_where_the_rest_has_room_it_is_created_on_that_alone(cloud: CloudClass) -> None:
    cloud.enrol(4)
    cloud.launch(nodes="2")
    cloud.driver.delete("bio-1")
    report = cloud.launch()
    assert report.problems == ()
    assert cloud.made() == []
    assert cloud.members() == {"bio-2": "manager"}
    assert states(cloud, report) == {"bio-2": ["ready"] * 4}
    assert cloud.launch() == report
    assert cloud.changes == []


def test_two_of_three_managers_were_deleted(cloud: CloudClass) -> None:
    started(cloud, 12)
    cloud.driver.delete("bio-1", "bio-3")
    report = cloud.launch()
    assert report.problems == ()
    assert cloud.made() == ["bio-1", "bio-3"]
    assert cloud.members().keys() == {"bio-1", "bio-2", "bio-3"}
    assert not any(role.endswith("?") for role in cloud.members().values())
    assert {row["state"] for row in cloud.rows(report)} == {"ready"}


def test_a_plan_creates_nothing_again(cloud: CloudClass) -> None:
    started(cloud, 8)
    cloud.driver.delete("bio-1")
    plan = json.loads(cloud.launch(plan=True).text)
    assert [machine["machine"] for machine in plan["machines"]] == ["bio-2", "bio-1"]
    assert cloud.changes == cloud.driver.done == []
    (left,) = cloud.driver.apis.values()
    assert left.swarm_state == "active"


def test_a_manager_whose_engine_does_not_answer_is_there_all_the_same(cloud: CloudClass) -> None:
    """Its machine is, and its swarm is not given up for an engine that hangs."""
    cloud.enrol(4)
    first = cloud.launch(nodes="2")
    cloud.driver.apis["bio-1"].go_down()
    with pytest.raises(CloudscaleError, match="lost its quorum"):
        cloud.launch()
    assert cloud.changes == []
    cloud.driver.apis["bio-1"].come_back()
    assert cloud.launch() == first


def test_managers_that_are_there_and_have_no_leader_yet_are_not_given_up(
    cloud: CloudClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all are that the cloud has just started again."""
    cloud.enrol(4)
    first = cloud.launch(nodes="3")
    with monkeypatch.context() as patch:
        patch.setattr(FakeSwarm, "has_leader", False)
        with pytest.raises(CloudscaleError, match="lost its quorum"):
            cloud.launch()
    assert cloud.changes == []
    assert cloud.launch() == first


def test_a_manager_that_is_lost_and_not_deleted_may_come_back(cloud: CloudClass) -> None:
    started(cloud, 8)
    cloud.driver.lose("bio-1")
    with pytest.raises(CloudscaleError, match="lost its quorum") as raised:
        cloud.launch()
    assert "--replace-lost" in raised.value.remedy
    assert (cloud.made(), cloud.changes) == ([], [])
    cloud.driver.find("bio-1")
    assert cloud.launch().problems == ()
    assert cloud.changes == []


# --- lost, and there -------------------------------------------------------------------------


def test_the_students_of_a_lost_machine_are_not_given_another_until_it_is_said(cloud: CloudClass) -> None:
    started(cloud, 12)
    cloud.driver.lose("bio-2")
    report = cloud.launch()
    assert cloud.made() == []
    assert states(cloud, report)["bio-2"] == ["failed"] * 4
    assert report.problems[0] == "bio-2: no answer in 15 s."
    report = cloud.launch(replace_lost=True)
    assert report.problems == ("bio-2: no answer in 15 s.",)
    assert cloud.made() == ["bio-4"]
    assert states(cloud, report) == {name: ["ready"] * 4 for name in ("bio-1", "bio-3", "bio-4")}
    assert cloud.members().keys() == {"bio-1", "bio-3", "bio-4"}


def test_newcomers_get_a_machine_where_one_is_lost(cloud: CloudClass) -> None:
    started(cloud, 12)
    cloud.driver.lose("bio-2")
    cloud.enrol(13)
    report = cloud.launch()
    assert cloud.made() == ["bio-4"]
    assert states(cloud, report)["bio-4"] == ["ready"]


# --- shut off --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bio-1", "bio-2"])
def test_a_machine_that_was_shut_off_is_started_and_is_as_before(cloud: CloudClass, name: str) -> None:
    before = started(cloud, 8)
    first = cloud.launch()
    cloud.driver.shut_off(name)
    assert cloud.launch() == first
    assert cloud.driver.done == [f"start {name}"]
    assert cloud.members() == {"bio-1": "manager", "bio-2": "worker"}
    assert not any(
        change.startswith(("init", "leave", "create", "update")) for api in cloud.apis for change in api.changes
    )
    assert cloud.seats() == before


def test_all_were_shut_off_and_all_are_as_before(cloud: CloudClass) -> None:
    started(cloud, 12)
    first = cloud.launch()
    cloud.driver.shut_off("bio-1", "bio-2", "bio-3")
    assert cloud.launch() == first
    assert sorted(cloud.driver.done) == ["start bio-1", "start bio-2", "start bio-3"]


def test_a_plan_starts_nothing(cloud: CloudClass) -> None:
    before = started(cloud, 8)
    cloud.driver.shut_off("bio-1", "bio-2")
    plan = json.loads(cloud.launch(plan=True).text)
    assert [machine["machine"] for machine in plan["machines"]] == ["bio-1", "bio-2"]
    assert cloud.driver.done == []
    cloud.launch()
    assert cloud.seats() == before


@pytest.mark.parametrize("common", [{"skip": "bio-1"}, {"only": "bio-2"}])
def test_a_manager_that_is_shut_off_and_left_out_is_no_reason_to_create_it_again(
    cloud: CloudClass, common: dict[str, str]
) -> None:
    """It has the swarm, and will be back."""
    cloud.enrol(4)
    first = cloud.launch(nodes="2")
    cloud.driver.shut_off("bio-1")
    with pytest.raises(CloudscaleError, match="lost its quorum"):
        cloud.launch(common=common)
    assert cloud.changes == []
    assert cloud.launch() == first
    assert cloud.members() == {"bio-1": "manager", "bio-2": "worker"}


# --- gone down while they are set up ---------------------------------------------------------

LOST = "bio-2: the connection is lost (it ended before the command did)."


def losing_connections(cloud: CloudClass, monkeypatch: pytest.MonkeyPatch, *, down: bool, times: int) -> list[str]:
    """bio-2 is lost while its engine is set up, and is then off or not; the attempts are noted."""
    attempts: list[str] = []
    prepare = cloud.driver.prepare

    def fails(machine: Machine, seat: SeatSettings) -> Any:
        attempts.append(machine.name)
        if machine.name == "bio-2" and attempts.count("bio-2") <= times:
            if down:
                cloud.driver.shut_off("bio-2")
            raise ConnectionFailed(LOST, "Run again.")
        return prepare(machine, seat)

    monkeypatch.setattr(cloud.driver, "prepare", fails)
    return attempts


def test_a_machine_that_goes_down_while_it_is_set_up_is_started_again(
    cloud: CloudClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.enrol(8)
    losing_connections(cloud, monkeypatch, down=True, times=1)
    report = cloud.launch()
    assert report.problems == ()
    assert {row["state"] for row in cloud.rows(report)} == {"ready"}
    assert f"{LOST} It went down, and is started again" in cloud.said.lines
    assert "start bio-2" in cloud.driver.done


@pytest.mark.parametrize(("down", "times", "attempts"), [(True, 9, 2), (False, 1, 1)])
def test_one_that_goes_down_each_time_or_that_has_not_gone_down_is_reported(
    cloud: CloudClass, monkeypatch: pytest.MonkeyPatch, down: bool, times: int, attempts: int
) -> None:
    cloud.enrol(4)
    made = losing_connections(cloud, monkeypatch, down=down, times=times)
    report = cloud.launch(nodes="2")
    assert any(problem.startswith(LOST) for problem in report.problems)
    assert made.count("bio-2") == attempts
    assert Counter(row["state"] for row in cloud.rows(report))["ready"] == 4
