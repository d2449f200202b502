"""What is given to a student, and what is kept as she has it: the program of the helper container, on a real folder."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.material.scripts import give as program

NEW = "the new version is"


class Desk:
    """A student's work folder, and the folder of the machine that keeps the material."""

    def __init__(self, folder: Path) -> None:
        self.work, self.kept = folder / "work", folder / "kept"
        self.work.mkdir()
        self.kept.mkdir()

    def plan(self, files: Mapping[str, str], *, programs: tuple[str, ...] = (), **order: Any) -> dict[str, Any]:
        listed = []
        for path, text in files.items():
            data = text.encode()
            digest = hashlib.sha256(data).hexdigest()
            (self.kept / digest).write_bytes(data)
            listed.append([path, digest, len(data), path in programs])
        return {"into": "", "folders": [], "force": False, "files": listed, **order}

    def give(self, files: Mapping[str, str], **order: Any) -> dict[str, Any]:
        return program.give_all(str(self.work), str(self.kept), self.plan(files, **order))

    def write(self, path: str, text: str) -> None:
        (self.work / path).write_text(text)

    @property
    def files(self) -> dict[str, str]:
        """The student's files, without the record."""
        found = (
            path for path in sorted(self.work.rglob("*")) if path.is_file() and path.name != ".cloudscale-material"
        )
        return {str(path.relative_to(self.work)): path.read_text() for path in found}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def result(files: int = 0, *conflicts: str) -> dict[str, Any]:
    return {"files": files, "conflicts": len(conflicts), "named": list(conflicts), "error": ""}


# --- given -----------------------------------------------------------------------------------


def test_everything_is_given_and_a_second_time_nothing(desk: Desk) -> None:
    files = {"lesson.ipynb": "one", "data/deep/a.csv": "1,2"}
    assert desk.give(files) == result(2)
    assert desk.files == {"data/deep/a.csv": "1,2", "lesson.ipynb": "one"}
    assert desk.give(files) == result()


def test_files_can_be_read_by_all_and_programs_be_run(desk: Desk) -> None:
    desk.give({"a.txt": "a", "run.sh": "b"}, programs=("run.sh",), folders=["empty"])
    modes = {path.name: path.stat().st_mode & 0o777 for path in desk.work.iterdir()}
    assert modes["a.txt"] == 0o644 and modes["run.sh"] == 0o755 and (desk.work / "empty").is_dir()


def test_a_file_that_is_a_program_by_now_becomes_one(desk: Desk) -> None:
    desk.give({"run.sh": "b"})
    assert desk.give({"run.sh": "b"}, programs=("run.sh",)) == result(1)
    assert (desk.work / "run.sh").stat().st_mode & 0o777 == 0o755


def test_it_can_go_into_a_folder(desk: Desk) -> None:
    assert desk.give({"a.txt": "a"}, into="day/one", folders=["more"]) == result(1)
    assert desk.files == {"day/one/a.txt": "a"} and (desk.work / "day/one/more").is_dir()


def test_a_new_version_replaces_one_that_was_not_changed(desk: Desk) -> None:
    for text in ("one", "two", "three", "one"):
        assert desk.give({"a.txt": text}) == result(1)
        assert desk.files == {"a.txt": text}


def test_what_the_student_deleted_is_given_again(desk: Desk) -> None:
    desk.give({"a.txt": "one"})
    (desk.work / "a.txt").unlink()
    assert desk.give({"a.txt": "one"}) == result(1)


def test_what_the_trainer_left_out_stays(desk: Desk) -> None:
    desk.give({"a.txt": "one", "b.txt": "two"})
    assert desk.give({"b.txt": "two"}) == result()
    assert desk.files == {"a.txt": "one", "b.txt": "two"}


# --- kept ------------------------------------------------------------------------------------


def test_the_students_work_on_a_file_is_no_conflict_as_long_as_the_trainer_has_no_new_version(desk: Desk) -> None:
    desk.give({"lesson.ipynb": "one"})
    desk.write("lesson.ipynb", "mine")
    assert desk.give({"lesson.ipynb": "one", "next.ipynb": "new"}) == result(1)
    assert desk.files == {"lesson.ipynb": "mine", "next.ipynb": "new"}


def test_a_new_version_comes_beside_what_the_student_changed(desk: Desk) -> None:
    desk.give({"a/lesson.v1.ipynb": "one"})
    desk.write("a/lesson.v1.ipynb", "mine")
    conflict = f"a/lesson.v1.ipynb: changed by the student; {NEW} lesson.v1 (new).ipynb"
    assert desk.give({"a/lesson.v1.ipynb": "two"}) == result(1, conflict)
    assert desk.files == {"a/lesson.v1.ipynb": "mine", "a/lesson.v1 (new).ipynb": "two"}
    # it stays one until she has dealt with it, and is not written again
    assert desk.give({"a/lesson.v1.ipynb": "two"}) == result(0, conflict)
    (desk.work / "a/lesson.v1 (new).ipynb").unlink()
    assert desk.give({"a/lesson.v1.ipynb": "two"}) == result()
    assert desk.files == {"a/lesson.v1.ipynb": "mine"}


