"""The section `openstack` of the configuration."""

from __future__ import annotations

import pytest

from cloudscale.course.settings import NO_FLOATING_IPS, OpenStackSettings, read_settings
from cloudscale.errors import SettingsError

MIB = 1024**2


def cloud(**values: object) -> OpenStackSettings:
    return read_settings({"openstack": values}).openstack


def refusal(**values: object) -> str:
    with pytest.raises(SettingsError) as raised:
        cloud(**values)
    return raised.value.message


def test_a_cloud_needs_no_more_than_its_defaults() -> None:
    defaults = cloud()
    assert (defaults.cloud, defaults.key_pair) == (None, None)
    assert (defaults.availability_zone, defaults.boot_volume) == (None, None)
    assert (defaults.config_drive, defaults.server_prefix, defaults.boot_timeout) == (False, "", 600)
    assert defaults.admin_cidr == defaults.student_cidr == ("0.0.0.0/0", "::/0")
    assert (defaults.image, defaults.user, defaults.network) == ("debian-13", "debian", ("course-net",))
    assert (defaults.external_network, defaults.floating_ips) == ("public", ())


@pytest.mark.parametrize(
    ("given", "networks"),
    [("course-net", ["course-net"]), ("a,b", ["a", "b"]), (["Ext-Net", "private net"], ["Ext-Net", "private net"])],
)
def test_machines_may_be_in_several_networks(given: object, networks: list[str]) -> None:
    assert cloud(network=given).network == tuple(networks)


def test_a_volume_to_boot_from_has_a_size_as_docker_has_them() -> None:
    assert cloud(boot_volume="20G").boot_volume == 20 * 1024 * MIB
    assert cloud(boot_volume=None).boot_volume is None


@pytest.mark.parametrize("value", [20, "20", True, "large"])  # a number without a unit is bytes
def test_what_is_no_size_of_a_volume_is_refused_with_its_key(value: object) -> None:
    assert "cloudscale.openstack.boot_volume" in refusal(boot_volume=value)


@pytest.mark.parametrize("prefix", ["", "a", "uni-", "x" * 20, "2026-"])
def test_the_names_of_servers_may_have_a_prefix(prefix: str) -> None:
    assert cloud(server_prefix=prefix).server_prefix == prefix


@pytest.mark.parametrize("prefix", ["-a", "Uni", "a_b", "a.b", "é", "x" * 21, "a\n", " a"])
def test_a_prefix_that_no_host_name_can_have_is_refused(prefix: str) -> None:
    assert "cloudscale.openstack.server_prefix" in refusal(server_prefix=prefix)


def test_what_the_cloud_can_answer_may_be_empty_and_the_flavor_may_not() -> None:
    empty = cloud(image="", network="", external_network="", user="")
    assert (empty.image, empty.network, empty.external_network, empty.user) == ("", (), "", "")
    assert "cloudscale.openstack.flavor" in refusal(flavor="")


def test_what_may_be_empty_is_so_without_a_value_too() -> None:
    empty = cloud(image=None, network=None, external_network=None, user=None, flavor=None)
    assert (empty.image, empty.network, empty.external_network, empty.user) == ("", (), "", "")
    assert empty.flavor == "m1.small"


@pytest.mark.parametrize("word", ["none", "None", "NONE"])
def test_none_in_any_case_is_no_floating_ips(word: str) -> None:
    assert cloud(external_network=word).external_network == NO_FLOATING_IPS


def test_a_key_pair_of_ones_own_may_be_let_in_too() -> None:
    assert cloud(key_pair="ann").key_pair == "ann"


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("yes", True), ("false", False), ("0", False), ("off", False)]
)
def test_switches_and_numbers_may_be_text_as_in_the_environment(text: str, value: bool) -> None:
    openstack = cloud(config_drive=text, boot_volume="20G", boot_timeout="90", student_cidr="192.0.2.0/24,::/0")
    assert openstack.student_cidr == ("192.0.2.0/24", "::/0")
    assert (openstack.config_drive, openstack.boot_volume, openstack.boot_timeout) == (value, 20 * 1024 * MIB, 90)


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    assert "cloudscale.openstack.config_drive" in refusal(config_drive="perhaps")


@pytest.mark.parametrize("seconds", [0, -1, True, "soon", "nan", "inf"])
def test_a_time_to_boot_is_a_number_of_seconds(seconds: object) -> None:
    assert "cloudscale.openstack.boot_timeout" in refusal(boot_timeout=seconds)
