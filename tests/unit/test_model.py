from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from cloudscale import model
from cloudscale.errors import SeatError
from cloudscale.model import Demand, Outcome, Outcomes, Student


def test_every_value_is_frozen() -> None:
    kinds: list[Any] = [kind for _, kind in inspect.getmembers(model, dataclasses.is_dataclass)]
    assert len(kinds) > 5
    assert all(kind.__dataclass_params__.frozen for kind in kinds)


@pytest.mark.parametrize(
    ("student", "full_name"),
    [
        (Student("1", "Marty", "McFly"), "Marty McFly"),
        (Student("1", "Marty"), "Marty"),
        (Student("1", "", "McFly"), "McFly"),
    ],
)
def test_a_full_name_has_no_blank_for_a_part_that_is_missing(student: Student, full_name: str) -> None:
    assert student.full_name == full_name


def test_an_outcome_gives_its_value_or_raises_its_error() -> None:
    assert Outcome("a", 7).ok
    assert Outcome("a", 7).get() == 7
    failed = Outcome[int]("a", error=SeatError("broken"))
    assert not failed.ok
    with pytest.raises(SeatError, match="broken"):
        failed.get()


@pytest.mark.parametrize("value", [None, 0, "", False])
def test_a_value_that_is_nothing_is_a_value(value: object) -> None:
    assert Outcome("a", value).ok
    assert Outcome("a", value).get() == value


def test_a_failure_is_named_with_its_target_once() -> None:
    assert Outcome[str]("m1", error=OSError("no answer")).problem == "m1: no answer"
    assert Outcome[str]("m1", error=OSError("m1: no answer")).problem == "m1: no answer"


def test_outcomes_are_sorted_into_values_and_failures() -> None:
    broken = OSError("no answer")
    outcomes = Outcomes([Outcome("m1", 0), Outcome[int]("m2", error=broken), Outcome("m3", 3)])
    assert outcomes.values == {"m1": 0, "m3": 3}
    assert outcomes.errors == {"m2": broken}
    assert outcomes.failed == (Outcome[int]("m2", error=broken),)
    assert outcomes.problems == ("m2: no answer",)
    with pytest.raises(OSError, match="no answer"):
        outcomes.get()
    assert Outcomes([Outcome("m1", 0), Outcome("m3", 3)]).get() == [0, 3]


@pytest.mark.parametrize(
    ("need", "used", "limit", "is_met"),
    [
        (2, 8, 10, True),
        (3, 8, 10, False),
        (3, 8, None, True),
        (0, 12, 10, True),  # a quota that was lowered since; nothing more is needed
        (1, 0, 0, False),
    ],
)
def test_a_demand_is_met_where_what_is_left_is_enough(need: int, used: int, limit: int | None, is_met: bool) -> None:
    assert Demand("cores", need, used, limit).is_met is is_met
