"""A first login is tried on servers of the stand-in for a cloud, whose consoles show host keys."""

from __future__ import annotations

from tests.unit.drivers.openstack.conftest import clock_fixture as clock_fixture
from tests.unit.drivers.openstack.conftest import opened_fixture as opened_fixture
from tests.unit.drivers.openstack.conftest import own_cloud_fixture as own_cloud_fixture
from tests.unit.drivers.openstack.conftest import standing_fixture as standing_fixture
