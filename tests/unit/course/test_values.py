"""Values of the configuration that are more than text: address ranges and addresses."""

from __future__ import annotations

import pytest

from cloudscale.course.settings import OpenStackSettings, read_settings
from cloudscale.errors import SettingsError


def cloud(**values: object) -> OpenStackSettings:
    return read_settings({"openstack": values}).openstack


def refusal(**values: object) -> str:
    with pytest.raises(SettingsError) as raised:
        cloud(**values)
    return raised.value.message


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        ("192.0.2.0/24", ["192.0.2.0/24"]),
        ("192.0.2.7/24", ["192.0.2.0/24"]),  # as the command `ip` shows one's own address
        ("192.0.2.7", ["192.0.2.7/32"]),
        ("2001:DB8::7/32", ["2001:db8::/32"]),
        ("::/0", ["::/0"]),
        ("192.0.2.0/24, 2001:db8::/32", ["192.0.2.0/24", "2001:db8::/32"]),
        (["192.0.2.0/24", "198.51.100.7"], ["192.0.2.0/24", "198.51.100.7/32"]),
        (["192.0.2.7/24", "192.0.2.0/24"], ["192.0.2.0/24"]),
    ],
)
@pytest.mark.parametrize("key", ["admin_cidr", "student_cidr"])
def test_who_is_let_in_is_one_address_range_or_several(key: str, given: object, networks: list[str]) -> None:
    assert getattr(cloud(**{key: given}), key) == tuple(networks)


@pytest.mark.parametrize("value", ["", "anywhere", "192.0.2.0/33", "192.0.2", 5, True, [], ","])
@pytest.mark.parametrize("key", ["admin_cidr", "student_cidr"])
def test_what_is_no_address_range_is_refused_with_its_key(key: str, value: object) -> None:
    assert f"cloudscale.openstack.{key}: should be an address range" in refusal(**{key: value})


@pytest.mark.parametrize("value", ["192.0.2.0/24,198.51.100", ["192.0.2.0/24", "198.51.100"]])
@pytest.mark.parametrize("key", ["admin_cidr", "student_cidr"])
def test_of_several_address_ranges_the_wrong_one_is_named(key: str, value: object) -> None:
    assert f"cloudscale.openstack.{key}: '198.51.100' should be an address range" in refusal(**{key: value})


@pytest.mark.parametrize("given", ["192.0.2.7,192.0.2.8", "192.0.2.7, 192.0.2.8", ["192.0.2.7", "192.0.2.8"]])
def test_floating_ips_are_a_list_of_addresses(given: object) -> None:
    assert cloud(floating_ips=given).floating_ips == ("192.0.2.7", "192.0.2.8")


@pytest.mark.parametrize("value", ["192.0.2", "2001:db8::7", ["192.0.2.7", "x"], "192.0.2.0/24", 5])
def test_what_is_no_floating_ip_is_refused_with_its_key(value: object) -> None:
    assert "cloudscale.openstack.floating_ips: " in refusal(floating_ips=value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("192.0.2.7", ("192.0.2.7/32:0",)),
        ("192.0.2.7:5432, 192.0.2.70/26", ("192.0.2.7/32:5432", "192.0.2.64/26:0")),
        (["192.0.2.0/24:443", "192.0.2.0/24:443"], ("192.0.2.0/24:443",)),
        ("", ()),
    ],
)
def test_what_seats_may_reach_is_addresses_and_ports(given: object, found: tuple[str, ...]) -> None:
    assert read_settings({"seat": {"reach": given}}).seat.reach == found


@pytest.mark.parametrize(
    "wrong", ["host.example", "192.0.2.7:http", "192.0.2.7:65536", "2001:db8::1", "$(id)", ["a b"], 5, {}]
)
def test_and_nothing_else(wrong: object) -> None:
    with pytest.raises(SettingsError, match=r"seat\.reach"):
        read_settings({"seat": {"reach": wrong}})