def test_a_newer_version_replaces_the_one_beside_unless_that_was_changed_too(desk: Desk) -> None:
    desk.give({"a": "one"})
    desk.write("a", "mine")
    desk.give({"a": "two"})
    assert desk.give({"a": "three"}) == result(1, f"a: changed by the student; {NEW} a (new)")
    assert desk.files == {"a": "mine", "a (new)": "three"}
    desk.write("a (new)", "mine too")
    assert desk.give({"a": "four"}) == result(1, f"a: changed by the student; {NEW} a (new 2)")
    assert desk.files == {"a": "mine", "a (new)": "mine too", "a (new 2)": "four"}


def test_the_number_of_versions_beside_has_an_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "COPIES", 1)
    desk.write("a", "mine")
    desk.write("a (new)", "mine too")
    assert desk.give({"a": "one"})["named"] == ["a: changed by the student, and so is each new version beside it"]


def test_a_version_beside_takes_no_other_files_place(desk: Desk) -> None:
    desk.write("a.txt", "mine")
    assert desk.give({"a.txt": "one", "a (new).txt": "other"})["conflicts"] == 1
    assert desk.files == {"a.txt": "mine", "a (new).txt": "other", "a (new 2).txt": "one"}


def test_a_file_that_the_student_had_before_is_hers(desk: Desk) -> None:
    desk.write("a.txt", "mine")
    desk.write("same.txt", "same")
    assert desk.give({"a.txt": "trainer", "same.txt": "same"})["files"] == 1
    assert desk.files == {"a.txt": "mine", "a (new).txt": "trainer", "same.txt": "same"}
    assert desk.give({"a.txt": "trainer", "same.txt": "newer"})["files"] == 1
    assert desk.files["same.txt"] == "newer"


def test_with_force_what_was_changed_is_overwritten(desk: Desk) -> None:
    desk.give({"a.txt": "one"})
    desk.write("a.txt", "mine")
    assert desk.give({"a.txt": "one"}, force=True) == result(1)
    assert desk.files == {"a.txt": "one"}


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("lesson.ipynb", "lesson (new).ipynb"),
        ("a.tar.gz", "a.tar (new).gz"),
        ("Makefile", "Makefile (new)"),
        (".profile", ".profile (new)"),
        ("é" * 127, "é" * 124 + " (new)"),
    ],
)
def test_a_version_beside_has_a_name_that_says_so(name: str, beside: str) -> None:
    assert program._other_name(name, 1) == beside
    assert len(program._other_name(name, 9).encode()) <= 255


# --- what a student can do -------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_no_link_is_followed(desk: Desk, tmp_path: Path, force: bool) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("precious")
    (desk.work / "data").symlink_to(outside)
    (desk.work / "a.txt").symlink_to(outside / "a.txt")
    (desk.work / "b.txt").symlink_to(tmp_path / "nothing")
    done = desk.give({"a.txt": "one", "b.txt": "two", "data/a.txt": "three"}, force=force)
    assert "data/a.txt: 'data' is not a folder, or a closed one" in done["named"]
    assert (outside / "a.txt").read_text() == "precious"
    assert [path.name for path in outside.iterdir()] == ["a.txt"] and not (tmp_path / "nothing").exists()
    if force:
        assert done["conflicts"] == 1 and desk.files == {"a.txt": "one", "b.txt": "two"}
    else:
        assert done["conflicts"] == 3 and (desk.work / "a (new).txt").read_text() == "one"


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_a_files_place_stays(desk: Desk, force: bool) -> None:
    (desk.work / "a.txt").mkdir()
    assert desk.give({"a.txt": "one"}, force=force)["conflicts"] == 1
    assert (desk.work / "a.txt").is_dir() and desk.files == {"a (new).txt": "one"}


def test_a_link_in_the_place_of_what_was_given_is_a_conflict_each_time(desk: Desk) -> None:
    desk.give({"a.txt": "one"})
    (desk.work / "a.txt").unlink()
    (desk.work / "a.txt").symlink_to("/etc/passwd")
    assert desk.give({"a.txt": "one"}) == result(0, "a.txt: the student has a link or a folder in its place")


def test_a_file_in_a_folders_place_stays(desk: Desk) -> None:
    desk.write("data", "mine")
    done = desk.give({"data/a.txt": "one", "b.txt": "two"}, folders=["data", "data/more"])
    assert done["files"] == 1 and done["conflicts"] == 1
    assert desk.files == {"b.txt": "two", "data": "mine"}


def test_a_pipe_does_not_stop_it(desk: Desk) -> None:
    os.mkfifo(desk.work / "a.txt")
    assert desk.give({"a.txt": "one"}) == result(1, f"a.txt: changed by the student; {NEW} a (new).txt")
    assert desk.give({"a.txt": "two"}, force=True)["files"] == 1
    assert desk.files["a.txt"] == "two"


def test_an_endless_file_is_not_read(desk: Desk) -> None:
    desk.give({"a.txt": "one"})
    os.truncate(desk.work / "a.txt", 2**40)  # a hole
    assert desk.give({"a.txt": "two"})["conflicts"] == 1


