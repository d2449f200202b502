from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable

import pytest

from cloudscale import waiting
from cloudscale.errors import CloudscaleError, SwarmError
from cloudscale.networks import SWARM_NETWORKS
from cloudscale.swarm import joining
from cloudscale.swarm.joining import SwarmJoin
from cloudscale.swarm.nodes import ADDRESS, MACHINE
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeClock, fake_apis
from tests.unit.swarm.joins import POOL, join, join_all, roles, swarm_join, together

pytestmark = pytest.mark.usefixtures("no_waiting")


# --- creating the swarm ----------------------------------------------------------------------


def test_the_first_machine_creates_the_swarm_and_the_others_join_side_by_side() -> None:
    apis = fake_apis("m1", "m2", "m3", "m4")
    assert together(*apis) == ["created", "joined", "joined", "joined"]
    assert sorted(roles(apis[0])) == [("m1", "manager"), ("m2", "manager"), ("m3", "manager"), ("m4", "worker")]


def test_of_two_machines_only_the_first_manages() -> None:
    apis = fake_apis("m1", "m2")
    together(*apis)
    assert roles(apis[0]) == [("m1", "manager"), ("m2", "worker")]


def test_a_second_run_changes_nothing() -> None:
    apis = fake_apis("m1", "m2", "m3")
    together(*apis)
    for api in apis:
        api.changes.clear()
    assert together(*apis) == ["unchanged"] * 3
    assert together(*apis, manager=apis[1]) == ["unchanged"] * 3
    assert [api.changes for api in apis] == [[], [], []]


def test_swarm_and_nodes_have_the_mark_and_nodes_their_machine() -> None:
    apis = fake_apis("m1", "m2", "m3")
    together(*apis)
    assert apis[0].swarm_labels == {"cloudscale.course": "bio"}
    for api in apis:
        assert api.node_labels == {
            "cloudscale.course": "bio",
            MACHINE: api.name,
            ADDRESS: api.address,
            "cloudscale.bridge": "made",
        }


def test_a_bridge_from_before_is_not_marked() -> None:
    apis = fake_apis("m1", "m2")
    for api in apis:
        api.networks_ = ["docker_gwbridge"]
    together(*apis)
    assert not any("cloudscale.bridge" in api.node_labels for api in apis)


def test_the_swarms_own_ports_are_open_at_one_address_only() -> None:
    apis = fake_apis("m1")
    together(*apis)
    assert f"init swarm on 10.0.0.1:2377 with {POOL}" in apis[0].changes


def test_an_ipv6_address_is_written_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi(in_swarm=False, address="2001:db8::1")
    together(api)
    assert any("on [2001:db8::1]:2377" in change for change in api.changes)


def test_the_first_choice_for_the_swarms_networks_is_no_private_range() -> None:
    assert ipaddress.IPv4Network(SWARM_NETWORKS[0]).subnet_of(ipaddress.IPv4Network("198.18.0.0/15"))


def test_updates_that_collide_are_repeated() -> None:
    apis = fake_apis("m1", "m2")
    way = swarm_join(*apis)
    join(way, apis[0])
    apis[0].swarm.collisions = 3
    assert join(way, apis[1]) == "joined"
    assert apis[1].node_labels[MACHINE] == "m2"


# --- waiting for each other ------------------------------------------------------------------


