"""WHEN in `--until WHEN`: every form, in every zone, also where the clocks are changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.course.deadline import (
    NONE,
    as_text,
    describe,
    in_row,
    latest,
    left,
    now,
    read_when,
    warning,
)

HERE = timezone(timedelta(hours=1), "CET")
NOON = datetime(2026, 11, 27, 12, tzinfo=HERE)  # a Friday
ROME = "CET-1CEST,M3.5.0,M10.5.0/3"  # as POSIX writes it, which needs no file with zones


def at(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=HERE)  # type: ignore[arg-type, misc]


@pytest.fixture
def rome(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This computer is in Rome."""
    monkeypatch.setenv("TZ", ROME)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18:00", at(2026, 11, 27, 18)),
        ("  18:00 ", at(2026, 11, 27, 18)),
        ("18:00:30", at(2026, 11, 27, 18, 0, 30)),
        ("9:30", at(2026, 11, 28, 9, 30)),
        ("12:00", at(2026, 11, 28, 12)),
        ("00:00", at(2026, 11, 28)),
        ("18:00+05:30", at(2026, 11, 27, 13, 30)),
        ("12:30Z", at(2026, 11, 27, 13, 30)),
        ("10:30 z", at(2026, 11, 28, 11, 30)),
        ("2026-11-27", at(2026, 11, 27, 23, 59)),
        ("2026-12-01", at(2026, 12, 1, 23, 59)),
        ("2026-12-01 9:00", at(2026, 12, 1, 9)),
        ("2026-12-01  18:00", at(2026, 12, 1, 18)),
        ("2026-12-01T18:00:05", at(2026, 12, 1, 18, 0, 5)),
        ("2026-12-01t18:00z", at(2026, 12, 1, 19)),
        ("2026-12-01T18:00-0500", at(2026, 12, 2)),
        ("2026-12-01 18:00 +01:00", at(2026, 12, 1, 18)),
        ("2028-02-29", at(2028, 2, 29, 23, 59)),
    ],
)
def test_a_time_or_a_date_or_both_are_read(text: str, expected: datetime) -> None:
    when = read_when(text, NOON, HERE)
    assert isinstance(when, datetime)
    assert (when, when.tzinfo) == (expected, UTC)


@pytest.mark.parametrize("text", ["none", "None", " NONE "])
def test_none_takes_the_deadline_away(text: str) -> None:
    assert read_when(text, NOON, HERE) == NONE


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "18", "1800", "tomorrow", "6pm", "18.00", "18:0", "118:00", "18:00:00.5", "+01:00", "Z", "T18:00"),
        *("2026-12-01Z", "2026-12-01+01:00", "2026-12-0118:00", "2026-12-01 T", "01.12.2026", "2026-1-2", "20261201"),
        *("١٨:٠٠", "2026-12-01 18:00 CET", "18:00\n19:00"),
    ],
)
def test_anything_else_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"^should be a time \(18:00\), a date \(2026-12-01\), both"):
        read_when(text, NOON, HERE)


@pytest.mark.parametrize("text", ["24:00", "25:00", "18:60", "2026-02-30", "2026-13-01", "0000-01-01", "18:00+25:00"])
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^does not exist; it should be a time"):
        read_when(text, NOON, HERE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-26", "yesterday at 23:59 CET"),
        ("2026-11-27 12:00", "today at 12:00 CET"),
        ("2026-11-27 12:00:00+01:00", "today at 12:00 UTC+01:00"),
        ("2020-01-01 18:00", "on Wednesday, 2020-01-01, at 18:00 CET"),
    ],
)
def test_a_date_that_is_past_is_refused(text: str, shown: str) -> None:
    with pytest.raises(ValueError) as error:
        read_when(text, NOON, HERE)
    assert str(error.value) == f"should be in the future, and {shown} is past"


@given(st.text() | st.from_regex(r"\A\d{4}-\d\d-\d\d[ T]\d\d?:\d\d(:\d\d)?(Z|[+-]\d\d:?\d\d)?\Z"))
def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    try:
        when = read_when(text, NOON)
    except ValueError as error:
        assert "should be" in str(error)
    else:
        assert isinstance(when, str) or (when > NOON and latest([as_text(when)]) == when)


