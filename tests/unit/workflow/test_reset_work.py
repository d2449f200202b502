"""What a reset does with the students' work on volumes that survive the machines: it has a question of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.errors import CloudscaleError, Declined, RequestError
from cloudscale.workflow import reset
from tests.unit.fake_cloud import CloudClass, FakeCloudWithWork

QUESTION = "the 3 volumes with the students' work of the course 'bio', for good?"


@pytest.fixture
def driver(cloud: CloudClass) -> FakeCloudWithWork:
    driver = FakeCloudWithWork(cloud.registry)
    cloud.driver = driver
    cloud.apis = driver.every_api
    return driver


@pytest.fixture
def cloud(cloud: CloudClass, driver: FakeCloudWithWork) -> CloudClass:
    """A class of ten on bio-1, bio-2 and bio-3, each with a work volume."""
    cloud.enrol(10)
    assert cloud.launch().problems == ()
    cloud.questions.clear()
    return cloud


def keep_work(cloud: CloudClass, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user says yes to the machines, and no to the work."""

    def ask(question: str) -> None:
        cloud.questions.append(question)
        if "volumes with the students' work" in question:
            raise Declined("Nothing was removed.")

    monkeypatch.setattr(cloud, "_ask", ask)


def test_who_agrees_twice_keeps_nothing(cloud: CloudClass, driver: FakeCloudWithWork) -> None:
    report = reset.driver_reset(cloud.session())
    assert report.problems == ()
    first, second = cloud.questions
    assert first == "Delete 3 servers, 3 ports, 1 security groups of the course 'bio', for good?"
    assert second == f"Also delete {QUESTION}"
    assert driver.work == set()
    assert [row["target"] for row in cloud.rows(report)][-3:] == [f"volume bio-{number}-work" for number in (1, 2, 3)]
    assert not cloud.folder.exists()


def test_who_says_no_to_the_first_question_is_not_asked_the_second(
    cloud: CloudClass, driver: FakeCloudWithWork
) -> None:
    cloud.agrees = False
    with pytest.raises(RequestError, match="Nothing was removed"):
        reset.driver_reset(cloud.session())
    assert len(cloud.questions) == 1
    assert len(driver.work) == len(driver.servers) == 3


def test_who_says_no_to_the_second_keeps_the_work_and_what_belongs_to_it(
    cloud: CloudClass, driver: FakeCloudWithWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_work(cloud, monkeypatch)
    assert reset.driver_reset(cloud.session()).problems == ()
    assert driver.servers == []
    assert len(driver.work) == 3
    assert (cloud.folder / "key").exists()
    (note,) = (line for line in cloud.said.lines if line.startswith("Kept"))
    assert "bio-1-work, bio-2-work, bio-3-work" in note
    assert "invoke driver_reset" in note
    assert not any("nothing of the course" in line for line in cloud.said.lines)


def test_a_second_reset_asks_for_the_work_alone(
    cloud: CloudClass, driver: FakeCloudWithWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as for_now:
        keep_work(cloud, for_now)
        reset.driver_reset(cloud.session())
    cloud.questions.clear()
    report = reset.driver_reset(cloud.session())
    assert cloud.questions == ["Delete 3 volumes with the students' work of the course 'bio', for good?"]
    assert report.problems == ()
    assert driver.work == set()
    assert not cloud.folder.exists()


def test_where_nobody_can_answer_the_second_reset_refuses(
    cloud: CloudClass, driver: FakeCloudWithWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.driver.delete("bio-1", "bio-2", "bio-3")
    cloud.driver.ports.clear()
    cloud.driver.has_group = False

    def no_terminal(question: str) -> None:
        raise RequestError(f"{question} This needs confirmation, and there is no terminal.")

    monkeypatch.setattr(cloud, "_ask", no_terminal)
    with pytest.raises(RequestError, match="no terminal"):
        reset.driver_reset(cloud.session())
    assert len(driver.work) == 3


def test_a_volume_that_can_not_be_deleted_is_reported_and_the_folder_stays(
    cloud: CloudClass, driver: FakeCloudWithWork
) -> None:
    driver.stuck_work.add("bio-2")
    report = reset.driver_reset(cloud.session())
    assert [problem.partition(":")[0] for problem in report.problems] == ["volume bio-2-work"]
    assert cloud.folder.exists()


def test_a_machine_that_is_deleted_alone_leaves_its_work(cloud: CloudClass, driver: FakeCloudWithWork) -> None:
    volumes = {**cloud.driver.apis["bio-2"].volumes_}
    api = cloud.driver.apis["bio-2"]
    assert reset.driver_reset(cloud.session(only="bio-2")).problems == ()
    assert "0 volumes with the students' work" in cloud.questions[0]
    assert api.volumes_ == volumes
    assert len(driver.work) == 3
    assert any(line.startswith("The students' work stays, on bio-2-work:") for line in cloud.said.lines)


def test_all_machines_by_their_names_leave_the_work_and_the_folder(
    cloud: CloudClass, driver: FakeCloudWithWork
) -> None:
    assert reset.driver_reset(cloud.session(only="bio-1,bio-2,bio-3")).problems == ()
    assert driver.servers == []
    assert len(driver.work) == 3
    assert cloud.folder.exists()


def test_the_work_of_one_student_goes_as_ever(cloud: CloudClass, driver: FakeCloudWithWork) -> None:
    reset.driver_reset(cloud.session(only="1"))
    assert "1 seats and 1 volumes" in cloud.questions[0]
    assert sum(len(api.volumes_) for api in cloud.driver.apis.values()) == 9


@pytest.mark.parametrize("unattended", [False, True])
def test_work_that_can_not_be_collected_stays_and_all_else_with_it(
    cloud: CloudClass, driver: FakeCloudWithWork, tmp_path: Path, unattended: bool
) -> None:
    driver.delete("bio-2")
    with pytest.raises(CloudscaleError, match="no machine has bio-2-work, so the work there can't be collected"):
        reset.driver_reset(cloud.session(yes=True), collect=tmp_path / "work", unattended=unattended)
    assert cloud.questions == []
    assert (len(driver.servers), len(driver.work)) == (2, 3)


def test_an_unattended_reset_deletes_the_work_once_it_is_collected(
    cloud: CloudClass, driver: FakeCloudWithWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reset, "collected_first", lambda *given, **more: None)
    assert reset.driver_reset(cloud.session(yes=True), collect=tmp_path / "work", unattended=True).problems == ()
    assert driver.work == set()
