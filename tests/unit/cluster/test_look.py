from __future__ import annotations

import pytest

from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.errors import CloudscaleError, EngineError, MachineError, NotSetUp, SwarmError
from tests.unit.api_schema import api_error
from tests.unit.classroom import Class
from tests.unit.cluster.sessions import session
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeDriver
from tests.unit.seats.services import ANN, BOB, Swarm


def test_a_session_knows_its_course_and_what_is_meant() -> None:
    assert session().course.folder.parts[-2:] == ("bio", "local")
    assert session(only=("a",), skip=("b",)).selection.only == ("a",)
    assert session(only=("a",), skip=("b",)).selection.skip == ("b",)


def test_an_engine_in_no_swarm_is_looked_at_without_changing_it() -> None:
    api = FakeApi(in_swarm=False)
    cluster = look(session(), FakeDriver(api))
    assert not cluster.in_swarm
    assert cluster.seats == ()
    assert cluster.addresses == {"m1": "192.0.2.1"}
    assert [machine.name for machine in cluster.machines] == ["m1"]
    assert api.changes == []


def test_the_seats_of_the_course_are_read_back_with_all_their_names() -> None:
    swarm = Swarm()
    swarm.converge([ANN, BOB])
    cluster = look(session(), FakeDriver(swarm.api))
    ann = cluster.seats[0]
    assert len(cluster.seats) == 2
    assert ann.place.machine == "m1"
    assert cluster.names_of(ann) == (ann.name, "1", "Ann Lee", "m1")
    assert cluster.nodes["m1"].id == "node1"


def test_somebody_elses_worker_is_refused() -> None:
    api = FakeApi()
    api.become_worker()
    with pytest.raises(SwarmError):
        look(session(), FakeDriver(api))


# --- several machines ------------------------------------------------------------------------


def test_machines_that_are_not_set_up_are_no_failure(lab: Class) -> None:
    cluster = look(lab.session(), lab.driver)
    assert set(cluster.lost) == {"m1", "m2", "m3"}
    assert cluster.failures == {}
    assert not cluster.in_swarm
    with pytest.raises(CloudscaleError, match="No machine can be used"):
        _ = cluster.manager


