"""`themachine` where machines are of others, clones, or not what they were."""

from __future__ import annotations

import pytest

from cloudscale.errors import MachineError, SwarmError
from tests.unit.classroom import Class, messages, states
from tests.unit.fake_api import FakeApi

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
        "m2: it belongs to a swarm of somebody else, so it is not used."
    ]
    assert foreign.changes == []
    assert list(foreign.services_) == ["theirs"]
    assert states(lab, report) == {"m1": ["ready"] * 2, "m3": ["ready"] * 2}


def test_a_swarm_of_others_that_is_seen_only_once_the_engine_is_set_up_is_in_use_by_it(
    lab: Class, foreign: FakeApi
) -> None:
    lab.driver.bare.add("m2")
    report = lab.launch()
    assert "m2: it belongs to a swarm of somebody else" in messages(report)
    assert not any("swarm" in change or "service" in change for change in foreign.changes)


def test_a_machine_of_another_course_is_refused_by_name(lab: Class, foreign: FakeApi) -> None:
    foreign.swarm_labels = {"cloudscale.course": "geo"}
    assert "m2: it belongs to a swarm of the course 'geo'" in messages(lab.launch())
    assert foreign.changes == []


def test_a_machine_that_serves_another_course_is_refused_by_name(lab: Class) -> None:
    lab.driver.refusals["m2"] = MachineError("m2: it serves the course 'geo', and is in use by it.")
    report = lab.launch()
    assert messages(report) == "m2: it serves the course 'geo', and is in use by it."
    assert lab.apis[1].changes == []


def test_where_all_are_of_others_nothing_is_changed(lab: Class, foreign: FakeApi) -> None:
    lab.machines(foreign)
    lab.driver.adopts_swarm = False
    with pytest.raises(SwarmError, match="m2: it belongs to a swarm of somebody else"):
        lab.launch()
    assert foreign.changes == []


# --- clones, halves, and machines made again --------------------------------------------------


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


def test_a_clone_is_distinguished_from_the_original_in_whatever_order_they_are_named(lab: Class) -> None:
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


def test_a_machine_that_was_installed_again_takes_its_old_place(lab: Class) -> None:
    lab.enrol(6)
    first = lab.rows(lab.launch())
    lab.apis[1].leave_swarm(force=True)
    lab.driver.bare.add("m2")
    report = lab.launch()
    assert report.problems == ()
    assert lab.rows(report) == first
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}
