"""The stand-in for a cloud's APIs keeps their rules, as openstacksdk meets them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from openstack import exceptions as sdk
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.lab.stand_in import Recorded, StandIn
from tests.lab.stand_in.process import StandInProcess
from tests.unit.drivers.openstack.stand_in_cloud import (
    MARKS,
    connect,
    network_id,
    new_port,
    new_server,
    nothing_else,
    open_cloud,
)

pytestmark = MARKS
USER_DATA = base64.b64encode(b"#cloud-config\n").decode()


# --- who may come in ---


@pytest.mark.parametrize("name", ["course", "application"])
def test_both_kinds_of_credentials_open_it(stand_in: StandIn, tmp_path: Path, name: str) -> None:
    cloud = connect(stand_in, tmp_path, name)
    cloud.authorize()
    assert cloud.current_project_id == stand_in.identity.project_id
    assert cloud.compute.get_endpoint() == f"{stand_in.url}/compute/v2.1"
    cloud.close()


def test_the_environment_opens_it_too(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)
    cloud = Connection(config=OpenStackConfig(config_files=[], vendor_files=[], secure_files=[]).get_one("envvars"))
    assert cloud.authorize()
    cloud.close()


def test_wrong_credentials_do_not(stand_in: StandIn, tmp_path: Path) -> None:
    auth = json.loads(stand_in.clouds_yaml(tmp_path).read_text())["clouds"]
    for name, wrong in (
        ("course", {"password": "other"}),
        ("course", {"project_name": "other"}),
        ("application", {"application_credential_secret": "other"}),
    ):
        cloud = connect(stand_in, tmp_path, name, auth=auth[name]["auth"] | wrong)
        with pytest.raises(sdk.SDKException, match=r"requires authentication\. \(HTTP 401\)"):
            cloud.authorize()
        cloud.close()


def test_without_a_project_nothing_is_to_be_found(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stand_in.environment.items():
        if "PROJECT" not in name:
            monkeypatch.setenv(name, value)
    cloud = Connection(config=OpenStackConfig(config_files=[], vendor_files=[], secure_files=[]).get_one("envvars"))
    assert cloud.authorize()
    with pytest.raises(sdk.ServiceDisabledException, match="The service catalog is empty"):
        list(cloud.compute.flavors())
    cloud.close()


def test_a_token_that_expires_is_replaced(stand_in: StandIn, cloud: Connection) -> None:
    network_id(cloud)
    stand_in.identity.expire_all()
    network_id(cloud)
    assert [made.status for made in stand_in.requests if "networks" in made.path] == [200, 401, 200]
    assert stand_in.count("POST", "/auth/tokens$") == 2


def test_every_region_is_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_else(monkeypatch)
    with StandIn(regions=("RegionOne", "RegionTwo")) as stand_in:
        clouds = [connect(stand_in, tmp_path, region=region) for region in stand_in.regions]
        port = new_port(clouds[1])
        assert list(clouds[0].network.ports(name=port.name)) == []
        assert port.id in stand_in.regions["RegionTwo"].network.ports.items
        for cloud in clouds:
            cloud.close()
    assert not stand_in.violations


# --- a machine ---


def test_a_machine_lives_from_its_port_to_its_end(stand_in: StandIn, cloud: Connection) -> None:
    group = cloud.network.create_security_group(name="cloudscale:course", description="cloudscale:course")
    together = cloud.compute.create_server_group(name="cloudscale:course", policy="soft-anti-affinity")
    port = new_port(cloud, security_groups=[group.id])
    cloud.network.set_tags(port, ["cloudscale:course"])
    server = new_server(
        cloud,
        networks=[{"port": port.id}],
        tags=["cloudscale:course", "a"],
        metadata={"key": "value"},
        user_data=USER_DATA,
        config_drive=True,
        scheduler_hints={"group": together.id},
    )
    ip = cloud.network.create_ip(floating_network_id=network_id(cloud, "public"), port_id=port.id, description="d")

    (seen,) = cloud.compute.servers(tags="cloudscale:course")
    assert (seen.id, seen.status, seen.tags) == (server.id, "ACTIVE", ["a", "cloudscale:course"])
    assert (seen.metadata, seen.flavor.vcpus, seen.security_groups) == ({"key": "value"}, 1, [{"name": group.name}])
    addresses = [address["addr"] for address in seen.addresses["course-net"]]
    assert addresses == [port.fixed_ips[0]["ip_address"], ip.floating_ip_address]
    (port,) = cloud.network.ports(tags="cloudscale:course")
    assert (port.device_id, port.device_owner, port.status) == (server.id, "compute:nova", "ACTIVE")
    assert cloud.compute.get_server_group(together.id).member_ids == [server.id]
    console = cloud.compute.get_server_console_output(server.id)["output"]
    assert re.findall(r"-----BEGIN SSH HOST KEY KEYS-----\n(ssh-ed25519 \S+)", console)
    assert stand_in.compute.server("course-1").user_data == USER_DATA

    cloud.compute.delete_server(server.id)
    assert list(cloud.compute.servers()) == []
    assert cloud.network.get_port(port.id).device_id == ""
    cloud.network.delete_port(port.id)
    assert cloud.network.get_ip(ip.id).port_id is None
    cloud.network.delete_ip(ip.id)
    cloud.network.delete_security_group(group.id)
    cloud.compute.delete_server_group(together.id)
    assert cloud.compute.get_limits().absolute.total_cores_used == 0


def test_a_server_takes_the_looks_that_it_is_to_take(stand_in: StandIn, cloud: Connection) -> None:
    stand_in.compute.looks_to_build, stand_in.compute.looks_to_delete = 2, 1
    new_server(cloud)

    def states() -> list[tuple[str, str | None]]:
        return [(server.status, server.task_state) for server in cloud.compute.servers()]

    assert [states() for _ in range(3)] == [[("BUILD", "spawning")]] * 2 + [[("ACTIVE", None)]]
    cloud.compute.delete_server(stand_in.compute.server("course-1").id)
    assert [states() for _ in range(2)] == [[("ACTIVE", "deleting")], []]


def test_servers_become_what_they_are_to_become(stand_in: StandIn, cloud: Connection) -> None:
    stand_in.compute.outcomes["course-1"] = ["ERROR: No valid host was found.", "BUILD"]
    port = new_port(cloud)
    new_server(cloud, networks=[{"port": port.id}])
    (failed,) = cloud.compute.servers()
    assert (failed.status, failed.fault["message"]) == ("ERROR", "No valid host was found.")
    assert cloud.network.get_port(port.id).device_id == ""  # it can be taken for the next one
    cloud.compute.delete_server(failed.id)
    for status in ("BUILD", "ACTIVE"):
        server = new_server(cloud, networks=[{"port": port.id}])
        assert cloud.compute.get_server(server.id).status == status
        cloud.compute.delete_server(server.id)


def test_a_console_is_what_it_is_said_to_be(stand_in: StandIn, cloud: Connection) -> None:
    servers = [new_server(cloud, name) for name in ("one", "none", "building")]
    stand_in.compute.consoles |= {"one": "a\nb\nc", "none": None}
    next(cloud.compute.servers())
    stand_in.compute.server("building").status = "BUILD"
    assert cloud.compute.get_server_console_output(servers[0].id, length=2)["output"] == "b\nc"
    with pytest.raises(sdk.NotFoundException, match="does not have a console"):
        cloud.compute.get_server_console_output(servers[1].id)
    with pytest.raises(sdk.ConflictException, match="is not ready"):
        cloud.compute.get_server_console_output(servers[2].id)


def test_a_server_stops_and_starts(cloud: Connection) -> None:
    server = new_server(cloud)
    assert cloud.compute.get_server(server.id).status == "ACTIVE"
    cloud.compute.stop_server(server.id)
    assert cloud.compute.get_server(server.id).status == "SHUTOFF"
    with pytest.raises(sdk.ConflictException, match=r"Cannot 'stop' instance .* while it is in vm_state stopped"):
        cloud.compute.stop_server(server.id)
    cloud.compute.start_server(server.id)
    cloud.compute.reboot_server(server.id, "HARD")
    assert cloud.compute.get_server(server.id).status == "ACTIVE"


def test_a_port_is_for_one_server(cloud: Connection) -> None:
    networks = [{"port": new_port(cloud).id}]
    new_server(cloud, networks=networks)
    with pytest.raises(sdk.ConflictException, match=r"Port .* is still in use\."):
        new_server(cloud, "course-2", networks=networks)
    networks = [{"port": network_id(cloud)}]
    with pytest.raises(sdk.BadRequestException, match=r"Port id .* could not be found\."):
        new_server(cloud, "course-2", networks=networks)


def test_what_has_the_tags_or_the_name_is_found_page_by_page(cloud: Connection) -> None:
    for number in range(1, 6):
        new_server(cloud, f"course-{number}", tags=["mark", "odd" if number % 2 else "even"])
        port = new_port(cloud, f"course-{number}")
        cloud.network.set_tags(port, ["mark"])
    assert [server.name for server in cloud.compute.servers(tags="mark,odd", limit=2)] == [
        *("course-5", "course-3", "course-1")
    ]
    assert [server.name for server in cloud.compute.servers(name="^course-[12]$")] == ["course-2", "course-1"]
    assert list(cloud.compute.servers(status="ERROR")) == []
    assert len(list(cloud.network.ports(tags="mark", limit=2))) == 5
    assert len(list(cloud.network.ports(description="cloudscale:course", name="course-3"))) == 1


# --- volumes ---


def test_a_volume_goes_with_its_server(stand_in: StandIn, cloud: Connection) -> None:
    stand_in.volumes.looks_to_create = 1
    (image,) = cloud.image.images(name="debian-13")
    own = cloud.block_storage.create_volume(size=5, image_id=image.id, name="course-1", metadata={"mark": "course"})
    assert [cloud.block_storage.get_volume(own.id).status for _ in range(2)] == ["creating", "available"]
    device = {"boot_index": 0, "destination_type": "volume", "delete_on_termination": True}
    stand_in.volumes.looks_to_create = 0
    for more in (
        {"source_type": "volume", "uuid": own.id},
        {"source_type": "image", "uuid": image.id, "volume_size": 5},
    ):
        server = new_server(cloud, image_id="", block_device_mapping=[device | more])
        (volume,) = cloud.block_storage.volumes(details=True)
        assert (volume.status, volume.attachments[0]["server_id"]) == ("in-use", server.id)
        with pytest.raises(sdk.BadRequestException, match="Volume status must be available"):
            cloud.block_storage.delete_volume(volume.id)
        cloud.compute.delete_server(server.id)
        assert list(cloud.block_storage.volumes()) == []


def test_block_storage_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_else(monkeypatch)
    with StandIn(volume=False) as stand_in:
        cloud = connect(stand_in, tmp_path)
        assert not cloud.has_service("block-storage")
        cloud.close()


# --- the record, and a process of its own ---


def test_every_request_is_recorded(stand_in: StandIn, cloud: Connection) -> None:
    port = new_port(cloud)
    cloud.network.delete_port(port.id)
    assert stand_in.requests[-1] == Recorded("DELETE", f"/network/v2.0/ports/{port.id}", 204)
    assert stand_in.counts["DELETE /network/v2.0/ports/{id}"] == 1
    assert stand_in.count("POST", "/ports$") == 1


@pytest.mark.usefixtures("processes")
def test_it_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_else(monkeypatch)
    with StandInProcess(tmp_path, "--quota", "instances=200") as process:
        cloud = open_cloud(process.clouds_yaml, "course")
        assert cloud.compute.get_limits().absolute.instances == 200
        cloud.close()
        made = process.requests(forget=True)
        assert made[-1] == Recorded("GET", "/compute/v2.1/limits", 200)
        assert not process.requests()
        assert not process.violations()
