from __future__ import annotations

import inspect

import pytest

from cloudscale.course import Course
from cloudscale.drivers import Driver, load_driver
from cloudscale.drivers.generic import Generic
from cloudscale.drivers.local import Local
from cloudscale.errors import RequestError
from cloudscale.settings import read_settings

COURSE = Course.named("bio", "generic")


def test_the_driver_that_the_settings_name_is_loaded() -> None:
    assert isinstance(load_driver(read_settings({"driver": "local"}), COURSE, pytest.fail), Local)
    settings = read_settings({"driver": "generic", "generic": {"hosts": ["a", "b"]}})
    driver = load_driver(settings, COURSE, pytest.fail)
    assert isinstance(driver, Generic)
    assert [machine.name for machine in driver.machines()] == ["a", "b"]


@pytest.mark.parametrize("name", ["openstack", "virtualbox", "qemu"])
def test_a_driver_that_is_not_there_yet_is_a_wrong_request(name: str) -> None:
    with pytest.raises(RequestError, match=name) as raised:
        load_driver(read_settings({"driver": name}), COURSE, pytest.fail)
    assert "--driver local" in raised.value.remedy
    assert "--driver generic" in raised.value.remedy


def test_a_swarm_of_somebody_else_is_used_on_this_computer_only() -> None:
    assert Local.adopts_swarm
    assert not Generic.adopts_swarm


@pytest.mark.parametrize("driver", [Local, Generic])
def test_a_driver_does_what_a_workflow_asks(driver: type) -> None:
    asked = {name for name, member in vars(Driver).items() if inspect.isfunction(member) and not name.startswith("_")}
    for name in asked:
        wanted, found = inspect.signature(vars(Driver)[name]), inspect.signature(getattr(driver, name))
        assert [*found.parameters] == [*wanted.parameters], name
