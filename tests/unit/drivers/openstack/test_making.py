"""The parts of a machine: the requests that create them, and the existing ones that are used."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import pytest
from openstack.exceptions import HttpException

from cloudscale.drivers.openstack import making, volumes
from cloudscale.drivers.openstack.cloud import Cloud, open_cloud
from cloudscale.drivers.openstack.inventory import ANSWERED, FINGERPRINT, FLOATING, OWN, REACHED, USER
from cloudscale.drivers.openstack.volumes import COPYING
from cloudscale.drivers.openstack.watch import INTERVAL
from cloudscale.errors import CloudError, MachineError
from cloudscale.fanout import fan_out
from cloudscale.hosts.first_boot import user_data
from cloudscale.hosts.login_key import ssh_key
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    Crowd,
    OwnCloud,
    Time,
    settings,
)
from tests.unit.drivers.openstack.making import KEY, machine, new_maker, parts

pytestmark = [*MARKS, pytest.mark.usefixtures("few_rules")]
SERVERS = "/v2.1/servers$"
VOLUMES = "/volumes$"


# --- requests ---


def test_a_machine_is_asked_for_in_just_these_words(stand_in: OwnCloud, cloud: Cloud) -> None:
    port, ip, server = parts(new_maker(stand_in, cloud))
    (made,) = stand_in.bodies(SERVERS)
    (group,) = stand_in.compute.groups.items
    (flavor,) = (flavor["id"] for flavor in stand_in.compute.flavors.values() if flavor["name"] == "m1.small")
    (image,) = (image["id"] for image in stand_in.images.images.values() if image["name"] == "debian-13")
    assert made == {
        "server": {
            "name": "bio-1",
            "flavorRef": flavor,
            "imageRef": image,
            "networks": [{"port": port.id}],
            "user_data": base64.b64encode(user_data(KEY.public).encode()).decode(),
            "tags": [MARK],
            "metadata": {FINGERPRINT: KEY.fingerprint, USER: "debian", REACHED: FLOATING},
        },
        "OS-SCH-HNT:scheduler_hints": {"group": group},
    }
    assert stand_in.compute.server("bio-1").id == server.id
    assert ip is not None
    assert stand_in.network.floating_ips.items[ip.id]["port_id"] == port.id


def test_what_the_configuration_adds_is_asked_for_too(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.add_keypair("mine", "ssh-ed25519 AAAA me")
    machine(new_maker(stand_in, cloud, config_drive=True, key_pair="mine", availability_zone="nova"))
    ((asked,),) = ([body["server"] for body in stand_in.bodies(SERVERS)],)
    assert (asked["config_drive"], asked["key_name"], asked["availability_zone"]) == (True, "mine", "nova")


def test_all_is_marked_in_the_request_that_makes_it(stand_in: OwnCloud, cloud: Cloud) -> None:
    machine(new_maker(stand_in, cloud, boot_volume="5G"))
    made = {path: stand_in.bodies(path)[0] for path in ("/ports$", "/floatingips$", "/security-groups$", VOLUMES)}
    assert {body["description"] for body in made.values()} == {MARK}
    assert stand_in.bodies("/os-server-groups$")[0]["name"] == MARK
    assert stand_in.bodies(SERVERS)[0]["server"]["tags"] == [MARK]
    # and nothing else was created
    assert {asked.path.rpartition("/")[2] for asked in stand_in.asked if asked.method == "POST"} == {
        *("ports", "floatingips", "security-groups", "volumes", "os-server-groups", "servers"),
    }


def test_what_has_no_tags_in_that_request_gets_them_next(stand_in: OwnCloud, cloud: Cloud) -> None:
    machine(new_maker(stand_in, cloud))
    kinds = (stand_in.network.ports, stand_in.network.floating_ips, stand_in.network.groups)
    ours = [item for kind in kinds for item in kind.items.values() if item["description"] == MARK]
    assert [item["tags"] for item in ours] == [[MARK]] * 3


def test_nothing_that_is_secret_goes_to_the_cloud(
    stand_in: OwnCloud, cloud: Cloud, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ssh_key(tmp_path, create=True)
    assert key
    monkeypatch.setattr("tests.unit.drivers.openstack.making.KEY", key)
    machine(new_maker(stand_in, cloud, boot_volume="5G"))
    private = [line for line in key.file.read_text().splitlines() if "KEY" not in line]
    everything = repr(stand_in.asked)
    assert key.public.split()[1] not in everything  # it is inside of user_data
    assert not any(line in everything for line in private)
    assert stand_in.compute.server("bio-1").metadata == {
        FINGERPRINT: key.fingerprint,
        USER: "debian",
        REACHED: FLOATING,
    }


def test_machines_are_spread_over_the_hypervisors_as_far_as_they_go(stand_in: OwnCloud, cloud: Cloud) -> None:
    machine(new_maker(stand_in, cloud))
    (group,) = stand_in.compute.groups.items.values()
    assert group["policy"] == "soft-anti-affinity"


def test_the_machines_port_is_in_the_courses_security_group_alone(stand_in: OwnCloud, cloud: Cloud) -> None:
    port, *_ = parts(new_maker(stand_in, cloud))
    (group,) = (group["id"] for group in stand_in.network.groups.items.values() if group["name"] == MARK)
    assert stand_in.network.ports.items[port.id]["security_groups"] == [group]


def test_without_an_external_network_no_floating_ip_is_made(stand_in: OwnCloud, cloud: Cloud) -> None:
    port, ip, _ = parts(new_maker(stand_in, cloud, external_network="none"))
    assert ip is None
    assert port.address.startswith("10.20.")
    assert stand_in.totals()["floating IPs"] == 0


# --- many machines at once ---


def members(stand_in: OwnCloud) -> list[int]:
    return sorted(len(stand_in.compute.groups.members(group)) for group in stand_in.compute.groups.items)


@pytest.mark.parametrize(("most", "sizes"), [(2, [1, 2]), (3, [3]), (None, [3])])
def test_server_groups_are_filled_up_one_after_the_other(
    stand_in: OwnCloud, cloud: Cloud, most: int | None, sizes: list[int]
) -> None:
    stand_in.set_quota("server_group_members", most or -1)
    maker = new_maker(stand_in, cloud, most, external_network="none")
    outcomes = fan_out(lambda number: machine(maker, f"bio-{number}"), range(1, 4))
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert members(stand_in) == sizes


def test_one_of_an_earlier_run_is_filled_up_first(stand_in: OwnCloud, cloud: Cloud) -> None:
    machine(new_maker(stand_in, cloud, 2), "bio-1")
    maker = new_maker(stand_in, cloud, 2)
    machine(maker, "bio-2")
    machine(maker, "bio-3")
    assert members(stand_in) == [1, 2]


def test_a_group_of_somebody_else_is_left_to_him(stand_in: OwnCloud, cloud: Cloud) -> None:
    theirs = cloud.api.compute.create_server_group(name=f"{MARK}-2", policy="soft-anti-affinity").id
    machine(new_maker(stand_in, cloud))
    assert stand_in.compute.groups.members(theirs) == []


def test_what_machines_share_is_made_once_for_all(stand_in: OwnCloud, cloud: Cloud) -> None:
    maker = new_maker(stand_in, cloud)
    fan_out(lambda number: machine(maker, f"bio-{number}"), range(1, 5))
    assert stand_in.totals() == {
        "servers": 4,
        "ports": 4,
        "floating IPs": 4,
        "server groups": 1,
        "security groups": 1,
        "volumes": 0,
    }


def test_the_requests_while_they_boot_do_not_grow_with_their_number(stand_in: OwnCloud) -> None:
    def looks(count: int) -> int:
        clock = Crowd(count)
        cloud = open_cloud(settings(), clock)
        maker = new_maker(stand_in, cloud, external_network="none")
        servers = [parts(maker, f"bio-{count}-{number}")[-1] for number in range(count)]
        for server in servers:
            stand_in.compute.servers[server.id].fate = "BUILD"
        stand_in.seen = lambda request: boot(clock.now())
        before = stand_in.count("GET", "/servers/detail")
        clock.run(*(partial(maker.await_active, server.name, server) for server in servers))
        cloud.api.close()
        return stand_in.count("GET", "/servers/detail") - before

    def boot(now: float) -> None:
        for made in stand_in.compute.servers.values():
            made.fate = "ACTIVE" if now >= 10 else "BUILD"

    alone = looks(1)
    assert alone == 10 / INTERVAL + 1
    assert looks(4) <= alone + 4  # threads that begin later may ask once more


# --- existing parts ---


def test_what_an_earlier_run_made_is_used(stand_in: OwnCloud, cloud: Cloud) -> None:
    before = [part.id for part in parts(new_maker(stand_in, cloud)) if part]
    stand_in.requests.clear()
    assert [part.id for part in parts(new_maker(stand_in, cloud)) if part] == before
    assert {made.method for made in stand_in.requests} == {"GET"}


def test_what_it_had_not_marked_yet_is_marked(stand_in: OwnCloud, cloud: Cloud) -> None:
    port = stand_in.add_port("bio-1")
    ip = stand_in.add_ip(port)
    machine(new_maker(stand_in, cloud))
    assert (port["tags"], ip["tags"]) == ([MARK], [MARK])
    assert stand_in.totals()["ports"] == stand_in.totals()["floating IPs"] == 1


def test_the_address_of_a_machine_that_was_deleted_is_the_next_ones(stand_in: OwnCloud, cloud: Cloud) -> None:
    port, ip, server = parts(new_maker(stand_in, cloud))
    cloud.api.compute.delete_server(server.id)
    again, same_ip, other = parts(new_maker(stand_in, cloud))
    assert (again.id, again.address) == (port.id, port.address)
    assert same_ip and ip and same_ip.address == ip.address
    assert other.id != server.id


def test_a_spare_floating_ip_is_bound_before_another_is_made(stand_in: OwnCloud, cloud: Cloud) -> None:
    spare = [stand_in.add_ip()["id"] for _ in range(2)]
    stranger = stand_in.add_ip(marked="")["id"]
    maker = new_maker(stand_in, cloud)
    fan_out(lambda number: machine(maker, f"bio-{number}"), range(1, 4))
    ips = stand_in.network.floating_ips.items
    assert len({ips[id]["port_id"] for id in spare} - {None}) == 2
    assert ips[stranger]["port_id"] is None
    assert [ip["tags"] for id, ip in ips.items() if id != stranger] == [[MARK]] * 3
    assert len(ips) == 4


# --- from a volume ---


def test_a_machine_boots_from_a_volume_if_one_is_configured(stand_in: OwnCloud, cloud: Cloud) -> None:
    machine(new_maker(stand_in, cloud, boot_volume="5.5G"))
    (volume,) = stand_in.volumes.volumes.values()
    (asked,) = stand_in.bodies(VOLUMES)
    (image,) = (image["id"] for image in stand_in.images.images.values() if image["name"] == "debian-13")
    assert (asked["name"], asked["size"], asked["imageRef"], asked["description"]) == ("bio-1", 6, image, MARK)
    server = stand_in.bodies(SERVERS)[0]["server"]
    assert not server.get("imageRef")
    assert server["block_device_mapping_v2"] == [
        {
            "uuid": volume["id"],
            "source_type": "volume",
            "destination_type": "volume",
            "boot_index": 0,
            "delete_on_termination": True,
        }
    ]


def test_volumes_are_awaited_with_one_list_for_all(stand_in: OwnCloud) -> None:
    def looks(count: int) -> int:
        stand_in.volumes.looks_to_create = 6
        clock = Crowd(count)
        cloud = open_cloud(settings(), clock)
        maker = new_maker(stand_in, cloud, boot_volume="1G", external_network="none")
        ports = [port for number in range(count) if (port := maker.port(f"bio-{count}-{number}"))]
        stand_in.requests.clear()
        clock.run(*(partial(maker.server, port.name, port, OWN) for port in ports))
        cloud.api.close()
        assert not stand_in.count("GET", "/volumes/[0-9a-f]{8}-")
        return stand_in.count("GET", "/volumes/detail")

    assert looks(1) <= 9
    assert looks(4) <= 9 + 2 * 4  # each looks for an existing one, and once more after creating its own


def test_a_volume_that_fails_is_reported_and_deleted(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_create = 5

    def fail(request: Any) -> None:
        for volume in stand_in.volumes.volumes.values():
            volume["status"] = "error"

    stand_in.seen = fail
    with pytest.raises(MachineError, match=r"bio-1: its volume is in the state error\."):
        parts(new_maker(stand_in, cloud, boot_volume="5G"))
    assert stand_in.totals()["volumes"] == 0
    assert stand_in.totals()["servers"] == 0


def test_a_volume_that_is_never_filled_is_reported(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COPYING >= 900  # copying large images takes long
    monkeypatch.setattr(volumes, "COPYING", 10.0)
    stand_in.volumes.looks_to_create = 10**6
    with pytest.raises(MachineError, match=r"bio-1: the image was not copied to its volume in 10 s\."):
        parts(new_maker(stand_in, cloud, boot_volume="5G"))
    assert 10 <= clock.now() < 13


def test_a_volume_that_somebody_deletes_meanwhile_is_reported(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_create = 5
    polls: list[str] = []

    def delete(request: Any) -> None:
        polls.extend(["x"] if request.path.endswith("/volumes/detail") else [])
        if len(polls) == 4:
            stand_in.volumes.volumes.clear()

    stand_in.seen = delete
    with pytest.raises(MachineError, match="bio-1: its volume is in the state deleted"):
        parts(new_maker(stand_in, cloud, boot_volume="5G"))


@pytest.mark.parametrize(("status", "is_used"), [("available", True), ("creating", True), ("error", False)])
def test_the_volume_of_a_run_that_was_cut_off_is_used_if_it_is_whole(
    stand_in: OwnCloud, cloud: Cloud, status: str, is_used: bool
) -> None:
    (image,) = (image["id"] for image in stand_in.images.images.values() if image["name"] == "debian-13")
    volume = stand_in.volumes.make(size=5, name="bio-1", image=image, text=MARK)
    volume["status"] = status
    machine(new_maker(stand_in, cloud, boot_volume="5G"))
    assert ([*stand_in.compute.server("bio-1").volumes] == [volume["id"]]) == is_used
    assert len(stand_in.volumes.volumes) == 2 - is_used


# --- once it is up ---


def test_a_machine_that_has_answered_says_so_beside_its_mark(stand_in: OwnCloud, cloud: Cloud) -> None:
    maker = new_maker(stand_in, cloud)
    server = machine(maker)
    for _ in range(2):
        maker.mark_answered(server)
    assert stand_in.compute.server("bio-1").tags == [ANSWERED, MARK]


def test_a_refusal_is_reported_with_the_message_of_the_cloud(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.set_quota("instances", 0)
    with pytest.raises(CloudError, match=r"bio-1: creating its server failed: Quota exceeded .* \(HTTP 403\)"):
        parts(new_maker(stand_in, cloud))
    assert stand_in.count("POST", SERVERS) == 1
    assert issubclass(making.Faulty, MachineError)
    assert not issubclass(making.Faulty, HttpException)
