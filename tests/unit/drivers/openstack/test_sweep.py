"""Everything with the mark is deleted, in an order that works, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.drivers.openstack import sweep as module
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.stored import WORK
from cloudscale.drivers.openstack.sweep import DELETING, IN_USE, find, sweep, sweep_work
from cloudscale.errors import CloudError
from cloudscale.model import Outcomes
from tests.lab.stand_in import Fault
from tests.lab.stand_in.wire import new_id
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    OwnCloud,
    Time,
)

pytestmark = MARKS
NOTHING = dict.fromkeys(("servers", "server groups", "ports", "floating IPs", "security groups", "volumes"), 0)
BUSY = {"badRequest": {"code": 400, "message": "Invalid volume: Volume status must be available or error"}}


@pytest.fixture(autouse=True)
def course(stand_in: OwnCloud) -> None:
    """Two machines, with all their resources; the first one has a volume."""
    security_group = stand_in.network.groups.add(MARK, MARK)["id"]
    for number in (1, 2):
        group = new_id()
        made = {"id": group, "name": MARK, "policy": "soft-anti-affinity", "rules": {}}
        stand_in.compute.groups.items[group] = made
        server = stand_in.add_machine(f"bio-{number}", group=group)
        (port,) = server.ports
        stand_in.network.ports.items[port]["security_groups"] = [security_group]
        if number == 1:
            volume = stand_in.volumes.make(size=5, name=f"bio-{number}", text=MARK)
            server.volumes[volume["id"]] = True
            stand_in.volumes.attach(volume, server.id)


def failed(outcomes: Outcomes[str]) -> dict[str, str]:
    return {outcome.target: str(outcome.error) for outcome in outcomes if not outcome.ok}


def deleted(stand_in: OwnCloud) -> list[str]:
    """The kinds of resources, in the order in which their deletion was accepted."""
    order: list[str] = []
    for made in stand_in.requests:
        kind = made.path.split("/")[-2]
        if made.method == "DELETE" and made.status in (202, 204) and kind not in order:
            order.append(kind)
    return order


# --- the whole course ---


def test_all_that_has_the_mark_goes(stand_in: OwnCloud, cloud: Cloud) -> None:
    outcomes = sweep(cloud, MARK)
    assert not failed(outcomes)
    assert stand_in.totals() == NOTHING
    kinds = [outcome.target.rpartition(" ")[0] for outcome in outcomes]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "server": 2,
        "floating IP": 2,
        "port": 2,
        "volume": 1,
        "server group": 2,
        "security group": 1,
    }
    assert {outcome.value for outcome in outcomes} == {"deleted"}
    # each with the name that people know
    targets = {outcome.target for outcome in outcomes}
    assert {"server bio-1", "port bio-2", "volume bio-1", f"security group {MARK}"} < targets
    assert any(target.startswith("floating IP 192.0.2.") for target in targets)


def test_it_goes_in_an_order_in_which_nothing_holds_another(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.looks_to_delete = 3
    assert not failed(sweep(cloud, MARK))
    order = deleted(stand_in)
    assert order.index("servers") < order.index("ports") < order.index("security-groups")
    assert order.index("servers") < order.index("os-server-groups")
    assert not [made for made in stand_in.requests if made.status in (400, 409)]


def test_what_belongs_to_others_stays(stand_in: OwnCloud, cloud: Cloud) -> None:
    for marked in ("", "cloudscale:bio-2", "cloudscale:bi"):
        port = stand_in.add_port("bio-1", marked=marked, tags=(marked,))
        stand_in.add_ip(port, marked=marked)
        stand_in.compute.add_server("bio-1", tags=[marked])
        stand_in.volumes.make(size=1, name="bio-1", text=marked)
        stand_in.network.groups.add(MARK, marked)
        cloud.api.compute.create_server_group(name=marked or "theirs", policy="affinity")
    assert not failed(sweep(cloud, MARK))
    assert stand_in.totals() == dict.fromkeys(NOTHING, 3)


def test_all_resources_can_be_described_before_they_are_deleted(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.add_ip()
    description = "2 servers, 3 floating IPs, 2 ports, 1 volumes, 2 server groups, 1 security groups"
    assert find(cloud, MARK).describe() == description
    assert {made.method for made in stand_in.requests} == {"GET"}


def test_without_resources_nothing_is_done(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.renew()
    assert find(cloud, MARK).describe() == ""
    assert sweep(cloud, MARK) == ()
    assert {made.method for made in stand_in.requests} == {"GET"}


# --- the students' work ---


def add_work(stand_in: OwnCloud, name: str = "bio-2", mark: str = MARK) -> str:
    volume = stand_in.volumes.make(size=5, name=f"{name}-work", text=mark, metadata={WORK: name})
    server = stand_in.compute.server(name)
    server.volumes[volume["id"]] = False
    stand_in.volumes.attach(volume, server.id)
    return str(volume["id"])


@pytest.mark.parametrize("only", [None, ["bio-2"]])
def test_work_volumes_stay_whatever_goes(stand_in: OwnCloud, cloud: Cloud, only: list[str] | None) -> None:
    kept = add_work(stand_in)
    assert "2 volumes" not in find(cloud, MARK, only).describe()
    assert not failed(sweep(cloud, MARK, only))
    assert stand_in.volumes.volumes[kept]["status"] == "available"


def test_work_volumes_go_when_they_are_to_go(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_detach = stand_in.volumes.looks_to_delete = 2
    add_work(stand_in)
    other = stand_in.volumes.make(size=5, name="bio-2-work", text="cloudscale:geo", metadata={WORK: "bio-2"})
    sweep(cloud, MARK)
    assert [(outcome.target, outcome.value) for outcome in sweep_work(cloud, MARK)] == [
        ("volume bio-2-work", "deleted")
    ]
    assert [*stand_in.volumes.volumes.values()] == [other]


def test_a_work_volume_that_a_server_of_others_has_is_named(stand_in: OwnCloud, cloud: Cloud) -> None:
    add_work(stand_in)
    outcomes = failed(sweep_work(cloud, MARK))
    assert [*outcomes] == ["volume bio-2-work"]
    assert "Volume status must be available" in outcomes["volume bio-2-work"]


# --- some machines ---


def test_what_belongs_to_one_machine_goes_alone(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.add_ip()  # not bound to a port
    outcomes = sweep(cloud, MARK, only=["bio-1"])
    assert not failed(outcomes)
    assert stand_in.totals() == {
        "servers": 1,
        "ports": 1,
        "volumes": 0,
        "floating IPs": 2,
        "server groups": 2,
        "security groups": 1,
    }
    assert [server.name for server in stand_in.compute.servers.values()] == ["bio-2"]
    (port,) = (port for port in stand_in.network.ports.items.values() if port["description"] == MARK)
    assert port["name"] == "bio-2"


def test_a_name_is_taken_as_a_whole(stand_in: OwnCloud, cloud: Cloud) -> None:
    assert sweep(cloud, MARK, only=["bio", "bio-", "bio-11", "io-1"]) == ()
    assert sweep(cloud, MARK, only=[]) == ()
    assert stand_in.totals()["servers"] == 2


# --- slow deletions ---


def test_servers_are_awaited_until_they_are_gone(stand_in: OwnCloud, cloud: Cloud, clock: Time) -> None:
    stand_in.compute.looks_to_delete = 6
    assert not failed(sweep(cloud, MARK))
    assert stand_in.totals() == NOTHING
    assert len(clock.pauses) >= 3


def test_volumes_are_awaited_too(stand_in: OwnCloud, cloud: Cloud) -> None:
    for server in stand_in.compute.servers.values():
        server.volumes = dict.fromkeys(server.volumes, False)  # they are not deleted with their servers
    stand_in.volumes.looks_to_delete = 4
    assert not failed(sweep(cloud, MARK))
    assert stand_in.totals() == NOTHING


def test_a_volume_that_does_not_go_is_named_with_its_state(
    stand_in: OwnCloud, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DELETING", 6.0)
    stand_in.volumes.make(size=5, name="bio-3", text=MARK)
    stand_in.volumes.looks_to_delete = 10**6
    failures = failed(sweep(cloud, MARK))
    assert "It was not deleted: it is deleting." in failures["volume bio-3"]


def test_a_volume_that_its_server_has_not_let_go_yet_is_waited_for(stand_in: OwnCloud, cloud: Cloud) -> None:
    for server in stand_in.compute.servers.values():
        server.volumes = dict.fromkeys(server.volumes, False)
    stand_in.faults.append(Fault("DELETE", "/volumes/", status=400, body=BUSY, times=3))
    assert not failed(sweep(cloud, MARK))
    assert stand_in.totals() == NOTHING


def test_one_that_an_image_is_being_copied_to_is_waited_for(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_create = 5
    stand_in.volumes.make(size=5, name="bio-3", text=MARK)
    assert not failed(sweep(cloud, MARK))
    assert stand_in.totals() == NOTHING


def test_what_is_still_in_use_is_tried_again(stand_in: OwnCloud, cloud: Cloud, clock: Time) -> None:
    body = {"NeutronError": {"type": "InUse", "message": "It is in use.", "detail": ""}}
    paths = ("/ports/", "/security-groups/", "/os-server-groups/", "/servers/")
    stand_in.faults += [Fault("DELETE", path, status=409, body=body, times=3) for path in paths]
    assert not failed(sweep(cloud, MARK))
    assert stand_in.totals() == NOTHING
    assert clock.now() < IN_USE


def test_what_is_gone_already_is_gone(stand_in: OwnCloud, cloud: Cloud) -> None:
    paths = ("/servers/", "/ports/", "/floatingips/", "/volumes/", "/os-server-groups/", "/security-groups/")
    stand_in.faults += [Fault("DELETE", path, drop="after", times=2) for path in paths]
    assert not failed(sweep(cloud, MARK))
    assert stand_in.totals() == NOTHING


# --- late arrivals ---


def test_a_server_that_appears_late_is_deleted_too(stand_in: OwnCloud, cloud: Cloud) -> None:
    late = ["bio-3"]

    def arrive(request: Any) -> None:
        if request.method == "DELETE" and late:
            stand_in.compute.add_server(late.pop(), tags=[MARK])

    stand_in.seen = arrive
    outcomes = sweep(cloud, MARK)
    assert not failed(outcomes)
    assert "server bio-3" in [outcome.target for outcome in outcomes]
    assert stand_in.totals() == NOTHING


def test_so_is_what_appears_after_the_groups_are_gone(stand_in: OwnCloud, cloud: Cloud) -> None:
    late = ["bio-3"]

    def arrive(request: Any) -> None:
        if request.method == "DELETE" and "/security-groups/" in request.path and late:
            stand_in.add_port(late.pop())

    stand_in.seen = arrive
    assert not failed(sweep(cloud, MARK))
    assert stand_in.totals() == NOTHING


# --- failures ---


def test_a_server_that_refuses_is_named_and_the_others_go(
    stand_in: OwnCloud, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_USE", 10.0)
    refusing = stand_in.compute.server("bio-1").id
    body = {"conflictingRequest": {"code": 409, "message": "Instance is locked"}}
    stand_in.faults.append(Fault("DELETE", f"/servers/{refusing}$", status=409, body=body, times=None))
    outcomes = sweep(cloud, MARK)
    assert "Deleting the server bio-1 failed: Instance is locked (HTTP 409)." in failed(outcomes)["server bio-1"]
    assert [server.name for server in stand_in.compute.servers.values()] == ["bio-1"]
    assert {outcome.target for outcome in outcomes if outcome.ok} >= {"server bio-2", "port bio-2"}


def test_a_server_that_does_not_go_is_named_with_its_state(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DELETING >= 60
    monkeypatch.setattr(module, "DELETING", 6.0)
    stand_in.compute.looks_to_delete = 1
    stand_in.compute.server("bio-1").last_looks = 10**6
    outcomes = sweep(cloud, MARK)
    assert "It was not deleted: it is ACTIVE, deleting." in failed(outcomes)["server bio-1"]
    assert [server.name for server in stand_in.compute.servers.values()] == ["bio-1"]
    assert clock.now() >= 6


def test_one_that_nova_gives_up_on_is_not_waited_for(stand_in: OwnCloud, cloud: Cloud, clock: Time) -> None:
    stuck = stand_in.compute.server("bio-1")
    deletes = stand_in.compute.remove

    def remove(server: Any) -> None:
        if server is not stuck:
            deletes(server)
            return
        server.become("ERROR: Timed out waiting for a reply")
        server.last_looks = None

    stand_in.compute.remove = remove  # type: ignore[method-assign]
    failures = failed(sweep(cloud, MARK))["server bio-1"]
    assert "It was not deleted: it is ERROR, Timed out waiting for a reply." in failures
    assert clock.now() < DELETING / 2


def test_what_stays_in_use_is_named(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IN_USE >= 30
    monkeypatch.setattr(module, "IN_USE", 10.0)
    (group,) = (group["id"] for group in stand_in.network.groups.items.values() if group["name"] == MARK)
    stand_in.add_port("theirs", marked="", security_groups=[group])
    failures = failed(sweep(cloud, MARK))
    assert [*failures] == [f"security group {MARK}"]
    assert f"Security Group {group} in use (HTTP 409)" in failures[f"security group {MARK}"]
    assert 10 <= clock.now() < 15


def test_what_exists_after_its_deletion_is_reported(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.network.ports.remove = lambda item: None  # type: ignore[method-assign]
    failures = failed(sweep(cloud, MARK))
    assert "The cloud reported it as deleted, but it still exists." in failures["port bio-1"]
    assert not [target for target in failures if target.startswith(("server ", "volume "))]


def test_a_list_that_can_not_be_read_deletes_nothing(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault("GET", "/ports", status=403, times=None))
    with pytest.raises(CloudError, match="Reading the ports"):
        sweep(cloud, MARK)
    assert stand_in.count("DELETE") == 0
