"""What a reset leaves where machines were made for the course."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.workflow import reset, status
from tests.unit.classroom import messages
from tests.unit.fake_cloud import CloudClass, boot_fault


@pytest.fixture
def cloud(cloud: CloudClass) -> CloudClass:
    """A class of ten on bio-1, bio-2 and bio-3."""
    cloud.enrol(10)
    assert cloud.launch().problems == ()
    return cloud


def rest(cloud: CloudClass) -> dict[str, set[int]]:
    """The ports of the seats that run, by machine."""
    return {name: api.open_ports for name, api in cloud.driver.apis.items()}


# --- all of it -------------------------------------------------------------------------------


def test_a_reset_deletes_all_at_once_without_looking_at_the_engines(
    cloud: CloudClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.driver.lose("bio-1", "bio-2", "bio-3")
    for name in ("survey", "connect", "machines"):
        monkeypatch.setattr(cloud.driver, name, pytest.fail)
    report = reset.driver_reset(cloud.session())
    assert report.problems == ()
    assert cloud.driver.resources() == ""
    assert [row["target"] for row in cloud.rows(report)] == [
        *(f"server bio-{number}" for number in (1, 2, 3)),
        *(f"port bio-{number}" for number in (1, 2, 3)),
        "security group cloudscale:bio",
    ]
    assert not cloud.folder.exists()
    assert any("nothing of the course 'bio' is left" in line for line in cloud.said.lines)
    assert cloud.questions == [
        "Delete 3 servers, 3 ports, 1 security groups of the course 'bio', with all of the students' work, for good?"
    ]


def test_a_reset_again_finds_nothing_and_asks_nobody(cloud: CloudClass) -> None:
    reset.driver_reset(cloud.session())
    cloud.questions.clear()
    assert reset.driver_reset(cloud.session()).text == "[]"
    assert cloud.questions == []


def test_a_reset_needs_no_folder(cloud: CloudClass, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path / "elsewhere"))
    assert reset.driver_reset(cloud.session()).problems == ()
    assert cloud.driver.resources() == ""
    assert not (tmp_path / "elsewhere" / "bio").exists()


def test_a_reset_takes_what_never_came_up_along(cloud: CloudClass) -> None:
    cloud.driver.boot_faults["bio-4"] = boot_fault("bio-4")
    cloud.launch(nodes="4")
    cloud.driver.leave_half_made("bio-5")
    assert reset.driver_reset(cloud.session()).problems == ()
    assert cloud.driver.resources() == ""


def test_who_does_not_agree_loses_nothing(cloud: CloudClass) -> None:
    cloud.agrees = False
    before = rest(cloud)
    for common in ({}, {"skip": "bio-1"}):
        with pytest.raises(RequestError, match="Nothing was removed"):
            reset.driver_reset(cloud.session(**common))
    assert cloud.driver.servers == ["bio-1", "bio-2", "bio-3"]
    assert rest(cloud) == before
    assert (cloud.folder / "key").exists()


def test_what_does_not_go_is_named_and_the_folder_stays(cloud: CloudClass) -> None:
    cloud.driver.stuck.add("bio-2")
    report = reset.driver_reset(cloud.session())
    assert report.problems == ("server bio-2: It does not go: it is ERROR.",)
    assert cloud.driver.servers == ["bio-2"]
    assert (cloud.folder / "key").exists()
    assert not any("is left" in line for line in cloud.said.lines)
    cloud.driver.stuck.clear()
    assert reset.driver_reset(cloud.session()).problems == ()
    assert cloud.driver.resources() == ""
    assert not cloud.folder.exists()


def test_after_a_reset_a_class_begins_again(cloud: CloudClass) -> None:
    before = cloud.seats()
    reset.driver_reset(cloud.session())
    assert cloud.launch().problems == ()
    after = cloud.seats()
    assert {student: seat[:2] for student, seat in after.items()} == {s: seat[:2] for s, seat in before.items()}
    assert all(after[student][2] != before[student][2] for student in before)  # the key went with the folder


# --- some machines ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bio-1", "bio-2", "bio-3"])
def test_a_machine_that_is_skipped_stays_with_its_seats(cloud: CloudClass, name: str) -> None:
    before = rest(cloud)
    report = reset.driver_reset(cloud.session(skip=name))
    assert report.problems == ()
    assert cloud.driver.servers == [name]
    assert cloud.driver.ports == {name}
    assert rest(cloud) == {name: before[name]}
    assert cloud.members() == {name: "manager"}
    assert (cloud.folder / "key").exists()
    assert not any("nothing of the course" in line for line in cloud.said.lines)
    assert "delete 2 machines, for good?" in cloud.questions[0]


def test_those_who_stay_are_as_they_were_for_the_next_run(cloud: CloudClass) -> None:
    before = cloud.seats()
    reset.driver_reset(cloud.session(skip="bio-2"))
    report = cloud.launch()
    assert report.problems == ()
    assert len(cloud.driver.servers) == 3
    after = cloud.seats()
    stayed = {student: seat for student, seat in before.items() if seat[0] == "bio-2"}
    assert {student: after[student] for student in stayed} == stayed
    assert {student: seat[2] for student, seat in after.items()} == {s: seat[2] for s, seat in before.items()}


def test_one_machine_is_deleted_with_its_seats(cloud: CloudClass) -> None:
    before = rest(cloud)
    report = reset.driver_reset(cloud.session(only="bio-2"))
    assert report.problems == ()
    assert cloud.driver.servers == ["bio-1", "bio-3"]
    del before["bio-2"]
    assert rest(cloud) == before
    assert set(cloud.members()) == {"bio-1", "bio-3"}
    assert {row["target"] for row in cloud.rows(report)} >= {"server bio-2", "port bio-2"}


@pytest.mark.parametrize("kept", ["bio-1", "bio-3"])
def test_one_of_several_that_go_need_not_answer(cloud: CloudClass, kept: str) -> None:
    """A manager that is lost counts for the swarm's majority until it is removed."""
    cloud.driver.lose("bio-2")
    reset.driver_reset(cloud.session(skip=kept))
    assert cloud.driver.servers == [kept]
    assert cloud.members() == {kept: "manager"}