class Stop:
    """Stops a thread at a call until the test says go; `reached` is set when it is stopped."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def before(self, call: Callable[..., object]) -> Callable[..., object]:
        def waiting(*args: object, **kwargs: object) -> object:
            self.reached.set()
            assert self.go.wait(30)
            return call(*args, **kwargs)

        return waiting


class Joiner(threading.Thread):
    """One machine that joins in a thread of its own."""

    def __init__(self, way: SwarmJoin, api: FakeApi) -> None:
        super().__init__(daemon=True)
        self._way, self._api = way, api
        self.outcome: str | CloudscaleError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = join(self._way, self._api)
        except CloudscaleError as error:
            self.outcome = error

    def end(self) -> str | CloudscaleError | None:
        self.join(30)
        assert not self.is_alive()
        return self.outcome


def test_nobody_else_creates_the_swarm_before_the_first_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = fake_apis("m1", "m2")
    way, stop = swarm_join(first, second), Stop()
    monkeypatch.setattr(first, "init_swarm", stop.before(first.init_swarm))
    one = Joiner(way, first)
    assert stop.reached.wait(30)
    other = Joiner(way, second)
    assert second.changes == []
    stop.go.set()
    assert (one.end(), other.end()) == ("created", "joined")


def test_if_the_first_gives_up_the_next_creates_the_swarm() -> None:
    apis = fake_apis("m1", "m2", "m3")
    way = swarm_join(*apis)
    joiners = [Joiner(way, api) for api in apis[1:]]
    way.give_up("m1")
    assert [joiner.end() for joiner in joiners] == ["created", "joined"]
    way.give_up("m1")  # once or twice


def test_if_the_first_can_not_create_the_swarm_the_next_does(monkeypatch: pytest.MonkeyPatch) -> None:
    apis = fake_apis("m1", "m2", "m3")

    def fails(**settings: object) -> None:
        raise api_error(500, "listen tcp 10.0.0.1:2377: address already in use")

    monkeypatch.setattr(apis[0], "init_swarm", fails)
    failed, second, third = join_all(swarm_join(*apis), apis)
    assert "address already in use" in str(failed.error)
    assert (second.value, third.value) == ("created", "joined")


def test_if_nobody_creates_the_swarm_nobody_waits_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "CREATING", 0)
    first, second = fake_apis("m1", "m2")
    with pytest.raises(SwarmError, match="m2: no other machine created the swarm"):
        join(swarm_join(first, second), second)


def test_the_others_join_through_a_machine_that_is_in_the_swarm_already() -> None:
    apis = fake_apis("m1", "m2", "m3")
    together(*apis[:2])
    way = swarm_join(*apis)
    joiner = Joiner(way, apis[2])
    assert join(way, apis[0]) == "unchanged"
    assert joiner.end() == "joined"


def test_managers_join_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = fake_apis("m1", "m2", "m3")
    way, stop = swarm_join(first, second, third), Stop()
    join(way, first)
    monkeypatch.setattr(second, "join_swarm", stop.before(second.join_swarm))
    one = Joiner(way, second)
    assert stop.reached.wait(30)
    other = Joiner(way, third)
    assert not any(change.startswith("join") for change in third.changes)
    stop.go.set()
    assert (one.end(), other.end()) == ("joined", "joined")


def test_many_machines_join_at_once() -> None:
    apis = fake_apis(*(f"m{number}" for number in range(1, 31)))
    assert together(*apis).count("joined") == 29
    assert sum(role == "manager" for _, role in roles(apis[0])) == 3
    assert {api.node_labels[MACHINE] for api in apis} == {api.name for api in apis}


# --- a manager whose network was cut ---------------------------------------------------------


@pytest.mark.parametrize("others_decide", [True, False])
def test_a_manager_that_lost_the_others_has_time_to_find_them_where_they_have_a_leader(
    monkeypatch: pytest.MonkeyPatch, others_decide: bool
) -> None:
    apis = fake_apis("m1", "m2", "m3")
    together(*apis)
    cut, inspect, clock = apis[2], apis[2].inspect_swarm, FakeClock()
    monkeypatch.setattr(waiting, "SystemClock", lambda: clock)

    def found_after_two_minutes() -> Json:
        if clock.now() < 120:
            raise api_error(503, "The swarm does not have a leader.")
        return inspect()

    monkeypatch.setattr(cut, "inspect_swarm", found_after_two_minutes)
    way = swarm_join(*apis, manager=apis[0] if others_decide else None)
    if others_decide:
        assert join(way, cut) == "unchanged"
        return
    with pytest.raises(SwarmError, match="no leader for 60 s") as error:
        join(way, cut)
    assert "--replace-lost" in error.value.remedy


def test_a_manager_that_never_finds_the_others_is_named_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    apis = fake_apis("m1", "m2", "m3")
    together(*apis)

    def no_leader() -> Json:
        raise api_error(503, "The swarm does not have a leader.")

    monkeypatch.setattr(apis[2], "inspect_swarm", no_leader)
    with pytest.raises(SwarmError, match="m3: its swarm has had no leader for 180 s") as error:
        join(swarm_join(*apis, manager=apis[0]), apis[2])
    assert "restart its engine" in error.value.remedy and "--replace-lost" not in error.value.remedy
