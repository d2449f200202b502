"""The shared folder on its way to one machine, with the real programs on folders that stand for volumes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudscale.course import naming
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.material import shared as module
from cloudscale.material.programs import program
from cloudscale.material.shared import Mirror, machine_has, make_room, remove_shared, scan
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeClock, fake_engine

VOLUME = naming.shared_name("bio")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "data").mkdir(parents=True)
    (made / "a.txt").write_text("one")
    (made / "data/b.csv").write_text("1,2")
    return made


def bring(api: FakeApi, folder: Path) -> tuple[int, int]:
    """How many files were sent, and how many bytes."""
    sent: list[int] = []
    count = Mirror("bio", scan(folder)).bring(fake_engine(api), "sha256:11", sent.append)
    assert api.containers_ == []  # no helper is left
    return count, sum(sent)


# --- what is shared --------------------------------------------------------------------------


def test_a_folder_has_files_with_times_and_folders(folder: Path) -> None:
    os.utime(folder / "a.txt", ns=(7, 7))
    (folder / "a.txt").chmod(0o4755)
    (folder / "link").symlink_to("data")
    found = scan(folder)
    assert [file.path for file in found.files] == ["a.txt", "data/b.csv", "link/b.csv"]
    assert (found.files[0].changed, found.files[0].mode, found.size) == (7, 0o755, 9)
    assert found.folders == ("data", "link") and found.special == ("a.txt",)


def test_a_folder_that_is_missing_empty_or_no_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for location, cause in (
        (tmp_path / "none", "does not exist"),
        (folder / "a.txt", "is not a folder"),
        (tmp_path / "empty", "has no files"),
    ):
        with pytest.raises(RequestError, match=rf"^seat.shared: .*{location.name} {cause}"):
            scan(location)


def test_links_out_of_it_and_pipes_are_refused(folder: Path) -> None:
    (folder / "data/out").symlink_to("/etc/passwd")
    with pytest.raises(RequestError, match="data/out leads out"):
        scan(folder)
    (folder / "data/out").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(RequestError, match="pipe is no file or folder"):
        scan(folder)


def test_what_can_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RequestError, match=r"a.txt can't be read"):
        scan(folder)
    monkeypatch.setattr(os, "listdir", lambda path: os.scandir("/nowhere/at/all"))
    with pytest.raises(RequestError, match=r"can't be read: No such file"):
        scan(folder)


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 1)
    with pytest.raises(RequestError, match="More than 1 files"):
        scan(folder)


# --- on a machine ----------------------------------------------------------------------------


@pytest.mark.usefixtures("processes")
def test_it_is_sent_once_and_then_only_what_has_changed(api: FakeApi, folder: Path) -> None:
    assert not machine_has(fake_engine(api), "bio")
    assert bring(api, folder) == (2, 6)
    assert machine_has(fake_engine(api), "bio")
    assert api.volumes_[VOLUME]["Labels"] == {"cloudscale.course": "bio", "cloudscale.role": "shared"}
    assert (api.folder(VOLUME) / "data/b.csv").read_text() == "1,2"
    assert bring(api, folder) == (-1, 0)
    (folder / "a.txt").write_text("newer")
    assert bring(api, folder) == (1, 5)
    (folder / "data/b.csv").unlink()
    (folder / "data").rmdir()
    assert bring(api, folder) == (0, 0)
    assert [path.name for path in api.folder(VOLUME).iterdir()] == ["a.txt"]


@pytest.mark.usefixtures("processes")
def test_what_a_disk_has_no_room_for_is_not_sent(api: FakeApi, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = program("mirror").replace('"room": room', '"room": 5')
    monkeypatch.setattr(module, "program", lambda name: changed)
    with pytest.raises(EngineError, match=r"m1: the shared folder needs 6 bytes more .* room for 5 bytes"):
        bring(api, folder)
    assert not [*api.folder(VOLUME).iterdir()]


@pytest.mark.usefixtures("processes")
def test_a_file_that_becomes_shorter_or_goes_meanwhile_is_named(api: FakeApi, folder: Path) -> None:
    mirror = Mirror("bio", scan(folder))
    (folder / "a.txt").write_text("")
    with pytest.raises(CloudscaleError, match="became shorter"):
        mirror.bring(fake_engine(api), "sha256:11", lambda size: None)
    (folder / "a.txt").unlink()
    with pytest.raises(CloudscaleError, match="can't be read any more"):
        mirror.bring(fake_engine(api), "sha256:11", lambda size: None)
    assert bring(api, folder) == (1, 3)


@pytest.mark.usefixtures("processes")
def test_an_answer_without_end_is_not_read(api: FakeApi, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ANSWERED", 3)
    with pytest.raises(EngineError, match="too long"):
        bring(api, folder)


def test_a_volume_of_somebody_elses_with_its_name_is_left_alone(api: FakeApi, folder: Path) -> None:
    api.create_volume(VOLUME, labels={})
    with pytest.raises(EngineError, match="does not carry this course's mark"):
        bring(api, folder)
    assert remove_shared(fake_engine(api), "bio") == "" and VOLUME in api.volumes_


@pytest.mark.usefixtures("processes")
def test_what_students_have_in_its_place_is_renamed(api: FakeApi) -> None:
    for student in ("1", "2"):
        api.create_volume(f"v{student}", labels=naming.student_labels("bio", student))
        api.folder(f"v{student}")
    (api.folder("v2") / "shared").write_text("mine")
    assert make_room(fake_engine(api), "bio", "sha256:11", ["1", "2", "9"], "shared") == ["2"]
    assert (api.folder("v2") / "shared (own)").read_text() == "mine"
    assert make_room(fake_engine(api), "bio", "sha256:11", ["9"], "shared") == []


# --- away from it ----------------------------------------------------------------------------


def container(api: FakeApi, name: str, state: str, course: str = "bio") -> None:
    labels = naming.student_labels(course, "1")
    api.containers_.append({"Id": name, "State": state, "Labels": labels, "Volumes": [VOLUME], "Ports": []})


def test_it_is_removed_with_the_containers_that_had_it_and_have_ended(api: FakeApi) -> None:
    api.create_volume(VOLUME, labels=naming.shared_labels("bio"))
    api.create_volume("other", labels=naming.shared_labels("geo"))
    container(api, "c1", "exited")
    assert remove_shared(fake_engine(api), "bio") == "removed"
    assert [*api.volumes_] == ["other"] and api.containers_ == []
    assert remove_shared(fake_engine(api), "bio") == ""


@pytest.mark.parametrize(("state", "course"), [("running", "bio"), ("exited", "geo")])
def test_what_uses_it_still_is_left_alone(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, state: str, course: str
) -> None:
    monkeypatch.setattr("cloudscale.waiting.SystemClock", FakeClock)
    api.create_volume(VOLUME, labels=naming.shared_labels("bio"))
    container(api, "c1", state, course)
    with pytest.raises(EngineError, match="the volume of the shared folder is in use"):
        remove_shared(fake_engine(api), "bio")
    assert len(api.containers_) == 1
