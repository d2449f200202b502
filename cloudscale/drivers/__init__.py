"""Where machines come from: the registry of drivers. A driver's module is loaded when it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import NamedTuple

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import Settings
from cloudscale.drivers.protocols import Driver
from cloudscale.model import Say


class Row(NamedTuple):
    """`module` has a function `load(settings, course, say, patience)`; it gets the `section` of the settings."""

    module: str
    section: str


DRIVERS: Mapping[str, Row] = {
    "openstack": Row("cloudscale.drivers.openstack.driver", "openstack"),
    "local": Row("cloudscale.drivers.local", "local"),
    "generic": Row("cloudscale.drivers.generic", "generic"),
    "virtualbox": Row("cloudscale.drivers.vm.virtualbox", "vm"),
    "qemu": Row("cloudscale.drivers.vm.qemu", "vm"),
}


def load_driver(settings: Settings, course: CourseFolder, say: Say, patience: float | None = None) -> Driver:
    """The driver that the settings name. Raises RequestError if it can't work here.

    `patience`: seconds for each answer of a cloud or an SSH server, if less than usual.
    """
    row = DRIVERS[settings.driver]
    driver: Driver = importlib.import_module(row.module).load(getattr(settings, row.section), course, say, patience)
    return driver
