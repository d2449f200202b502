from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cloudscale.engines.client import Engine
from cloudscale.errors import EngineError
from cloudscale.swarm.deadline import read_deadline, write_deadline
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

FIRST, SECOND = datetime(2026, 12, 1, 17, tzinfo=UTC), datetime(2026, 12, 2, 17, tzinfo=UTC)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def manager(api: FakeApi) -> Engine:
    return fake_engine(api)


def test_a_course_has_none_until_it_gets_one(manager: Engine) -> None:
    assert read_deadline(manager, "bio") is None
    write_deadline(manager, "bio", FIRST)
    assert read_deadline(manager, "bio") == FIRST


def test_it_carries_the_courses_mark(api: FakeApi, manager: Engine) -> None:
    write_deadline(manager, "bio", FIRST)
    (config,) = api.configs_
    assert config["Spec"]["Labels"] == {"cloudscale.course": "bio", "cloudscale.until": "2026-12-01T17:00:00Z"}


def test_the_same_one_changes_nothing(api: FakeApi, manager: Engine) -> None:
    write_deadline(manager, "bio", FIRST)
    api.changes.clear()
    write_deadline(manager, "bio", FIRST)
    assert api.changes == []


@pytest.mark.parametrize(("before", "after"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_another_one_takes_its_place(api: FakeApi, manager: Engine, before: datetime, after: datetime) -> None:
    write_deadline(manager, "bio", before)
    write_deadline(manager, "bio", after)
    assert read_deadline(manager, "bio") == after
    assert [change.split()[0] for change in api.changes] == ["create", "create", "remove"]  # never without one


def test_of_two_that_a_run_left_the_later_one_counts_and_the_next_run_tidies_up(api: FakeApi, manager: Engine) -> None:
    write_deadline(manager, "bio", FIRST)
    (left,) = api.configs_
    write_deadline(manager, "bio", SECOND)
    api.configs_.append(left)
    assert read_deadline(manager, "bio") == SECOND
    write_deadline(manager, "bio", SECOND)
    assert len(api.configs_) == 1


def test_it_can_be_taken_away(api: FakeApi, manager: Engine) -> None:
    write_deadline(manager, "bio", FIRST)
    write_deadline(manager, "bio", None)
    write_deadline(manager, "bio", None)
    assert api.configs_ == []


def test_a_neighbours_and_other_configs_are_not_touched(api: FakeApi, manager: Engine) -> None:
    write_deadline(manager, "chem", FIRST)
    labels = [{"cloudscale.until": "2030-01-01T00:00:00Z"}, {"cloudscale.course": "bio"}]
    for number, each in enumerate(labels):
        api.create_config(f"other-{number}", b"x", each)
    assert read_deadline(manager, "bio") is None
    write_deadline(manager, "bio", SECOND)
    write_deadline(manager, "bio", None)
    assert read_deadline(manager, "chem") == FIRST
    assert len(api.configs_) == 3


def test_one_that_somebody_changed_by_hand_is_none(api: FakeApi, manager: Engine) -> None:
    api.create_config("odd", b"x", {"cloudscale.course": "bio", "cloudscale.until": "next week"})
    assert read_deadline(manager, "bio") is None


def test_courses_with_long_or_like_names_have_configs_of_their_own(api: FakeApi, manager: Engine) -> None:
    for course in ("a" * 40, "a" * 39 + "b", "A.b", "a-b"):
        write_deadline(manager, course, FIRST)
    assert len({config["Spec"]["Name"] for config in api.configs_}) == 4


def test_an_engine_that_does_not_answer_is_an_error(api: FakeApi, manager: Engine) -> None:
    api.go_down()
    with pytest.raises(EngineError):
        read_deadline(manager, "bio")
    with pytest.raises(EngineError):
        write_deadline(manager, "bio", FIRST)