def test_all_of_a_course_is_read_back_and_nothing_changed(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    cluster = look(lab.session(), lab.driver)
    assert list(cluster.engines) == ["m1", "m2", "m3"]
    assert [engine.name for engine in cluster.managers] == ["m1", "m2", "m3"]
    assert [node.machine for node in cluster.swarm.values()] == ["m1", "m2", "m3"]
    assert sorted(seat.place.machine for seat in cluster.seats) == ["m1", "m1", "m2", "m2", "m3", "m3"]
    assert (cluster.lost, cluster.without_quorum) == ({}, {})
    assert lab.changes == []


def test_a_lost_machine_is_known_with_its_cause_and_its_seats_by_its_name(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1")
    cluster = look(lab.session(), lab.driver)
    assert list(cluster.failures) == ["m1"]
    assert cluster.manager.name == "m2"
    assert sorted(seat.place.machine for seat in cluster.seats).count("m1") == 2
    cluster.check_quorum("")


def test_a_machine_that_the_course_used_and_that_is_not_set_up_any_more_is_a_failure(lab: Class) -> None:
    lab.launch()
    lab.driver.bare.add("m2")
    assert list(look(lab.session(), lab.driver).failures) == ["m2"]


def test_a_machine_that_was_not_surveyed_is_lost_and_one_without_an_engine_is_not_asked(lab: Class) -> None:
    machines = lab.driver.machines()
    surveys = {machine.name: lab.driver.survey(machine) for machine in machines[:2]}
    cluster = look(lab.session(), lab.driver, surveys)
    assert isinstance(cluster.lost["m1"], NotSetUp)
    assert isinstance(cluster.lost["m3"], MachineError)


def test_engines_without_their_managers_are_without_quorum(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1", "m2")
    cluster = look(lab.session(), lab.driver)
    assert list(cluster.without_quorum) == ["m3"]
    assert not cluster.in_swarm
    with pytest.raises(CloudscaleError, match="m1: its Docker Engine") as raised:
        cluster.check_quorum("Bring them back.")
    assert raised.value.remedy == "Bring them back."


def test_a_worker_without_its_manager_is_without_quorum_and_not_of_somebody_else(lab: Class) -> None:
    lab.machines(*lab.apis[:2])
    lab.launch(onlycreate=True)
    lab.driver.lose("m1")
    assert list(look(lab.session(), lab.driver).without_quorum) == ["m2"]


def test_a_machine_of_others_is_lost_by_name_and_the_rest_is_there(lab: Class) -> None:
    lab.machines(*lab.apis[:2])
    lab.launch()
    lab.apis[1].leave_swarm(force=True)
    lab.apis[1].init_swarm("10.0.0.2", "10.0.0.2:2377", "10.0.0.2", [], {"Labels": {}})
    cluster = look(lab.session(), lab.driver)
    assert isinstance(cluster.lost["m2"], SwarmError)
    assert list(cluster.engines) == ["m1"]


def test_a_machine_that_was_removed_is_there_without_being_a_node(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m2")
    lab.launch(replace_lost=True)
    lab.driver.find("m2")
    cluster = look(lab.session(), lab.driver)
    assert list(cluster.engines) == ["m1", "m2", "m3"]
    assert len(cluster.swarm) == 2
    assert cluster.nodes["m2"].id not in cluster.swarm


def test_of_two_swarms_of_the_course_the_one_that_was_created_last_counts(lab: Class) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1", "m2")
    lab.launch(replace_lost=True)
    lab.driver.find("m1", "m2")
    cluster = look(lab.session(), lab.driver)
    assert [engine.name for engine in cluster.managers] == ["m3"]
    assert {seat.place.machine for seat in cluster.seats} == {"m3"}


@pytest.mark.parametrize("first", [True, False])
def test_a_clone_has_no_seats_whichever_is_named_first(lab: Class, first: bool) -> None:
    m1, m2, _ = lab.apis
    lab.machines(m1, m2)
    lab.enrol(4)
    lab.launch()
    twin = m2.clone("m5", "10.0.0.5")
    lab.machines(*((twin, m1, m2) if first else (m1, m2, twin)))
    lab.driver.bare.clear()
    cluster = look(lab.session(), lab.driver)
    assert {seat.place.machine for seat in cluster.seats} == {"m1", "m2"}


def names(cluster: Cluster) -> list[str]:
    return [engine.name for engine in cluster.managers]


def test_a_manager_that_has_lost_the_leader_since_it_was_seen_is_not_asked(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.launch(onlycreate=True)

    def no_leader() -> object:
        raise api_error(503, "rpc error: code = Unknown desc = The swarm does not have a leader.")

    monkeypatch.setattr(lab.apis[0], "nodes", no_leader)
    cluster = look(lab.session(), lab.driver)
    assert names(cluster) == ["m2", "m3"]
    for api in lab.apis[1:]:
        monkeypatch.setattr(api, "nodes", no_leader)
    with pytest.raises(EngineError, match="does not have a leader"):
        look(lab.session(), lab.driver)


def test_a_manager_that_the_others_take_for_lost_is_asked_last(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.launch(onlycreate=True)
    assert names(look(lab.session(), lab.driver)) == ["m1", "m2", "m3"]
    lost = lab.apis[0].node_id
    for api in lab.apis[1:]:
        nodes = api.nodes()
        next(node for node in nodes if node["ID"] == lost)["Status"]["State"] = "down"
        monkeypatch.setattr(api, "nodes", lambda nodes=nodes: nodes)
    assert names(look(lab.session(), lab.driver)) == ["m2", "m3", "m1"]
