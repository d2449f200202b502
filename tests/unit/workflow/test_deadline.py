"""A course's deadline from `themachine --until` on: where it is marked, and who warns of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.errors import CloudError, RequestError
from cloudscale.workflow import commands, images, reset, status
from tests.unit.classroom import Class
from tests.unit.fake_api import FakeApi
from tests.unit.fake_cloud import CloudClass

Later = Callable[[float], None]
SIX = datetime(2026, 11, 27, 18, tzinfo=UTC)
WARNING = "The deadline of the course 'bio' was today at 18:00 UTC"
TASKS: dict[str, Callable[[Class], Report]] = {
    "status": lambda bio: status.status(bio.session()),
    "com_node": lambda bio: commands.com_node(bio.session(), "true"),
    "com_containers": lambda bio: commands.com_containers(bio.session(), "true"),
    "containers_reset": lambda bio: reset.containers_reset(bio.session(), with_volumes=False),
    "driver_reset": lambda bio: reset.driver_reset(bio.session()),
    "image_list": lambda bio: images.image_list(bio.session()),
    "themachine": lambda bio: bio.launch(),
    "themachine --plan": lambda bio: bio.launch(plan=True),
}


pytestmark = pytest.mark.usefixtures("at_noon")


def said(bio: Class, text: str) -> list[str]:
    return [line for line in bio.said.lines if text in line]


def until(bio: Class) -> datetime | None:
    """As the next run reads it back."""
    return look(bio.session(), bio.driver).until


def test_a_launch_says_how_it_read_the_deadline_and_writes_it_into_the_swarm(bio: Class) -> None:
    bio.launch(until="18:00")
    assert said(bio, "deadline") == ["The deadline of the course 'bio': today at 18:00 UTC, in 6 h"]
    assert until(bio) == SIX


def test_a_plan_says_it_and_writes_nothing(bio: Class) -> None:
    bio.launch(plan=True, until="18:00")
    assert said(bio, "today at 18:00 UTC")
    bio.launch()
    assert until(bio) is None


def test_a_launch_without_until_keeps_the_deadline(bio: Class) -> None:
    bio.launch(until="18:00")
    bio.launch()
    assert until(bio) == SIX
    assert not said(bio, "deadline")


def test_the_same_deadline_again_changes_nothing(bio: Class) -> None:
    bio.launch(until="18:00")
    bio.launch(until="18:00")
    assert bio.changes == []


def test_another_one_changes_no_seat(bio: Class) -> None:
    bio.launch(until="18:00")
    bio.launch(until="2026-12-01")
    assert bio.changes == ["create config", "remove config"]
    assert until(bio) == datetime(2026, 12, 1, 23, 59, tzinfo=UTC)


def test_none_takes_it_away(bio: Class) -> None:
    bio.launch(until="18:00")
    bio.launch(until="none")
    assert said(bio, "The course 'bio' has no deadline")
    assert until(bio) is None


def test_one_that_is_past_is_a_wrong_request_and_changes_nothing(bio: Class) -> None:
    with pytest.raises(RequestError, match="flag --until: should be in the future, and yesterday at 23:59 UTC is past"):
        bio.launch(until="2026-11-26")
    assert bio.api.changes == []


@pytest.mark.parametrize("task", TASKS)
def test_every_task_warns_once_of_a_deadline_that_is_over_and_of_no_other(
    bio: Class, task: str, at_noon: Later
) -> None:
    bio.launch(until="18:00")
    at_noon(5.9)
    TASKS["themachine --plan" if task == "driver_reset" else task](bio)
    assert not said(bio, WARNING)
    at_noon(6)
    TASKS[task](bio)
    (line,) = said(bio, WARNING)
    assert line.startswith("Warning: ")
    assert "invoke driver_reset removes the course" in line


@pytest.mark.parametrize("when", ["20:00", "none"])
def test_who_moves_a_deadline_that_is_over_is_not_warned_of_it(bio: Class, when: str, at_noon: Later) -> None:
    bio.launch(until="18:00")
    at_noon(7)
    bio.launch(until=when)
    assert not said(bio, WARNING)


def test_a_command_on_the_machines_runs_where_no_deadline_can_be_read(lab: Class, at_noon: Later) -> None:
    lab.launch(until="18:00")
    at_noon(7)
    for name in ("m1", "m2"):
        lab.driver.bare.add(name)
    assert commands.com_node(lab.session(), "true").problems == ()
    assert not said(lab, WARNING)


def test_status_says_what_is_left_beside_its_rows(bio: Class, at_noon: Later) -> None:
    bio.launch(until="18:00")
    at_noon(3.8)
    report = status.status(bio.session())
    assert said(bio, "left") == ["The course 'bio': until today at 18:00 UTC, 2 h 12 min left"]
    assert "until" not in bio.rows(report)[0]
    at_noon(7)
    status.status(bio.session())
    assert not said(bio, "left")


def test_status_of_a_course_without_a_deadline_says_nothing_of_one(bio: Class) -> None:
    bio.launch()
    status.status(bio.session())
    assert bio.said.lines == []


# --- the swarm -------------------------------------------------------------------------------


def test_each_course_in_a_swarm_has_its_own(bio: Class) -> None:
    bio.launch(until="18:00")
    bio.course = "chem"
    bio.launch(until="20:00", start=5000)
    assert until(bio) == datetime(2026, 11, 27, 20, tzinfo=UTC)
    reset.driver_reset(bio.session())
    bio.course = "bio"
    assert until(bio) == SIX


def test_a_swarm_of_somebody_else_gets_nothing_but_a_marked_config(bio: Class) -> None:
    bio.machines(FakeApi())
    before = dict(bio.api.swarm_labels), dict(bio.api.node_labels)
    bio.launch(until="18:00")
    assert (bio.api.swarm_labels, bio.api.node_labels) == before
    (config,) = bio.api.configs_
    assert config["Spec"]["Labels"]["cloudscale.course"] == "bio"
    reset.driver_reset(bio.session())
    assert bio.api.configs_ == []
    assert bio.api.manages


def test_it_outlives_the_seats_and_goes_with_the_course(lab: Class) -> None:
    lab.launch(until="18:00")
    reset.containers_reset(lab.session(), with_volumes=True)
    assert until(lab) == SIX
    reset.driver_reset(lab.session())
    lab.launch()
    assert until(lab) is None


def test_a_lost_machine_does_not_take_it_along(lab: Class) -> None:
    lab.launch(until="18:00")
    lab.driver.lose("m1")
    assert until(lab) == SIX


def test_a_class_without_a_quorum_is_warned_that_a_new_swarm_has_no_deadline(lab: Class) -> None:
    lab.launch(until="18:00")
    lab.driver.lose("m2", "m3")
    with pytest.raises(Exception, match="quorum"):
        lab.launch()
    assert said(lab, "give it again with --until")


def test_what_the_swarm_does_not_take_is_reported_and_the_seats_start(
    bio: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudscale.swarm.deadline.naming.deadline_name", lambda course, text: "not a name!")
    report = bio.launch(until="18:00")
    assert [row["state"] for row in bio.rows(report)] == ["ready", "ready"]
    (problem,) = report.problems
    assert problem.startswith("The deadline was not written into the swarm: ")


# --- a cloud ---------------------------------------------------------------------------------


def test_in_a_cloud_it_is_marked_before_a_machine_is_made(cloud: CloudClass) -> None:
    cloud.launch(until="18:00")
    assert cloud.driver.done[0].startswith("mark until 2026-11-27 18:00")
    assert cloud.driver.until == until(cloud) == SIX


def test_a_cloud_that_does_not_take_the_mark_makes_no_machine(cloud: CloudClass) -> None:
    cloud.driver.mark_fault = CloudError("Marking the deadline failed.")
    with pytest.raises(CloudError):
        cloud.launch(until="18:00")
    assert cloud.driver.servers == []


def test_a_course_whose_machines_are_all_gone_still_has_its_deadline(cloud: CloudClass, at_noon: Later) -> None:
    cloud.launch(until="18:00")
    cloud.driver.lose("bio-1")
    assert until(cloud) == SIX
    cloud.driver.delete("bio-1")
    assert until(cloud) == SIX
    at_noon(7)
    status.status(cloud.session())
    assert said(cloud, WARNING)


def test_a_new_swarm_gets_the_deadline_that_the_cloud_has(cloud: CloudClass) -> None:
    cloud.launch(until="18:00")
    cloud.driver.delete("bio-1")
    cloud.launch()
    cloud.driver.until = None
    assert until(cloud) == SIX


def test_of_two_that_differ_the_later_one_counts_until_the_next_launch_has_made_them_equal(cloud: CloudClass) -> None:
    cloud.launch(until="18:00")
    cloud.driver.until = later = datetime(2026, 11, 28, tzinfo=UTC)
    assert until(cloud) == later
    cloud.launch()
    cloud.driver.until = None
    assert until(cloud) == later


def test_none_takes_both_away_and_the_reset_too(cloud: CloudClass) -> None:
    cloud.launch(until="18:00")
    cloud.launch(until="none")
    assert (until(cloud), cloud.driver.until) == (None, None)
    cloud.launch(until="18:00")
    reset.driver_reset(cloud.session())
    assert until(cloud) is None


def test_a_launch_without_a_deadline_marks_nothing(cloud: CloudClass) -> None:
    cloud.launch()
    assert not [done for done in cloud.driver.done if "until" in done]
