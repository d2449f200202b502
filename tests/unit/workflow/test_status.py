from __future__ import annotations

import pytest

from cloudscale.errors import MachineError
from cloudscale.units import GIB
from cloudscale.workflow import status
from tests.unit.api_schema import api_error
from tests.unit.classroom import Class

# --- status ----------------------------------------------------------------------------------


def test_status_tells_each_seats_state_and_no_password(bio: Class) -> None:
    launched = bio.rows(bio.launch())
    bio.mute = {4322}
    report = status.status(bio.session())
    rows = bio.rows(report)
    assert [row["state"] for row in rows] == ["ready", "failed"]
    assert rows[0] == {key: value for key, value in launched[0].items() if key != "password"}
    (problem,) = report.problems
    assert problem.startswith("Bob Ray")
    assert bio.api.changes == []


def test_status_as_a_table_shows_the_machines_too(bio: Class) -> None:
    bio.launch()
    text = status.status(bio.session(format="table")).text
    assert "swarm manager" in text
    assert text.index("swarm manager") < text.index("Ann Lee")


def test_a_seat_whose_machine_is_gone_has_no_address(bio: Class) -> None:
    bio.launch()
    bio.api.rename_node("another")
    report = status.status(bio.session())
    assert [(row["url"], row["host"], row["node"], row["state"]) for row in bio.rows(report)] == [
        ("", "", "", "failed"),
        ("", "", "", "failed"),
    ]
    assert len(report.problems) == 2


def test_status_of_nothing_is_an_empty_list(bio: Class) -> None:
    report = status.status(bio.session())
    assert (bio.rows(report), report.problems) == ([], ())
    assert "in no swarm" in status.status(bio.session(format="table")).text


def test_status_of_machines_that_are_not_set_up_is_no_failure(lab: Class) -> None:
    report = status.status(lab.session(format="table"))
    assert report.problems == ()
    assert report.text.count("not set up") == 3


