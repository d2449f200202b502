"""`themachine` on several machines, from end to end; test_workflow.py has what one machine shows as well."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cloudscale import launching
from cloudscale.errors import CapacityError, CloudscaleError, ImageError, MachineError, RequestError, SwarmError
from cloudscale.plan import GIB
from cloudscale.report import Report
from tests.unit.api_schema import Json, api_error
from tests.unit.classroom import IMAGE, Class
from tests.unit.fake_api import FakeApi

OWN = "cloudscale/pydata:latest"
BUILT: Json = {"Id": "sha256:22", "Created": "2025-01-01", "Size": 2 * GIB, "Architecture": "amd64"}


def states(lab: Class, report: Report) -> dict[str, list[str]]:
    """The states of the seats, by machine."""
    found: dict[str, list[str]] = {}
    for row in lab.rows(report):
        found.setdefault(row["node"], []).append(row["state"])
    return found


def told(report: Report) -> str:
    return "\n".join(report.problems)


# --- all of them well ------------------------------------------------------------------------


def test_machines_become_one_swarm_and_seats_are_spread(lab: Class) -> None:
    lab.enrol(6)
    report = lab.launch()
    assert report.problems == ()
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}
    assert Counter(lab.nodes_of(report)) == {"m1": 2, "m2": 2, "m3": 2}
    assert states(lab, report) == {name: ["ready"] * 2 for name in ("m1", "m2", "m3")}
    assert {row["url"] for row in lab.rows(report)} == {
        f"http://192.0.2.{machine}:{port}" for machine in (1, 2, 3) for port in (4321, 4322)
    }
    assert sorted(lab.driver.done) == ["set up m1", "set up m2", "set up m3"]


def test_the_image_is_pulled_by_all_of_them(lab: Class) -> None:
    lab.launch()
    assert [api.changes.count(f"pull {IMAGE}") for api in lab.apis] == [1, 1, 1]


def test_a_second_run_changes_nothing_and_says_the_same(lab: Class) -> None:
    lab.enrol(6)
    first = lab.launch()
    second = lab.launch()
    assert second == first
    assert lab.changes == []
    assert lab.driver.done == []


def test_a_fourth_machine_joins_as_a_worker_and_takes_newcomers(lab: Class) -> None:
    lab.enrol(3)
    first = lab.rows(lab.launch())
    lab.add_machines("m4")
    lab.enrol(5)
    report = lab.launch()
    assert report.problems == ()
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager", "m4": "worker"}
    rows = lab.rows(report)
    assert rows[:3] == first
    assert "m4" in {row["node"] for row in rows[3:]}


def test_a_class_grows_from_one_machine_to_three(lab: Class) -> None:
    m1, m2, m3 = lab.apis
    lab.machines(m1)
    lab.enrol(2)
    first = lab.rows(lab.launch())
    lab.machines(m1, m2)
    lab.launch()
    assert lab.members() == {"m1": "manager", "m2": "worker"}
    lab.machines(m1, m2, m3)
    report = lab.launch()
    assert lab.rows(report) == first
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


def test_as_many_machines_are_used_as_are_wanted(lab: Class) -> None:
    lab.enrol(4)
    assert Counter(lab.nodes_of(lab.launch(nodes="2"))) == {"m1": 2, "m2": 2}
    assert lab.members() == {"m1": "manager", "m2": "worker"}
    assert lab.driver.bare == {"m3"}
    # those that are in the swarm already are used all the same
    assert Counter(lab.nodes_of(lab.launch(nodes="1"))) == {"m1": 2, "m2": 2}


def test_more_machines_than_there_are_is_a_wrong_request(lab: Class) -> None:
    with pytest.raises(RequestError):
        lab.launch(nodes="4")
    assert lab.changes == lab.driver.done == []


def test_a_machine_that_is_left_for_later_is_not_called_lost(lab: Class) -> None:
    lab.launch(onlycreate=True)
    rows = {row["machine"]: row["engine"] for row in lab.rows(lab.launch(onlycreate=True, nodes="2"))}
    assert rows == dict.fromkeys(("m1", "m2", "m3"), "swarm manager")


def test_a_machine_that_is_not_wanted_is_not_called_lost(lab: Class) -> None:
    rows = {row["machine"]: row["engine"] for row in lab.rows(lab.launch(onlycreate=True, nodes="2"))}
    assert rows == {"m1": "swarm manager", "m2": "swarm worker", "m3": "not set up"}


def test_a_plan_touches_no_machine(lab: Class) -> None:
    lab.enrol(6)
    plan = json.loads(lab.launch(plan=True).text)
    assert [machine["seats"] for machine in plan["machines"]] == [2, 2, 2]
    assert lab.changes == lab.driver.done == []
    assert lab.driver.bare == {"m1", "m2", "m3"}


def test_onlycreate_makes_machines_and_swarm_and_brings_the_image(lab: Class) -> None:
    rows = lab.rows(lab.launch(onlycreate=True))
    assert [(row["machine"], row["engine"], row["seats"]) for row in rows] == [
        ("m1", "swarm manager", 0),
        ("m2", "swarm manager", 0),
        ("m3", "swarm manager", 0),
    ]
    assert all(IMAGE in api.images_ for api in lab.apis)


def test_ports_that_something_listens_on_are_passed_over_on_each_machine(lab: Class) -> None:
    lab.enrol(6)
    lab.driver.held = frozenset({4321})
    assert {row["port"] for row in lab.rows(lab.launch())} == {4322, 4323}
    first = lab.rows(lab.launch())
    assert {row["port"] for row in first} == {4322, 4323}


def test_machines_of_one_address_are_one_and_refused(lab: Class) -> None:
    lab.apis[2].address = "10.0.0.1"
    with pytest.raises(RequestError, match="m1 and m3 are one and the same machine"):
        lab.launch()
    assert lab.changes == lab.driver.done == []


def test_it_is_said_how_long_each_phase_took(lab: Class) -> None:
    lab.launch()
    (line,) = [line for line in lab.said.lines if line.startswith("Time: ")]
    assert all(phase in line for phase in ("login", "engine", "swarm", "image", "seats"))


# --- a machine that fails --------------------------------------------------------------------


def test_where_the_first_machine_fails_the_next_founds_and_the_rest_is_done(lab: Class) -> None:
    lab.enrol(4)
    lab.driver.faults["m1"] = MachineError("m1: the engine's packages can't be installed.", "Mend that.")
    report = lab.launch()
    assert states(lab, report) == {"m2": ["ready"] * 2, "m3": ["ready"] * 2}
    assert report.problems == ("m1: the engine's packages can't be installed.\n  Mend that.",)
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
    assert f"{name}: its disk has" in told(report)


def test_of_two_the_firsts_small_disk_is_named_and_the_rest_is_done(lab: Class) -> None:
    lab.machines(*lab.apis[:2])
    lab.driver.free_disk["m1"] = 1000
    report = lab.launch()
    assert "m1: its disk has" in told(report)
    assert states(lab, report) == {"m2": ["ready"] * 2}


def test_a_machine_that_can_not_join_is_named_and_the_rest_is_done(lab: Class) -> None:
    lab.enrol(4)
    lab.apis[2].joining = ["stuck"] * 9
    report = lab.launch()
    assert "m3: it can't join the swarm" in told(report)
    assert "4789" in told(report)
    assert states(lab, report) == {"m1": ["ready"] * 2, "m2": ["ready"] * 2}
    lab.apis[2].joining = []
    assert lab.launch().problems == ()
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


def test_where_the_machines_that_are_left_are_too_small_both_is_told(lab: Class) -> None:
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


def test_what_failed_before_is_told_too_where_nothing_comes_of_the_rest(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_jupyter(*given: object) -> None:
        raise ImageError("The image has no Jupyter.")

    monkeypatch.setattr(launching, "look_inside", no_jupyter)
    lab.driver.lose("m3")
    with pytest.raises(CloudscaleError, match="no Jupyter") as raised:
        lab.launch()
    assert "m3" in str(raised.value)


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
    assert "--replace-lost" in told(report)
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


def test_with_replace_lost_its_students_sit_elsewhere_and_it_is_struck_off(lab: Class) -> None:
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
def test_a_machine_that_was_replaced_and_is_found_joins_anew_and_is_empty(lab: Class, name: str) -> None:
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
    assert any("the swarm still has m2: the seats there stay" in line for line in lab.said.lines)
    assert states(lab, report)["m2"] == ["ready"] * 2
    assert "m2" in lab.members()
    assert not any("service" in change for change in lab.changes)


def test_two_of_three_lost_is_a_swarm_without_its_managers(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1", "m2")
    with pytest.raises(CloudscaleError, match="too few managers left") as raised:
        lab.launch()
    assert raised.value.exit_code == 1
    assert "what runs on m3 goes on" in str(raised.value)
    assert "--replace-lost" in raised.value.remedy
    assert lab.changes == []
    assert len(lab.apis[2].open_ports) == 2


def test_of_two_the_manager_lost_is_refused_and_named(lab: Class) -> None:
    lab.machines(*lab.apis[:2])
    lab.launch()
    lab.driver.lose("m1")
    with pytest.raises(CloudscaleError, match="m1: no answer in 15 s") as raised:
        lab.launch()
    assert "too few managers" in str(raised.value)
    assert lab.changes == []


@pytest.mark.parametrize("count", [2, 3])
def test_with_replace_lost_what_is_left_is_founded_anew(lab: Class, count: int) -> None:
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


def test_a_manager_whose_swarm_was_founded_anew_without_it_joins_that(lab: Class) -> None:
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
    assert "too few managers" in str(raised.value)


# --- swarms of others ------------------------------------------------------------------------


@pytest.fixture
def foreign(lab: Class) -> FakeApi:
    """m2 manages a swarm of its own, with a service in it."""
    api = lab.apis[1]
    api.init_swarm("10.0.0.2", "10.0.0.2:2377", "10.0.0.2", ["10.0.0.0/8"], {"Labels": {}})
    api.services_["theirs"] = {"ID": "theirs", "Spec": {"Name": "theirs", "Labels": {}}}
    lab.driver.bare.discard("m2")
    api.changes.clear()
    return api


def test_a_machine_in_a_swarm_of_others_is_named_and_nothing_of_it_is_changed(lab: Class, foreign: FakeApi) -> None:
    lab.enrol(4)
    report = lab.launch()
    assert [problem.splitlines()[0] for problem in report.problems] == [
        "m2: it belongs to a swarm of somebody else, and is left to it."
    ]
    assert foreign.changes == []
    assert list(foreign.services_) == ["theirs"]
    assert states(lab, report) == {"m1": ["ready"] * 2, "m3": ["ready"] * 2}


def test_a_swarm_of_others_that_is_seen_only_once_the_engine_is_set_up_is_left_to_it(
    lab: Class, foreign: FakeApi
) -> None:
    lab.driver.bare.add("m2")
    report = lab.launch()
    assert "m2: it belongs to a swarm of somebody else" in told(report)
    assert not any("swarm" in change or "service" in change for change in foreign.changes)


def test_a_machine_of_another_course_is_refused_by_name(lab: Class, foreign: FakeApi) -> None:
    foreign.swarm_labels = {"cloudscale.course": "geo"}
    assert "m2: it belongs to a swarm of the course 'geo'" in told(lab.launch())
    assert foreign.changes == []


def test_a_machine_that_serves_another_course_is_refused_by_name(lab: Class) -> None:
    lab.driver.refusals["m2"] = MachineError("m2: it serves the course 'geo', and is left to it.")
    report = lab.launch()
    assert told(report) == "m2: it serves the course 'geo', and is left to it."
    assert lab.apis[1].changes == []


def test_where_all_are_of_others_nothing_is_changed(lab: Class, foreign: FakeApi) -> None:
    lab.machines(foreign)
    lab.driver.adopts_swarm = False
    with pytest.raises(SwarmError, match="m2: it belongs to a swarm of somebody else"):
        lab.launch()
    assert foreign.changes == []


# --- clones, halves, and machines made anew --------------------------------------------------


def test_a_clone_becomes_a_machine_of_its_own(lab: Class) -> None:
    m1, m2, _ = lab.apis
    lab.enrol(4)
    lab.machines(m1, m2)
    first = lab.rows(lab.launch())
    lab.machines(m1, m2, m2.clone("m5", "10.0.0.5"))
    lab.driver.bare.clear()
    report = lab.launch()
    assert report.problems == ()
    assert lab.rows(report) == first
    assert sorted(lab.members()) == ["m1", "m2", "m5"]


def test_a_clone_is_told_from_the_original_in_whatever_order_they_are_named(lab: Class) -> None:
    m1, m2, _ = lab.apis
    lab.enrol(4)
    lab.machines(m1, m2)
    first = lab.rows(lab.launch())
    lab.machines(m2.clone("m5", "10.0.0.5"), m1, m2)
    lab.driver.bare.clear()
    report = lab.launch()
    assert report.problems == ()
    assert lab.rows(report) == first
    assert sorted(lab.members()) == ["m1", "m2", "m5"]


def test_a_clone_of_the_manager_does_not_take_its_place(lab: Class) -> None:
    m1, m2, _ = lab.apis
    lab.enrol(4)
    lab.machines(m1, m2)
    first = lab.rows(lab.launch())
    original = m1.node_id
    lab.machines(m1.clone("m5", "10.0.0.5"), m1, m2)
    lab.driver.bare.clear()
    report = lab.launch()
    assert report.problems == ()
    assert lab.rows(report) == first
    assert m1.node_id == original


def test_a_machine_that_half_joined_is_sorted_out(lab: Class) -> None:
    lab.launch()
    lab.add_machines("m4")
    api = lab.apis[3]
    api.joining = ["error"]
    token = lab.api.inspect_swarm()["JoinTokens"]["Worker"]
    with pytest.raises(Exception, match="deadline"):
        api.join_swarm(["10.0.0.1:2377"], token, api.address, api.address, api.address)
    lab.driver.bare.discard("m4")
    assert lab.launch().problems == ()
    assert sorted(lab.members()) == ["m1", "m2", "m3", "m4"]


def test_a_machine_that_was_installed_anew_takes_its_old_place(lab: Class) -> None:
    lab.enrol(6)
    first = lab.rows(lab.launch())
    lab.apis[1].leave_swarm(force=True)
    lab.driver.bare.add("m2")
    report = lab.launch()
    assert report.problems == ()
    assert lab.rows(report) == first
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


# --- images ----------------------------------------------------------------------------------


def own_image(lab: Class, **more: Any) -> FakeApi:
    """The trainer's computer, with the project's own image."""
    lab.image = "pydata"
    lab.trainer = FakeApi(in_swarm=False)
    lab.trainer.images_[OWN] = {**BUILT, **more}
    return lab.trainer


def loads(lab: Class) -> int:
    return sum(api.changes.count(f"load {OWN}") for api in lab.apis)


def test_our_own_image_is_sent_once_and_passed_on(lab: Class) -> None:
    own_image(lab)
    lab.registry[OWN] = {"Id": "sha256:66"}  # somebody else's of that name
    report = lab.launch()
    assert report.problems == ()
    assert loads(lab) == 1
    assert sum(done.startswith(f"copy {OWN}") for done in lab.driver.done) == 2
    assert not any("pull" in change for change in lab.changes)
    assert {api.images_[OWN]["Id"] for api in lab.apis} == {"sha256:22"}


def test_seats_start_from_the_image_as_their_machine_knows_it(lab: Class) -> None:
    lab.enrol(3)
    lab.apis[2].images_[IMAGE] = {"Id": "sha256:99"}  # as one that was loaded
    lab.launch()
    images = {api.name: container["Image"] for api in lab.apis for container in api.containers_}
    assert images == {"m1": "quay.io/jupyter/lab@sha256:aa", "m2": "quay.io/jupyter/lab@sha256:aa", "m3": "sha256:99"}


def test_an_image_that_no_registry_has_is_sent_too(lab: Class) -> None:
    lab.registry.clear()
    lab.trainer = FakeApi(in_swarm=False)
    lab.trainer.images_[IMAGE] = BUILT
    assert lab.launch().problems == ()
    assert sum(api.changes.count(f"load {IMAGE}") for api in lab.apis) == 1


def test_a_machine_that_joins_later_gets_it_from_the_others(lab: Class) -> None:
    own_image(lab)
    lab.launch()
    lab.trainer = None  # another trainer, without an engine
    lab.add_machines("m4")
    assert lab.launch().problems == ()
    assert loads(lab) == 0
    (copied,) = [done for done in lab.driver.done if done.startswith("copy")]
    assert copied.endswith("to m4")


def test_an_image_that_nobody_has_is_told_with_the_way_to_build_it(lab: Class) -> None:
    lab.image = "pydata"
    with pytest.raises(CloudscaleError) as raised:
        lab.launch()
    assert "invoke image_build" in str(raised.value)


def test_an_image_built_anew_reaches_every_machine_and_the_seats(lab: Class) -> None:
    own_image(lab)
    lab.enrol(3)
    lab.launch()
    own_image(lab, Id="sha256:33", Created="2025-02-02")
    report = lab.launch()
    assert {row["state"] for row in lab.rows(report)} == {"ready"}
    assert loads(lab) == 1
    assert {container["Image"] for api in lab.apis for container in api.containers_} == {"sha256:33"}


# --- one machine with its own swarm ----------------------------------------------------------


def test_replace_lost_does_nothing_where_there_is_one_machine(bio: Class) -> None:
    bio.api.init_swarm("127.0.0.1", "127.0.0.1:2377", "127.0.0.1", [], {"Labels": {}})  # somebody's own
    first = bio.launch()
    assert bio.launch(replace_lost=True) == first
    assert bio.changes == []
    assert not any("Lost" in line or "Warning" in line for line in bio.said.lines)


def test_an_engine_that_breaks_off_is_told(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**settings: object) -> None:
        raise api_error(500, "listen tcp: address already in use")

    for api in lab.apis:
        monkeypatch.setattr(api, "init_swarm", fails)
    with pytest.raises(CloudscaleError, match="already in use"):
        lab.launch()
