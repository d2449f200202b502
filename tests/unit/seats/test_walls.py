"""The walls around the seats on the trainer's own engine."""

from __future__ import annotations

import pytest
import requests

from cloudscale.errors import EngineError
from cloudscale.seats import walls
from tests.unit.api_schema import api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

IMAGE = "sha256:11"


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def build(api: FakeApi, *reach: str, course: str = "bio") -> tuple[str, str]:
    return walls.build(fake_engine(api), course, IMAGE, reach)


def test_the_seats_get_a_network_and_its_rules_and_no_container_stays(api: FakeApi) -> None:
    network, fault = build(api)
    assert [each["Id"] for each in api.overlays] == [network]
    assert (fault, list(api.rules), api.containers_) == ("", ["bio"], [])
    api.changes.clear()
    assert build(api) == (network, "")
    assert api.changes == []


def test_the_rules_are_for_the_bridge_of_this_network_alone_and_name_it(api: FakeApi) -> None:
    build(api, "192.0.2.7/32:5432")
    (device,) = {each["Options"]["com.docker.network.bridge.name"] for each in api.configurations}
    assert len(device) <= 15  # of Linux
    assert f"\nBRIDGES='{device}' OF='-{device.removeprefix('cs-')}'\n" in api.rules["bio"]
    assert "REACH='192.0.2.7/32:5432'" in api.rules["bio"]
    assert len(f"CLOUDSCALE-SEATS-{device.removeprefix('cs-')}") <= 28  # of iptables


def test_a_change_of_what_seats_may_reach_changes_the_rules_and_no_network(api: FakeApi) -> None:
    first = build(api)
    api.changes.clear()
    assert build(api, "192.0.2.7/32:5432") == first
    assert "192.0.2.7" in api.rules["bio"] and api.changes == []


def test_two_courses_have_walls_of_their_own(api: FakeApi) -> None:
    assert build(api) != build(api, course="math")
    walls.remove(fake_engine(api), "bio", IMAGE)
    assert list(api.rules) == ["math"] and len(api.overlays) == 1
    assert [walls.are_there(fake_engine(api), course) for course in ("bio", "math")] == [False, True]


def test_the_container_has_the_rights_to_set_rules_and_no_more(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "remove_container", lambda container, force, v: None)
    build(api)
    config = api.containers_[0]["Config"]
    assert (config["cap_drop"], config["cap_add"]) == (["ALL"], ["NET_ADMIN", "NET_RAW", "SYS_CHROOT"])
    assert config["Binds"] == ["/:/host:ro", "/run:/host/run"]
    assert config["read_only"] and "no-new-privileges" in config["security_opt"]


def test_why_there_are_no_rules_is_said_and_the_network_is_there_all_the_same(api: FakeApi) -> None:
    api.rules_fault = "iptables: Permission denied\n(you must be root)\n"
    network, fault = build(api)
    assert fault == "iptables: Permission denied / (you must be root)"
    assert api.overlays[0]["Id"] == network


@pytest.mark.parametrize(
    ("error", "expected"),
    [(api_error(400, 'exec: "chroot": not found'), "chroot"), (requests.ReadTimeout("read timed out"), "timed out")],
)
def test_a_container_that_can_not_be_used_leaves_none(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    def fails(container: str) -> None:
        raise error

    monkeypatch.setattr(api, "start", fails)
    assert expected in build(api)[1]
    assert api.containers_ == []


def test_what_a_killed_run_has_left_is_removed(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(api, "remove_container", lambda container, force, v: None)
        build(api)
    assert len(api.containers_) == 1
    build(api)
    assert api.containers_ == []


def test_nothing_of_them_is_left_and_removing_them_again_does_nothing(api: FakeApi) -> None:
    build(api)
    for _ in range(2):
        walls.remove(fake_engine(api), "bio", IMAGE)
        assert not (api.rules or api.containers_ or api.overlays or api.configurations)


def test_rules_that_can_not_be_removed_are_named_and_how_to_see_them(api: FakeApi) -> None:
    build(api)
    api.rules_fault = "no iptables"
    with pytest.raises(EngineError, match="could not be removed \\(no iptables\\)") as error:
        walls.remove(fake_engine(api), "bio", IMAGE)
    assert "sudo iptables -S | grep" in error.value.remedy
    assert not api.overlays
