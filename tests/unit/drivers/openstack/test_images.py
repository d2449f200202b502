"""The image of the machines, and its user: as configured, or found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.drivers.openstack.choices import choose
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.images import architecture, distribution, user_of, version
from cloudscale.errors import SettingsError
from tests.unit.drivers.openstack.cloud import MARKS, OwnCloud, settings

pytestmark = MARKS


def image(name: str, **properties: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, properties=properties)


def chosen(stand_in: OwnCloud, cloud: Cloud, **given: Any) -> tuple[str, str, list[str]]:
    """The name of the image, its user, and what is said."""
    said: list[str] = []
    choices = choose(cloud, settings(**{"image": "", **given}), said.append)
    return stand_in.images.images[choices.image_id]["name"], choices.user, said


# --- what a name says ---


@pytest.mark.parametrize(
    ("name", "system", "number"),
    [
        ("debian-13", "debian", (13, 0)),
        ("Debian 13 (trixie)", "debian", (13, 0)),
        ("debian-12-genericcloud-amd64-20250814-2204", "debian", (12, 0)),
        ("Debian trixie 20251006", "debian", (13, 0)),
        ("Debian (2025-01-05) bookworm", "debian", (12, 0)),
        ("debian12.5", "debian", (12, 0)),
        ("NeCTAR Debian 13 (Trixie) amd64 v4", "debian", (13, 0)),
        ("debian", "debian", (0, 0)),
        ("Ubuntu 24.04 LTS Noble Numbat", "ubuntu", (24, 4)),
        ("ubuntu-noble-server-cloudimg-amd64", "ubuntu", (24, 4)),
        ("Featured-Ubuntu24", "ubuntu", (24, 4)),
        ("ubuntu2204", "ubuntu", (22, 4)),
        ("Ubuntu Server 25.10", "ubuntu", (25, 10)),
        ("AlmaLinux-9", "", (0, 0)),
        ("CentOS-Stream-10", "", (0, 0)),
        ("Windows 2022", "", (0, 0)),
        ("Fedora-CoreOS-39", "", (0, 0)),
    ],
)
def test_system_and_version_are_read_from_the_name(name: str, system: str, number: tuple[int, int]) -> None:
    assert (distribution(image(name)), version(image(name))) == (system, number)


@pytest.mark.parametrize(
    ("properties", "system", "number"),
    [
        ({"os_distro": "debian", "os_version": "13"}, "debian", (13, 0)),
        ({"os_distro": "Debian", "os_version": "12.11"}, "debian", (12, 0)),
        ({"os_distro": "ubuntu", "os_version": "24.04"}, "ubuntu", (24, 4)),
        ({"os_distro": "ubuntu", "os_version": "jammy"}, "ubuntu", (22, 4)),
        ({"os_distro": "rocky", "os_version": "9"}, "", (0, 0)),
        ({"os_distro": "linux"}, "", (0, 0)),
    ],
)
def test_properties_go_before_the_name(properties: dict[str, str], system: str, number: tuple[int, int]) -> None:
    golden = image("golden", **properties)
    assert (distribution(golden), version(golden)) == (system, number)
    assert distribution(image("debian-13", os_distro="rocky")) == ""


@pytest.mark.parametrize(
    ("name", "properties", "expected"),
    [
        ("debian-13", {}, "x86_64"),
        ("debian-13-genericcloud-arm64", {}, "aarch64"),
        ("debian-13-ppc64el", {}, "ppc64"),
        ("debian-13", {"architecture": "aarch64"}, "aarch64"),
        ("debian-13-arm64", {"architecture": "amd64"}, "x86_64"),
    ],
)
def test_the_architecture_is_read_too(name: str, properties: dict[str, str], expected: str) -> None:
    assert architecture(image(name, **properties)) == expected


@pytest.mark.parametrize(
    ("properties", "user"),
    [
        ({}, "debian"),
        ({"os_admin_user": "ec2-user"}, "ec2-user"),
        ({"image_original_user": "admin"}, "admin"),
        ({"os_admin_user": "not a user; rm"}, "debian"),
        ({"os_distro": "rocky"}, ""),
    ],
)
def test_the_user_is_the_one_that_the_image_names(properties: dict[str, str], user: str) -> None:
    assert user_of(image("debian-13", **properties)) == user


# --- an image that is found ---


@pytest.mark.parametrize(
    ("names", "expected", "user"),
    [
        (["debian-12", "debian-13", "ubuntu-26.04"], "debian-13", "debian"),
        (["debian-13", "debian-12"], "debian-13", "debian"),  # the newest is the newest release
        (["Ubuntu 22.04", "Ubuntu 25.10", "Ubuntu 24.04"], "Ubuntu 24.04", "ubuntu"),  # with long support
        (["Ubuntu 25.04", "Ubuntu 25.10"], "Ubuntu 25.10", "ubuntu"),
        (["debian-11", "ubuntu-22.04", "ubuntu-20.04"], "ubuntu-22.04", "ubuntu"),
        (
            ["debian-12", "debian-13-nocloud", "debian-13-daily", "Debian 13 - Plesk", "debian-sid"],
            "debian-12",
            "debian",
        ),
        (["debian-12", "debian-13-arm64", "debian-13-s390x"], "debian-12", "debian"),
        (["debian-13-arm64"], "debian-13-arm64", "debian"),  # a cloud of another architecture
        (["debian-13 20250901", "debian-13 20251006"], "debian-13 20251006", "debian"),
    ],
)
def test_an_empty_image_is_the_newest_public_debian_or_ubuntu(
    stand_in: OwnCloud, cloud: Cloud, names: list[str], expected: str, user: str
) -> None:
    stand_in.images.images.clear()
    for number, name in enumerate(names, start=1):
        stand_in.images.add_image(name, created_at=f"2026-02-{number:02}T00:00:00Z")
    name, login, said = chosen(stand_in, cloud)
    assert (name, login) == (expected, user)
    assert said[0].startswith(f"openstack.image is empty: {expected!r} is taken, the newest public {user.capitalize()}")
    assert said[0].endswith("Set it to use another.")


def test_only_public_images_that_can_be_booted_are_taken(stand_in: OwnCloud, cloud: Cloud) -> None:
    add = stand_in.images.add_image
    add("debian-14", visibility="shared")
    add("debian-15", status="queued")
    add("debian-16", disk_format="iso")
    add("debian-17", image_type="snapshot")
    add("debian-18", os_hidden=True)
    assert chosen(stand_in, cloud)[0] in ("debian-13", "debian-13-docker")


def test_the_flavor_says_which_architecture_is_the_right_one(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.images.add_image("debian-13-arm64")
    stand_in.compute.add_flavor("arm", vcpus=1, ram=1536, disk=8, **{"hw:architecture": "aarch64"})
    assert chosen(stand_in, cloud, flavor="arm")[0] == "debian-13-arm64"
    assert chosen(stand_in, cloud)[0] != "debian-13-arm64"


def test_a_cloud_without_any_is_refused_with_what_it_has(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.images.images.clear()
    for name in ("AlmaLinux-9", "debian-10"):
        stand_in.images.add_image(name)
    with pytest.raises(
        SettingsError, match=r"openstack\.image is empty, but the cloud 'course' has no public"
    ) as raised:
        chosen(stand_in, cloud)
    assert raised.value.exit_code == 2
    assert raised.value.remedy == "Set openstack.image. Available: AlmaLinux-9, debian-10."


# --- several images of one name ---


def test_of_several_images_of_one_name_the_newest_public_one_is_taken(stand_in: OwnCloud, cloud: Cloud) -> None:
    add = stand_in.images.add_image
    add("base", created_at="2026-01-01T00:00:00Z", os_distro="debian")
    newest = add("base", created_at="2026-03-01T00:00:00Z", os_distro="debian")
    add("base", created_at="2026-04-01T00:00:00Z", visibility="private")
    add("base", created_at="2026-05-01T00:00:00Z", status="deactivated")
    said: list[str] = []
    assert choose(cloud, settings(image="base"), said.append).image_id == newest["id"]
    (note,) = said
    assert note.startswith("openstack.image: 'base': the cloud has 3 images with this name. The newest public one")
    assert newest["id"] in note and "2026-03-01" in note
    said.clear()
    assert choose(cloud, settings(image=newest["id"]), said.append).image_id == newest["id"]
    assert said == []


def test_if_none_of_them_is_public_the_ids_are_listed(stand_in: OwnCloud, cloud: Cloud) -> None:
    ids = sorted(stand_in.images.add_image("base", visibility="shared")["id"] for _ in range(2))
    with pytest.raises(SettingsError, match="several with this name, none of which is public") as raised:
        chosen(stand_in, cloud, image="base")
    assert raised.value.remedy == f"Use an id instead: {', '.join(ids)}."


def test_the_only_one_of_a_name_need_not_be_public(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.images.add_image("mine", visibility="private")
    assert chosen(stand_in, cloud, image="mine") == ("mine", "debian", [])


# --- the user ---


def test_the_user_is_the_images_unless_the_configuration_says_otherwise(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.images.add_image("ubuntu-24.04")
    note = "openstack.user: 'ubuntu' is taken, the user of the image 'ubuntu-24.04'. Set it to use another."
    assert chosen(stand_in, cloud, image="ubuntu-24.04") == ("ubuntu-24.04", "ubuntu", [note])
    assert chosen(stand_in, cloud, image="ubuntu-24.04", user="") == ("ubuntu-24.04", "ubuntu", [note])
    assert chosen(stand_in, cloud, image="ubuntu-24.04", user="debian") == ("ubuntu-24.04", "debian", [])


def test_an_image_that_does_not_say_its_user_has_the_default_unless_that_is_empty(
    stand_in: OwnCloud, cloud: Cloud
) -> None:
    stand_in.images.add_image("golden")
    assert chosen(stand_in, cloud, image="golden")[1:] == ("debian", [])
    with pytest.raises(SettingsError, match=r"openstack\.user is empty, and the image 'golden'") as raised:
        chosen(stand_in, cloud, image="golden", user="")
    assert raised.value.exit_code == 2