def test_one_that_the_record_claims_to_be_the_trainers_is_not_read_either(desk: Desk) -> None:
    desk.give({"a.txt": "one"})
    os.truncate(desk.work / "a.txt", 2**40)
    with open(desk.work / ".cloudscale-material", "a") as record:
        record.write(f"{'0' * 64} {2**40} a.txt\n")
    assert desk.give({"a.txt": "two"})["conflicts"] == 1


def test_what_would_be_too_much_to_read_counts_as_changed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "OLD", 10)
    desk.give({"a.txt": "x" * 13, "b.txt": "x" * 12})
    assert desk.give({"a.txt": "1", "b.txt": "2"}) == result(2, f"b.txt: changed by the student; {NEW} b (new).txt")


def test_a_record_without_end_is_not_read_to_its_end(desk: Desk) -> None:
    desk.give({"a.txt": "one"})
    os.truncate(desk.work / ".cloudscale-material", 2**40)
    assert desk.give({"a.txt": "two"}) == result(1)
    (desk.work / ".cloudscale-material").write_bytes(b"\n" * 10**7)
    assert desk.give({"a.txt": "three"})["conflicts"] == 1


def test_a_file_that_changes_at_the_last_moment_is_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.give({"a.txt": "one"})
    copy = program.Work._copy
    written = set[str]()

    def slow(self: program.Work, file: program.File, folder: int, name: bytes) -> None:
        copy(self, file, folder, name)
        if file.path not in written:
            written.add(file.path)
            desk.write(file.path, "mine!")

    monkeypatch.setattr(program.Work, "_copy", slow)
    assert desk.give({"a.txt": "two", "b.txt": "new"})["conflicts"] == 2
    assert desk.files == {"a.txt": "mine!", "a (new).txt": "two", "b.txt": "mine!", "b (new).txt": "new"}


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_record_that_is_no_file_is_a_failure(desk: Desk, kind: str) -> None:
    record = desk.work / ".cloudscale-material"
    if kind == "link":
        record.symlink_to("/etc/passwd")
    elif kind == "folder":
        record.mkdir()
    else:
        os.mkfifo(record)
    done = desk.give({"a.txt": "one"})
    assert ".cloudscale-material in the work folder can't be used" in done["error"] and desk.files == {}


def test_a_record_that_was_changed_makes_conflicts_and_no_errors(desk: Desk) -> None:
    desk.give({"a.txt": "one"})
    (desk.work / ".cloudscale-material").write_bytes(b"\xff\n" + b"0" * 64 + b" -1 a.txt\n" + b"9" * 70 + b"\n\n {}[")
    assert desk.give({"a.txt": "two"})["conflicts"] == 1
    assert desk.files["a.txt"] == "one"


def test_no_more_than_some_conflicts_are_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "NAMED", 2)
    for name in "abc":
        desk.write(name, "mine")
    done = desk.give(dict.fromkeys("abc", "new"))
    assert done["conflicts"] == 3 and len(done["named"]) == 2


# --- what fails ------------------------------------------------------------------------------


def test_a_disk_that_is_nearly_full_is_not_filled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "fstatvfs", lambda folder: SimpleNamespace(f_blocks=10**9, f_bavail=10**9 // 20, f_frsize=1)
    )
    done = desk.give({"a.txt": "one"})
    assert done == {**result(), "error": os.strerror(errno.ENOSPC)}
    assert desk.files == {}
    monkeypatch.undo()
    assert desk.give({"a.txt": "one"}) == result(1)


def test_a_folder_that_can_not_be_written_to_is_a_failure(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda folder, how: False)
    assert "can't be written to" in desk.give({"a.txt": "one"})["error"]


def test_a_closed_folder_below_is_a_conflict(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*given: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "link", closed)
    assert desk.give({"a.txt": "one"}) == result(0, "a.txt: its folder can't be written to")


def test_what_a_run_that_was_killed_left_is_replaced(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: program.Work, file: program.File, folder: int, name: bytes) -> None:
        (desk.work / name.decode()).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(program.Work, "_copy", killed)
    with monkeypatch.context() as no_end, pytest.raises(KeyboardInterrupt):
        no_end.setattr(os, "unlink", lambda *given, **named: None)
        desk.give({"a.txt": "one"})
    assert len(desk.files) == 1
    monkeypatch.undo()
    assert desk.give({"a.txt": "one"}) == result(1)
    assert desk.files == {"a.txt": "one"}


def test_a_line_is_printed_for_each_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "second").mkdir()
    ann, bob = Desk(tmp_path), Desk(tmp_path / "second")
    plan = json.dumps(ann.plan({"a": "one"})).encode()
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    before = os.umask(0o077)
    try:
        program.main([plan[:5], plan[5:]], str(ann.kept), str(ann.work), str(bob.work), str(tmp_path / "none"))
    finally:
        os.umask(before)
    results = [json.loads(line) for line in out.getvalue().splitlines()]
    assert results[:2] == [result(1)] * 2 and "No such file" in results[2]["error"]
    assert bob.files == {"a": "one"} and (bob.work / "a").stat().st_mode & 0o777 == 0o644
