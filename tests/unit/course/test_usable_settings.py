from __future__ import annotations

import pytest

from cloudscale.course.settings import Settings, read_settings
from cloudscale.course.usable_settings import Usable, read_usable
from cloudscale.errors import SettingsError


def test_a_configuration_without_errors_is_used_as_it_is() -> None:
    given = {"driver": "local", "seat": {"cpus": 2}}
    assert read_usable(given, course="bio") == Usable(read_settings(given, course="bio"))


def test_of_a_wrong_section_nothing_is_used_and_all_errors_are_kept() -> None:
    given = {"driver": "generic", "seat": {"cpus": 2}, "openstack": {"cloud": "a", "flavr": "b"}, "colour": "red"}
    usable = read_usable(given)
    assert usable.settings == read_settings({"driver": "generic", "seat": {"cpus": 2}})
    assert usable.left_out == {"openstack", "colour"}
    assert usable.refused
    with pytest.raises(SettingsError) as raised:
        read_settings(given)
    assert (usable.refused.message, usable.refused.remedy) == (raised.value.message, raised.value.remedy)
    assert "openstack.flavr" in usable.refused.message
    assert "cloudscale.colour" in usable.refused.message


def test_an_error_names_the_variable_that_it_comes_from() -> None:
    usable = read_usable({"seat": {"memory": "much"}}, {"seat.memory": "INVOKE_CLOUDSCALE_SEAT_MEMORY"})
    assert usable.refused and usable.refused.message.startswith("INVOKE_CLOUDSCALE_SEAT_MEMORY: ")
    assert usable.settings == Settings()


def test_a_wrong_flag_is_refused() -> None:
    with pytest.raises(SettingsError, match="flag --driver"):
        read_usable({"colour": "red"}, driver="lokal")


def test_a_flag_goes_before_a_wrong_key() -> None:
    assert read_usable({"driver": "lokal"}, driver="local") == Usable(read_settings({}, driver="local"))
