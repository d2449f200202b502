"""Collected work on its way back. The program that takes it is the real one, on a folder of this computer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudscale.material.restoring import Restored, restore_work
from cloudscale.material.volumes import Mount, opened
from cloudscale.material.work_folder import WorkFolder
from cloudscale.material.work_manifest import Row
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

Restore = Callable[..., Restored]


@pytest.fixture
def work(api: FakeApi) -> Path:
    return api.folder("v1")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder of collected work."""
    folder = tmp_path / "here" / "ann"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("1")
    (folder / "sub" / "run%0A.sh").write_text("two")
    (folder / "sub" / "run%0A.sh").chmod(0o700)
    os.utime(folder / "a.txt", (10**9, 10**9))
    return folder


@pytest.fixture
def rows(here: Path) -> list[Row]:
    """Its manifest."""
    found = [path for path in sorted(here.rglob("*")) if path.is_file()]
    return [
        Row("Ann", "1", str(p.relative_to(here.parent)), p.stat().st_size, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in found
    ]


@pytest.fixture
def restore(api: FakeApi, here: Path, rows: list[Row], processes: None) -> Restore:
    def restore(*, force: bool = False) -> Restored:
        with (
            WorkFolder.to_read(here.parent) as folder,
            opened(
                fake_engine(api),
                "bio",
                "sha256:11",
                [Mount("v1", "/students", {"cloudscale.course": "bio"}, writable=True)],
            ) as helper,
        ):
            return restore_work(helper, "/students", folder, rows, force=force, timeout=30)

    return restore


def names(work: Path) -> list[str]:
    return sorted(str(path.relative_to(work)) for path in work.rglob("*") if not path.is_dir())


def test_work_is_put_back_with_its_names_and_times(work: Path, restore: Restore) -> None:
    done = restore()
    assert (done.state, done.files, done.bytes) == ("restored", 2, 4)
    assert names(work) == ["a.txt", "sub/run\n.sh"]
    assert (work / "a.txt").stat().st_mtime == 10**9 and (work / "a.txt").stat().st_mode & 0o777 == 0o644
    assert os.access(work / "sub" / "run\n.sh", os.X_OK)
    again = restore()
    assert (again.state, again.files, again.same) == ("unchanged", 0, 2)


def test_what_differs_is_overwritten_by_force_alone(work: Path, restore: Restore) -> None:
    (work / "a.txt").write_text("newer")
    done = restore()
    assert (done.state, done.files, done.conflicts) == ("conflicts", 1, 1)
    assert str(done.left_out) == "1 file different there (a.txt)"
    assert (work / "a.txt").read_text() == "newer"
    assert restore(force=True).state == "restored"
    assert (work / "a.txt").read_text() == "1"


def test_nothing_is_written_through_a_link(work: Path, restore: Restore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.txt").write_text("precious")
    (work / "a.txt").symlink_to(elsewhere / "a.txt")
    (work / "sub").symlink_to(elsewhere)
    done = restore()
    assert done.files == 0 and done.conflicts == 1 and "sub is no folder there" in str(done.left_out)
    restore(force=True)
    assert names(elsewhere) == ["a.txt"] and (elsewhere / "a.txt").read_text() == "precious"
    assert (work / "a.txt").read_text() == "1" and not (work / "a.txt").is_symlink()


def test_a_folder_in_the_place_of_a_file_stays(work: Path, restore: Restore) -> None:
    (work / "a.txt").mkdir()
    assert restore().conflicts == 1
    assert "a folder has its name" in str(restore(force=True).left_out)
    assert (work / "a.txt").is_dir()


@pytest.mark.parametrize("text", ["2", "longer", ""])
def test_a_damaged_file_is_named_and_not_restored(work: Path, here: Path, restore: Restore, text: str) -> None:
    (here / "a.txt").write_text(text)
    done = restore()
    assert done.state == "incomplete" and done.files == 1 and names(work) == ["sub/run\n.sh"]
    assert "damaged here" in str(done.left_out) and "a.txt" in str(done.left_out)


def test_a_missing_file_or_a_link_in_its_place_is_named(work: Path, here: Path, restore: Restore) -> None:
    (here / "a.txt").unlink()
    (here / "a.txt").symlink_to("/etc/hostname")
    assert "can't be read here (ann/a.txt)" in str(restore().left_out)
    assert names(work) == ["sub/run\n.sh"]


def test_a_manifest_leads_nowhere_else(work: Path, here: Path, rows: list[Row], restore: Restore) -> None:
    rows.append(Row("Ann", "1", "ann/%2E%2E/x", 1, "0" * 64))
    rows.append(Row("Ann", "1", "ann/sub%2Fx", 1, "0" * 64))
    done = restore()
    assert done.files == 2 and done.state == "incomplete"
    assert names(work) == ["a.txt", "sub/run\n.sh"]


def test_what_a_killed_run_left_is_removed(work: Path, restore: Restore) -> None:
    (work / ".cloudscale-restoring-0123").write_text("half")
    restore()
    assert names(work) == ["a.txt", "sub/run\n.sh"]
