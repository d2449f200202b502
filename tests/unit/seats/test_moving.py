from __future__ import annotations

import time

import pytest

from cloudscale.course import naming
from cloudscale.errors import EngineError
from cloudscale.seats.containers import UNFINISHED, let_count, remembered_places
from cloudscale.seats.moving import StudentVolume, copy, remove_helpers
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_apis, fake_engine

NAME = naming.volume_name("bio", "1")
MARKS = naming.student_labels("bio", "1")
WORK = {"notes.txt": b"mine", "d/big": b"x" * 5000}


class Two:
    """A student's volume on one machine, with work, and the place for a copy on another one."""

    def __init__(self) -> None:
        self.here, self.there = fake_apis("m1", "m2")
        self.here.create_volume(NAME, MARKS)
        self.here.files[NAME] = dict(WORK)
        self.source, self.target = (
            StudentVolume(fake_engine(api, name=api.name), "bio", "1", "lab") for api in self.both
        )

    @property
    def both(self) -> tuple[FakeApi, FakeApi]:
        return self.here, self.there

    def copy(self, *, room: int | None = None, timeout: float = 60) -> None:
        self.target.begin({**MARKS, naming.PORT: "4321"})
        copy(self.source, self.target, room=room, timeout=timeout)


@pytest.fixture
def two() -> Two:
    return Two()


def test_the_work_is_on_both_machines_then_and_nothing_else_is_left(two: Two) -> None:
    two.copy()
    let_count(fake_engine(two.there), "bio", {"1"})
    assert two.there.files[NAME] == two.here.files[NAME] == WORK
    assert [api.containers_ for api in two.both] == [[], []]
    assert list(two.there.volumes_) == [NAME]
    assert two.there.volumes_[NAME]["Labels"] == {**MARKS, naming.PORT: "4321"}


def test_what_an_engine_puts_into_empty_volumes_is_not_where_the_copy_is(two: Two) -> None:
    seen = []
    create = two.there.create_host_config

    def spy(**words: object) -> object:
        seen.append(words)
        return create(**words)  # type: ignore[arg-type]

    two.there.create_host_config = spy  # type: ignore[assignment, method-assign]
    two.copy()
    assert seen == [{"binds": [f"{NAME}:/cloudscale-work"], "network_mode": "none"}]


def test_a_copy_counts_only_once_the_seat_is_there(two: Two) -> None:
    engine = fake_engine(two.there)

    def since() -> object:
        return remembered_places(engine, "bio")["1"][0]

    two.copy()
    let_count(engine, "bio", {"2"})
    let_count(engine, "geo", {"1"})
    assert since() == UNFINISHED
    let_count(engine, "bio", {"1"})
    assert since() != UNFINISHED


def test_a_copy_begins_again_without_what_an_earlier_one_left(two: Two) -> None:
    two.target.begin(MARKS)
    two.there.files[NAME] = {"half": b"x"}
    leftover = two.target.opened()
    leftover.__enter__()  # of a run that was killed: it holds the volume
    ended = {"Id": "c9", "State": "exited", "Labels": MARKS, "Ports": [], "Volumes": [NAME]}
    two.there.containers_.append(ended)
    two.copy()
    assert two.there.files[NAME] == WORK and two.there.containers_ == []


@pytest.mark.parametrize("name", [NAME, naming.unfinished_name(NAME)])
def test_a_volume_of_the_name_without_the_mark_is_not_touched(two: Two, name: str) -> None:
    two.there.create_volume(name, {})
    with pytest.raises(EngineError, match="does not carry this course's mark"):
        two.copy()
    assert name in two.there.volumes_


def test_more_than_the_disk_has_room_for_is_not_copied(two: Two) -> None:
    with pytest.raises(EngineError, match="m2: its disk has too little room for the work on m1"):
        two.copy(room=4000)
    assert remembered_places(fake_engine(two.there), "bio")["1"][0] == UNFINISHED


def test_a_copy_has_a_deadline(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 100))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with pytest.raises(EngineError, match="was not copied to m2 within 50 s") as late:
        two.copy(timeout=50)
    assert "--timeout" in late.value.remedy


@pytest.mark.parametrize("end", [0, 1000, 5800])
def test_an_archive_without_its_end_is_not_all_of_the_work(two: Two, end: int) -> None:
    two.here.cut_off = end
    with pytest.raises(EngineError, match="m1: its engine has not sent all of the student's work"):
        two.copy()
    assert two.here.files[NAME] == WORK


def test_an_engine_that_does_not_take_it_is_named_with_the_cause(two: Two) -> None:
    two.there.disk_is_full = True
    with pytest.raises(EngineError, match="m2: it does not take the student's work") as refused:
        two.copy()
    assert "no space left" in str(refused.value)
    assert two.there.containers_ == []


def test_an_engine_that_can_not_be_read_is_named(two: Two) -> None:
    two.target.begin(MARKS)
    two.here.go_down()
    with pytest.raises(EngineError, match="m1"):
        copy(two.source, two.target, room=None, timeout=1)


def test_what_is_removed_is_the_volume_and_what_says_of_it(two: Two) -> None:
    two.target.begin(MARKS)
    two.target.remove()
    two.target.remove()
    assert two.there.volumes_ == {}


def test_helpers_of_a_killed_move_go_of_one_student_or_of_all(two: Two) -> None:
    bob = StudentVolume(fake_engine(two.here), "bio", "2", "lab")
    left = [volume.opened() for volume in (two.source, bob)]
    for each in left:
        each.__enter__()
    two.here.containers_.append({"Id": "c1", "State": "running", "Labels": MARKS, "Ports": [], "Volumes": []})
    remove_helpers(fake_engine(two.here), "geo")
    assert len(two.here.containers_) == 3
    remove_helpers(fake_engine(two.here), "bio", "1")
    assert len(two.here.containers_) == 2
    remove_helpers(fake_engine(two.here), "bio")
    assert [container["Id"] for container in two.here.containers_] == ["c1"]
