"""`restore`, into another class."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cloudscale.errors import RequestError
from cloudscale.workflow import reset
from cloudscale.workflow.restore import restore
from tests.unit.classroom import ANN, CID, Class, messages
from tests.unit.workflow.worlds_of_work import with_disks, work_of


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def bio(bio: Class, tmp_path: Path, out: Path, processes: None) -> Class:
    """A new class of the same students, after the work of the first one was collected."""
    with_disks(bio, tmp_path).launch()
    (work_of(bio, "1") / "sub").mkdir()
    (work_of(bio, "1") / "sub" / "a.txt").write_text("flux")
    (work_of(bio, "2") / "b.txt").write_text("2")
    reset.driver_reset(bio.session(), collect=out)
    shutil.rmtree(tmp_path / "disks")
    bio.launch()
    return bio


def test_the_class_goes_on(bio: Class, out: Path) -> None:
    report = restore(bio.session(), out)
    assert [(row["student"], row["state"], row["files"]) for row in bio.rows(report)] == [
        ("Ann Lee", "restored", 1),
        ("Bob Ray", "restored", 1),
    ]
    assert report.problems == ()
    assert (work_of(bio, "1") / "sub" / "a.txt").read_text() == "flux"
    assert [row["state"] for row in bio.rows(restore(bio.session(), out))] == ["unchanged"] * 2


def test_what_differs_is_a_conflict_unless_it_is_forced(bio: Class, out: Path) -> None:
    (work_of(bio, "2") / "b.txt").write_text("new")
    report = restore(bio.session(), out)
    assert [row["state"] for row in bio.rows(report)] == ["restored", "conflicts"]
    assert "Bob Ray: not restored: 1 file different there (b.txt)" in messages(report)
    assert "--force" in messages(report)
    assert (work_of(bio, "2") / "b.txt").read_text() == "new"
    assert restore(bio.session(), out, force=True).problems == ()
    assert (work_of(bio, "2") / "b.txt").read_text() == "2"


def test_students_who_are_not_in_the_class_are_named(bio: Class, out: Path) -> None:
    bio.roster.write_text(ANN + CID)
    reset.containers_reset(bio.session(only="2"), with_volumes=True)
    report = restore(bio.session(), out)
    assert [row["student"] for row in bio.rows(report)] == ["Ann Lee"]
    assert messages(report) == "Not in this class, so not restored: Bob Ray (2)."
    assert restore(bio.session(only="1"), out).problems == ()


def test_a_damaged_file_is_named(bio: Class, out: Path) -> None:
    (path,) = out.glob("bob*/b.txt")
    path.write_text("3")
    report = restore(bio.session(), out)
    assert bio.rows(report)[1]["state"] == "incomplete" and "damaged" in messages(report)


def test_what_is_no_collected_work_is_a_wrong_request(bio: Class, out: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="can't be used"):
        restore(bio.session(), tmp_path / "nowhere")
    with pytest.raises(RequestError, match=r"manifest\.csv can't be read"):
        restore(bio.session(), tmp_path)
    reset.containers_reset(bio.session(), with_volumes=True)
    with pytest.raises(RequestError, match="has no work of these students"):
        restore(bio.session(), out)
