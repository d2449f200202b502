"""What the configuration names is looked up in the cloud, or refused with the available names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.choices import Choices
from cloudscale.drivers.openstack.choices import choose as choose_and_say
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.lookup import SHOWN
from cloudscale.errors import CloudError, SettingsError
from cloudscale.hosts.facts import usable_memory
from cloudscale.model import Kind
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import (
    MARKS,
    OwnCloud,
    settings,
)

pytestmark = MARKS
MIB, GIB = 1024**2, 1024**3


def choose(cloud: Cloud, given: OpenStackSettings) -> Choices:
    """Where the configuration leaves nothing open."""
    said: list[str] = []
    choices = choose_and_say(cloud, given, said.append)
    assert said == []
    return choices


def refusal(cloud: Cloud, **given: Any) -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        choose(cloud, settings(**given))
    assert raised.value.exit_code == 2
    return raised.value


def ids(stand_in: OwnCloud) -> dict[str, str]:
    """The resources that the configuration names by default, and others: name → id."""
    network, compute = stand_in.network, stand_in.compute
    available = [*network.networks.items.values(), *stand_in.images.images.values(), *compute.flavors.values()]
    return {item["name"]: item["id"] for item in available}


# --- names that exist ---


def test_what_the_configuration_names_is_looked_up(stand_in: OwnCloud, cloud: Cloud) -> None:
    known = ids(stand_in)
    assert choose(cloud, settings()) == Choices(
        image_id=known["debian-13"],
        user="debian",
        flavor_id=known["m1.small"],
        kind=Kind("m1.small", 1, usable_memory(1536)),
        ram=1536,
        network_id=known["course-net"],
        cidrs=frozenset({"10.20.0.0/20"}),
        external_id=known["public"],
    )


def test_an_id_is_as_good_as_a_name(stand_in: OwnCloud, cloud: Cloud) -> None:
    known = ids(stand_in)
    by_id = {
        "image": known["debian-13"],
        "flavor": known["m1.small"],
        "network": known["course-net"],
        "external_network": known["public"],
    }
    assert choose(cloud, settings(**by_id)) == choose(cloud, settings())


@pytest.mark.parametrize("name", ["Débian 13 (trixie)", "debian+13%20"])
def test_a_name_may_be_any(stand_in: OwnCloud, cloud: Cloud, name: str) -> None:
    image = stand_in.images.add_image(name)
    assert choose(cloud, settings(image=name)).image_id == image["id"]


def test_without_an_external_network_no_floating_ips_are_used(stand_in: OwnCloud, cloud: Cloud) -> None:
    assert choose(cloud, settings(external_network="none")).external_id is None


def test_all_ranges_of_the_network_are_known(stand_in: OwnCloud, cloud: Cloud) -> None:
    (net,) = (net for net in stand_in.network.networks.items.values() if net["name"] == "course-net")
    stand_in.network.subnets.add("six", net, "2001:db8::/64")
    assert choose(cloud, settings()).cidrs == {"10.20.0.0/20", "2001:db8::/64"}


def test_a_key_pair_and_a_zone_are_looked_up_if_they_are_configured(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.add_keypair("mine", "ssh-ed25519 AAAA me")
    choose(cloud, settings(key_pair="mine", availability_zone="nova"))
    assert stand_in.count("GET", "/os-keypairs") == stand_in.count("GET", "/os-availability-zone") == 1
    choose(cloud, settings())
    assert stand_in.count("GET", "/os-keypairs") == stand_in.count("GET", "/os-availability-zone") == 1


# --- names that do not exist ---


@pytest.mark.parametrize(
    ("key", "wrong", "available"),
    [
        ("image", "debian13", "debian-13, debian-13-docker"),
        ("flavor", "m1.smal", "m1.small"),
        ("network", "course-nett", "course-net, public"),
        ("external_network", "publik", "public."),
        ("key_pair", "mein", "mine."),
        ("availability_zone", "novo", "nova."),
    ],
)
def test_a_misspelt_name_is_refused_with_its_key_and_the_available_names(
    stand_in: OwnCloud, cloud: Cloud, key: str, wrong: str, available: str
) -> None:
    stand_in.compute.add_keypair("mine", "ssh-ed25519 AAAA me")
    error = refusal(cloud, **{key: wrong})
    assert error.message == f"The cloud 'course' does not have openstack.{key}: {wrong!r}."
    assert error.remedy.startswith(f"Available: {available}")


def test_the_most_similar_names_are_listed_first(stand_in: OwnCloud, cloud: Cloud) -> None:
    for name in ("alpine", "windows-10", "ubuntu-24.04", "ubuntu-22.04"):
        stand_in.images.add_image(name)
    remedy = refusal(cloud, image="ubuntu-2404").remedy
    assert remedy.startswith(
        "Available: ubuntu-24.04, ubuntu-22.04, alpine, debian-13, debian-13-docker, windows-10. Or"
    )


def test_a_long_list_is_cut(stand_in: OwnCloud, cloud: Cloud) -> None:
    for number in range(40):
        stand_in.images.add_image(f"image-{number:02}")
    remedy = refusal(cloud, image="image-30x").remedy
    assert remedy.startswith("Available: image-30, ")
    assert f" and {42 - SHOWN} more." in remedy
    assert remedy.count(",") == SHOWN - 1


def test_an_empty_list_of_names_is_reported_as_none(cloud: Cloud) -> None:
    assert refusal(cloud, key_pair="mine").remedy == "Available: none."


def test_the_remedy_says_that_floating_ips_can_be_left_out(cloud: Cloud) -> None:
    remedy = refusal(cloud, external_network="outside").remedy
    assert "Set it to none if your machines' own addresses can be reached, or leave it empty." in remedy


def test_the_machines_network_is_no_way_out(stand_in: OwnCloud, cloud: Cloud) -> None:
    for name in ("course-net", ids(stand_in)["course-net"]):
        assert "openstack.external_network" in refusal(cloud, external_network=name).message


@pytest.mark.parametrize(("key", "name"), [("network", "course-net"), ("flavor", "m1.small")])
def test_a_name_that_several_resources_have_is_refused(stand_in: OwnCloud, cloud: Cloud, key: str, name: str) -> None:
    again = {
        "network": lambda: stand_in.network.networks.add(name),
        "flavor": lambda: stand_in.compute.add_flavor(name, vcpus=1, ram=1536, disk=8),
    }
    twin = again[key]()
    error = refusal(cloud, **{key: name})
    assert error.message == f"openstack.{key}: {name!r}: the cloud has several with this name."
    assert "id" in error.remedy
    if key != "network":  # which has no subnet
        choose(cloud, settings(**{key: twin["id"]}))


def test_two_external_networks_with_one_name_are_refused(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.network.networks.add("public", external=True)
    assert "several with this name" in refusal(cloud, external_network="public").message
    known = [net["id"] for net in stand_in.network.networks.items.values() if net["name"] == "public"]
    assert [choose(cloud, settings(external_network=id)).external_id for id in known] == known


def test_a_network_of_the_name_that_leads_nowhere_is_not_taken_for_the_way_out(
    stand_in: OwnCloud, cloud: Cloud
) -> None:
    known = ids(stand_in)["public"]
    stand_in.network.networks.add("public")
    assert choose(cloud, settings()).external_id == known


def test_a_network_without_a_subnet_is_refused(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.network.networks.add("bare")
    assert refusal(cloud, network="bare").message == "The network 'bare' (openstack.network) has no subnet."


def test_an_image_that_is_not_ready_is_none_to_choose(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.images.add_image("debian-14")["status"] = "queued"
    assert "debian-14" not in refusal(cloud, image="debian-15").remedy


# --- choices that do not fit together ---


def test_a_flavor_with_too_little_memory_for_the_image_is_refused(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.images.add_image("big", min_ram=4096)
    error = refusal(cloud, image="big")
    assert error.message == "The image 'big' needs 4096 MiB of memory, but the flavor 'm1.small' has only 1536 MiB."
    assert "openstack.flavor" in error.remedy
    assert choose(cloud, settings(image="big", flavor="m1.large")).ram == 4096


@pytest.mark.parametrize("size", [{"min_disk": 9}, {"size": 9 * GIB}])
def test_a_flavor_with_too_little_disk_for_the_image_is_refused(
    stand_in: OwnCloud, cloud: Cloud, size: dict[str, int]
) -> None:
    stand_in.images.add_image("big", **size)
    error = refusal(cloud, image="big")
    assert error.message == "The image 'big' needs 9.0 GiB of disk, but the flavor 'm1.small' has only 8.0 GiB."
    assert "openstack.boot_volume" in error.remedy
    choose(cloud, settings(image="big", flavor="m1.medium"))


@pytest.mark.parametrize("key", ["boot_volume", "work_volume"])
def test_volumes_in_a_cloud_without_them_are_refused(
    stand_in: OwnCloud, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(cloud.api, "has_service", lambda name: name != "block-storage")
    error = refusal(cloud, **{key: "5G"})
    assert error.message == f"openstack.{key} is set, but the cloud 'course' has no volumes."
    assert error.remedy == "Leave it out."


def test_the_type_of_a_work_volume_has_to_exist(cloud: Cloud) -> None:
    assert "__DEFAULT__, ssd" in refusal(cloud, work_volume="5G", volume_type="fast").remedy


def test_a_volume_takes_the_place_of_the_flavors_disk(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.images.add_image("big", min_disk=9)
    choose(cloud, settings(image="big", boot_volume="9G"))
    error = refusal(cloud, image="big", boot_volume="8G", flavor="m1.large")
    assert error.message == "The image 'big' needs 9.0 GiB of disk, but openstack.boot_volume has only 8.0 GiB."


def test_a_flavor_without_a_disk_is_refused_unless_machines_boot_from_volumes(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.compute.add_flavor("diskless", vcpus=1, ram=1536, disk=0)
    error = refusal(cloud, flavor="diskless")
    assert error.message == "The flavor 'diskless' has no disk: its machines boot from volumes."
    assert error.remedy == "Set openstack.boot_volume, such as 20G, or choose another openstack.flavor."
    assert choose(cloud, settings(flavor="diskless", boot_volume="20G")).kind.name == "diskless"


@given(st.integers(256, 2**20))
def test_a_machine_has_a_little_less_memory_than_its_flavor(ram: int) -> None:
    assert 0 < usable_memory(ram) < ram * MIB
    assert usable_memory(ram) <= usable_memory(ram + 1)


@pytest.mark.parametrize(("ram", "measured"), [(1536, 1475 * MIB), (65536, int(63.0 * GIB))])
def test_it_is_never_more_than_was_measured(ram: int, measured: int) -> None:
    assert 0.9 * measured < usable_memory(ram) <= measured


# --- failures ---


def test_a_cloud_that_does_not_tell_is_no_mistake_of_the_configuration(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault(path="/flavors", status=403, times=None))
    with pytest.raises(CloudError, match=r"openstack\.flavor: 'm1\.small' failed: .*\(HTTP 403\)"):
        choose(cloud, settings())


def test_all_that_is_named_is_looked_up_side_by_side(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault(path="/", seconds=0.02, times=None))
    choose(cloud, settings())
    assert stand_in.most_at_once >= 3
