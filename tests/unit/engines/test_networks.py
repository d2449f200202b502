"""Networks of a course's own on an engine."""

from __future__ import annotations

import pytest

from cloudscale.engines.networks import MTU, ensure_network, remove_network
from cloudscale.errors import EngineError
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

MARKS = {"cloudscale.course": "bio"}


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def ensure(api: FakeApi, name: str = "bio-seats") -> str:
    return ensure_network(fake_engine(api), name, MARKS, "cs-1")


def test_containers_in_it_do_not_reach_each_other(api: FakeApi) -> None:
    ensure(api)
    (configuration,), (network,) = api.configurations, api.overlays
    assert configuration["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert configuration["Options"]["com.docker.network.bridge.name"] == "cs-1"
    assert configuration["Labels"] == MARKS
    assert network["ConfigFrom"] == {"Network": configuration["Name"]}


@pytest.mark.parametrize(("mtu", "expected"), [("1400", "1400"), ("", None)])
def test_its_packets_are_as_large_as_on_the_engines_own_bridge(api: FakeApi, mtu: str, expected: str | None) -> None:
    api.mtu = mtu
    ensure(api)
    assert api.configurations[0]["Options"].get(MTU) == expected


def test_it_is_made_once(api: FakeApi) -> None:
    first = ensure(api)
    other = ensure(api, "bio-seats-too")
    api.changes.clear()
    assert (ensure(api), ensure(api, "bio-seats-too")) == (first, other)
    assert api.changes == []


def test_a_new_swarm_gets_it_again(api: FakeApi) -> None:
    ensure(api)
    api.overlays.clear()
    assert ensure(api) == api.overlays[0]["Id"]
    assert len(api.configurations) == 1


def test_nothing_of_it_is_left_and_removing_it_again_does_nothing(api: FakeApi) -> None:
    ensure(api)
    for _ in range(2):
        remove_network(fake_engine(api), "bio-seats", MARKS)
        assert api.overlays == api.configurations == []


def test_what_a_run_that_was_cut_off_has_left_is_removed(api: FakeApi) -> None:
    ensure(api)
    api.overlays.clear()
    remove_network(fake_engine(api), "bio-seats", MARKS)
    assert api.configurations == []


def test_somebody_elses_network_of_that_name_is_left_alone(api: FakeApi) -> None:
    ensure(api)
    api.configurations[0]["Labels"] = {}
    remove_network(fake_engine(api), "bio-seats", MARKS)
    assert len(api.configurations) == len(api.overlays) == 1
    with pytest.raises(EngineError, match="does not carry this course's mark"):
        ensure(api)
