"""What the stand-in refuses, and what goes wrong with it on demand."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from keystoneauth1 import exceptions as ksa
from openstack import exceptions as sdk
from openstack.connection import Connection

from tests.lab.stand_in import Fault, Recorded, StandIn
from tests.unit.drivers.openstack.stand_in_cloud import (
    MARKS,
    network_id,
    new_port,
    new_server,
    violated,
)

pytestmark = MARKS


# --- limits ---


def test_no_more_is_given_than_the_quotas_allow(stand_in: StandIn, cloud: Connection) -> None:
    stand_in.compute.add_server("somebody-elses", "m1.large")
    stand_in.compute.quotas |= {"instances": 2, "cores": 4, "server_groups": 1, "server_group_members": 0}
    message = "Quota exceeded for cores: Requested 1, but already used 4 of 4 cores"
    with pytest.raises(sdk.ForbiddenException, match=message):
        new_server(cloud)
    stand_in.compute.quotas["cores"] = -1
    together = cloud.compute.create_server_group(name="a", policy="affinity")
    with pytest.raises(sdk.ForbiddenException, match="Quota exceeded, too many servers in group"):
        new_server(cloud, scheduler_hints={"group": together.id})
    with pytest.raises(sdk.ForbiddenException, match=r"Quota exceeded, too many server groups\."):
        cloud.compute.create_server_group(name="b", policy="affinity")
    limits = cloud.compute.get_limits().absolute
    assert (limits.instances, limits.instances_used, limits.total_ram_used) == (2, 1, 4096)


def test_the_network_has_quotas_too(stand_in: StandIn, cloud: Connection) -> None:
    new_port(cloud)
    stand_in.network.quotas |= {"port": 2, "floatingip": 0, "security_group": 1, "security_group_rule": 4}
    external = network_id(cloud, "public")
    group = stand_in.network.groups.default["id"]
    for name, make in (
        ("port", lambda: new_port(cloud)),
        ("floatingip", lambda: cloud.network.create_ip(floating_network_id=external)),
        ("security_group", lambda: cloud.network.create_security_group(name="a")),
        (
            "security_group_rule",
            lambda: cloud.network.create_security_group_rule(security_group_id=group, direction="egress"),
        ),
    ):
        with pytest.raises(sdk.ConflictException, match=rf"Quota exceeded for resources: \['{name}'\]\."):
            make()
    details = cloud.network.get_quota(stand_in.identity.project_id, details=True)
    assert details["ports"] == {"limit": 2, "used": 2, "reserved": 0}


def test_so_has_block_storage(stand_in: StandIn, cloud: Connection) -> None:
    stand_in.volumes.quotas |= {"volumes": 1, "gigabytes": 8}
    cloud.block_storage.create_volume(size=8)
    with pytest.raises(
        sdk.HttpException, match=r"VolumeLimitExceeded: .* \(1\) exceeded for quota 'volumes'"
    ) as raised:
        cloud.block_storage.create_volume(size=1)
    assert raised.value.status_code == 413
    stand_in.volumes.quotas["volumes"] = -1
    with pytest.raises(sdk.HttpException, match="Requested 1G, quota is 8G and 8G has been consumed"):
        cloud.block_storage.create_volume(size=1)
    assert cloud.block_storage.get_limits().absolute.total_gigabytes_used == 8


def test_an_image_that_does_not_fit_is_refused(stand_in: StandIn, cloud: Connection) -> None:
    for more in ({"min_ram": 1024}, {"min_disk": 8}, {"size": 6 * 1024**3}):
        image = stand_in.images.add_image("big", **more)
        with pytest.raises(sdk.BadRequestException, match=r"Flavor's (memory|disk) is"):
            new_server(cloud, image_id=image["id"])


# --- security groups ---


def test_a_security_group_keeps_its_rules(cloud: Connection) -> None:
    group = cloud.network.create_security_group(name="cloudscale:course")
    assert sorted(rule["ethertype"] for rule in group.security_group_rules) == ["IPv4", "IPv6"]
    rule = {"security_group_id": group.id, "direction": "ingress", "protocol": "tcp", "port_range_min": 22}
    rule |= {"port_range_max": 22, "remote_ip_prefix": "0.0.0.0/0", "ethertype": "IPv4"}
    made = cloud.network.create_security_group_rule(**rule)
    with pytest.raises(sdk.ConflictException, match=f"Security group rule already exists. Rule id is {made.id}"):
        cloud.network.create_security_group_rule(**rule, description="another one")
    cloud.network.create_security_group_rule(
        security_group_id=group.id, direction="ingress", ethertype="IPv4", remote_group_id=group.id
    )
    assert len(list(cloud.network.security_group_rules(security_group_id=group.id, direction="ingress"))) == 2
    port = new_port(cloud, security_groups=[group.id])
    with pytest.raises(sdk.ConflictException, match=f"Security Group {group.id} in use"):
        cloud.network.delete_security_group(group.id, ignore_missing=False)
    cloud.network.delete_port(port.id)
    cloud.network.delete_security_group(group.id)
    assert not list(cloud.network.security_group_rules(security_group_id=group.id))


def test_an_address_leads_to_one_port_behind_a_router(stand_in: StandIn, cloud: Connection) -> None:
    external = network_id(cloud, "public")
    port = new_port(cloud)
    ip = cloud.network.create_ip(floating_network_id=external, port_id=port.id)
    with pytest.raises(sdk.ConflictException, match="already has a floating IP on external network"):
        cloud.network.create_ip(floating_network_id=external, port_id=port.id)
    cloud.network.update_ip(ip.id, port_id=None)
    assert cloud.network.update_ip(ip.id, port_id=port.id).port_id == port.id
    stand_in.network.routers.items.clear()
    other = new_port(cloud, "course-2")
    with pytest.raises(sdk.NotFoundException, match="is not reachable from subnet"):
        cloud.network.create_ip(floating_network_id=external, port_id=other.id)
    (subnet,) = stand_in.network.networks.get(external)["subnets"]
    assert len(stand_in.network.subnets.taken[subnet]) == 3  # the gateway's, the router's and one: none is lost


# --- what no client should ask ---

SERVERS = "/compute/v2.1/servers"
ODD: list[tuple[str, str, Any, int]] = [
    ("GET", "/nothing", None, 404),
    ("GET", "/compute/v2.1/os-hypervisors", None, 404),
    ("PATCH", SERVERS, {}, 404),
    ("GET", f"{SERVERS}/detail?tag=a", None, 400),
    ("GET", "/compute/v2.1/limits?reserved=1", None, 400),
    ("GET", "/network/v2.0/ports?tag=a", None, 400),
    ("GET", "/network/v2.0/networks?router:external=perhaps", None, 400),
    ("GET", "/network/v2.0/loadbalancers", None, 404),
    ("GET", "/image/v2/images?os_distro=debian", None, 400),
    ("DELETE", "/image/v2/images/1", None, 404),
    ("GET", "/volume/v3/{project}/volumes?tag=a", None, 400),
    ("POST", "/volume/v3/{project}/volumes", {"volume": {"size": 1, "tags": []}}, 400),
    ("POST", "/volume/v3/{project}/volumes", {"volume": {"size": "x"}}, 400),
    ("GET", "/identity/v3/users", None, 404),
    ("POST", "/identity/v3/auth/tokens", {"auth": {"identity": {"methods": []}, "other": 1}}, 400),
    ("POST", "/network/v2.0/ports", {"port": {"network_id": "{network}", "label": "x"}}, 400),
    ("POST", "/network/v2.0/ports", {"port": {"network_id": "{network}", "name": 1}}, 400),
    ("POST", "/network/v2.0/ports", {"port": {"name": "x"}}, 400),
    ("PUT", "/network/v2.0/security-groups/{group}/tags", {"tags": "a"}, 400),
    ("POST", SERVERS, {"server": {"name": "x", "flavorRef": "1", "tag": "x"}}, 400),
    ("POST", SERVERS, {"server": {"name": "x" * 256, "flavorRef": "1"}}, 400),
    ("POST", SERVERS, {"server": {"name": "x", "flavorRef": "1", "user_data": "?"}}, 400),
    ("POST", SERVERS, {"server": {"name": "x", "flavorRef": "1", "user_data": "A" * 65536}}, 400),
    ("POST", SERVERS, {"server": {"name": "x", "flavorRef": "1", "metadata": {"a": 1}}}, 400),
    ("POST", SERVERS, {"server": {"name": "x", "flavorRef": "1", "networks": [{"port": "x"}]}}, 400),
    ("POST", SERVERS, {"server": {"name": "x", "flavorRef": "1", "tags": ["before 2.52"]}}, 400),
]


def test_what_no_cloud_knows_is_refused_and_noted(stand_in: StandIn, cloud: Connection) -> None:
    own = {"{project}": stand_in.identity.project_id, "{network}": network_id(cloud)}
    own["{group}"] = stand_in.network.groups.default["id"]
    for method, path, body, status in ODD:
        text = json.dumps(body)
        for name, value in own.items():
            path, text = path.replace(name, value), text.replace(name, value)
        data = None if body is None else text
        answer = cloud.session.request(f"{stand_in.url}{path}", method, data=data, raise_exc=False)
        assert answer.status_code == status, (method, path, body)
        (noted,) = violated(stand_in)
        assert noted.startswith(f"{method} {path}: ")


def test_a_servers_tags_have_a_form(stand_in: StandIn, cloud: Connection) -> None:
    for tags in (["a/b"], ["a,b"], ["x" * 61], [""], [f"tag-{number}" for number in range(51)]):
        with pytest.raises(sdk.BadRequestException, match=r"Invalid input for field/attribute (0|tags)"):
            new_server(cloud, tags=tags)
        assert len(violated(stand_in)) == 1


def test_a_version_that_is_not_there_is_refused(stand_in: StandIn, cloud: Connection) -> None:
    answer = cloud.compute.get("/servers/detail", headers={"OpenStack-API-Version": "compute 2.94"})
    assert answer.status_code == 406
    assert "maximum is 2.93" in violated(stand_in)[0]


# --- what goes wrong ---


def test_a_fault_comes_when_it_is_to_come(stand_in: StandIn, cloud: Connection) -> None:
    network_id(cloud)
    stand_in.faults = [Fault("GET", "/networks", status=503, retry_after=7, times=2, after=1)]
    answers = [cloud.network.get("/networks") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 503, 503, 200]
    assert answers[1].headers["Retry-After"] == "7"


@pytest.mark.parametrize(("drop", "made"), [("before", 0), ("after", 1)])
def test_a_connection_is_dropped_before_or_after_the_deed(
    stand_in: StandIn, cloud: Connection, drop: str, made: int
) -> None:
    network_id(cloud)
    stand_in.faults = [Fault("POST", "/ports$", drop=drop)]
    with pytest.raises(ksa.ConnectFailure):
        new_port(cloud)
    assert len(list(cloud.network.ports(name="course-1"))) == made
    assert Recorded("POST", "/network/v2.0/ports", 0) in stand_in.requests


def test_an_answer_may_come_too_late(stand_in: StandIn, cloud: Connection) -> None:
    network_id(cloud)
    stand_in.faults = [Fault("POST", "/ports$", seconds=60)]
    body = {"port": {"network_id": network_id(cloud)}}
    begun = time.monotonic()
    with pytest.raises(ksa.ConnectTimeout):
        cloud.session.post(f"{stand_in.url}/network/v2.0/ports", json=body, timeout=0.05)
    assert len(stand_in.network.ports.items) == 2
    stand_in.close()  # does not wait for it
    assert time.monotonic() - begun < 10
