"""`distribute` and `themachine --material` on fake machines, whose volumes are folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudscale.cli.report import Report
from cloudscale.course.flags import Distribution, read_flags
from cloudscale.course.naming import material_name, student_labels, volume_name
from cloudscale.errors import EngineError, RequestError
from cloudscale.workflow import material, reset
from tests.unit.classroom import ANN, BOB, CID, Class, messages

pytestmark = pytest.mark.usefixtures("processes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    (made / "lesson.txt").write_text("one")
    (made / "data.csv").write_text("1,2")
    return made


Distribute = Callable[..., Report]


@pytest.fixture
def distribute(folder: Path, tmp_path: Path) -> Distribute:
    def run(room: Class, *, common: dict[str, Any] | None = None, **flags: Any) -> Report:
        for api in room.apis:
            api.disk = tmp_path / "volumes" / api.name
        order = read_flags(Distribution, **{"source": str(folder), **flags})
        return material.distribute(room.session(**(common or {})), order)

    return run


def rows(report: Report) -> list[tuple[str, str, int, int]]:
    return [(each["student"], each["state"], each["files"], each["conflicts"]) for each in json.loads(report.text)]


def work(room: Class, student: str) -> Path:
    (api,) = (api for api in room.apis if volume_name("bio", student) in api.volumes_)
    return api.folder(volume_name("bio", student))


def test_all_students_get_it_and_a_second_run_sends_nothing(bio: Class, distribute: Distribute) -> None:
    bio.launch()
    report = distribute(bio)
    assert rows(report) == [("Ann Lee", "updated", 2, 0), ("Bob Ray", "updated", 2, 0)] and not report.problems
    assert "Sent 6 bytes to 1 of 1 machines" in bio.said.lines
    assert rows(distribute(bio)) == [("Ann Lee", "unchanged", 0, 0), ("Bob Ray", "unchanged", 0, 0)]
    assert any("nothing was sent" in line for line in bio.said.lines)


def test_what_a_student_changed_is_kept_and_named_and_no_failure(
    bio: Class, distribute: Distribute, folder: Path
) -> None:
    bio.launch()
    distribute(bio)
    (work(bio, "1") / "lesson.txt").write_text("mine")
    (folder / "lesson.txt").write_text("newer")
    report = distribute(bio)
    assert rows(report) == [("Ann Lee", "conflicts", 1, 1), ("Bob Ray", "updated", 1, 0)] and not report.problems
    kept = "Kept: Ann Lee: lesson.txt: changed by the student; the new version is lesson (new).txt"
    assert kept in bio.said.lines
    assert rows(distribute(bio, force=True))[0] == ("Ann Lee", "updated", 1, 0)
    assert (work(bio, "1") / "lesson.txt").read_text() == "newer"


def test_conflicts_are_named_up_to_a_number(
    bio: Class, distribute: Distribute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(material, "MOST_NAMED", 1)
    bio.launch()
    distribute(bio, into="other")
    for student in ("1", "2"):
        (work(bio, student) / "lesson.txt").write_text("mine")
    distribute(bio)
    assert [line for line in bio.said.lines if line.startswith("Kept")][-1] == "Kept: 1 more"


def test_a_seat_that_was_removed_gets_it_too(bio: Class, distribute: Distribute) -> None:
    bio.launch()
    reset.containers_reset(bio.session(only="1"), with_volumes=False)
    assert rows(distribute(bio)) == [("Bob Ray", "updated", 2, 0), ("1", "updated", 2, 0)]
    reset.containers_reset(bio.session(), with_volumes=False)
    assert rows(distribute(bio, into="day1")) == [("1", "updated", 2, 0), ("2", "updated", 2, 0)]
    assert (work(bio, "1") / "day1/data.csv").read_text() == "1,2"


def test_a_student_with_work_on_two_machines_gets_it_where_she_was_last(lab: Class, distribute: Distribute) -> None:
    lab.enrol(3)
    lab.launch()
    reset.containers_reset(lab.session(), with_volumes=False)
    (before,) = (api for api in lab.apis if volume_name("bio", "1") in api.volumes_)
    after = next(api for api in lab.apis if api is not before)
    after.create_volume(volume_name("bio", "1"), labels=student_labels("bio", "1"))
    assert [row[0] for row in rows(distribute(lab))] == ["1", "2", "3"]
    assert [*after.folder(volume_name("bio", "1")).iterdir()] and not [
        *before.folder(volume_name("bio", "1")).iterdir()
    ]


def test_two_students_of_the_same_name_are_both_named(bio: Class, distribute: Distribute, folder: Path) -> None:
    bio.roster.write_text("1;Ann;Lee\n2;Ann;Lee\n")
    bio.launch()
    distribute(bio)
    for student, name in (("1", "lesson.txt"), ("2", "data.csv")):
        (work(bio, student) / name).write_text("mine")
        (folder / name).write_text("newer")
    assert [row[3] for row in rows(distribute(bio))] == [1, 1]
    assert len([line for line in bio.said.lines if line.startswith("Kept: Ann Lee: ")]) == 2


def test_only_the_students_that_were_named_get_it(lab: Class, distribute: Distribute) -> None:
    lab.enrol(6)
    lab.launch()
    (row,) = rows(distribute(lab, common={"only": "3"}))
    assert row == ("Student 3", "updated", 2, 0)
    assert len(rows(distribute(lab, common={"only": "m1"}))) == 2
    with pytest.raises(RequestError, match="Unknown"):
        distribute(lab, common={"only": "nobody"})


def test_a_machine_that_is_lost_stops_no_other(lab: Class, distribute: Distribute) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m2")
    report = distribute(lab)
    assert [row[1] for row in rows(report)].count("failed") == 2
    assert [row[1] for row in rows(report)].count("updated") == 4
    assert any("Student 2, Student 5" in problem and "m2 is lost" in problem for problem in report.problems)


def test_the_engines_error_is_named_once_for_its_students(lab: Class, distribute: Distribute, folder: Path) -> None:
    lab.enrol(18)
    lab.launch()
    lab.apis[0].create_volume(material_name("bio"), labels={})
    report = distribute(lab)
    (problem,) = report.problems
    assert " and 2 more: m1: a volume" in problem and "does not carry this course's mark" in problem


def test_where_there_are_no_students_nothing_is_done(bio: Class, distribute: Distribute) -> None:
    assert rows(distribute(bio)) == []
    assert any("has no seats" in line for line in bio.said.lines)


def test_without_seats_the_configured_image_is_used(bio: Class, distribute: Distribute) -> None:
    bio.launch()
    reset.containers_reset(bio.session(), with_volumes=False)
    bio.image = "quay.io/jupyter/other:1"
    report = distribute(bio)
    assert [row[1] for row in rows(report)] == ["failed"] * 2
    assert "does not have the image quay.io/jupyter/other:1" in messages(report)


def test_what_does_not_exist_changes_nothing(bio: Class, distribute: Distribute) -> None:
    bio.launch()
    with pytest.raises(RequestError, match="does not exist"):
        distribute(bio, source="/nowhere")
    assert bio.changes == []


# --- in a launch -----------------------------------------------------------------------------


def test_a_launch_with_material_gives_it_to_its_seats(
    bio: Class, distribute: Distribute, folder: Path, tmp_path: Path
) -> None:
    bio.api.disk = tmp_path / "volumes" / "m1"
    report = bio.launch(material=str(folder))
    assert report.problems == () and [row["state"] for row in bio.rows(report)] == ["ready"] * 2
    assert (work(bio, "2") / "lesson.txt").read_text() == "one"
    bio.roster.write_text(ANN + BOB + CID)
    assert bio.launch(material=str(folder)).problems == ()
    assert any("nothing was sent" in line for line in bio.said.lines)
    assert (work(bio, "3") / "lesson.txt").read_text() == "one"


def test_what_can_not_be_given_is_a_problem_of_the_launch(bio: Class, folder: Path) -> None:
    bio.api.create_volume(material_name("bio"), labels={})
    report = bio.launch(material=str(folder))
    assert "does not carry this course's mark" in messages(report)
    assert [row["state"] for row in bio.rows(report)] == ["ready"] * 2


def test_an_engine_that_fails_meanwhile_costs_no_table(
    bio: Class, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*given: object) -> None:
        raise EngineError("m1: no answer")

    monkeypatch.setattr(material, "running_seats", gone)
    report = bio.launch(material=str(folder))
    assert report.problems == ("m1: no answer",) and len(bio.rows(report)) == 2


def test_material_that_does_not_exist_stops_a_launch_before_it_begins(bio: Class, folder: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        bio.launch(material="/nowhere")
    with pytest.raises(RequestError, match="starts none"):
        bio.launch(material=str(folder), onlycreate=True)
    assert bio.changes == [] and not bio.api.manages


# --- its end ---------------------------------------------------------------------------------


def test_what_machines_keep_goes_with_the_last_of_the_work(lab: Class, distribute: Distribute) -> None:
    lab.enrol(6)
    lab.launch()
    distribute(lab)
    name = material_name("bio")
    reset.containers_reset(lab.session(), with_volumes=False)
    assert all(name in api.volumes_ for api in lab.apis)
    reset.containers_reset(lab.session(only="1"), with_volumes=True)
    assert all(name in api.volumes_ for api in lab.apis)
    reset.containers_reset(lab.session(only="m2"), with_volumes=True)
    assert [name in api.volumes_ for api in lab.apis] == [True, False, True]
    reset.containers_reset(lab.session(), with_volumes=True)
    assert [api.volumes_ for api in lab.apis] == [{}, {}, {}]


def test_nothing_is_left_after_a_reset_of_the_driver(bio: Class, distribute: Distribute) -> None:
    bio.launch()
    distribute(bio)
    assert reset.driver_reset(bio.session()).problems == ()
    assert bio.api.volumes_ == {} and bio.api.containers_ == []
