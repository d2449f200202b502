"""A course's deadline: how WHEN in `themachine --until WHEN` is read, written down, and shown.

All times are aware. `zone` is that of the trainer's clock; None: this computer's, as the C library knows it. Only `now`
looks at a clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal

NONE: Literal["none"] = "none"  # in the place of WHEN: no deadline any more
MARK = "cloudscale.until"  # the label in a swarm, or the beginning of the tag in a cloud, that carries a deadline
WHEN = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)?"
    r"(?:(?(day)[ Tt]+)(?P<hour>\d{1,2})(?P<rest>:\d\d(?::\d\d)? *(?P<offset>[Zz]|[+-]\d\d:?\d\d)?))?",
    re.ASCII,
)
FORMS = "should be a time (18:00), a date (2026-12-01), both (2026-12-01 18:00), or none"
END_OF_DAY = time(23, 59)
WRITTEN = "%Y-%m-%dT%H:%M:%SZ"  # 20 characters of those that a tag in a cloud may have
DAYS = {-1: "yesterday", 0: "today", 1: "tomorrow"}


def now() -> datetime:
    return datetime.now(UTC)


# --- as the trainer writes it ----------------------------------------------------------------


def read_when(text: str, at: datetime, zone: tzinfo | None = None) -> datetime | Literal["none"]:
    """The time that WHEN means, seen from `at`; or `none`. Raises ValueError, which says what is wrong.

    A time alone is the next one: tomorrow's, if it is past today (as for at(1)). A date alone is the end of that day.
    Where the clocks are changed, the later of two times counts, so that no course ends too early.
    """
    text = text.strip()
    if text.lower() == NONE:
        return NONE
    match = WHEN.fullmatch(text)
    if not text or not match:
        raise ValueError(FORMS)
    day, hour, rest = match["day"], match["hour"], match["rest"]
    try:
        clock = time.fromisoformat(f"{hour:0>2}{rest.replace(' ', '').upper()}") if hour else END_OF_DAY
        zone = clock.tzinfo or zone
        when = _instant(date.fromisoformat(day) if day else at.astimezone(zone).date(), clock, zone)
        if when <= at and not day:
            when = _instant(at.astimezone(zone).date() + timedelta(days=1), clock, zone)
        shown = describe(when, at, zone)
    except (ValueError, OverflowError):
        raise ValueError(f"does not exist; it {FORMS}") from None
    if when <= at:
        raise ValueError(f"should be in the future, and {shown} is past")
    return when


def _instant(day: date, clock: time, zone: tzinfo | None) -> datetime:
    wall = datetime.combine(day, clock, zone)
    return max(wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1))


# --- as it is written down -------------------------------------------------------------------


def as_text(when: datetime) -> str:
    return when.astimezone(UTC).strftime(WRITTEN)


def latest(texts: Iterable[str]) -> datetime | None:
    """What counts of several: the latest, so that nothing is removed too early. None if there is none."""
    return max(filter(None, map(_from_text, texts)), default=None)


def _from_text(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, WRITTEN).replace(tzinfo=UTC)
    except ValueError:  # not written by us
        return None


# --- as it is shown --------------------------------------------------------------------------


def describe(when: datetime, at: datetime, zone: tzinfo | None = None) -> str:
    """`today at 18:00 CET`, seen from `at`."""
    local = when.astimezone(zone)
    day = DAYS.get((local.date() - at.astimezone(zone).date()).days) or f"on {local:%A, %Y-%m-%d},"
    return f"{day} at {local:%H:%M:%S} {local.tzname()}".replace(":00 ", " ", 1)


def in_row(when: datetime | None, zone: tzinfo | None = None) -> str:
    """`2026-12-01 18:00:00+01:00`: for tables, and for programs that read them; "" for none."""
    return when.astimezone(zone).isoformat(" ") if when else ""


def left(when: datetime, at: datetime) -> str:
    """How long it is until then: `2 h 10 min`."""
    minutes = int((when - at).total_seconds()) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    amounts = (f"{days} day{'s' * (days > 1)}", days), (f"{hours} h", hours), (f"{minutes} min", minutes)
    return " ".join([text for text, amount in amounts if amount][:2]) or "less than 1 min"


def warning(when: datetime | None, at: datetime, course: str, zone: tzinfo | None = None) -> str:
    """What every task says of a deadline that is over; "" where there is none, or it is to come."""
    if when is None or when > at:
        return ""
    return (
        f"The deadline of the course {course!r} was {describe(when, at, zone)}: invoke driver_reset removes the course,"
        " invoke themachine --until WHEN moves the deadline"
    )
