"""The folder of collected work. What is planted in it is neither followed nor overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.material.work_folder import INCOMING, WorkFolder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def folder(path: Path) -> Iterator[WorkFolder]:
    with WorkFolder.to_fill(path) as folder:
        yield folder


def put(folder: WorkFolder, path: str, data: bytes = b"new", *, runs: bool = False, time: int | None = None) -> None:
    with folder.incoming() as incoming:
        incoming.file.write(data)
        incoming.place(path, runs=runs, time=time)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_is_private_and_keeps_its_time(folder: WorkFolder, path: Path) -> None:
    put(folder, "ann/a/b.txt", time=10**18)
    put(folder, "ann/run.sh", runs=True)
    assert (path / "ann/a/b.txt").read_bytes() == b"new" and os.stat(path / "ann/a/b.txt").st_mtime == 10**9
    assert [mode(each) for each in (path, path / "ann", path / "ann/a", path / "ann/a/b.txt")] == [0o700] * 3 + [0o600]
    assert mode(path / "ann/run.sh") == 0o700


@pytest.mark.parametrize("time", [-(2**80), 2**80])
def test_a_time_that_is_none_is_left_out(folder: WorkFolder, path: Path, time: int) -> None:
    put(folder, "ann/x", time=time)
    assert (path / "ann/x").exists()


@pytest.mark.parametrize("where", ["ann", "ann/a", "ann/a/x.txt"])
def test_nothing_is_written_through_a_link(folder: WorkFolder, path: Path, tmp_path: Path, where: str) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "x.txt").write_text("old")
    (path / where).parent.mkdir(parents=True, exist_ok=True)
    (path / where).symlink_to(target / "x.txt" if where.endswith("txt") else target)
    put(folder, "ann/a/x.txt")
    assert (target / "x.txt").read_text() == "old" and [each.name for each in target.iterdir()] == ["x.txt"]
    assert (path / "ann/a/x.txt").read_bytes() == b"new"
    assert (path / f"{where}.kept-1").is_symlink(), "it is set aside"


def test_nothing_is_read_through_a_link(folder: WorkFolder, path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (path / "ann").mkdir()
    (path / "ann" / "a.txt").symlink_to(tmp_path / "secret")
    (path / "bob").symlink_to(tmp_path)
    os.mkfifo(path / "ann" / "pipe")
    for name in ("ann/a.txt", "bob/secret", "ann/pipe", "ann"):
        with pytest.raises(OSError):
            folder.open(name)
    assert list(folder.sums("ann")) == list(folder.sums("bob")) == []


def test_what_is_in_the_way_of_a_folder_or_a_file_is_set_aside(folder: WorkFolder, path: Path) -> None:
    put(folder, "ann/a", b"file")
    put(folder, "ann/a/b", b"in a folder")
    put(folder, "ann/a", b"file again")
    assert (path / "ann/a.kept-1").read_bytes() == b"file"
    assert (path / "ann/a.kept-2/b").read_bytes() == b"in a folder"
    assert (path / "ann/a").read_bytes() == b"file again"
    assert folder.set_aside("ann/none") == ""
    assert folder.set_aside("ann/a") == "ann/a.kept-3"


def test_a_file_that_was_not_received_in_full_leaves_nothing(folder: WorkFolder, path: Path) -> None:
    with pytest.raises(ValueError, match="cut"), folder.incoming() as incoming:
        incoming.file.write(b"half")
        raise ValueError("cut")
    assert [*(path / INCOMING).iterdir()] == []


def test_what_a_killed_run_left_is_removed_and_its_folder_is_known(path: Path) -> None:
    with WorkFolder.to_fill(path) as folder:
        put(folder, "ann/x")
    (path / INCOMING).mkdir()
    (path / INCOMING / "0123").write_text("half")
    with WorkFolder.to_fill(path) as folder, folder.manifest() as manifest:
        assert manifest.students == {}
    assert sorted(os.listdir(path)) == ["ann", "manifest.csv"]


def test_a_folder_with_other_files_is_refused(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("x")
    with pytest.raises(RequestError, match="has files in it"), WorkFolder.to_fill(path):
        pass
    with pytest.raises(RequestError, match=r"manifest\.csv can't be read"), WorkFolder.to_read(path) as folder:
        folder.manifest().__enter__()
    assert os.listdir(path) == ["thesis.txt"]


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for open_ in (WorkFolder.to_fill, WorkFolder.to_read):
        with pytest.raises(RequestError, match="can't be used"), open_(tmp_path / "file"):
            pass


def test_two_runs_do_not_write_at_once(folder: WorkFolder, path: Path) -> None:
    with pytest.raises(CloudscaleError, match="Another run"), WorkFolder.to_fill(path):
        pass


def test_a_file_gets_another_name_and_a_copy_stays(folder: WorkFolder, path: Path) -> None:
    put(folder, "ann/old", b"x")
    folder.move("ann/old", "ann/b/new")
    folder.keep_copy("ann/b/new")
    assert {*os.listdir(path / "ann/b")} == {"new", "new.kept-1"}