@pytest.mark.parametrize("name", ["bio-1", "bio-2"])
def test_a_machine_that_does_not_answer_is_deleted_all_the_same(cloud: CloudClass, name: str) -> None:
    cloud.driver.lose(name)
    report = reset.driver_reset(cloud.session(only=name))
    assert name not in cloud.driver.servers
    assert set(cloud.members()) == {"bio-1", "bio-2", "bio-3"} - {name}
    assert report.problems == ()  # it was to go, and is gone


def test_the_only_manager_does_not_answer_and_is_deleted(cloud: CloudClass) -> None:
    reset.driver_reset(cloud.session(only="bio-3"))
    assert cloud.members() == {"bio-1": "manager", "bio-2": "worker"}
    cloud.driver.lose("bio-1")
    reset.driver_reset(cloud.session(only="bio-1"))
    assert cloud.driver.servers == ["bio-2"]
    assert cloud.launch().problems == ()
    assert len(cloud.driver.servers) == 3


def test_a_machine_that_does_not_go_is_named(cloud: CloudClass) -> None:
    cloud.driver.stuck.add("bio-2")
    report = reset.driver_reset(cloud.session(only="bio-2"))
    assert report.problems == ("server bio-2: It does not go: it is ERROR.",)
    assert (cloud.folder / "key").exists()


def test_where_every_machine_is_named_nothing_else_is_left_either(cloud: CloudClass) -> None:
    report = reset.driver_reset(cloud.session(only="bio-1,bio-2,bio-3"))
    assert report.problems == ()
    assert cloud.driver.servers == []
    if not cloud.folder.exists() or any("nothing of the course" in line for line in cloud.said.lines):
        assert cloud.driver.resources() == ""


def test_a_reset_for_one_student_deletes_no_machine(cloud: CloudClass) -> None:
    report = reset.driver_reset(cloud.session(only="10"))
    assert report.problems == ()
    assert cloud.driver.servers == ["bio-1", "bio-2", "bio-3"]
    assert len(cloud.rows(status.status(cloud.session()))) == 9


def test_what_nobody_is_called_is_a_wrong_request(cloud: CloudClass) -> None:
    for common in ({"skip": "bio-7"}, {"only": "bio-7"}):
        with pytest.raises(RequestError, match="bio-7"):
            reset.driver_reset(cloud.session(**common))
    assert cloud.driver.servers == ["bio-1", "bio-2", "bio-3"]


# --- ports -----------------------------------------------------------------------------------


def test_a_reset_of_the_seats_closes_their_ports(cloud: CloudClass) -> None:
    report = reset.containers_reset(cloud.session(), with_volumes=False)
    assert report.problems == ()
    assert cloud.driver.opened[-1] == set()
    assert cloud.driver.servers == ["bio-1", "bio-2", "bio-3"]
    assert cloud.launch().problems == ()
    assert cloud.driver.opened[-1] == {4321, 4322, 4323, 4324}


def test_a_reset_of_some_seats_closes_only_what_no_other_uses(cloud: CloudClass) -> None:
    reset.containers_reset(cloud.session(only="1"), with_volumes=True)
    assert cloud.driver.opened[-1] == {4321, 4322, 4323, 4324}  # others have 4321 on their machines
    last = [student.removeprefix("Student ") for student, seat in cloud.seats().items() if seat[1] == 4324]
    reset.containers_reset(cloud.session(only=",".join(last)), with_volumes=False)
    assert cloud.driver.opened[-1] == {4321, 4322, 4323}


def test_the_port_of_a_seat_that_does_not_go_stays_open(cloud: CloudClass, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.driver.apis["bio-1"].keeps_containers = True
    report = reset.containers_reset(cloud.session(), with_volumes=False)
    assert report.problems
    assert cloud.driver.opened[-1] == cloud.driver.apis["bio-1"].open_ports


def test_ports_that_no_seat_uses_once_a_machine_is_deleted_are_closed(cloud: CloudClass) -> None:
    (name,) = [name for name, ports in rest(cloud).items() if 4324 in ports]
    reset.driver_reset(cloud.session(only=name))
    assert cloud.driver.opened[-1] == {4321, 4322, 4323}


# --- after somebody deleted a machine in the cloud -------------------------------------------


def test_status_says_what_brings_a_machine_back_that_was_deleted(cloud: CloudClass) -> None:
    cloud.driver.delete("bio-2")
    said = messages(status.status(cloud.session()))
    assert "bio-2" in said
    assert "invoke themachine" in said
    assert "Put it back" not in said


def test_a_reset_of_the_seats_says_what_helps_where_the_managers_were_deleted(cloud: CloudClass) -> None:
    cloud.driver.delete("bio-1", "bio-2")
    with pytest.raises(CloudscaleError, match="lost its quorum") as raised:
        reset.containers_reset(cloud.session(), with_volumes=False)
    assert "invoke themachine" in raised.value.remedy


def test_a_machine_that_was_deleted_does_not_keep_the_others_from_going(cloud: CloudClass) -> None:
    cloud.driver.delete("bio-2")
    report = reset.driver_reset(cloud.session(skip="bio-1"))
    assert cloud.driver.servers == ["bio-1"]
    assert "Put it back" not in messages(report)
    assert cloud.launch().problems == ()
