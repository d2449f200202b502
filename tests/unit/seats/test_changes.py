from __future__ import annotations

import pytest

from cloudscale.course import naming
from cloudscale.errors import CloudscaleError, EngineError
from cloudscale.seats.changes import count_change, forget_changes, note_changes, password_changes
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

ODD = "Ö'; -7/é 漢"


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def names(api: FakeApi) -> list[str]:
    return [config["Spec"]["Name"] for config in api.configs_]


def test_a_swarm_knows_of_no_change_at_first(api: FakeApi) -> None:
    assert password_changes(fake_engine(api), "bio") == {}


def test_changes_are_counted_by_student_and_course(api: FakeApi) -> None:
    engine = fake_engine(api)
    assert count_change(engine, "bio", "1", 0) == 1
    assert count_change(engine, "bio", "1", 1) == 2
    assert count_change(engine, "bio", ODD, 0) == 1
    assert count_change(engine, "geo", "1", 6) == 7
    assert password_changes(engine, "bio") == {"1": 2, ODD: 1}
    assert password_changes(engine, "geo") == {"1": 7}


def test_of_several_changes_the_last_one_is_kept_and_carries_the_marks(api: FakeApi) -> None:
    for before in range(3):
        count_change(fake_engine(api), "bio", "1", before)
    (config,) = api.configs_
    assert config["Spec"]["Name"] == naming.change_name("bio", "1", 3)
    assert config["Spec"]["Labels"] == {
        "cloudscale.course": "bio",
        "cloudscale.student": "1",
        "cloudscale.role": "password",
        "cloudscale.count": "3",
    }


def test_of_two_trainers_at_once_one_is_refused(api: FakeApi) -> None:
    count_change(fake_engine(api), "bio", "1", 0)
    with pytest.raises(CloudscaleError, match="Another trainer is changing the password of the student '1'"):
        count_change(fake_engine(api), "bio", "1", 0)
    assert password_changes(fake_engine(api), "bio") == {"1": 1}


def test_one_that_was_cut_off_before_it_removed_the_older_one_counts(api: FakeApi) -> None:
    count_change(fake_engine(api), "bio", "1", 0)
    older = api.configs_[:]
    count_change(fake_engine(api), "bio", "1", 1)
    api.configs_ = [*api.configs_, *older]
    assert password_changes(fake_engine(api), "bio") == {"1": 2}
    count_change(fake_engine(api), "bio", "1", 2)
    assert len(api.configs_) == 1


def test_a_new_swarm_learns_what_is_known_elsewhere_and_forgets_nothing(api: FakeApi) -> None:
    engine = fake_engine(api)
    note_changes(engine, "bio", {})
    assert api.changes == []
    count_change(engine, "bio", "1", 4)
    api.changes.clear()
    note_changes(engine, "bio", {"1": 5})
    assert api.changes == []
    note_changes(engine, "bio", {"1": 2, "2": 3})
    assert password_changes(engine, "bio") == {"1": 5, "2": 3}


def test_all_of_a_course_is_forgotten_and_nothing_of_others(api: FakeApi) -> None:
    engine = fake_engine(api)
    api.configs_ = [{"ID": "x", "Spec": {"Name": "theirs"}}]
    for course in ("bio", "geo"):
        count_change(engine, course, "1", 0)
    forget_changes(engine, "bio")
    assert names(api) == ["theirs", naming.change_name("geo", "1", 1)]


def test_a_swarm_that_can_not_be_asked_is_an_error_of_its_machine(api: FakeApi) -> None:
    api.go_down()
    with pytest.raises(EngineError, match="m1"):
        password_changes(fake_engine(api), "bio")


def test_a_name_fits_into_a_config_whatever_the_id_is() -> None:
    for student_id in (ODD, "x" * 200, "0"):
        name = naming.change_name("c" * 60, student_id, 10**5)
        assert len(name) <= 64
        assert naming.change_name("c" * 60, f"{student_id}0", 10**5) != name
