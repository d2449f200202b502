"""`themachine` where machines fail or are lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cloudscale.errors import CapacityError, CloudscaleError, ImageError, MachineError
from cloudscale.model import Machine, MachineState, Survey
from cloudscale.units import GIB
from cloudscale.workflow import seats
from tests.unit.classroom import Class, messages, states

# --- a machine that fails --------------------------------------------------------------------


def test_where_the_first_machine_fails_the_next_founds_and_the_rest_is_done(lab: Class) -> None:
    lab.enrol(4)
    lab.driver.faults["m1"] = MachineError("m1: the engine's packages can't be installed.", "Fix that.")
    report = lab.launch()
    assert states(lab, report) == {"m2": ["ready"] * 2, "m3": ["ready"] * 2}
    assert report.problems == ("m1: the engine's packages can't be installed.\n  Fix that.",)
    assert lab.members() == {"m2": "manager", "m3": "worker"}
    del lab.driver.faults["m1"]
    assert lab.launch().problems == ()
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


@pytest.mark.parametrize("name", ["m1", "m2", "m3"])
def test_a_machine_whose_disk_is_too_small_is_named_and_the_rest_is_done(lab: Class, name: str) -> None:
    lab.enrol(4)
    lab.driver.free_disk[name] = 1000
    report = lab.launch()
    assert name not in lab.nodes_of(report)
    assert {row["state"] for row in lab.rows(report)} == {"ready"}
    assert len(report.problems) == 1
    assert f"{name}: its disk has" in messages(report)


def test_of_two_the_firsts_small_disk_is_named_and_the_rest_is_done(lab: Class) -> None:
    lab.machines(*lab.apis[:2])
    lab.driver.free_disk["m1"] = 1000
    report = lab.launch()
    assert "m1: its disk has" in messages(report)
    assert states(lab, report) == {"m2": ["ready"] * 2}


def test_a_machine_that_can_not_join_is_named_and_the_rest_is_done(lab: Class) -> None:
    lab.enrol(4)
    lab.apis[2].joining = ["stuck"] * 9
    report = lab.launch()
    assert "m3: it can't join the swarm" in messages(report)
    assert "4789" in messages(report)
    assert states(lab, report) == {"m1": ["ready"] * 2, "m2": ["ready"] * 2}
    lab.apis[2].joining = []
    assert lab.launch().problems == ()
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


def test_where_the_machines_that_are_left_are_too_small_both_is_reported(lab: Class) -> None:
    lab.enrol(5)
    for api in lab.apis:
        api.memory = GIB
    lab.driver.faults["m2"] = MachineError("m2: no space.")
    with pytest.raises(CloudscaleError) as raised:
        lab.launch()
    assert raised.value.exit_code == 1
    assert "m2: no space." in str(raised.value)
    assert "Without them: 5 seats need" in str(raised.value)
    assert not any(change.startswith("create service") for change in lab.changes)


def test_a_class_too_large_for_all_changes_nothing(lab: Class) -> None:
    lab.enrol(7)
    for api in lab.apis:
        api.memory = GIB
    with pytest.raises(CapacityError, match="the 3 machines have"):
        lab.launch()
    assert lab.changes == lab.driver.done == []


def test_where_every_machine_fails_each_is_named(lab: Class) -> None:
    for name in ("m1", "m2", "m3"):
        lab.driver.faults[name] = MachineError(f"{name}: its engine does not start.")
    with pytest.raises(CloudscaleError, match="No machine can be used") as raised:
        lab.launch()
    assert all(name in str(raised.value) for name in ("m1", "m2", "m3"))


def test_what_failed_before_is_reported_too_where_nothing_comes_of_the_rest(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_jupyter(*given: object) -> None:
        raise ImageError("The image has no Jupyter.")

    monkeypatch.setattr(seats, "look_inside", no_jupyter)
    lab.driver.lose("m3")
    with pytest.raises(CloudscaleError, match="no Jupyter") as raised:
        lab.launch()
    assert "m3" in str(raised.value)


def test_what_failed_before_is_reported_too_where_woken_machines_show_seats_of_another_key(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.launch()
    (lab.session().course.folder / "key").write_text("ab" * 32)
    lab.driver.lose("m3")
    survey = lab.driver.survey

    def stopped(machine: Machine) -> Survey:
        return replace(survey(machine), state=MachineState.STOPPED)

    monkeypatch.setattr(lab.driver, "survey", stopped)
    with pytest.raises(CloudscaleError, match="m3: no answer") as raised:
        lab.launch()
    assert "Without them: The course's seats were made with another key" in str(raised.value)
    assert raised.value.exit_code == 1


# --- a machine that is lost ------------------------------------------------------------------


def test_a_machine_that_is_down_from_the_start_is_named_and_the_rest_is_done(lab: Class) -> None:
    lab.enrol(4)
    lab.driver.lose("m1")
    report = lab.launch()
    assert report.problems == ("m1: no answer in 15 s.",)
    assert Counter(lab.nodes_of(report)) == {"m2": 2, "m3": 2}
    lab.driver.find("m1")
    assert lab.launch().problems == ()
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


def test_where_all_are_down_all_are_named(lab: Class) -> None:
    lab.driver.lose("m1", "m2", "m3")
    with pytest.raises(CloudscaleError, match="No machine can be used") as raised:
        lab.launch()
    assert raised.value.exit_code == 1
    assert all(f"{name}: no answer" in str(raised.value) for name in ("m1", "m2", "m3"))


def test_the_seats_of_a_lost_machine_have_failed_and_newcomers_sit_elsewhere(lab: Class) -> None:
    lab.enrol(6)
    first = lab.rows(lab.launch())
    lab.driver.lose("m2")
    lab.enrol(8)
    report = lab.launch()
    assert states(lab, report) == {"m1": ["ready"] * 3, "m2": ["failed"] * 2, "m3": ["ready"] * 3}
    assert [{**row, "state": "ready"} for row in lab.rows(report)[:6]] == first
    assert report.problems[0] == "m2: no answer in 15 s."
    assert sum("the machine m2 is lost" in problem for problem in report.problems) == 2
    assert "--replace-lost" in messages(report)
    assert lab.members() == {"m1": "manager", "m2": "manager?", "m3": "manager"}
    assert not any("update service" in change for change in lab.changes)


def test_a_lost_machine_that_is_found_is_as_before(lab: Class) -> None:
    lab.enrol(6)
    first = lab.launch()
    lab.driver.lose("m2")
    lab.launch()
    lab.driver.find("m2")
    assert lab.launch() == first
    assert lab.changes == []


def test_with_replace_lost_its_students_sit_elsewhere_and_it_is_removed(lab: Class) -> None:
    lab.add_machines("m4")
    lab.enrol(8)
    first = lab.rows(lab.launch())
    lab.driver.lose("m2")
    report = lab.launch(replace_lost=True)
    assert report.problems == ("m2: no answer in 15 s.",)
    assert states(lab, report).keys() == {"m1", "m3", "m4"}
    assert {row["state"] for row in lab.rows(report)} == {"ready"}
    assert lab.members() == {"m1": "manager", "m3": "manager", "m4": "manager"}
    for before, row in zip(first, lab.rows(report), strict=True):
        assert row == before or before["node"] == "m2"
        assert row["password"] == before["password"]


def test_replace_lost_again_changes_nothing(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m2")
    once = lab.launch(replace_lost=True)
    assert lab.launch(replace_lost=True) == once
    assert lab.changes == []
    assert lab.launch() == once


def test_replace_lost_where_nothing_is_lost_changes_nothing(lab: Class) -> None:
    first = lab.launch()
    assert lab.launch(replace_lost=True) == first
    assert lab.changes == []


@pytest.mark.parametrize("name", ["m1", "m2", "m3"])
def test_a_machine_that_was_replaced_and_is_found_joins_again_and_is_empty(lab: Class, name: str) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose(name)
    seated = lab.rows(lab.launch(replace_lost=True))
    lab.driver.find(name)
    report = lab.launch()
    assert report.problems == ()
    assert lab.rows(report) == seated
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}
    assert next(api for api in lab.apis if api.name == name).containers_ == []


def test_one_of_four_that_was_replaced_and_is_found_does_not_make_it_four_managers(lab: Class) -> None:
    lab.add_machines("m4")
    lab.launch()
    lab.driver.lose("m1")
    lab.launch(replace_lost=True)
    lab.driver.find("m1")
    lab.launch()
    assert sorted(lab.members().values()) == ["manager", "manager", "manager", "worker"]


def test_a_machine_that_the_swarm_still_has_keeps_its_seats(lab: Class) -> None:
    """One that this computer does not reach, while the others do."""
    lab.enrol(6)
    lab.launch()
    lab.driver.lost.add("m2")
    lab.apis[0].swarm.unnoticed.add(lab.apis[1].node_id)
    report = lab.launch(replace_lost=True)
    assert any("the swarm still has m2: their seats stay" in line for line in lab.said.lines)
    assert states(lab, report)["m2"] == ["ready"] * 2
    assert "m2" in lab.members()
    assert not any("service" in change for change in lab.changes)


def test_two_of_three_lost_is_a_swarm_without_its_managers(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1", "m2")
    with pytest.raises(CloudscaleError, match="lost its quorum") as raised:
        lab.launch()
    assert raised.value.exit_code == 1
    assert "What runs on m3 keeps running" in str(raised.value)
    assert "--replace-lost" in raised.value.remedy
    assert lab.changes == []
    assert len(lab.apis[2].open_ports) == 2


def test_of_two_the_manager_lost_is_refused_and_named(lab: Class) -> None:
    lab.machines(*lab.apis[:2])
    lab.launch()
    lab.driver.lose("m1")
    with pytest.raises(CloudscaleError, match="m1: no answer in 15 s") as raised:
        lab.launch()
    assert "lost its quorum" in str(raised.value)
    assert lab.changes == []


@pytest.mark.parametrize("count", [2, 3])
def test_with_replace_lost_what_is_left_is_created_again(lab: Class, count: int) -> None:
    lab.machines(*lab.apis[:count])
    lab.enrol(2 * count)
    first = lab.rows(lab.launch())
    lost = [api.name for api in lab.apis[: count - 1]]
    lab.driver.lose(*lost)
    report = lab.launch(replace_lost=True)
    left = lab.apis[-1].name
    assert lab.members() == {left: "manager"}
    assert {row["state"] for row in lab.rows(report)} == {"ready"}
    assert set(lab.nodes_of(report)) == {left}
    # who sat there keeps the address
    kept = [row for row in first if row["node"] == left]
    assert [row for row in lab.rows(report) if row["student"] in {each["student"] for each in kept}] == kept
    assert lab.launch() == report
    assert lab.changes == []


def test_a_manager_whose_swarm_was_created_again_without_it_joins_that(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1", "m2")
    seated = lab.rows(lab.launch(replace_lost=True))
    lab.driver.find("m1", "m2")
    report = lab.launch()
    assert report.problems == ()
    assert lab.rows(report) == seated
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


def test_a_swarm_whose_managers_are_lost_is_known_by_the_addresses_that_machines_call_each_other(
    lab: Class, tmp_path: Path
) -> None:
    """Not by those that students type, which may be others; and without a seat that tells."""
    lab.machines(*lab.apis[:2])
    lab.launch(onlycreate=True)
    lab.driver.lose("m1")
    with pytest.raises(CloudscaleError) as raised:
        lab.launch()
    assert "somebody else" not in str(raised.value)
    assert "lost its quorum" in str(raised.value)
