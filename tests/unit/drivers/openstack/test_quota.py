"""How much of the quotas machines need, counted before anything is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.drivers.openstack.choices import Choices
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import FloatingIp, Inventory, Port, Server
from cloudscale.drivers.openstack.quota import (
    Allowance,
    Groups,
    Recipe,
    demands,
    most,
    read_allowances,
    read_groups,
    recipe,
)
from cloudscale.drivers.openstack.stored import Volume
from cloudscale.errors import CloudError
from cloudscale.model import Kind
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    OwnCloud,
    settings,
)

pytestmark = MARKS
CHOICES = Choices(
    "image", "debian", "flavor", Kind("m1.large", 4, 0), 4096, "network", frozenset({"10.20.0.0/20"}), "public"
)
NOTHING = Groups(has_security_group=False, sizes=())


def needs(
    machines: int,
    existing: Inventory | None = None,
    groups: Groups = NOTHING,
    group_size: int | None = 10,
    external: bool = True,
    **given: Any,
) -> dict[str, int]:
    choices = CHOICES if external else replace(CHOICES, external_id=None)
    return recipe(choices, settings(**given), existing or Inventory(), groups, group_size).needs(machines)


def machine(number: int, *, port: bool = True, ip: bool = True, server: bool = True) -> Inventory:
    """The existing parts of one machine."""
    name = f"bio-{number}"
    return Inventory(
        servers={name: Server(f"server-{number}", name, "ACTIVE")} if server else {},
        ports={name: Port(f"port-{number}", name, f"10.20.0.{number}")} if port else {},
        ips=(FloatingIp(f"ip-{number}", f"192.0.2.{number}", f"port-{number}" if port else ""),) if ip else (),
    )


def together(*parts: Inventory) -> Inventory:
    return Inventory(
        servers={name: server for one in parts for name, server in one.servers.items()},
        ports={name: port for one in parts for name, port in one.ports.items()},
        ips=tuple(ip for one in parts for ip in one.ips),
    )


# --- what machines need ---


def test_a_new_course_takes_all_of_each_machine_and_its_groups_once() -> None:
    assert needs(3) == {
        "servers": 3,
        "cores": 12,
        "memory (MiB)": 12288,
        "ports": 3,
        "floating IPs": 3,
        "security groups": 1,
        "security group rules": 10,
        "server groups": 1,
    }


def test_without_floating_ips_none_are_counted() -> None:
    assert "floating IPs" not in needs(3, external=False)
    assert "floating IPs" not in needs(1, machine(1, ip=False), external=False)


@pytest.mark.parametrize(("size", "gibibytes"), [("5G", 5), ("5.1G", 6), ("1T", 1024), ("100M", 1)])
def test_volumes_are_counted_in_whole_gibibytes(size: str, gibibytes: int) -> None:
    needed = needs(3, boot_volume=size)
    assert (needed["volumes"], needed["volumes (GiB)"]) == (3, 3 * gibibytes)
    assert "volumes" not in needs(3)


def test_work_volumes_are_counted_with_those_to_boot_from() -> None:
    needed = needs(3, work_volume="50G", boot_volume="20G")
    assert (needed["volumes"], needed["volumes (GiB)"]) == (6, 210)
    needed = needs(2, work_volume="50G", volume_type="ssd")
    assert (needed["volumes"], needed["volumes (GiB)"]) == (2, 100)
    assert (needed["ssd volumes"], needed["ssd volumes (GiB)"]) == (2, 100)


def test_work_volumes_that_wait_for_their_machines_are_not_counted_again() -> None:
    waiting = {name: Volume(name, f"{name}-work", machine=name) for name in ("bio-2", "bio-3")}
    existing = replace(machine(1), work={"bio-1": Volume("1", "bio-1-work", machine="bio-1"), **waiting})
    assert [needs(count, existing, work_volume="50G")["volumes"] for count in (0, 1, 2, 3)] == [0, 0, 0, 1]


def test_a_server_that_never_answered_still_gets_its_work_volume() -> None:
    answered = Inventory({"bio-2": Server("2", "bio-2", "ACTIVE", has_answered=True)})
    existing = together(machine(1), answered)
    assert needs(1, existing, work_volume="50G")["volumes"] == 2
    assert "volumes" not in needs(1, existing)


@pytest.mark.parametrize(
    ("machines", "members", "sizes", "groups"),
    [
        (25, 10, (), 3),
        (20, 10, (), 2),
        (1, 10, (), 1),
        (25, None, (), 1),
        (25, 10, (4,), 2),
        (6, 10, (4,), 0),
        (7, 10, (4,), 1),
        (25, 10, (10, 10), 3),
        (25, None, (3,), 0),
        (5, 10, (12,), 1),  # the quota used to be larger
        (25, 1, (), 25),
        (0, 10, (), 0),
    ],
)
def test_server_groups_are_as_many_as_their_members_fill(
    machines: int, members: int | None, sizes: tuple[int, ...], groups: int
) -> None:
    assert needs(machines, groups=Groups(True, sizes), group_size=members)["server groups"] == groups


def test_an_existing_security_group_is_not_counted_again() -> None:
    needed = needs(1, groups=Groups(has_security_group=True, sizes=()))
    assert not {"security groups", "security group rules"} & needed.keys()


# --- leftovers of an interrupted run ---


def test_existing_machines_are_not_counted_again() -> None:
    existing = together(machine(1), machine(2))
    assert needs(3, existing) == needs(3)


def test_spare_ports_and_addresses_are_used_first() -> None:
    existing = together(
        machine(1), machine(2, server=False), machine(3, server=False), machine(4, port=False, server=False)
    )
    assert [needs(count, existing)["ports"] for count in (0, 1, 2, 3, 4)] == [0, 0, 0, 1, 2]
    assert [needs(count, existing)["floating IPs"] for count in (0, 2, 3, 4)] == [0, 0, 0, 1]
    assert needs(4, existing)["servers"] == 4


def test_what_a_server_lacks_is_counted_with_the_new_ones() -> None:
    existing = together(machine(1), machine(2, ip=False), machine(3, port=False, ip=False))
    needed = needs(2, existing)
    assert (needed["ports"], needed["floating IPs"]) == (3, 4)
    assert needed["servers"] == 2


def test_an_address_that_leads_elsewhere_is_no_spare_one() -> None:
    # bound to the second of two ports with one name, which is not used
    existing = replace(machine(1), ips=(*machine(1).ips, FloatingIp("ip-9", "192.0.2.9", "port-9")))
    assert needs(1, existing)["floating IPs"] == 1


def test_what_a_cut_off_run_left_in_the_cloud_is_seen(stand_in: OwnCloud, cloud: Cloud) -> None:
    assert read_groups(cloud, MARK) == NOTHING
    stand_in.network.groups.add(MARK, MARK)
    group = cloud.api.compute.create_server_group(name=MARK, policy="soft-anti-affinity")
    cloud.api.compute.create_server_group(name="other", policy="soft-anti-affinity")
    for _ in range(3):
        stand_in.compute.add_server("bio-1", group=group.id)
    assert read_groups(cloud, MARK) == Groups(True, (3,))


# --- how many fit ---

resources = st.sampled_from(["servers", "cores", "ports", "floating IPs", "server groups", "volumes"])
recipes = st.builds(
    Recipe,
    each=st.dictionaries(resources, st.integers(0, 8)),
    once=st.dictionaries(resources, st.integers(0, 5)),
    spare=st.dictionaries(resources, st.integers(0, 5)),
    group_size=st.none() | st.integers(1, 12),
    free_seats=st.integers(0, 20),
    work=st.integers(0, 3),
    spare_work=st.integers(0, 5),
    due_work=st.integers(0, 5),
)
allowances = st.dictionaries(resources, st.builds(Allowance, st.integers(0, 50), st.none() | st.integers(0, 60)))


@given(recipes, st.integers(0, 40), allowances)
def test_most_fits_and_one_more_does_not_unless_it_is_all_that_was_asked_for(
    plan: Recipe, machines: int, known: dict[str, Allowance]
) -> None:
    fits = most(plan, machines, known)
    assert 0 <= fits <= machines
    assert not fits or all(demand.is_met for demand in demands(plan, fits, known))
    assert fits == machines or not all(demand.is_met for demand in demands(plan, fits + 1, known))


@given(recipes, st.integers(0, 40), allowances)
def test_a_demand_is_for_each_resource_whose_quota_is_known(
    plan: Recipe, machines: int, known: dict[str, Allowance]
) -> None:
    needed = plan.needs(machines)
    for demand in demands(plan, machines, known):
        allowance = known[demand.resource]
        assert (demand.used, demand.limit, demand.need) == (allowance.used, allowance.limit, needed[demand.resource])
    assert {demand.resource for demand in demands(plan, machines, known)} == needed.keys() & known.keys()


def test_the_scarcest_resource_decides() -> None:
    known = {"servers": Allowance(2, 10), "cores": Allowance(8, 20), "ports": Allowance(0, None)}
    plan = recipe(CHOICES, settings(), Inventory(), NOTHING, 10)
    assert most(plan, 25, known) == 3
    assert [demand.resource for demand in demands(plan, 4, known) if not demand.is_met] == ["cores"]


# --- quotas ---


def test_every_quota_is_read_with_what_is_used(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.add_server("theirs", "m1.medium")
    stand_in.volumes.make(size=7)
    stand_in.add_port("theirs", marked="")
    stand_in.add_ip(marked="")
    allowed, members = read_allowances(cloud, settings(boot_volume="5G"), pytest.fail)
    assert allowed == {
        "servers": Allowance(1, 10),
        "cores": Allowance(2, 20),
        "memory (MiB)": Allowance(2560, 51200),
        "server groups": Allowance(0, 10),
        "ports": Allowance(2, 500),  # one port belongs to the router
        "floating IPs": Allowance(1, 50),
        "security groups": Allowance(1, 10),
        "security group rules": Allowance(4, 100),
        "volumes": Allowance(1, 10),
        "volumes (GiB)": Allowance(7, 1000),
    }
    assert members == 10


@pytest.mark.parametrize("by_id", [False, True])
def test_the_quota_of_a_type_of_volumes_is_read_where_there_is_one(
    stand_in: OwnCloud, cloud: Cloud, by_id: bool
) -> None:
    kind = stand_in.volumes.types["ssd"] if by_id else "ssd"
    stand_in.volumes.make(size=7, kind="ssd")
    given = settings(work_volume="5G", volume_type=kind)
    allowed, _ = read_allowances(cloud, given, pytest.fail)
    assert [name for name in allowed if "volumes" in name] == ["volumes", "volumes (GiB)"]
    stand_in.volumes.type_quotas["ssd"] = {"volumes": 3, "gigabytes": 100}
    allowed, _ = read_allowances(cloud, given, pytest.fail)
    assert (allowed[f"{kind} volumes"], allowed[f"{kind} volumes (GiB)"]) == (Allowance(1, 3), Allowance(7, 100))


@pytest.mark.parametrize("code", [403, 404])
def test_quotas_of_types_without_permission_are_left_out(stand_in: OwnCloud, cloud: Cloud, code: int) -> None:
    stand_in.faults.append(Fault(path="/os-quota-sets/", status=code, times=None))
    allowed, _ = read_allowances(cloud, settings(work_volume="5G", volume_type="ssd"), pytest.fail)
    assert [name for name in allowed if "volumes" in name] == ["volumes", "volumes (GiB)"]


def test_what_has_no_limit_is_no_limit(stand_in: OwnCloud, cloud: Cloud) -> None:
    for name in (
        *("instances", "cores", "ram", "server_groups", "server_group_members", "port", "floatingip"),
        *("security_group", "security_group_rule", "volumes", "gigabytes"),
    ):
        stand_in.set_quota(name, -1)
    allowed, members = read_allowances(cloud, settings(boot_volume="5G"), pytest.fail)
    assert {allowance.limit for allowance in allowed.values()} == {None}
    assert members is None


def test_what_is_reserved_is_as_good_as_used(stand_in: OwnCloud, cloud: Cloud) -> None:
    details = {"port": {"limit": 10, "used": 3, "reserved": 2}}
    stand_in.faults.append(Fault(path="/quotas/", status=200, body={"quota": details}))
    allowed, _ = read_allowances(cloud, settings(), pytest.fail)
    assert allowed["ports"] == Allowance(5, 10)
    assert "floating IPs" not in allowed  # the cloud does not report it


def test_volumes_are_not_asked_for_without_need(stand_in: OwnCloud, cloud: Cloud) -> None:
    allowed, _ = read_allowances(cloud, settings(), pytest.fail)
    assert "volumes" not in allowed
    assert stand_in.count(path="/volume") == 0


@pytest.mark.parametrize("code", [403, 404])
def test_network_quotas_without_permission_are_left_out_with_a_warning(
    stand_in: OwnCloud, cloud: Cloud, code: int
) -> None:
    stand_in.faults.append(Fault(path="/quotas/", status=code, times=None))
    messages: list[str] = []
    allowed, _ = read_allowances(cloud, settings(), messages.append)
    assert [*allowed] == ["servers", "cores", "memory (MiB)", "server groups"]
    (warning,) = messages
    assert warning.startswith("Warning: could not read the network quotas")


@pytest.mark.parametrize("path", ["/compute/v2.1/limits", "/volume/v3/.*limits", "/quotas/"])
def test_a_quota_that_the_cloud_fails_to_tell_is_not_taken_for_none(
    stand_in: OwnCloud, cloud: Cloud, path: str
) -> None:
    stand_in.faults.append(Fault(path=path, status=500, times=None))
    with pytest.raises(CloudError, match=r"quotas failed: .*\(HTTP 500\)"):
        read_allowances(cloud, settings(boot_volume="5G"), pytest.fail)
