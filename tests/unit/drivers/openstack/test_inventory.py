"""The resources of a course are recognised by its mark, and no others are."""

from __future__ import annotations

from typing import Any

import pytest
from openstack.network.v2.port import Port as NeutronPort

from cloudscale.drivers.openstack import inventory
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import (
    ANSWERED,
    FINGERPRINT,
    Inventory,
    Server,
    as_port,
    mark,
    read_inventory,
)
from cloudscale.drivers.openstack.stored import read_volumes
from cloudscale.errors import CloudError
from cloudscale.units import MIB
from tests.lab.stand_in import Fault, servers
from tests.lab.stand_in.network_kind import Kind
from tests.lab.stand_in.servers import Servers
from tests.lab.stand_in.wire import Request
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    OwnCloud,
)

pytestmark = MARKS
OTHERS = ("", "cloudscale:bio-2", "cloudscale:bi", "cloudscale:BIO", "xcloudscale:bio", "bio")  # marks


def ignore_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignores filters: services that do not know a filter list everything."""
    known = Kind.fits

    def fits(self: Kind, item: Any, request: Request) -> bool:
        for name in ("tags", "description"):
            request.query.pop(name, None)
        return known(self, item, request)

    monkeypatch.setattr(Kind, "fits", fits)
    listed = Servers._list

    def all_of_them(self: Servers, request: Request) -> Any:
        request.query.pop("tags", None)
        return listed(self, request)

    monkeypatch.setattr(Servers, "_list", all_of_them)


def everything(cloud: Cloud) -> set[str]:
    """The ids of all resources that the course is said to have."""
    readers = (
        inventory.read_servers,
        inventory.read_ports,
        inventory.read_ips,
        read_volumes,
        inventory.read_server_groups,
        inventory.read_security_groups,
    )
    return {one.id for read in readers for one in read(cloud, MARK)}


# --- resources of the course and of others ---


@pytest.mark.parametrize("filtered", [True, False])
def test_only_what_carries_the_mark_is_the_courses(
    stand_in: OwnCloud, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, filtered: bool
) -> None:
    groups = stand_in.compute.groups
    for marked in (*OTHERS, MARK):
        stand_in.add_machine("bio-1", marked=marked)
        stand_in.network.groups.add(MARK if marked == "" else marked, marked)
        stand_in.volumes.make(size=1, name="bio-1", text=marked)
        groups.items[f"id-{marked}"] = {"id": f"id-{marked}", "name": marked, "policy": "affinity", "rules": {}}
    if not filtered:
        ignore_filters(monkeypatch)
    ours = {f"id-{MARK}"}
    ours |= {server.id for server in stand_in.compute.servers.values() if MARK in server.tags}
    ours |= {volume["id"] for volume in stand_in.volumes.volumes.values() if volume["description"] == MARK}
    for kind in (stand_in.network.ports, stand_in.network.floating_ips, stand_in.network.groups):
        ours |= {item["id"] for item in kind.items.values() if item["description"] == MARK}
    assert len(ours) == 6
    assert everything(cloud) == ours
    assert [*read_inventory(cloud, MARK).servers] == ["bio-1"]


def test_one_of_both_marks_is_enough(stand_in: OwnCloud, cloud: Cloud) -> None:
    by_text, by_tag = stand_in.add_port("bio-1"), stand_in.add_port("bio-2", marked="mine", tags=(MARK, "other"))
    both = stand_in.add_port("bio-3", tags=(MARK,))
    tagged = {port.id: port.is_tagged for port in inventory.read_ports(cloud, MARK)}
    assert tagged == {by_text["id"]: False, by_tag["id"]: True, both["id"]: True}


def test_what_carries_no_tag_yet_is_known_to(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.add_ip()
    stand_in.network.groups.add(MARK, MARK)
    assert [ip.is_tagged for ip in inventory.read_ips(cloud, MARK)] == [False]
    assert [group.is_tagged for group in inventory.read_security_groups(cloud, MARK)] == [False]


def test_the_mark_names_the_course() -> None:
    assert mark("bio") == "cloudscale:bio"


def test_a_cloud_without_volumes_has_none_of_the_course(
    stand_in: OwnCloud, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud.api, "has_service", lambda name: name != "block-storage")
    assert read_volumes(cloud, MARK) == []
    assert stand_in.count(path="/volume") == 0


def test_a_long_list_is_read_to_its_end(stand_in: OwnCloud, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "MOST", 3)
    for number in range(1, 8):
        stand_in.compute.add_server(f"bio-{number}", tags=[MARK])
    assert len(inventory.read_servers(cloud, MARK)) == 7
    assert stand_in.count("GET", "/servers/detail") == 3


# --- details ---


def test_a_server_is_read_with_all_that_is_asked_of_it(stand_in: OwnCloud, cloud: Cloud) -> None:
    made = stand_in.add_machine("bio-1", metadata={FINGERPRINT: "SHA256:abc"})
    made.tags.append(ANSWERED)
    (server,) = inventory.read_servers(cloud, MARK)
    assert server == Server(
        made.id,
        "bio-1",
        "ACTIVE",
        has_answered=True,
        fingerprint="SHA256:abc",
        cpus=1,
        memory=1536 * MIB,
        created=made.created,
    )


def test_a_fault_is_read_in_one_line(stand_in: OwnCloud, cloud: Cloud) -> None:
    made = stand_in.add_machine("bio-1")
    made.status, made.fault = "ERROR", "No valid host\n  was found. "
    (server,) = inventory.read_servers(cloud, MARK)
    assert (server.status, server.has_answered) == ("ERROR", False)
    assert inventory.read_fault(cloud, server.id) == "No valid host was found"


def test_a_fault_that_is_not_to_be_had_is_none(stand_in: OwnCloud, cloud: Cloud) -> None:
    made = stand_in.add_machine("bio-1")
    assert inventory.read_fault(cloud, made.id) == ""
    assert inventory.read_fault(cloud, made.id.replace("-", "")) == ""


def test_what_is_going_on_with_a_server_is_read_too(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.add_machine("bio-1").last_looks = 5
    (server,) = inventory.read_servers(cloud, MARK)
    assert (server.status, server.task) == ("ACTIVE", "deleting")


def test_a_machine_has_its_floating_address_or_its_own(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.add_machine("bio-1")
    stand_in.add_port("bio-2")
    existing = read_inventory(cloud, MARK)
    (ip,) = stand_in.network.floating_ips.items.values()
    own = {name: port.address for name, port in existing.ports.items()}
    assert existing.address("bio-1", floating=True) == ip["floating_ip_address"]
    assert existing.address("bio-1", floating=False) == ip["floating_ip_address"]  # it has a floating IP anyway
    assert (existing.address("bio-2", floating=True), existing.address("bio-2", floating=False)) == ("", own["bio-2"])
    assert existing.address("bio-3", floating=False) == ""


@pytest.mark.parametrize(
    ("addresses", "own"),
    [
        (["10.0.0.5"], "10.0.0.5"),
        (["2001:db8::5", "10.0.0.5"], "10.0.0.5"),
        (["2001:db8::5"], "2001:db8::5"),
        ([], ""),
    ],
)
def test_of_a_ports_addresses_the_older_kind_is_used(addresses: list[str], own: str) -> None:
    port = NeutronPort(id="1", fixed_ips=[{"ip_address": address} for address in addresses])
    assert as_port(port).address == own


@pytest.mark.parametrize(
    ("addresses", "outer"),
    [
        (["10.0.0.5"], "10.0.0.5"),
        (["10.0.0.5", "2001:db8::5"], "2001:db8::5"),
        (["fd00::5", "10.0.0.5"], "10.0.0.5"),
        (["2001:db8::5", "192.0.2.5"], "192.0.2.5"),
        ([], ""),
    ],
)
def test_others_reach_a_port_by_a_public_address_if_it_has_one(addresses: list[str], outer: str) -> None:
    port = NeutronPort(id="1", fixed_ips=[{"ip_address": address} for address in addresses])
    assert as_port(port).outer_address == outer


# --- ports that compute made ---


def test_a_port_that_compute_made_is_the_machines_with_or_without_the_mark(stand_in: OwnCloud, cloud: Cloud) -> None:
    (net,) = (net for net in stand_in.network.networks.items.values() if net["name"] == "course-net")
    ports = {}
    for name, tags in {"bio-1": [], "bio-2": [MARK]}.items():
        server = stand_in.compute.add_server(name, tags=[MARK])
        ports[name] = stand_in.network.new_port(net["id"], [])
        ports[name]["tags"] = tags
        stand_in.network.bind(ports[name], server.id, server.zone)
    existing = read_inventory(cloud, MARK)
    assert {name: port.id for name, port in existing.ports.items()} == {
        name: port["id"] for name, port in ports.items()
    }
    assert all(port.is_computes for port in existing.ports.values())


def test_one_that_it_left_behind_is_no_machines(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.add_port("", tags=(MARK,))
    assert read_inventory(cloud, MARK).ports == {}


# --- floating IPs of the project ---


def test_one_of_others_counts_where_it_leads_to_a_machine_or_was_given(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.add_machine("bio-1")
    bound, given, _ = (
        stand_in.add_ip(port, marked="theirs")["floating_ip_address"]
        for port in (stand_in.add_port("bio-2", tags=(MARK,)), None, None)
    )
    existing = read_inventory(cloud, MARK, [given])
    assert {ip.address for ip in existing.ips if not ip.is_ours} == {bound, given}
    assert existing.address("bio-2", floating=True) == bound
    assert [ip.address for ip in inventory.read_ips(cloud, MARK)] == [existing.address("bio-1", floating=True)]


# --- duplicates ---


def test_of_two_servers_of_a_name_the_one_with_the_port_is_the_machine(stand_in: OwnCloud, cloud: Cloud) -> None:
    first = stand_in.compute.add_server("bio-1", tags=[MARK])
    with_port = stand_in.add_machine("bio-1")
    third = stand_in.compute.add_server("bio-1", tags=[MARK])
    existing = read_inventory(cloud, MARK)
    assert existing.servers["bio-1"].id == with_port.id
    assert {server.id for server in existing.duplicates} == {first.id, third.id}


def test_without_a_port_it_is_the_older_one(stand_in: OwnCloud, cloud: Cloud) -> None:
    new, old = (stand_in.compute.add_server("bio-1", tags=[MARK]) for _ in range(2))
    old.created = "2025-03-01T08:00:00Z"
    existing = read_inventory(cloud, MARK)
    assert (existing.servers["bio-1"].id, [server.id for server in existing.duplicates]) == (old.id, [new.id])


def test_of_two_ports_of_a_name_the_one_in_use_is_the_machines(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.add_port("bio-1")
    used = stand_in.network.ports.items[stand_in.add_machine("bio-1").ports[0]]["id"]
    stand_in.add_port("bio-1")
    assert {name: port.id for name, port in read_inventory(cloud, MARK).ports.items()} == {"bio-1": used}


# --- order ---


def test_machines_stand_in_the_order_that_people_count_in(stand_in: OwnCloud, cloud: Cloud) -> None:
    for name in ("bio-10", "bio-2", "bio-1", "abio-3", "bio"):
        stand_in.compute.add_server(name, tags=[MARK])
    assert [*read_inventory(cloud, MARK).servers] == ["abio-3", "bio", "bio-1", "bio-2", "bio-10"]


# --- failures ---


@pytest.mark.parametrize(
    ("path", "what"), [("/servers", "servers"), ("/ports", "ports"), ("/floatingips", "floating IPs")]
)
def test_a_list_that_can_not_be_read_is_reported_and_never_taken_for_empty(
    stand_in: OwnCloud, cloud: Cloud, path: str, what: str
) -> None:
    stand_in.faults.append(Fault(path=path, status=403, times=None))
    with pytest.raises(CloudError, match=rf"Reading the {what} failed: .* \(HTTP 403\)"):
        read_inventory(cloud, MARK)


def test_an_empty_project_has_nothing(cloud: Cloud) -> None:
    assert read_inventory(cloud, MARK) == Inventory()
