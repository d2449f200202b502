from __future__ import annotations

import inspect

import pytest

from cloudscale.course import Course
from cloudscale.drivers import Driver, load_driver
from cloudscale.drivers.generic import Generic
from cloudscale.drivers.local import Local
from cloudscale.drivers.openstack import driver as openstack
from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.errors import RequestError
from cloudscale.settings import OpenStackSettings, read_settings

COURSE = Course.named("bio", "generic")


def test_the_driver_that_the_settings_name_is_loaded() -> None:
    assert isinstance(load_driver(read_settings({"driver": "local"}), COURSE, pytest.fail), Local)
    settings = read_settings({"driver": "generic", "generic": {"hosts": ["a", "b"]}})
    driver = load_driver(settings, COURSE, pytest.fail)
    assert isinstance(driver, Generic)
    assert [machine.name for machine in driver.machines()] == ["a", "b"]


def test_a_cloud_is_loaded_where_the_settings_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[OpenStackSettings] = []
    monkeypatch.setattr(openstack, "open_cloud", opened.append)
    settings = read_settings({"openstack": {"cloud": "course"}})
    assert isinstance(load_driver(settings, COURSE, pytest.fail), OpenStack)
    assert opened == [settings.openstack]


@pytest.mark.parametrize("name", ["virtualbox", "qemu"])
def test_a_driver_that_is_not_there_yet_is_a_wrong_request(name: str) -> None:
    with pytest.raises(RequestError, match=name) as raised:
        load_driver(read_settings({"driver": name}), COURSE, pytest.fail)
    assert "openstack" in raised.value.remedy
    assert "--driver local" in raised.value.remedy
    assert "--driver generic" in raised.value.remedy


def test_a_swarm_of_somebody_else_is_used_on_this_computer_only() -> None:
    assert Local.adopts_swarm
    assert not Generic.adopts_swarm
    assert not OpenStack.adopts_swarm


def test_machines_are_made_in_the_cloud_and_nowhere_else() -> None:
    assert OpenStack.makes_machines
    assert not Generic.makes_machines
    assert not Local.makes_machines


@pytest.mark.parametrize("driver", [Local, Generic, OpenStack])
def test_a_driver_does_what_a_workflow_asks(driver: type) -> None:
    asked = {name for name, member in vars(Driver).items() if inspect.isfunction(member) and not name.startswith("_")}
    for name in asked:
        wanted, found = inspect.signature(vars(Driver)[name]), inspect.signature(getattr(driver, name))
        assert [*found.parameters] == [*wanted.parameters], name
