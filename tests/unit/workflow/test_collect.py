"""`collect`, on fake engines whose volumes are folders of this computer."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.workflow import reset
from cloudscale.workflow.collect import collect, collect_from, collected_first
from tests.unit.classroom import CID, Class, messages
from tests.unit.workflow.worlds_of_work import with_disks, work_of


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def bio(bio: Class, tmp_path: Path, processes: None) -> Class:
    """Ann has a file, Bob has nothing."""
    with_disks(bio, tmp_path).launch()
    (work_of(bio, "1") / "a.txt").write_text("flux")
    return bio


def manifest(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_student_has_a_folder_and_each_file_a_line(bio: Class, out: Path) -> None:
    report = collect(bio.session(), out)
    assert bio.rows(report) == [
        {"student": "Ann Lee", "state": "collected", "files": 1, "bytes": 4, "cause": ""},
        {"student": "Bob Ray", "state": "unchanged", "files": 0, "bytes": 0, "cause": ""},
    ]
    assert report.problems == ()
    (row,) = manifest(out)
    assert row.items() >= {"student": "Ann Lee", "id": "1", "bytes": "4"}.items()
    assert hashlib.sha256((out / row["path"]).read_bytes()).hexdigest() == row["sha256"]
    folders = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert [name.rpartition("-")[0] for name in folders] == ["ann-lee-1", "bob-ray-2"]
    assert all(api.containers_ and not any("role" in str(c["Labels"]) for c in api.containers_) for api in bio.apis)


def test_the_default_folder_is_that_of_the_course(bio: Class, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    collect(bio.session())
    assert (tmp_path / "work-bio" / "manifest.csv").exists()


def test_work_of_seats_that_were_removed_is_collected(bio: Class, out: Path) -> None:
    reset.containers_reset(bio.session(), with_volumes=False)
    assert [row["files"] for row in bio.rows(collect(bio.session(), out))] == [1, 0]
    assert manifest(out)[0]["student"] == "1", "a volume knows the id alone"


def test_a_name_that_is_known_from_before_stays(bio: Class, out: Path) -> None:
    collect(bio.session(), out)
    reset.containers_reset(bio.session(), with_volumes=False)
    assert [row["student"] for row in bio.rows(collect(bio.session(), out))] == ["Ann Lee", "2"]
    assert manifest(out)[0]["student"] == "Ann Lee"


def test_without_a_seat_and_an_image_the_remedy_is_named(bio: Class, out: Path) -> None:
    reset.containers_reset(bio.session(), with_volumes=False)
    bio.image = "quay.io/jupyter/other:1"
    report = collect(bio.session(), out)
    assert [row["state"] for row in bio.rows(report)] == ["failed", "failed"]
    assert "--image" in messages(report)


def test_only_some_are_collected_and_the_others_stay_in_the_manifest(bio: Class, out: Path) -> None:
    (work_of(bio, "2") / "b.txt").write_text("2")
    collect(bio.session(), out)
    (work_of(bio, "2") / "b.txt").write_text("22")
    report = collect(bio.session(only="Bob Ray"), out)
    assert [row["student"] for row in bio.rows(report)] == ["Bob Ray"]
    assert {row["id"]: row["bytes"] for row in manifest(out)} == {"1": "4", "2": "2"}
    with pytest.raises(RequestError, match="Unknown"):
        collect(bio.session(only="Zoe"), out)


def test_what_was_refused_is_a_problem_and_the_rest_is_collected(bio: Class, out: Path) -> None:
    with (work_of(bio, "1") / "huge").open("wb") as file:
        file.truncate(2**40)
    report = collect(bio.session(), out)
    assert bio.rows(report)[0]["state"] == "incomplete" and "huge" in bio.rows(report)[0]["cause"]
    assert "Ann Lee: not collected: 1 file beyond the limit" in messages(report)
    assert [row["bytes"] for row in manifest(out)] == ["4"]
    collection = collect_from(look(bio.session()), bio.session(), out)
    assert collection.refused == ("1",) and collection.failed == ()


def test_before_a_reset_it_is_all_or_nothing_unless_it_is_unattended(bio: Class, out: Path) -> None:
    with (work_of(bio, "1") / "huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CloudscaleError, match="so nothing was removed:\nAnn Lee: not collected: 1 file beyond"):
        collected_first(look(bio.session()), bio.session(), out)
    collected_first(look(bio.session()), bio.session(), out, unattended=True)
    assert any(line.startswith("Warning: Ann Lee: not collected: 1 file beyond") for line in bio.said.lines)
    cluster = replace(look(bio.session()), hosts=())  # its machine is gone
    with pytest.raises(CloudscaleError, match="so nothing was removed"):
        collected_first(cluster, bio.session(), out, unattended=True)


def test_a_manifest_that_loses_lines_is_kept(bio: Class, out: Path) -> None:
    collect(bio.session(), out)
    (work_of(bio, "1") / "a.txt").unlink()
    collect(bio.session(), out)
    assert manifest(out) == []
    assert "a.txt" in (out / "manifest.csv.kept-1").read_text()
    assert list(out.glob("ann*/a.txt"))


def test_another_courses_folder_is_refused(bio: Class, out: Path) -> None:
    collect(bio.session(), out)
    before = (out / "manifest.csv").read_text()
    bio.course = "geo"
    bio.launch(start="5000")
    with pytest.raises(RequestError, match="the work of another course"):
        collect(bio.session(), out)
    assert (out / "manifest.csv").read_text() == before


def test_a_class_without_work_has_nothing_to_collect(bio: Class, out: Path) -> None:
    reset.containers_reset(bio.session(), with_volumes=True)
    assert collect(bio.session(), out).text == "[]"
    assert not out.exists()


def test_a_lost_machine_is_a_failure_and_the_others_are_collected(
    lab: Class, out: Path, tmp_path: Path, processes: None
) -> None:
    lab.roster.write_text(lab.roster.read_text() + CID)
    with_disks(lab, tmp_path)
    rows = lab.rows(lab.launch())
    lost = rows[0]["node"]
    lab.driver.lose(lost)
    report = collect(lab.session(), out)
    failed = {row["student"] for row in lab.rows(report) if row["state"] == "failed"}
    assert failed == {row["student"] for row in rows if row["node"] == lost} and len(failed) < 3
    assert lost in messages(report)


# --- before a reset ---------------------------------------------------------------------------


def test_a_reset_collects_first(bio: Class, out: Path) -> None:
    assert reset.driver_reset(bio.session(), collect=out).problems == ()
    assert len(manifest(out)) == 1 and bio.api.volumes_ == {} and bio.api.configs_ == []


def test_a_reset_stops_where_not_all_was_collected(bio: Class, out: Path) -> None:
    with (work_of(bio, "1") / "huge").open("wb") as file:
        file.truncate(2**40)
    tasks: list[Callable[[], Report]] = [
        lambda: reset.containers_reset(bio.session(), with_volumes=True, collect=out),
        lambda: reset.driver_reset(bio.session(), collect=out),
    ]
    for task in tasks:
        with pytest.raises(CloudscaleError, match="nothing was removed") as error:
            task()
        assert "huge" in error.value.message and "without --collect" in error.value.remedy
        assert len(bio.api.volumes_) == len(bio.api.services_) == 2
    assert bio.questions == []
