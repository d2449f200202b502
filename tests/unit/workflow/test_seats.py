from __future__ import annotations

import pytest

from cloudscale.course import naming
from cloudscale.model import Place, Seat, Student
from cloudscale.workflow import seats
from tests.unit.classroom import ANN, BOB, CID, Class

SEAT = Seat(Student("1", "Ann", "Lee", "ann@example.org"), Place("m1", 4321))


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


def test_a_variable_that_is_left_out_is_said_before_seats_restart_without_it(lab: Class) -> None:
    lab.launch(env={"COLOR": "secret-red", "SIZE": "5"})
    lab.launch(env={"SIZE": "6", "COLOR": "secret-red"})
    assert not any("Warning" in line for line in lab.said.lines)
    for plan in (True, False):
        lab.launch(env={"SIZE": "6"}, plan=plan)
        (warning,) = [line for line in lab.said.lines if "Warning" in line]
        assert "--env COLOR=…" in warning and "they restart" in warning and "SIZE" not in warning
        assert "secret-red" not in warning
        assert ("update service" in lab.changes) is not plan
    lab.launch(env={"SIZE": "6"})
    assert not any("Warning" in line for line in lab.said.lines)


def test_where_machines_have_quotas_new_volumes_are_limited_and_older_ones_are_named(lab: Class) -> None:
    lab.launch()
    for api in lab.apis:
        api.labels = [naming.QUOTAS]
    lab.launch()
    (warning,) = (line for line in lab.said.lines if "Warning" in line)
    assert "Ann Lee" in warning and "Bob" in warning and "containers_reset --volumes" in warning
    for api in lab.apis:
        api.volumes_.clear()
    lab.launch(env={"COLOR": "red"})  # they start again
    assert not any("Warning" in line for line in lab.said.lines)
    limits = [volume["Options"] for api in lab.apis for volume in api.volumes_.values()]
    assert limits and all(limit == {"size": str(10 << 30)} for limit in limits)


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
