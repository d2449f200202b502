from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from cloudscale.cli import details
from cloudscale.cluster.look import look
from cloudscale.model import MachineDetails, Row, SeatDetails
from cloudscale.units import GIB
from tests.unit.classroom import Class

ROW = Row("Ann Lee", "", "http://192.0.2.1:4321/kw4h", "192.0.2.1", 4321, "m1", "ready")
BUSY = SeatDetails(GIB, 2 * GIB, 0.974, 2, datetime(2026, 11, 27, 8, 0, 1, 999, tzinfo=UTC), 1)
KEYS = ["student", "email", "url", "host", "port", "node", "state"]


def test_json_has_numbers_and_dates() -> None:
    (row,) = json.loads(details.seats([ROW], [BUSY], "json"))
    assert list(row) == [*KEYS, "memory", "cpu", "kernels", "last_activity", "restarts"]
    assert [row[key] for key in details.KEYS] == [GIB, 0.97, 2, "2026-11-27T08:00:01Z", 1]


def test_what_is_not_known_is_empty() -> None:
    (row,) = json.loads(details.seats([ROW], [SeatDetails()], "json"))
    assert [row[key] for key in details.KEYS] == [None, None, None, None, 0]
    (line,) = csv.DictReader(io.StringIO(details.seats([ROW], [SeatDetails()], "csv")))
    assert [line[key] for key in details.KEYS] == ["", "", "", "", "0"]
    assert details.seats([ROW], [SeatDetails()], "table").splitlines()[-1].split()[-2:] == ["ready", "0"]


def test_csv_has_the_same_numbers() -> None:
    (line,) = csv.DictReader(io.StringIO(details.seats([ROW], [BUSY], "csv")))
    assert [line[key] for key in details.KEYS] == [str(GIB), "0.97", "2", "2026-11-27T08:00:01Z", "1"]


def test_a_table_has_words() -> None:
    cells = details.seat_cells(BUSY)
    assert (cells["memory"], cells["cpu"], cells["kernels"], cells["restarts"]) == ("1.0 / 2.0 GiB", "97 %", "2", "1")
    assert "last activity" in details.seats([ROW], [BUSY], "table").splitlines()[0]


def test_what_needs_help_has_a_sign_that_is_no_colour() -> None:
    assert details.seat_cells(SeatDetails(memory=19 * GIB, limit=20 * GIB))["memory"] == "19.0 / 20.0 GiB !"
    assert details.seat_cells(SeatDetails(memory=17 * GIB, limit=20 * GIB))["memory"] == "17.0 / 20.0 GiB"
    assert details.seat_cells(SeatDetails(restarts=4))["restarts"] == "4+"


def test_failed_seats_are_the_most_urgent_then_starting_ones_then_those_short_of_memory() -> None:
    full, fine = SeatDetails(95, 100), SeatDetails(5, 100)
    order = [
        details.urgency(*pair) for pair in (("failed", fine), ("starting", full), ("ready", full), ("ready", fine))
    ]
    assert order == [0, 1, 2, 3]
    assert details.urgency("", SeatDetails()) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-20, "now"),
        (59, "now"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (47 * 3600, "47 h"),
        (48 * 3600, "2 days"),
    ],
)
def test_ages_are_short(seconds: int, text: str) -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    assert details.ago(now - timedelta(seconds=seconds), now) == text


def test_machines_have_what_their_seats_take_of_them(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m3")
    known = {"m1": MachineDetails(1.25, 3 * GIB, 12 * GIB), "m2": MachineDetails(), "m3": MachineDetails()}
    m1, m2, m3 = json.loads(details.machine_table(look(lab.session(), lab.driver), known, "json"))
    assert list(m1) == ["machine", "address", "engine", "cores", "cpu", "memory", "free disk", "seats"]
    assert (m1["cores"], m1["cpu"], m1["memory"], m1["free disk"]) == (8, "125 %", "3.0 / 16.0 GiB", "12.0 GiB")
    assert (m2["cpu"], m2["memory"], m2["free disk"]) == ("", "16.0 GiB", "")
    assert (m3["engine"], m3["memory"]) == ("lost", "")
