"""A login that expires during the course is reported before it begins."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.errors import AccessError
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import MARKS
from tests.unit.drivers.openstack.course import RealDriverClass

pytestmark = MARKS


@pytest.fixture(name="expiring")
def expiring_fixture(course: RealDriverClass, tmp_path: Path) -> Iterator[Callable[[float], None]]:
    """Gives the trainer an application credential that lasts so many hours, and a minute."""
    identity = course.stand_in.identity
    usual = identity.credentials[0]

    def give(hours: float) -> None:
        identity.credentials[0] = replace(usual, expires=time.time() + hours * 3600 + 60)
        course.testbed.cloud = None
        course.openstack["cloud"] = "application"

    yield give
    course.testbed.close()
    identity.credentials[0] = usual


@pytest.mark.parametrize(("hours", "is_reported"), [(0, True), (12, True), (23, True), (40, False)])
def test_a_login_that_expires_within_a_day_is_reported_at_the_plan(
    course: RealDriverClass, expiring: Callable[[float], None], hours: float, is_reported: bool
) -> None:
    expiring(hours)
    course.plan()
    expected = "Warning: the application credential 'cloudscale' for the cloud 'application' expires in "
    assert (expected in course.notes) == is_reported
    if is_reported:
        assert f"expires in {hours}.0 hours, at 20" in course.notes
        assert "Create one that lasts longer." in course.notes


def test_a_login_that_has_expired_ends_the_request(course: RealDriverClass, expiring: Callable[[float], None]) -> None:
    expiring(-1)
    with pytest.raises(AccessError, match="Could not log in to the cloud 'application'") as raised:
        course.plan()
    assert raised.value.exit_code == 2
    assert "The application credential may have expired." in raised.value.remedy


def test_a_login_whose_end_can_not_be_read_is_not_mentioned(
    course: RealDriverClass, expiring: Callable[[float], None]
) -> None:
    expiring(1)
    course.stand_in.faults.append(Fault(path="/application_credentials/", status=403, times=None))
    course.plan()
    assert "expires" not in course.notes


def test_a_password_has_no_end(course: RealDriverClass) -> None:
    course.plan()
    assert "expires" not in course.notes


def test_a_token_that_nothing_can_renew_is_reported(course: RealDriverClass, cloud: Cloud, tmp_path: Path) -> None:
    file = course.stand_in.clouds_yaml(tmp_path)
    clouds = json.loads(file.read_text())
    auth = {name: clouds["clouds"]["course"]["auth"][name] for name in ("auth_url", "project_name")}
    auth |= {"project_domain_name": "Default", "token": cloud.api.session.get_token()}
    clouds["clouds"]["token"] = {"auth_type": "token", "auth": auth, "region_name": "RegionOne"}
    file.write_text(json.dumps(clouds))
    course.testbed.cloud = None
    course.openstack["cloud"] = "token"
    course.plan()
    course.testbed.close()
    assert "Warning: the token for the cloud 'token' expires in " in course.notes
