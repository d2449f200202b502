from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.errors import EngineError, NotSetUp, SwarmError
from cloudscale.model import Place, Seat, Student
from cloudscale.workflow import seats
from cloudscale.workflow.seats import machine_table, seat_row
from tests.unit.classroom import ANN, BOB, CID, Class

SEAT = Seat(Student("1", "Ann", "Lee", "ann@example.org"), Place("m1", 4321))


def test_a_row_has_the_address_of_its_machine() -> None:
    row = seat_row(SEAT, {"m1": "192.0.2.1"}, "ready", "secret")
    assert (row.student, row.host, row.port, row.url) == ("Ann Lee", "192.0.2.1", 4321, "http://192.0.2.1:4321")
    assert (row.password, row.node, row.state, row.email) == ("secret", "m1", "ready", "ann@example.org")


def test_a_row_of_a_machine_that_is_gone_has_no_address() -> None:
    row = seat_row(SEAT, {"m2": "192.0.2.2"}, "failed")
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
    assert states(lab, replace(cluster, lost={"m3": error}))["m3"] == state


# --- the seats -------------------------------------------------------------------------------


def test_who_left_is_said_and_kept_on_every_machine(lab: Class) -> None:
    lab.roster.write_text(ANN + BOB + CID)
    lab.launch()
    lab.roster.write_text(BOB)
    lab.launch()
    assert any("Ann Lee" in line and "Cid Kim" in line and "--prune" in line for line in lab.said.lines)
    assert lab.changes == []


def test_who_left_is_removed_on_every_machine(lab: Class) -> None:
    lab.roster.write_text(ANN + BOB + CID)
    lab.launch()
    lab.roster.write_text(BOB)
    report = lab.launch(prune=True)
    assert report.problems == ()
    assert [len(api.containers_) for api in lab.apis] == [0, 1, 0]
    assert [len(api.volumes_) for api in lab.apis] == [1, 1, 1]


def test_who_left_a_lost_machine_can_be_pruned(lab: Class) -> None:
    lab.roster.write_text(ANN + BOB + CID)
    lab.launch()
    lab.roster.write_text(BOB + CID)
    lab.driver.lose("m1")
    report = lab.launch(prune=True)
    assert len(report.problems) == 1
    assert len(lab.apis[1].services_) == 2


def test_a_seat_that_is_slow_is_starting_and_one_on_a_lost_machine_has_failed(lab: Class) -> None:
    lab.roster.write_text(ANN + BOB)
    lab.launch()
    lab.driver.lose("m1")
    lab.mute = {4321}
    report = lab.launch()
    assert [row["state"] for row in lab.rows(report)] == ["failed", "starting"]
    assert [problem.partition(":")[0] for problem in report.problems] == ["m1", "Ann Lee", "Bob Ray (m2"]


def test_it_is_said_what_was_done(lab: Class) -> None:
    lab.launch()
    assert "Seats: 2 created, 0 updated, 0 unchanged" in lab.said.lines
    assert "Done: 2 of 2 seats are ready" in lab.said.lines
    lab.launch()
    assert "Done: 2 of 2 seats are ready; nothing was changed" in lab.said.lines


def test_the_wait_for_seats_has_an_end(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "READY_TIMEOUT", 7.0)
    lab.mute = {4321}
    assert "did not answer within 7 s" in lab.launch().problems[0]
