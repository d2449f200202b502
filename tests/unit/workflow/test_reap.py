"""Courses whose deadline is over are collected and then removed, and no others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course.session import Session
from cloudscale.errors import AccessError, CloudscaleError, RequestError
from cloudscale.workflow import reap, reset
from tests.unit.api_schema import Json
from tests.unit.classroom import Class
from tests.unit.fake_cloud import CloudClass

Later = Callable[[float], None]
pytestmark = pytest.mark.usefixtures("at_noon")


class Collector:
    """As collecting. `meanwhile` happens while it runs."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Path]] = []
        self.errors: dict[str, Exception] = {}
        self.meanwhile: Callable[[Session], object] = lambda session: None

    def __call__(self, cluster: Cluster, session: Session, output: Path, *, unattended: bool) -> None:
        assert unattended
        course = session.settings.course
        self.calls.append((course, output))
        self.meanwhile(session)
        if course in self.errors:
            raise self.errors[course]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    collector = Collector()
    monkeypatch.setattr(reset, "collected_first", collector)
    return collector


def launch(bio: Class, course: str, **flags: Any) -> None:
    """Each course of an engine with ports of its own."""
    bio.course = course
    bio.launch(start=5000 + 100 * len(course), **flags)
    bio.session().course.key()  # fakes do not make the folder
    bio.course = "bio"


def run(bio: Class, tmp_path: Path, *, names_course: bool = False, **common: Any) -> Report:
    session = replace(bio.session(**{"yes": True, **common}), names_course=names_course)
    return reap.reap(session, str(tmp_path / "work"))


def states(bio: Class, report: Report) -> dict[str, str]:
    return {row["course"]: row["state"] for row in bio.rows(report)}


def courses(bio: Class) -> set[str]:
    """Those that have anything on the engine."""
    things = [*bio.api.services_.values(), *bio.api.secrets_.values(), *bio.api.configs_]
    labels = [thing["Spec"]["Labels"] for thing in things] + [each["Labels"] for each in bio.api.volumes_.values()]
    return {own["cloudscale.course"] for own in labels}


