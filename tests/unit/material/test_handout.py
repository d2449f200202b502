"""Material on its way to students of one machine, with the real programs on folders that stand for volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudscale.course import naming
from cloudscale.errors import CloudscaleError, EngineError
from cloudscale.material import handout as module
from cloudscale.material import sources
from cloudscale.material.handout import Distributor, Given, HandedOut, Handout, remove_kept
from cloudscale.material.programs import program
from cloudscale.material.volumes import Helper
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

KEPT = naming.material_name("bio")
STUDENTS = ("1", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "data").mkdir(parents=True)
    (made / "lesson.txt").write_text("one")
    (made / "data/a.csv").write_text("1,2")
    (made / "data/same.csv").write_text("1,2")
    return made


class Machine:
    """A machine with the volumes of some students, and the material that goes there."""

    def __init__(self, api: FakeApi, folder: Path) -> None:
        self.api, self.engine, self.folder = api, fake_engine(api), folder
        self.done = 0
        for student in STUDENTS:
            api.create_volume(f"v{student}", labels=naming.student_labels("bio", student))
        api.folder("v1"), api.folder("v2")

    def hand_out(self, *students: str, into: str = "", force: bool = False, timeout: float = 60) -> HandedOut:
        with sources.opened(str(self.folder)) as material:
            distributor = Distributor("bio", Handout(material, into, force), timeout)
            return distributor.hand_out(self.engine, "sha256:11", students or STUDENTS, self._one_more)

    def _one_more(self) -> None:
        self.done += 1

    def file(self, student: str, path: str) -> Path:
        return self.api.folder(f"v{student}") / path


@pytest.fixture
def machine(api: FakeApi, folder: Path, processes: None) -> Iterator[Machine]:
    yield Machine(api, folder)
    assert api.containers_ == []  # no helper is left


def test_it_is_sent_once_and_given_to_all(machine: Machine) -> None:
    first = machine.hand_out()
    assert first.sent == 6  # two of the files are the same
    assert [each.get() for each in first.students.values()] == [Given(3, 0)] * 2
    assert machine.file("2", "data/same.csv").read_text() == "1,2" and machine.done == 2
    again = machine.hand_out()
    assert again.sent == 0
    assert {each.get().state for each in again.students.values()} == {"unchanged"}
    assert machine.api.volumes_[KEPT]["Labels"] == {"cloudscale.course": "bio", "cloudscale.role": "material"}


def test_only_what_is_new_is_sent(machine: Machine) -> None:
    machine.hand_out()
    (machine.folder / "lesson.txt").write_text("newer")
    done = machine.hand_out()
    assert done.sent == 5
    assert {each.get().state for each in done.students.values()} == {"updated"}


def test_what_a_student_changed_is_kept_unless_it_is_forced(machine: Machine) -> None:
    machine.hand_out(into="day1")
    machine.file("1", "day1/lesson.txt").write_text("mine")
    (machine.folder / "lesson.txt").write_text("newer")
    ann, bob = (each.get() for each in machine.hand_out(into="day1").students.values())
    assert (ann.state, ann.conflicts, bob.state) == ("conflicts", 1, "updated")
    assert ann.named[0].startswith("day1/lesson.txt: changed by the student")
    machine.hand_out(into="day1", force=True)
    assert machine.file("1", "day1/lesson.txt").read_text() == "newer"


def test_a_student_without_a_work_folder_is_named_and_the_others_get_it(machine: Machine) -> None:
    done = machine.hand_out("1", "9").students
    assert done["1"].ok and "no work folder yet" in str(done["9"].error)
    assert "no work folder yet" in str(machine.hand_out("9").students["9"].error)


def test_the_helpers_can_write_only_where_they_have_to(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, dict[str, bool]]] = []
    create = machine.api.create_container

    def noted(*given: object, **named: object) -> object:
        mounts = named["host_config"]["Mounts"]  # type: ignore[index]
        opened.append((str(named["user"]), {mount["Target"]: not mount["ReadOnly"] for mount in mounts}))
        return create(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(machine.api, "create_container", noted)
    machine.hand_out()
    assert opened == [
        ("", {"/material": False, "/students/0": True, "/students/1": True}),
        ("0:0", {"/material": True}),
    ]


def test_of_a_run_that_ends_early_those_who_have_it_are_known(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Helper.run

    def breaking(self: Helper, code: str, *given: object, **named: object) -> Iterator[bytes]:
        code = code.replace("sys.stdout.flush()", "sys.stdout.flush(); sys.exit('killed')")
        yield from run(self, code, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Helper, "run", breaking)
    done = machine.hand_out().students
    assert done["1"].get().files == 3 and "killed" in str(done["2"].error)


def test_a_failure_of_one_student_is_hers_alone(machine: Machine) -> None:
    machine.file("1", ".cloudscale-material").mkdir()
    done = machine.hand_out().students
    assert "not all of the material was copied: .cloudscale-material" in str(done["1"].error)
    assert done["2"].ok


def test_a_full_disk_is_named_with_what_to_do(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "program", lambda name: program(name).replace("int(size) + ", "2**60 + "))
    with pytest.raises(EngineError, match=r"disk of the Docker Engine of m1 is full"):
        machine.hand_out()


def test_a_file_that_becomes_shorter_meanwhile_is_named(machine: Machine) -> None:
    with sources.opened(str(machine.folder)) as material:
        (machine.folder / "lesson.txt").write_text("")
        distributor = Distributor("bio", Handout(material), 60)
        with pytest.raises(CloudscaleError, match="became shorter"):
            distributor.hand_out(machine.engine, "sha256:11", STUDENTS, lambda: None)
    assert {each.get().state for each in machine.hand_out().students.values()} == {"updated"}
    assert machine.file("1", "lesson.txt").read_text() == ""  # nothing of it passed for complete


def test_an_answer_without_end_is_not_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PRINTED", 10)
    with pytest.raises(EngineError, match="longer than"):
        machine.hand_out()


def test_a_volume_of_somebody_elses_with_its_name_is_left_alone(machine: Machine) -> None:
    machine.api.create_volume(KEPT, labels={})
    with pytest.raises(EngineError, match="does not carry this course's mark"):
        machine.hand_out()
    remove_kept(machine.engine, "bio")
    assert KEPT in machine.api.volumes_


def test_what_is_kept_is_removed_and_nothing_else(machine: Machine) -> None:
    machine.hand_out()
    remove_kept(machine.engine, "chem")
    assert KEPT in machine.api.volumes_
    remove_kept(machine.engine, "bio")
    assert {*machine.api.volumes_} == {"v1", "v2"}
