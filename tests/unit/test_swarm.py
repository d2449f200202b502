from __future__ import annotations

import ipaddress

import pytest

from cloudscale.errors import SwarmError
from cloudscale.swarm import ADDRESS_POOL, ensure_swarm, is_manager, leave_swarm
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(in_swarm=False)


def add_service(api: FakeApi, course: str) -> None:
    labels = {"cloudscale.course": course} if course else {}
    api.services_[course] = {"ID": course, "Spec": {"Labels": labels}}


# --- making ----------------------------------------------------------------------------------


def test_a_swarm_is_made_once(api: FakeApi) -> None:
    assert ensure_swarm(fake_engine(api), "bio") is True
    before = list(api.changes)
    assert ensure_swarm(fake_engine(api), "bio") is False
    assert api.changes == before


def test_swarm_and_node_carry_the_mark(api: FakeApi) -> None:
    ensure_swarm(fake_engine(api), "bio")
    assert api.swarm_labels["cloudscale.course"] == "bio"
    assert api.node_labels == {"cloudscale.course": "bio"}


def test_a_swarm_that_is_there_already_is_used_as_it_is() -> None:
    api = FakeApi()
    api.node_labels = {"disk": "ssd"}
    assert ensure_swarm(fake_engine(api), "bio") is False
    assert api.changes == []


def test_the_swarms_own_ports_are_open_to_nobody_else(api: FakeApi) -> None:
    ensure_swarm(fake_engine(api), "bio")
    assert any("127.0.0.1:2377" in change for change in api.changes)


def test_the_swarms_networks_keep_off_private_ranges() -> None:
    assert all(ipaddress.ip_network(pool).overlaps(ipaddress.ip_network("198.18.0.0/15")) for pool in ADDRESS_POOL)


# --- finding ---------------------------------------------------------------------------------


def test_an_engine_in_no_swarm_manages_none_and_a_manager_does(api: FakeApi) -> None:
    assert not is_manager(fake_engine(api))
    assert is_manager(fake_engine(FakeApi()))


def test_a_worker_of_somebody_elses_swarm_is_not_taken_over() -> None:
    api = FakeApi()
    api.manages = False
    with pytest.raises(SwarmError, match="worker in somebody else's swarm"):
        ensure_swarm(fake_engine(api), "bio")
    assert api.changes == []


@pytest.mark.parametrize(
    ("state", "message"), [("locked", "docker swarm unlock"), ("error", "certificate expired"), ("pending", "pending")]
)
def test_a_swarm_that_can_not_be_used_is_told(api: FakeApi, state: str, message: str) -> None:
    api.swarm_state = state
    with pytest.raises(SwarmError, match=message):
        is_manager(fake_engine(api))


def test_an_engine_of_another_make_has_no_swarm(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "info", dict)
    with pytest.raises(SwarmError):
        is_manager(fake_engine(api))


# --- leaving ---------------------------------------------------------------------------------


def test_a_swarm_of_the_course_is_dissolved_with_the_bridge_that_came_with_it(api: FakeApi) -> None:
    ensure_swarm(fake_engine(api), "bio")
    assert "dissolved" in leave_swarm(fake_engine(api), "bio")
    assert not api.manages
    assert api.networks_ == []
    assert leave_swarm(fake_engine(api), "bio") == ""


def test_a_bridge_from_before_stays(api: FakeApi) -> None:
    api.networks_ = ["docker_gwbridge"]
    ensure_swarm(fake_engine(api), "bio")
    leave_swarm(fake_engine(api), "bio")
    assert "docker_gwbridge" in api.networks_


@pytest.mark.parametrize("kind", ["network", "secret", "config"])
def test_a_swarm_that_holds_something_of_others_stays(api: FakeApi, kind: str) -> None:
    ensure_swarm(fake_engine(api), "bio")
    if kind == "network":
        api.overlays = [{"Name": "theirs", "Labels": None}]
    elif kind == "secret":
        api.create_secret("theirs", b"", {})
    else:
        api.configs_ = [{"Spec": {"Name": "theirs"}}]
    assert "stays" in leave_swarm(fake_engine(api), "bio")
    assert api.manages


def test_what_the_course_itself_left_does_not_keep_the_swarm(api: FakeApi) -> None:
    ensure_swarm(fake_engine(api), "bio")
    add_service(api, "bio")
    api.create_secret("ours", b"", {"cloudscale.course": "bio"})
    assert "dissolved" in leave_swarm(fake_engine(api), "bio")


def test_a_swarm_with_other_machines_stays(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_swarm(fake_engine(api), "bio")
    monkeypatch.setattr(api, "nodes", lambda: [{"ID": "node1"}, {"ID": "node2"}])
    assert "stays" in leave_swarm(fake_engine(api), "bio")
    assert api.manages


@pytest.mark.parametrize("course", ["geo", ""])
def test_a_swarm_of_others_is_left_alone(course: str) -> None:
    api = FakeApi()
    api.swarm_labels = {"cloudscale.course": course} if course else {}
    assert leave_swarm(fake_engine(api), "bio") == ""
    assert api.changes == []


def test_a_swarm_that_another_course_uses_is_handed_over_to_it(api: FakeApi) -> None:
    ensure_swarm(fake_engine(api), "bio")
    add_service(api, "geo")
    assert "stays" in leave_swarm(fake_engine(api), "bio")
    assert api.manages
    assert api.swarm_labels["cloudscale.course"] == "geo"
    assert api.node_labels == {"cloudscale.course": "geo"}


def test_a_swarm_that_others_use_loses_the_mark_and_nothing_else(api: FakeApi) -> None:
    ensure_swarm(fake_engine(api), "bio")
    api.swarm_labels["owner"] = "ann"
    api.node_labels["disk"] = "ssd"
    add_service(api, "")
    assert "stays" in leave_swarm(fake_engine(api), "bio")
    assert api.manages
    assert "cloudscale.course" not in api.swarm_labels
    assert api.swarm_labels["owner"] == "ann"
    assert api.node_labels == {"disk": "ssd"}