def test_a_course_whose_deadline_is_over_is_collected_and_removed_and_its_neighbours_stay(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    launch(bio, "bio", until="18:00")
    launch(bio, "math", until="20:00")
    launch(bio, "physics")
    at_noon(6.5)
    report = run(bio, tmp_path)
    assert report.problems == ()
    assert collector.calls == [("bio", tmp_path / "work" / "bio")]
    assert courses(bio) == {"math", "physics"}
    assert bio.rows(report) == [
        row("bio", "removed", "2026-11-27 18:00:00+00:00", "its deadline was today at 18:00 UTC"),
        row("math", "kept", "2026-11-27 20:00:00+00:00", "1 h 30 min left"),
        row("physics", "kept", "", "no deadline"),
    ]
    assert not (tmp_path / "bio").exists()


def row(course: str, state: str, deadline: str, cause: str) -> Json:
    return {"course": course, "driver": "local", "state": state, "deadline": deadline, "cause": cause}


def test_it_is_quiet_where_nothing_is_to_do(bio: Class, collector: Collector, tmp_path: Path) -> None:
    assert run(bio, tmp_path, format="table") == Report("")
    launch(bio, "bio", until="18:00")
    launch(bio, "math")
    assert run(bio, tmp_path, format="table") == Report("")
    assert bio.said.lines == bio.api.changes == []
    assert states(bio, run(bio, tmp_path)) == {"bio": "kept", "math": "kept"}  # a program wants its list


def test_as_a_table_it_says_what_it_did(bio: Class, collector: Collector, tmp_path: Path, at_noon: Later) -> None:
    launch(bio, "bio", until="18:00")
    launch(bio, "math")
    at_noon(7)
    text = run(bio, tmp_path, format="table").text
    assert [line.split()[:3] for line in text.splitlines()[2:]] == [
        ["bio", "local", "removed"],
        ["math", "local", "kept"],
    ]
    assert [line for line in bio.said.lines if not line.startswith("Warning: ")] == [
        f"bio: its deadline was today at 18:00 UTC. Collecting the students' work into {tmp_path / 'work' / 'bio'},"
        " then removing the course",
        "The swarm of m1 stays: others use it (5 services, networks, secrets or configs).",
        "Done: nothing of the course 'bio' is left",
    ]


def test_work_that_was_not_collected_keeps_the_whole_course_and_the_others_go_on(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    for course in ("bio", "math", "physics"):
        launch(bio, course, until="18:00")
    at_noon(7)
    collector.errors["bio"] = CloudscaleError("Not all was collected:\nAnn Lee: it is lost.", "Run again.")
    collector.errors["math"] = OSError(28, "No space left on device", "/work")
    report = run(bio, tmp_path)
    assert states(bio, report) == {"bio": "failed", "math": "failed", "physics": "removed"}
    assert report.problems == (
        "bio: Not all was collected:\nAnn Lee: it is lost.",
        "math: /work: No space left on device",
    )
    assert bio.rows(report)[0]["cause"] == "Not all was collected: Ann Lee: it is lost."
    assert bio.rows(report)[0]["deadline"] == "2026-11-27 18:00:00+00:00"
    assert courses(bio) == {"bio", "math"}


def test_an_error_that_nobody_thought_of_keeps_the_course(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    launch(bio, "bio", until="18:00")
    at_noon(7)
    collector.errors["bio"] = KeyError("x")
    assert run(bio, tmp_path).problems == ("bio: KeyError('x')",)
    assert courses(bio) == {"bio"}


def test_what_could_not_be_removed_is_reported_and_the_next_run_removes_it(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    launch(bio, "bio", until="18:00")
    at_noon(7)
    bio.api.keeps_containers = True
    report = run(bio, tmp_path)
    assert states(bio, report) == {"bio": "failed"}
    assert report.problems[0].startswith("bio: ")


def test_a_deadline_that_is_moved_while_the_run_waits_counts(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(bio, "bio", until="18:00")
    at_noon(7)

    def move(session: Session) -> Cluster:
        cluster = look(session)
        monkeypatch.setattr(reap, "look", look)
        bio.launch(until="20:00")
        return cluster

    monkeypatch.setattr(reap, "look", move)
    report = run(bio, tmp_path)
    assert states(bio, report) == {"bio": "kept"}
    assert collector.calls == []


def test_a_course_that_another_run_changes_is_left_to_the_next_time(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    launch(bio, "bio", until="18:00")
    at_noon(7)
    with bio.session().locked():
        report = run(bio, tmp_path)
    assert bio.rows(report)[0]["state"] == "kept"
    assert bio.rows(report)[0]["cause"] == "Another run is changing the course 'bio'."
    assert collector.calls == []


def test_nobody_else_changes_the_course_while_it_is_collected(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    launch(bio, "bio", until="18:00")
    at_noon(7)

    def change(session: Session) -> None:
        with pytest.raises(CloudscaleError, match="Another run"), session.locked():
            pass

    collector.meanwhile = change
    assert states(bio, run(bio, tmp_path)) == {"bio": "removed"}


# --- which courses ---------------------------------------------------------------------------


def test_with_course_it_is_about_that_one_alone(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    for course in ("bio", "math"):
        launch(bio, course, until="18:00")
    at_noon(7)
    bio.course = "math"
    assert states(bio, run(bio, tmp_path, names_course=True)) == {"math": "removed"}
    assert courses(bio) == {"bio"}
    assert run(bio, tmp_path, names_course=True).text == "[]"


def test_hosts_are_those_of_the_configured_course(
    lab: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    lab.launch(until="18:00")
    lab.session().course.key()
    other = tmp_path / "other" / "generic"
    other.mkdir(parents=True, mode=0o700)
    at_noon(7)
    assert states(lab, run(lab, tmp_path)) == {"bio": "removed"}
    assert other.exists()


def test_courses_of_other_drivers_are_not_looked_at(bio: Class, collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "bio" / "qemu").mkdir(parents=True)
    assert run(bio, tmp_path).text == "[]"


# --- who can't be asked ----------------------------------------------------------------------


def test_a_course_that_cant_be_asked_stays_and_is_reported(
    lab: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    lab.launch(until="18:00")
    lab.session().course.key()
    at_noon(7)
    lab.driver.lose("m1", "m2", "m3")
    report = run(lab, tmp_path)
    assert states(lab, report) == {"bio": "failed"}
    assert report.problems[0].startswith("bio: It can't be asked for its deadline, so it stays:\nm1: its Docker Engine")
    lab.driver.find("m1")
    report = run(lab, tmp_path)
    assert "so it stays" in report.problems[0]  # its swarm has no quorum
    assert lab.driver.done == []


def test_a_course_of_which_nothing_was_made_has_no_deadline(lab: Class, collector: Collector, tmp_path: Path) -> None:
    lab.session().course.key()
    assert states(lab, run(lab, tmp_path)) == {"bio": "kept"}


def test_an_engine_that_does_not_answer_is_a_failure_of_each_course(
    bio: Class, collector: Collector, tmp_path: Path
) -> None:
    for course in ("bio", "math"):
        launch(bio, course)
    bio.driver.lose("m1")
    assert states(bio, run(bio, tmp_path)) == {"bio": "failed", "math": "failed"}


def test_credentials_that_are_wrong_for_all_are_a_wrong_request(
    bio: Class, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for course in ("bio", "math"):
        launch(bio, course)

    def refuse(*given: object) -> None:
        raise AccessError("The cloud refuses the credentials.")

    monkeypatch.setattr("cloudscale.cluster.driver.load_driver", refuse)
    with pytest.raises(AccessError):
        run(bio, tmp_path)


def test_a_folder_that_can_be_written_by_others_is_a_failure_of_its_course_alone(
    bio: Class, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    for course in ("bio", "math"):
        launch(bio, course, until="18:00")
    at_noon(7)
    (tmp_path / "bio").chmod(0o777)
    report = run(bio, tmp_path)
    assert states(bio, report) == {"bio": "failed", "math": "removed"}
    assert "can be written by other users" in report.problems[0]


# --- in a cloud ------------------------------------------------------------------------------


def test_in_a_cloud_everything_of_the_course_goes(
    cloud: CloudClass, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    cloud.launch(until="18:00")
    cloud.session().course.key()
    at_noon(7)
    assert states(cloud, run(cloud, tmp_path)) == {"bio": "removed"}
    assert cloud.driver.resources() == ""


def test_a_course_in_a_cloud_whose_machines_do_not_answer_is_over_but_not_collected(
    cloud: CloudClass, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    cloud.launch(until="18:00")
    cloud.session().course.key()
    at_noon(7)
    cloud.driver.lose("bio-1")
    collector.errors["bio"] = CloudscaleError("Not all was collected:\nbio-1: no answer.")
    report = run(cloud, tmp_path)
    assert cloud.rows(report)[0] | {"cause": ""} == {
        "course": "bio",
        "driver": "openstack",
        "state": "failed",
        "deadline": "2026-11-27 18:00:00+00:00",
        "cause": "",
    }
    assert cloud.driver.servers == ["bio-1"]


def test_what_is_left_of_a_course_without_machines_goes_too(
    cloud: CloudClass, collector: Collector, tmp_path: Path, at_noon: Later
) -> None:
    cloud.launch(until="18:00")
    cloud.session().course.key()
    at_noon(7)
    cloud.driver.delete("bio-1")
    assert states(cloud, run(cloud, tmp_path)) == {"bio": "removed"}
    assert cloud.driver.resources() == ""


def test_a_course_in_a_cloud_that_says_nothing_has_no_deadline(
    cloud: CloudClass, collector: Collector, tmp_path: Path
) -> None:
    cloud.launch()
    cloud.session().course.key()
    cloud.driver.lose("bio-1")
    assert states(cloud, run(cloud, tmp_path)) == {"bio": "kept"}


# --- wrong requests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "common", "missing"),
    [
        (None, {"yes": True}, "Add --output DIR"),
        ("work", {"yes": False}, "Add --yes"),
        ("work", {"yes": True, "only": "m1"}, "Use --course"),
        ("work", {"yes": True, "skip": "m1"}, "Use --course"),
        ("class.csv", {"yes": True}, "class.csv is not a folder"),
        ("class.csv/work", {"yes": True}, "class.csv is not a folder"),
    ],
)
def test_a_wrong_request_changes_nothing(
    bio: Class,
    collector: Collector,
    tmp_path: Path,
    at_noon: Later,
    output: str | None,
    common: Json,
    missing: str,
) -> None:
    launch(bio, "bio", until="18:00")
    at_noon(7)
    with pytest.raises(RequestError) as error:
        reap.reap(bio.session(**common), output and str(tmp_path / output))
    assert missing in str(error.value)
    assert bio.api.changes == []
    assert collector.calls == []
    assert os.listdir(tmp_path / "bio") == ["local"]
