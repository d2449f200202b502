"""Machines that do not come up, and requests without an answer."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.drivers.openstack import making
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.making import BOOTING, DELETING, Faulty
from cloudscale.errors import CloudError, MachineError
from cloudscale.fanout import fan_out
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    OwnCloud,
    Time,
)
from tests.unit.drivers.openstack.making import machine, new_maker, parts

pytestmark = [*MARKS, pytest.mark.usefixtures("few_rules")]
SERVERS = "/v2.1/servers$"
MADE = ("/v2.1/servers$", "/ports$", "/floatingips$", "/security-groups$", "/os-server-groups$", "/volumes$")
ONE_OF_EACH = {
    "servers": 1,
    "ports": 1,
    "floating IPs": 1,
    "server groups": 1,
    "security groups": 1,
    "volumes": 1,
}


# --- servers that never work ---


def test_a_server_in_error_is_reported_with_its_fault(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.outcomes["bio-1"] = ["ERROR: Exceeded maximum number of retries."]
    maker = new_maker(stand_in, cloud)
    *_, server = parts(maker)
    with pytest.raises(Faulty) as raised:
        maker.await_active("bio-1", server)
    assert raised.value.message == "bio-1: its server is in ERROR (Exceeded maximum number of retries)."
    assert raised.value.server_id == server.id
    assert raised.value.exit_code == 1


def test_a_fault_without_a_message_is_reported(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.outcomes["bio-1"] = ["ERROR"]
    with pytest.raises(Faulty, match=r"in ERROR \(the cloud reports no cause\)"):
        machine(new_maker(stand_in, cloud))


def test_a_server_that_somebody_deletes_while_it_boots_is_reported(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.looks_to_build = 10
    maker = new_maker(stand_in, cloud)
    *_, server = parts(maker)
    stand_in.compute.remove(stand_in.compute.server("bio-1"))
    with pytest.raises(Faulty, match="bio-1: its server was deleted while it booted") as raised:
        maker.await_active("bio-1", server)
    assert raised.value.server_id == server.id


def test_a_server_that_does_not_become_active_in_time_is_reported(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BOOTING >= 600
    monkeypatch.setattr(making, "BOOTING", 10.0)
    stand_in.compute.outcomes["bio-1"] = ["BUILD"]
    with pytest.raises(Faulty, match=r"bio-1: its server was not ACTIVE after 10 s\."):
        machine(new_maker(stand_in, cloud))
    assert 10 <= clock.now() < 13


def test_a_server_that_is_shut_off_is_started_once(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.outcomes["bio-1"] = ["SHUTOFF"]
    machine(new_maker(stand_in, cloud))
    assert stand_in.compute.server("bio-1").status == "ACTIVE"
    assert [list(body) for body in (asked.body for asked in stand_in.asked if asked.path.endswith("/action"))] == [
        ["os-start"]
    ]


def test_one_that_stays_off_is_not_started_again_and_again(
    stand_in: OwnCloud, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "BOOTING", 6.0)
    stand_in.compute.outcomes["bio-1"] = ["SHUTOFF"]

    def off(request: Any) -> None:
        for server in stand_in.compute.servers.values():
            server.status = "SHUTOFF"

    stand_in.seen = off
    with pytest.raises(Faulty, match="was not ACTIVE"):
        machine(new_maker(stand_in, cloud))
    assert stand_in.count("POST", "/action$") == 1


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"drop": "before"}, {"status": 500}])
def test_a_start_that_was_not_answered_is_no_failure(stand_in: OwnCloud, cloud: Cloud, fault: dict[str, Any]) -> None:
    stand_in.compute.outcomes["bio-1"] = ["SHUTOFF"]
    stand_in.faults.append(Fault("POST", "/action$", **fault))
    machine(new_maker(stand_in, cloud))
    assert stand_in.compute.server("bio-1").status == "ACTIVE"


# --- the server that replaces it ---


def test_a_server_is_gone_before_its_successor_comes(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.looks_to_delete = 3
    maker = new_maker(stand_in, cloud)
    server = machine(maker)
    maker.discard(server.id)
    assert not stand_in.compute.servers


def test_a_server_that_is_not_deleted_in_time_is_reported(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DELETING >= 60
    monkeypatch.setattr(making, "DELETING", 6.0)
    stand_in.compute.looks_to_delete = 10**6
    maker = new_maker(stand_in, cloud)
    server = machine(maker)
    with pytest.raises(CloudError, match=rf"The server {server.id} still exists 6 s after it was deleted"):
        maker.discard(server.id)
    assert clock.now() >= 6


def test_one_that_is_gone_already_needs_no_deletion(stand_in: OwnCloud, cloud: Cloud) -> None:
    maker = new_maker(stand_in, cloud)
    server = machine(maker)
    stand_in.compute.remove(stand_in.compute.server("bio-1"))
    maker.discard(server.id)


@pytest.mark.parametrize("times", [1, 2])
def test_the_successor_has_the_port_and_the_address(stand_in: OwnCloud, cloud: Cloud, times: int) -> None:
    maker = new_maker(stand_in, cloud, boot_volume="5G")
    port, ip, server = parts(maker)
    for _ in range(times):
        maker.discard(server.id)
        again, same_ip, successor = parts(maker)
        maker.await_active("bio-1", successor)
        assert (again.id, same_ip and same_ip.id) == (port.id, ip and ip.id)
        assert successor.id != server.id
        server = successor
    assert stand_in.totals() == ONE_OF_EACH


def test_a_spare_floating_ip_stays_with_the_port_too(stand_in: OwnCloud, cloud: Cloud) -> None:
    spare = stand_in.add_ip()
    maker = new_maker(stand_in, cloud)
    *_, server = parts(maker)
    maker.discard(server.id)
    _, ip, _ = parts(maker)
    assert ip and ip.id == spare["id"]
    assert stand_in.totals()["floating IPs"] == 1


def test_the_successor_takes_the_place_in_the_server_group(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.set_quota("server_group_members", 2)
    stand_in.set_quota("server_groups", 1)  # enough, according to the plan
    maker = new_maker(stand_in, cloud, 2)
    servers = [machine(maker, f"bio-{number}") for number in (1, 2)]
    maker.discard(servers[0].id)
    machine(maker, "bio-1")
    (group,) = stand_in.compute.groups.items
    assert len(stand_in.compute.groups.members(group)) == 2


def test_a_successor_whose_request_was_not_answered_is_not_taken_for_the_one_before(
    stand_in: OwnCloud, cloud: Cloud
) -> None:
    maker = new_maker(stand_in, cloud)
    server = machine(maker)
    maker.discard(server.id)
    stand_in.faults.append(Fault("POST", SERVERS, drop="after"))
    successor = machine(maker)
    assert successor.id == stand_in.compute.server("bio-1").id != server.id


# --- created, but the answer was lost ---


@pytest.mark.parametrize(
    "fault", [{"drop": "after"}, {"drop": "before"}, {"status": 500}, {"status": 503, "retry_after": 3}]
)
def test_one_of_each_is_created_whatever_happens_to_the_answer(
    stand_in: OwnCloud, cloud: Cloud, fault: dict[str, Any]
) -> None:
    stand_in.faults += [Fault("POST", path, **fault) for path in MADE]
    machine(new_maker(stand_in, cloud, boot_volume="5G"))
    assert stand_in.totals() == ONE_OF_EACH
    assert [stand_in.count("POST", path) for path in MADE] == [1 if fault.get("drop") == "after" else 2] * len(MADE)


def test_so_it_is_where_a_proxy_gave_up_on_a_request_that_was_done(stand_in: OwnCloud, cloud: Cloud) -> None:
    left = [Fault("POST", path, status=504) for path in MADE]

    def proxy(request: Any) -> None:
        """Lets the service carry out the request, but drops the answer."""
        if any(fault.applies(request) for fault in left):
            stand_in._answer(request)
            stand_in.faults.append(Fault(request.method, f"{request.path}$", status=504))

    stand_in.seen = proxy
    machine(new_maker(stand_in, cloud, boot_volume="5G"))
    assert stand_in.totals() == ONE_OF_EACH
    assert [stand_in.count("POST", path) for path in MADE] == [1] * len(MADE)


def test_several_machines_whose_answers_are_lost_are_not_mixed_up(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults += [Fault("POST", path, drop="after", times=3) for path in (SERVERS, "/ports$", "/floatingips$")]
    maker = new_maker(stand_in, cloud)
    names = [f"bio-{number}" for number in range(1, 4)]
    outcomes = fan_out(lambda name: machine(maker, name), names)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    network, compute = stand_in.network, stand_in.compute
    for name in names:
        (port,) = compute.server(name).ports
        assert network.ports.items[port]["name"] == name
        assert [ip["port_id"] for ip in network.floating_ips.items.values()].count(port) == 1
    assert stand_in.totals()["servers"] == stand_in.totals()["ports"] == stand_in.totals()["floating IPs"] == 3


def test_a_slow_list_does_not_make_a_second_server(stand_in: OwnCloud, cloud: Cloud) -> None:
    # it was created, and is listed in BUILD
    stand_in.compute.looks_to_build = 5
    stand_in.faults.append(Fault("POST", SERVERS, drop="after"))
    machine(new_maker(stand_in, cloud))
    assert stand_in.count("POST", SERVERS) == 1


# --- permanent failures ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("port", "creating its port failed: Quota exceeded"),
        ("floatingip", "creating its floating IP failed: Quota exceeded"),
        ("security_group", "Creating the security group failed: Quota exceeded"),
        ("server_groups", "Creating a server group failed: Quota exceeded"),
        ("cores", "creating its server failed: Quota exceeded for cores"),
        ("volumes", "creating its volume failed: VolumeLimitExceeded"),
    ],
)
def test_a_quota_that_was_used_up_meanwhile_is_reported_at_once(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, name: str, message: str
) -> None:
    stand_in.set_quota(name, 0)
    with pytest.raises(CloudError) as raised:
        machine(new_maker(stand_in, cloud, boot_volume="5G"))
    assert message in raised.value.message
    assert clock.now() < 5  # time until a volume is listed
    assert MARK not in [tag for server in stand_in.compute.servers.values() for tag in server.tags]


def test_a_machine_that_fails_leaves_the_others_alone(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.outcomes["bio-2"] = ["ERROR: No valid host was found."]
    maker = new_maker(stand_in, cloud)
    outcomes = fan_out(lambda number: machine(maker, f"bio-{number}"), range(1, 4))
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, MachineError)
