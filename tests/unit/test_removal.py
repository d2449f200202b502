from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudscale import workflow
from cloudscale.errors import RequestError
from cloudscale.report import Report
from tests.unit.classroom import Class


def test_a_reset_of_the_seats_keeps_machine_and_work(bio: Class) -> None:
    bio.launch()
    report = workflow.containers_reset(bio.session(), with_volumes=False)
    assert report.problems == ()
    assert bio.api.services_ == bio.api.secrets_ == {}
    assert len(bio.api.volumes_) == 2
    assert bio.api.manages
    assert "2 seats" in bio.questions[0]


def test_a_reset_with_volumes_takes_the_work_too(bio: Class) -> None:
    bio.launch()
    workflow.containers_reset(bio.session(), with_volumes=True)
    assert bio.api.volumes_ == {}
    assert "2 volumes" in bio.questions[0]


def test_a_reset_of_one_seat_touches_no_other(bio: Class) -> None:
    bio.launch()
    workflow.containers_reset(bio.session(only="1"), with_volumes=True)
    assert [row["student"] for row in bio.rows(workflow.status(bio.session()))] == ["Bob Ray"]
    (volume,) = bio.api.volumes_.values()
    assert volume["Labels"]["cloudscale.student"] == "2"


def test_who_does_not_agree_loses_nothing(bio: Class) -> None:
    bio.launch()
    bio.agrees = False
    resets: list[Callable[[], Report]] = [
        lambda: workflow.containers_reset(bio.session(), with_volumes=True),
        lambda: workflow.driver_reset(bio.session()),
        lambda: workflow.machine_rm(bio.session(), "m1"),
    ]
    for reset in resets:
        with pytest.raises(RequestError, match="Nothing was removed"):
            reset()
        assert bio.api.changes == bio.driver.done == []
    assert len(bio.questions) == 3


def test_where_there_is_nothing_nobody_is_asked(bio: Class) -> None:
    assert workflow.containers_reset(bio.session(), with_volumes=True).text == "[]"
    assert any("nothing to remove" in line for line in bio.said.lines)
    assert bio.questions == []


def test_a_reset_of_the_driver_leaves_nothing_of_the_course(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    report = workflow.driver_reset(bio.session())
    assert report.problems == ()
    assert not bio.api.manages
    assert bio.api.volumes_ == bio.api.services_ == bio.api.secrets_ == {}
    assert list(tmp_path.iterdir()) == [bio.roster]
    assert workflow.driver_reset(bio.session()).text == "[]"
    assert any("nothing of the course 'bio' is left" in line for line in bio.said.lines)


def test_a_reset_of_the_driver_touches_nothing_of_another_course(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    bio.course = "geo"
    bio.roster.write_text("1;Ann;Lee\n")
    geo = bio.launch(start="5000")
    bio.course = "bio"
    workflow.driver_reset(bio.session())
    bio.course = "geo"
    assert bio.launch(start="5000") == geo
    assert bio.changes == []
    assert len(bio.api.volumes_) == 1


def test_a_reset_of_the_driver_for_one_seat_keeps_swarm_and_key(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    workflow.driver_reset(bio.session(only="1"))
    assert bio.api.manages
    assert (tmp_path / "bio" / "local" / "key").exists()
    assert len(bio.api.services_) == len(bio.api.volumes_) == 1


def test_what_could_not_be_removed_is_named_and_the_key_stays(
    bio: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bio.launch()
    bio.api.keeps_containers = True
    monkeypatch.setattr("cloudscale.containers.poll", lambda step, timeout: step())
    report = workflow.driver_reset(bio.session())
    assert any("still on m1" in problem for problem in report.problems)
    assert any("in use" in problem for problem in report.problems)
    assert (tmp_path / "bio" / "local" / "key").exists()
    assert bio.api.manages


def test_what_was_removed_is_told(bio: Class) -> None:
    bio.launch()
    names = {service["Spec"]["Name"] for service in bio.api.services_.values()} | set(bio.api.volumes_)
    rows = bio.rows(workflow.driver_reset(bio.session()))
    assert {row["target"] for row in rows} == names
    assert {row["state"] for row in rows} == {"removed"}


def test_volumes_without_a_seat_can_be_chosen_too(bio: Class) -> None:
    bio.launch()
    workflow.containers_reset(bio.session(), with_volumes=False)
    workflow.containers_reset(bio.session(only="1"), with_volumes=True)
    (volume,) = bio.api.volumes_.values()
    assert volume["Labels"]["cloudscale.student"] == "2"


def test_a_look_that_was_cut_off_is_removed_with_the_rest(bio: Class) -> None:
    bio.launch()
    look = {"Id": "look", "State": "exited", "Labels": {"cloudscale.course": "bio"}}
    bio.api.containers_.append({**look, "Ports": [], "Volumes": [], "Service": ""})
    workflow.driver_reset(bio.session())
    assert bio.api.containers_ == []
