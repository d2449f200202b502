from __future__ import annotations

import unicodedata
from typing import Literal

import pytest

from cloudscale.course.selection import Selection, find_one
from cloudscale.errors import RequestError

# each seat has the names of its service, id, student and machine; an empty name does not count
SEATS = [
    ("course-ann-1", "1", "Ann Lee", "m1"),
    ("course-bob-2", "2", "Bob Ray", "m1"),
    ("course-cid-3", "3", "", "m2"),
]


def chosen(only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> list[str]:
    return [seat[1] for seat in Selection(only, skip).choose(SEATS, lambda seat: seat)]


def test_without_a_selection_all_are_chosen() -> None:
    assert chosen() == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["course-bob-2", "2", "Bob Ray", "bob ray"])
def test_a_seat_is_chosen_by_any_of_its_names(name: str) -> None:
    assert chosen(only=(name,)) == ["2"]
    assert chosen(skip=(name,)) == ["1", "3"]


def test_a_machine_means_all_seats_on_it() -> None:
    assert chosen(only=("m1",)) == ["1", "2"]


def test_skip_goes_before_only() -> None:
    assert chosen(only=("m1",), skip=("1",)) == ["2"]


def test_the_order_is_that_of_the_targets() -> None:
    assert chosen(only=("3", "1")) == ["1", "3"]


@pytest.mark.parametrize("flag", ["only", "skip"])
def test_an_unknown_name_is_refused_with_those_that_are_available(flag: str) -> None:
    with pytest.raises(RequestError) as raised:
        chosen(**{flag: ("1", "Marty", "Biff")})
    assert "Marty, Biff" in raised.value.message
    assert raised.value.remedy == "Available: 1 Ann Lee, 2 Bob Ray, 3; m1, m2."


def test_without_targets_any_name_is_refused() -> None:
    with pytest.raises(RequestError, match="Available: none"):
        Selection(only=("1",)).choose([], lambda target: target)


def test_of_many_names_only_some_are_listed() -> None:
    with pytest.raises(RequestError, match=r"s0, .* and 22 more"):
        Selection(only=("x",)).choose([f"s{at}" for at in range(30)], lambda target: (target,))


def test_machines_are_named_in_upper_or_lower_case() -> None:
    assert Selection(only=("M2",)).uses("m2", ["m1", "m2"])
    assert not Selection(only=("M2",)).uses("m1", ["m1", "m2"])
    assert not Selection(skip=("M2",)).uses("m2", ["m1", "m2"])
    assert Selection(only=("M2",)).is_about("m2")
    assert not Selection(skip=("M2",)).is_about("m2")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("typed", ["Siobhán Ní Bhriain", "siobhán ní bhriain", "SIOBHÁN  NÍ\u00a0BHRIAIN "])
@pytest.mark.parametrize("of_the_roster", ["NFC", "NFD"])
def test_accents_are_the_same_in_one_character_or_two(
    form: Literal["NFC", "NFD"], typed: str, of_the_roster: Literal["NFC", "NFD"]
) -> None:
    """A Mac gives the names of its files, and what is copied from them, in two."""
    names = (unicodedata.normalize(of_the_roster, "Siobhán Ní Bhriain"),)
    selection = Selection(only=(unicodedata.normalize(form, typed),))
    assert selection.choose(["seat"], lambda seat: names) == ["seat"]


# --- one student -----------------------------------------------------------------------------

ROOM = [("bio-ann", "1", "Ann Lee", "m1"), ("bio-anna", "12", "Anna O'Neil", "m1"), ("bio-lee", "7", "Lee 12", "m2")]


@pytest.mark.parametrize(
    ("text", "found"),
    [("1", 0), ("12", 1), ("ann lee", 0), ("ANNA", 1), ("o'neil", 1), ("7", 2), ("Lee 1", 2), ("  Ann   Lee ", 0)],
)
def test_a_student_is_meant_by_id_then_by_full_name_then_by_a_part_of_either(text: str, found: int) -> None:
    assert find_one(text, ROOM, lambda seat: seat) == ROOM[found]


@pytest.mark.parametrize("text", ["ann", "lee", "bio", "m1", "*", ""])
def test_who_is_not_clear_is_refused_with_ids_and_names(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        find_one(text, ROOM, lambda seat: seat)
    assert "1 Ann Lee" in str(refused.value)


def test_the_id_says_which_of_two_with_one_name_is_meant() -> None:
    twins = [("a", "1", "Ann Lee", ""), ("b", "2", "Ann Lee", "")]
    with pytest.raises(RequestError, match="2 students: 1 Ann Lee, 2 Ann Lee") as refused:
        find_one("Ann Lee", twins, lambda seat: seat)
    assert refused.value.remedy == "Give the id."
    assert find_one("2", twins, lambda seat: seat) == twins[1]