@given(
    st.times().map(lambda each: each.replace(microsecond=0)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_a_time_alone_is_within_the_next_day(clock: object, zone: timezone) -> None:
    when = read_when(str(clock), NOON, zone)
    assert isinstance(when, datetime)
    assert NOON < when <= NOON + timedelta(days=1)
    assert when.astimezone(zone).time() == clock


def test_without_a_zone_it_is_this_computers(rome: None) -> None:
    assert read_when("18:00", NOON) == at(2026, 11, 27, 18)
    assert read_when("2027-07-01 18:00", NOON) == datetime(2027, 7, 1, 16, tzinfo=UTC)
    assert describe(datetime(2027, 7, 1, 16, tzinfo=UTC), NOON) == "on Thursday, 2027-07-01, at 18:00 CEST"


def test_of_two_times_with_the_same_name_the_later_one_counts(rome: None) -> None:
    when = read_when("2027-10-31 02:30", NOON)  # once in summer time, and an hour later again
    assert when == datetime(2027, 10, 31, 1, 30, tzinfo=UTC)
    assert isinstance(when, datetime)
    assert describe(when, NOON).endswith("at 02:30 CET")


def test_a_time_that_the_clocks_leave_out_is_the_one_after_it(rome: None) -> None:
    when = read_when("2027-03-28 02:30", NOON)
    assert isinstance(when, datetime)
    assert describe(when, NOON).endswith("at 03:30 CEST")


def test_tomorrows_time_is_that_of_tomorrows_clock(rome: None) -> None:
    evening = datetime(2027, 3, 27, 20, tzinfo=HERE)  # the clocks go forward in the night
    assert read_when("18:00", evening) == datetime(2027, 3, 28, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("when", "shown"),
    [
        (at(2026, 11, 27, 18), "today at 18:00 CET"),
        (at(2026, 11, 27, 18, 0, 30), "today at 18:00:30 CET"),
        (at(2026, 11, 28), "tomorrow at 00:00 CET"),
        (at(2026, 11, 26, 9), "yesterday at 09:00 CET"),
        (at(2026, 12, 1, 0, 5), "on Tuesday, 2026-12-01, at 00:05 CET"),
    ],
)
def test_a_deadline_is_shown_with_its_day_and_zone(when: datetime, shown: str) -> None:
    assert describe(when.astimezone(UTC), NOON, HERE) == shown


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        (timedelta(hours=2, minutes=10, seconds=59), "2 h 10 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(minutes=1), "1 min"),
        (timedelta(seconds=59), "less than 1 min"),
        (timedelta(0), "less than 1 min"),
        (timedelta(days=1, minutes=5), "1 day 5 min"),
        (timedelta(days=3, hours=4, minutes=5), "3 days 4 h"),
    ],
)
def test_what_is_left_is_shown_in_its_two_largest_units(span: timedelta, shown: str) -> None:
    assert left(NOON + span, NOON) == shown


def test_a_deadline_is_written_down_in_utc() -> None:
    text = as_text(at(2026, 12, 1, 18))
    assert text == "2026-12-01T17:00:00Z"
    assert latest([text]) == at(2026, 12, 1, 18)


def test_a_tag_in_a_cloud_can_carry_it() -> None:
    assert len("cloudscale.until:" + as_text(NOON)) <= 60
    assert not {",", "/"} & set(as_text(NOON))


def test_of_several_the_latest_counts_and_what_is_none_does_not() -> None:
    texts = ["2026-12-01T17:00:00Z", "2026-12-02T17:00:00Z", "2026-12-03", "2026-12-04T17:00:00", "soon", ""]
    assert latest(texts) == datetime(2026, 12, 2, 17, tzinfo=UTC)
    assert latest(["soon"]) is None


def test_a_row_has_it_in_the_readers_zone() -> None:
    assert in_row(datetime(2026, 12, 1, 17, tzinfo=UTC), HERE) == "2026-12-01 18:00:00+01:00"
    assert in_row(None) == ""


def test_a_warning_says_when_it_was_and_what_to_do() -> None:
    text = warning(at(2026, 11, 26, 18), NOON, "bio", HERE)
    assert text.startswith("The deadline of the course 'bio' was yesterday at 18:00 CET: invoke driver_reset removes")
    assert warning(NOON, NOON, "bio", HERE)
    assert not warning(NOON + timedelta(seconds=1), NOON, "bio", HERE)
    assert not warning(None, NOON, "bio", HERE)


def test_now_is_in_utc() -> None:
    assert now().tzinfo is UTC