def test_status_names_a_lost_machine_and_its_seats(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m2")
    report = status.status(lab.session())
    assert {row["state"] for row in lab.rows(report) if row["node"] == "m2"} == {"failed"}
    assert {row["state"] for row in lab.rows(report) if row["node"] != "m2"} == {"ready"}
    assert report.problems[0].startswith("m2: ")
    assert sum("its machine is lost" in problem for problem in report.problems) == 2
    table = status.status(lab.session(format="table")).text
    assert "lost" in next(line for line in table.splitlines() if line.startswith("m2"))


def test_status_of_a_swarm_without_its_managers_tells_what_there_is_to_tell(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1", "m2")
    report = status.status(lab.session(format="table"))
    assert "swarm without quorum" in report.text
    assert any("lost its quorum" in problem and "m3" in problem for problem in report.problems)


@pytest.mark.parametrize("name", ["m1", "m2"])
def test_status_with_a_machine_that_was_replaced_and_is_back(lab: Class, name: str) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose(name)
    seated = lab.rows(lab.launch(replace_lost=True))
    lab.driver.find(name)
    assert [row["state"] for row in lab.rows(status.status(lab.session()))] == ["ready"] * len(seated)
    line = next(x for x in status.status(lab.session(format="table")).text.splitlines() if x.startswith(name))
    assert "swarm manager" not in line


def test_status_with_a_machine_that_half_joined(lab: Class) -> None:
    lab.launch()
    lab.add_machines("m4")
    lab.driver.bare.discard("m4")
    lab.apis[3].swarm_state = "pending"
    lab.apis[3].node_id = "node9"
    assert "m4" in status.status(lab.session(format="table")).text


def test_status_with_a_machine_in_a_swarm_of_others(lab: Class) -> None:
    lab.machines(*lab.apis[:2])
    lab.launch()
    lab.apis[1].leave_swarm(force=True)
    lab.apis[1].init_swarm("10.0.0.2", "10.0.0.2:2377", "10.0.0.2", [], {"Labels": {}})
    report = status.status(lab.session(format="table"))
    assert any("m2: it belongs to a swarm of somebody else" in problem for problem in report.problems)
    assert "swarm manager" in next(line for line in report.text.splitlines() if line.startswith("m1"))


# --- details ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "MEASURING", 0.0)


def test_details_add_what_is_known_of_each_seat(bio: Class) -> None:
    bio.launch()
    plain, detailed = status.status(bio.session()), status.status(bio.session(), with_details=True)
    added = {"memory": GIB // 2, "cpu": 0.5, "kernels": 2, "last_activity": "2026-11-27T07:00:00Z", "restarts": 0}
    assert bio.rows(detailed) == [row | added for row in bio.rows(plain)]
    assert not any(row.keys() & added.keys() for row in bio.rows(plain))
    assert bio.api.changes == []


def test_details_as_a_table_show_the_machines_and_their_disks(bio: Class) -> None:
    bio.launch()
    bio.driver.free_disk["m1"] = 12 * GIB
    heading, _, machine = status.status(bio.session(format="table"), with_details=True).text.splitlines()[:3]
    assert heading.split() == ["machine", "address", "engine", "cores", "cpu", "memory", "free", "disk", "seats"]
    assert machine.endswith("8        100 %  1.0 / 16.0 GiB  12.0 GiB     2")
    assert bio.said.lines == []


def test_a_disk_with_little_room_is_warned_of_and_is_no_failure(bio: Class) -> None:
    bio.launch()
    bio.driver.free_disk["m1"] = GIB - 1
    report = status.status(bio.session(), with_details=True)
    assert report.problems == ()
    (warning,) = bio.said.lines
    assert warning.startswith("Warning: m1: its disk has 1.0 GiB free, which its seats (2) share.")
    status.status(bio.session())
    assert bio.said.lines == []


def test_a_seat_that_does_not_answer_is_not_asked_again_and_has_empty_cells(bio: Class) -> None:
    bio.launch()
    bio.mute = {4322}
    ann, bob = bio.rows(status.status(bio.session(), with_details=True))
    assert (ann["kernels"], bob["kernels"], bob["last_activity"]) == (2, None, None)
    assert bob["memory"] == GIB // 2


def test_servers_that_answer_slowly_hold_nobody_up(bio: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    bio.launch()
    monkeypatch.setattr(status, "ASKING", -1.0)
    rows = bio.rows(status.status(bio.session(), with_details=True))
    assert [(row["state"], row["kernels"]) for row in rows] == [("ready", None)] * 2


def test_a_seat_on_a_lost_machine_has_empty_cells(lab: Class) -> None:
    lab.enrol(3)
    lab.launch()
    lab.driver.lose("m2")
    report = status.status(lab.session(), with_details=True)
    cpus = {row["node"]: row["cpu"] for row in lab.rows(report)}
    assert cpus == {"m1": 0.5, "m2": None, "m3": 0.5}
    table = status.status(lab.session(format="table"), with_details=True).text
    assert "lost" in next(line for line in table.splitlines() if line.startswith("m2"))


def test_a_machine_whose_state_can_not_be_read_has_empty_cells(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.enrol(3)
    lab.launch()
    lab.driver.refusals["m1"] = MachineError("m1: no login.")

    def broken(container: str, **words: object) -> None:
        raise api_error(500, "cgroup deleted")

    monkeypatch.setattr(lab.apis[0], "stats", broken)
    report = status.status(lab.session(), with_details=True)
    assert report.problems == ()
    assert [row["memory"] for row in lab.rows(report)] == [None, GIB // 2, GIB // 2]


def test_details_of_nothing_are_an_empty_list(bio: Class) -> None:
    assert bio.rows(status.status(bio.session(), with_details=True)) == []
    assert "in no swarm" in status.status(bio.session(format="table"), with_details=True).text
