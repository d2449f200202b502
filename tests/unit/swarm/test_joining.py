from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable

import pytest

from cloudscale.errors import CloudscaleError, SwarmError
from cloudscale.networks import SWARM_NETWORKS
from cloudscale.swarm import joining
from cloudscale.swarm.joining import SwarmJoin
from cloudscale.swarm.nodes import ADDRESS, MACHINE
from tests.unit.api_schema import api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_apis
from tests.unit.swarm.gatherings import POOL, enter_all, gather, member, roles, together

pytestmark = pytest.mark.usefixtures("no_waiting")


# --- founding --------------------------------------------------------------------------------


def test_the_first_machine_founds_and_the_others_join_side_by_side() -> None:
    apis = fake_apis("m1", "m2", "m3", "m4")
    assert together(*apis) == ["founded", "joined", "joined", "joined"]
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
    assert together(*apis) == ["there"] * 3
    assert together(*apis, manager=apis[1]) == ["there"] * 3
    assert [api.changes for api in apis] == [[], [], []]


def test_swarm_and_nodes_carry_the_mark_and_whose_they_are() -> None:
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


def test_a_bridge_that_was_there_before_is_not_taken_for_ours() -> None:
    apis = fake_apis("m1", "m2")
    for api in apis:
        api.networks_ = ["docker_gwbridge"]
    together(*apis)
    assert not any("cloudscale.bridge" in api.node_labels for api in apis)


def test_the_swarms_own_ports_are_open_at_one_address_only() -> None:
    apis = fake_apis("m1")
    together(*apis)
    assert f"init swarm on 10.0.0.1:2377 with {POOL}" in apis[0].changes


def test_an_address_of_the_new_kind_is_written_so_that_the_engine_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi(in_swarm=False, address="2001:db8::1")
    together(api)
    assert any("on [2001:db8::1]:2377" in change for change in api.changes)


def test_the_swarms_networks_keep_off_private_ranges_first() -> None:
    assert ipaddress.IPv4Network(SWARM_NETWORKS[0]).subnet_of(ipaddress.IPv4Network("198.18.0.0/15"))


def test_updates_that_collide_are_made_again() -> None:
    apis = fake_apis("m1", "m2")
    way = gather(*apis)
    way.enter(member(apis[0]))
    apis[0].swarm.collisions = 3
    assert way.enter(member(apis[1])) == "joined"
    assert apis[1].node_labels[MACHINE] == "m2"


# --- waiting for each other ------------------------------------------------------------------


class Rest:
    """Lets a thread wait at a call until the test says go, and tells when it has got there."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def before(self, call: Callable[..., object]) -> Callable[..., object]:
        def waiting(*args: object, **kwargs: object) -> object:
            self.reached.set()
            assert self.go.wait(30)
            return call(*args, **kwargs)

        return waiting


class Entry(threading.Thread):
    """One machine that enters in a thread of its own."""

    def __init__(self, way: SwarmJoin, api: FakeApi) -> None:
        super().__init__(daemon=True)
        self._way, self._api = way, api
        self.outcome: str | CloudscaleError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._way.enter(member(self._api))
        except CloudscaleError as error:
            self.outcome = error

    def end(self) -> str | CloudscaleError | None:
        self.join(30)
        assert not self.is_alive()
        return self.outcome


def test_nobody_founds_before_the_first_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = fake_apis("m1", "m2")
    way, rest = gather(first, second), Rest()
    monkeypatch.setattr(first, "init_swarm", rest.before(first.init_swarm))
    one = Entry(way, first)
    assert rest.reached.wait(30)
    other = Entry(way, second)
    assert second.changes == []
    rest.go.set()
    assert (one.end(), other.end()) == ("founded", "joined")


def test_where_the_first_gives_up_the_next_founds() -> None:
    apis = fake_apis("m1", "m2", "m3")
    way = gather(*apis)
    waiting = [Entry(way, api) for api in apis[1:]]
    way.give_up("m1")
    assert [entry.end() for entry in waiting] == ["founded", "joined"]
    way.give_up("m1")  # once or twice


def test_where_the_first_can_not_found_the_next_does(monkeypatch: pytest.MonkeyPatch) -> None:
    apis = fake_apis("m1", "m2", "m3")

    def fails(**settings: object) -> None:
        raise api_error(500, "listen tcp 10.0.0.1:2377: address already in use")

    monkeypatch.setattr(apis[0], "init_swarm", fails)
    failed, second, third = enter_all(gather(*apis), apis)
    assert "address already in use" in str(failed.error)
    assert (second.value, third.value) == ("founded", "joined")


def test_where_nobody_founds_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "FOUNDING", 0)
    first, second = fake_apis("m1", "m2")
    with pytest.raises(SwarmError, match="m2: no other machine has founded the swarm"):
        gather(first, second).enter(member(second))


def test_an_early_machine_that_is_in_the_swarm_already_lets_the_others_in() -> None:
    apis = fake_apis("m1", "m2", "m3")
    together(*apis[:2])
    way = gather(*apis)
    waiting = Entry(way, apis[2])
    assert way.enter(member(apis[0])) == "there"
    assert waiting.end() == "joined"


def test_managers_join_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = fake_apis("m1", "m2", "m3")
    way, rest = gather(first, second, third), Rest()
    way.enter(member(first))
    monkeypatch.setattr(second, "join_swarm", rest.before(second.join_swarm))
    one = Entry(way, second)
    assert rest.reached.wait(30)
    other = Entry(way, third)
    assert not any(change.startswith("join") for change in third.changes)
    rest.go.set()
    assert (one.end(), other.end()) == ("joined", "joined")


def test_many_machines_join_at_once() -> None:
    apis = fake_apis(*(f"m{number}" for number in range(1, 31)))
    assert together(*apis).count("joined") == 29
    assert sum(role == "manager" for _, role in roles(apis[0])) == 3
    assert {api.node_labels[MACHINE] for api in apis} == {api.name for api in apis}
