from __future__ import annotations

import inspect

import pytest

from cloudscale.course.settings import LocalSettings
from cloudscale.drivers.generic import Generic
from cloudscale.drivers.given import GivenMachines
from cloudscale.drivers.local import Local
from cloudscale.drivers.protocols import Driver
from cloudscale.model import Machine, Order


def test_machines_that_are_given_are_not_made() -> None:
    given: Driver = Local(LocalSettings())
    assert not given.makes_machines
    assert given.kind() is None
    assert given.order(3, {"m1"}) == Order(surveys=(), demands=(), fits=0)


def test_a_machine_that_is_given_is_never_to_come() -> None:
    with pytest.raises(NotImplementedError):
        GivenMachines().bring(Machine("m1", "192.0.2.1"))


def test_the_network_of_given_machines_is_left_to_its_owner() -> None:
    GivenMachines().open_ports({"bio-1": {4321}})  # nothing to do, and nothing to fail


def test_nothing_is_there_to_be_swept_away() -> None:
    given = GivenMachines()
    assert given.resources() == ""
    assert given.sweep() == given.sweep(["m1"]) == ()


@pytest.mark.parametrize("driver", [Local, Generic])
def test_drivers_of_given_machines_change_nothing_of_that(driver: type[GivenMachines]) -> None:
    shared = {name for name in vars(GivenMachines) if not name.startswith("_")}
    assert shared == {"makes_machines", "kind", "order", "bring", "open_ports", "resources", "sweep"}
    asked = inspect.get_annotations(Driver).keys() | vars(Driver).keys()
    for name in shared:
        assert name in asked
        assert inspect.getattr_static(driver, name) is vars(GivenMachines)[name]
