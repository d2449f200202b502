"""One student's work on its way here. The program that sends it is the real one, on a folder of this computer."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.errors import CloudscaleError, EngineError
from cloudscale.material import collecting
from cloudscale.material.collecting import Collected, Limits, collect_work
from cloudscale.material.volumes import Mount, opened
from cloudscale.material.work_folder import Incoming, WorkFolder
from cloudscale.model import Student
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine
from tests.unit.material.test_programs import record

ANN = Student("1", "Ann", "Lee")
Collect = Callable[..., Collected]


@pytest.fixture
def work(api: FakeApi) -> Path:
    """What is in Ann's volume."""
    return api.folder("v1")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def collect(api: FakeApi, here: Path, processes: None) -> Collect:
    """Collects as a task does: what the manifest had the last time is known the next time."""
    before: dict[str, str] = {}

    def collect(**limits: int) -> Collected:
        with (
            WorkFolder.to_fill(here) as folder,
            opened(
                fake_engine(api), "bio", "sha256:11", [Mount("v1", "/students", {"cloudscale.course": "bio"})]
            ) as helper,
        ):
            done = collect_work(helper, "/students", folder, ANN, "ann", before, Limits(30, **limits))
        done.lines.seek(0)
        before.clear()
        before.update((line.split(",")[2], line.split(",")[4].strip()) for line in done.lines)
        done.lines.close()
        return done

    return collect


def files(here: Path) -> dict[str, str]:
    folder = here / "ann"
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(work: Path, **contents: str) -> None:
    for name, text in contents.items():
        (work / name).write_text(text)


def test_work_arrives_with_its_times_and_what_can_be_run(work: Path, here: Path, collect: Collect) -> None:
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "b" / "run.sh").write_text("echo")
    (work / "a" / "b" / "run.sh").chmod(0o755)
    write(work, notes="flux", empty="")
    os.utime(work / "notes", (10**9, 10**9))
    done = collect()
    assert files(here) == {"a/b/run.sh": "echo", "notes": "flux", "empty": ""}
    assert (here / "ann/notes").stat().st_mtime == 10**9 and os.access(here / "ann/a/b/run.sh", os.X_OK)
    assert (done.state, done.files, done.bytes, done.sent_files) == ("collected", 3, 8, 3) and done.since > 10**18


def test_what_is_here_is_not_sent_again(work: Path, here: Path, collect: Collect) -> None:
    write(work, a="1", b="2")
    collect()
    write(work, b="3")
    done = collect()
    assert (done.files, done.sent_files, done.aside, done.earlier) == (2, 1, [], 0)
    assert files(here) == {"a": "1", "b": "3"}
    assert collect().state == "unchanged"


def test_what_the_trainer_changed_is_set_aside_not_overwritten(work: Path, here: Path, collect: Collect) -> None:
    write(work, a="1")
    collect()
    write(here / "ann", a="well done")
    assert collect().aside == ["ann/a.kept-1"]
    assert files(here) == {"a": "1", "a.kept-1": "well done"}


def test_what_the_student_removed_stays_here(work: Path, here: Path, collect: Collect) -> None:
    write(work, a="1", b="2")
    collect()
    (work / "a").unlink()
    done = collect()
    assert (done.files, done.earlier, done.dropped, done.state) == (1, 1, 1, "unchanged")
    assert files(here) == {"a": "1", "b": "2"}


def test_what_is_no_work_is_left_out_and_named(work: Path, here: Path, collect: Collect) -> None:
    (work / "passwd").symlink_to("/etc/passwd")
    (work / "up").symlink_to("..")
    os.mkfifo(work / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(work / "s"))
    server.close()
    for cache in (".cache", ".ipynb_checkpoints", ".Trash-1000"):
        (work / cache).mkdir()
        (work / cache / "x").write_text("x")
    done = collect()
    assert files(here) == {} and done.state == "unchanged"
    assert str(done.left_out) == "2 links (passwd, up), 2 pipes, sockets or devices (pipe, s)"
    assert not done.left_out.is_work


def test_names_that_are_none_here_are_coded(work: Path, here: Path, collect: Collect) -> None:
    for name in (b"two\nlines", b"bad\xff"):
        Path(os.fsdecode(os.fsencode(work) + b"/" + name)).write_text("x")
    done = collect()
    assert {*files(here)} == {"two%0Alines", "bad%FF"} == {*done.coded}
    assert collect().sent_files == 0


def test_names_that_some_disks_take_for_one_are_two_files(work: Path, here: Path, collect: Collect) -> None:
    write(work, a="1")
    collect()
    write(work, A="2")
    assert collect().files == 2
    assert files(here) == {"A": "2", "%61": "1"}, "the one that was there got another name"
    assert collect().sent_files == 0


def test_a_sparse_terabyte_takes_nothing(work: Path, here: Path, collect: Collect) -> None:
    with open(work / "huge", "wb") as file:
        file.truncate(2**40)
    write(work, small="1")
    done = collect()
    assert done.state == "incomplete" and done.files == 1
    assert str(done.left_out) == "1 file beyond the limit of 10.0 GiB for one student (huge)"


