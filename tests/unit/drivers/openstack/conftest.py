"""Fixtures: a stand-in for a cloud, a login to it, and a course in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudscale.drivers.openstack import security
from cloudscale.drivers.openstack.cloud import Cloud, open_cloud
from tests.unit.drivers.openstack.cloud import OwnCloud, Time, only_these, quicker, settings
from tests.unit.drivers.openstack.course import RealDriverClass
from tests.unit.drivers.openstack.testbed import CloudTestbed


@pytest.fixture(name="alone")
def alone_fixture(loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OwnCloud]:
    """A stand-in for one test, which can leave it in any state, with a clouds.yaml for it."""
    only_these(monkeypatch, tmp_path / "clouds.yaml")
    with OwnCloud() as stand_in:
        stand_in.clouds_yaml(tmp_path)
        yield stand_in
    assert stand_in.violations == []


@pytest.fixture(name="standing", scope="module")
def standing_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OwnCloud, Cloud]]:
    """A stand-in for all tests of a module, and a login to it, which takes most of the time."""
    folder = tmp_path_factory.mktemp("standing")
    with OwnCloud() as stand_in, pytest.MonkeyPatch.context() as patched:
        quicker(patched)
        with pytest.MonkeyPatch.context() as for_now:
            only_these(for_now, stand_in.clouds_yaml(folder))
            cloud = open_cloud(settings(), Time())
        yield stand_in, cloud
        cloud.api.close()


@pytest.fixture(name="stand_in")
def own_cloud_fixture(
    standing: tuple[OwnCloud, Cloud], loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[OwnCloud]:
    """The stand-in, reset, with a clouds.yaml for it. Requests that it does not accept fail the test."""
    only_these(monkeypatch, tmp_path / "clouds.yaml")
    stand_in, _ = standing
    stand_in.renew()
    stand_in.clouds_yaml(tmp_path)
    yield stand_in
    assert stand_in.violations == []


@pytest.fixture(name="clock")
def clock_fixture() -> Time:
    return Time()


@pytest.fixture(name="cloud")
def opened_fixture(standing: tuple[OwnCloud, Cloud], stand_in: OwnCloud, clock: Time) -> Cloud:
    """The login, with the clock of the test."""
    return replace(standing[1], clock=clock)


@pytest.fixture(name="few_rules")
def few_rules_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rules in the security group: they take most of the requests, and have their own tests."""
    monkeypatch.setattr(security, "base_rules", lambda settings, families=(): frozenset())


@pytest.fixture(name="testbed")
def testbed_fixture(monkeypatch: pytest.MonkeyPatch, stand_in: OwnCloud, clock: Time, cloud: Cloud) -> CloudTestbed:
    return CloudTestbed(monkeypatch, stand_in, clock, cloud)


@pytest.fixture(name="course")
def course_fixture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stand_in: OwnCloud, clock: Time, cloud: Cloud
) -> RealDriverClass:
    """A whole course in a cloud, with the real driver."""
    return RealDriverClass(monkeypatch, tmp_path, stand_in, clock, cloud)
