"""The rows of seats and machines."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cloudscale.cli.report import Reaped, machine_table, reaped, seat_row
from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course import naming
from cloudscale.errors import EngineError, NotSetUp, SwarmError
from cloudscale.model import Place, Seat, Student
from cloudscale.seats.address import Addresses
from tests.unit.classroom import Class

KEY = bytes(range(32))
URL = f"http://192.0.2.1:4321{naming.seat_path(KEY, '1')}"
SEAT = Seat(Student("1", "Ann", "Lee", "ann@example.org"), Place("m1", 4321))


def test_a_row_has_the_address_of_its_machine() -> None:
    row = seat_row(SEAT, Addresses({"m1": "192.0.2.1"}, KEY), "ready", "secret")
    assert (row.student, row.host, row.port, row.url) == ("Ann Lee", "192.0.2.1", 4321, URL)
    assert (row.password, row.node, row.state, row.email) == ("secret", "m1", "ready", "ann@example.org")


def test_a_row_of_a_machine_that_is_gone_has_no_address() -> None:
    row = seat_row(SEAT, Addresses({"m2": "192.0.2.2"}, KEY), "failed")
    assert (row.host, row.url, row.password) == ("", "", None)


# --- the machines ----------------------------------------------------------------------------


def states(lab: Class, cluster: Cluster | None = None) -> dict[str, str]:
    table = machine_table(cluster or look(lab.session(), lab.driver), "json")
    return {row["machine"]: row["engine"] for row in json.loads(table)}


def test_machines_are_shown_with_what_they_are(lab: Class) -> None:
    assert states(lab) == {"m1": "not set up", "m2": "not set up", "m3": "not set up"}
    lab.machines(*lab.apis[:2])
    lab.launch()
    lab.add_machines("m4")
    assert states(lab) == {"m1": "swarm manager", "m2": "swarm worker", "m4": "not set up"}
    lab.driver.bare.clear()
    assert states(lab)["m4"] == "in no swarm"


def test_machines_are_shown_with_cores_memory_and_seats(lab: Class) -> None:
    lab.enrol(4)
    lab.launch()
    rows = json.loads(machine_table(look(lab.session(), lab.driver), "json"))
    assert [(row["cores"], row["memory"], row["seats"]) for row in rows] == [
        (8, "16.0 GiB", 2),
        (8, "16.0 GiB", 1),
        (8, "16.0 GiB", 1),
    ]


def test_a_lost_machine_is_shown_as_lost_with_its_seats(lab: Class) -> None:
    lab.enrol(3)
    lab.launch()
    lab.driver.lose("m2")
    (row,) = [r for r in json.loads(machine_table(look(lab.session(), lab.driver), "json")) if r["machine"] == "m2"]
    assert (row["engine"], row["cores"], row["seats"]) == ("lost", "", 1)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (EngineError("m3: no answer."), "lost"),
        (SwarmError("m3: it belongs to a swarm of somebody else."), "in another swarm"),
        (NotSetUp("m3: it was never set up."), "not set up"),
    ],
)
def test_why_a_machine_can_not_be_used_is_shown(lab: Class, error: EngineError, state: str) -> None:
    lab.machines(*lab.apis[:2])
    lab.launch()
    lab.add_machines("m3")
    cluster = look(lab.session(), lab.driver)
    last = replace(cluster.hosts[-1], error=error)
    assert states(lab, cluster.with_hosts([last]))["m3"] == state


# --- courses -------------------------------------------------------------------------------


def test_what_became_of_a_course_is_on_one_line_and_does_not_control_the_terminal() -> None:
    rows = [Reaped("bio", "local", "failed", "2026-12-01 18:00:00+01:00", "Not all:\nAnn\x1b[2J: it is lost.")]
    lines = reaped(rows, "table").splitlines()
    assert lines[0].split() == ["course", "driver", "state", "deadline", "cause"]
    assert "\x1b" not in lines[2]
    assert lines[2].endswith(": it is lost.")
    assert json.loads(reaped(rows, "json"))[0]["deadline"] == "2026-12-01 18:00:00+01:00"
    assert reaped([], "json") == "[]"