def test_all_together_have_a_limit_too(work: Path, here: Path, collect: Collect) -> None:
    write(work, a="123", b="456", c="7")
    done = collect(bytes=5)
    assert {*files(here)} == {"a", "c"} and "(b)" in str(done.left_out)
    assert done.state == "incomplete"


def test_too_many_files_are_left_out(work: Path, here: Path, collect: Collect) -> None:
    write(work, **{f"f{number}": "x" for number in range(9)})
    done = collect(files=5)
    assert len(files(here)) == 5
    assert str(done.left_out) == "4 files too many (f5, f6, f7 and 1 more)"


def test_too_many_entries_end_the_look(
    work: Path, here: Path, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(collecting.LIMITS, "entries", 10)
    for number in range(20):
        (work / f"d{number:02}").mkdir()
    write(work, a="1")
    done = collect()
    assert "too many files and folders" in str(done.left_out)


def test_folders_in_folders_and_long_paths_have_an_end(
    work: Path, here: Path, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(collecting.LIMITS, "depth", 2)
    monkeypatch.setitem(collecting.LIMITS, "path", 50)
    (work / "1/2/3").mkdir(parents=True)
    write(work, **{"x" * 60: "long"})
    assert str(collect().left_out) == f"1 folder that is too deep (1/2/3), 1 path that is too long ({'x' * 50})"


# --- what a machine that is not itself any more sends -----------------------------------------


class Liar:
    """A helper that prints what a test wants."""

    def __init__(self, *records: bytes) -> None:
        self.engine = SimpleNamespace(name="m1")
        self._records = records

    def run(self, code: str, words: Sequence[str], *, feed: Iterator[bytes], timeout: float) -> Iterator[bytes]:
        list(feed)
        yield from self._records


def file(path: bytes, data: bytes, digest: str = "") -> list[bytes]:
    about = json.dumps([len(data), 0, 0]).encode()
    digest = digest or hashlib.sha256(data).hexdigest()
    return [record(b"F", about + b"\0" + path), record(b"D", data), record(b"E", digest.encode() + b"\0")]


def lie(here: Path, *records: bytes, **limits: int) -> Collected:
    helper: Any = Liar(record(b"T", b"1"), *records, record(b"Z"))
    with WorkFolder.to_fill(here) as folder:
        done = collect_work(helper, "/students", folder, ANN, "ann", {}, Limits(30, **limits))
    done.lines.close()
    return done


@pytest.mark.parametrize("path", [b"../x", b"/tmp/x", b"a/../../x", b"", b"a\0b", b"x" * 300])
def test_a_path_out_of_the_folder_is_refused(here: Path, path: bytes, tmp_path: Path) -> None:
    done = lie(here, *file(path, b"x"), *file(b"good", b"1"))
    assert done.state == "incomplete"
    assert files(here).get("good") == "1"
    assert {each.name for each in tmp_path.iterdir()} == {"here"}


@pytest.mark.parametrize(
    "records",
    [
        file(b"a", b"data", "0" * 64),
        [record(b"D", b"data of nothing")],
        [record(b"E", b"0" * 64)],
        [record(b"Q")],
        [record(b"F", b"{")],
        [record(b"S", b"[]\0a")],
        [record(b"T", b"noon")],
        [*file(b"a", b"x" * 60), *file(b"b", b"x" * 60)],
        [each for number in range(4) for each in file(str(number).encode(), b"")],
    ],
)
def test_what_breaks_the_rules_is_an_error(here: Path, records: list[bytes]) -> None:
    with pytest.raises(EngineError, match="m1"):
        lie(here, *records, bytes=100, files=3)


def test_a_file_that_is_not_here_is_not_taken_for_sent(here: Path) -> None:
    about = json.dumps([4, 0, 0, "0" * 64]).encode()
    done = lie(here, record(b"S", about + b"\0a"))
    assert done.state == "incomplete" and done.files == 0


def test_a_file_that_changes_each_time_is_named(here: Path) -> None:
    first, data, end = file(b"log", b"data")
    done = lie(here, first, data, record(b"A"), first, data, end + b"")
    assert done.state == "collected"
    digest = hashlib.sha256(b"data").hexdigest().encode()
    done = lie(here, first, data, record(b"E", digest + b"\0changed"))
    assert str(done.left_out) == "1 file that changed while it was read (log)" and files(here) == {"log": "data"}


def test_reasons_without_end_are_bounded(here: Path) -> None:
    done = lie(here, *(record(b"X", f"reason {number}\0x".encode()) for number in range(1000)))
    assert len(str(done.left_out)) < 1500


def test_a_full_disk_here_is_an_error_with_its_remedy(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Incoming, "place", lambda self, path, **more: full() if "ann" in path else None)
    with pytest.raises(CloudscaleError, match="No space left"):
        lie(here, *file(b"a", b"1"))
