"""`doctor` in a cloud: what it finds is what a launch on the same cloud then meets."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cloudscale.drivers.openstack import credential
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.errors import CloudscaleError
from cloudscale.workflow import doctor
from tests.unit.api_schema import Json
from tests.unit.drivers.openstack.cloud import MARKS, OwnCloud
from tests.unit.drivers.openstack.course import RealDriverClass
from tests.unit.fake_api import FakeApi

pytestmark = MARKS


@pytest.fixture(name="trainer")
def trainer_fixture(course: RealDriverClass) -> Iterator[RealDriverClass]:
    """The course of a trainer who has an engine, and who logs in again for each run."""
    course.trainer = FakeApi()
    course.trainer.registry = course.registry
    course.testbed.cloud = None
    yield course
    course.testbed.close()


def examined(course: RealDriverClass) -> list[Json]:
    requests = len(changes(course))
    rows: list[Json] = json.loads(doctor.doctor(course.session()).text)
    assert len(changes(course)) == requests
    return rows


def changes(course: RealDriverClass) -> list[Any]:
    """Whatever is in the cloud."""
    network, compute = course.stand_in.network, course.stand_in.compute
    return [*compute.servers, *network.ports.items, *network.floating_ips.items, *network.groups.items]


def same_as_a_launch(course: RealDriverClass) -> dict[str, str]:
    """What is wrong, by check. A launch then says the same, in the same words."""
    wrong = [row for row in examined(course) if row["state"] == "wrong"]
    with pytest.raises(CloudscaleError) as raised:
        course.launch()
    for row in wrong:
        assert str(CloudscaleError(row["finding"], row["remedy"])) in str(raised.value)
    return {row["check"]: row["finding"] for row in wrong}


def test_a_cloud_with_all_that_is_needed_is_well(trainer: RealDriverClass) -> None:
    rows = examined(trainer)
    assert [row for row in rows if row["state"] != "ok"] == []
    checks = [row["check"] for row in rows]
    assert {"driver openstack", "new machines", "quota", "image", "seats"} <= {*checks}


def test_a_cloud_that_is_not_in_the_file(trainer: RealDriverClass) -> None:
    trainer.openstack["cloud"] = "elsewhere"
    assert "The cloud 'elsewhere' can't be used" in same_as_a_launch(trainer)["driver openstack"]


def test_an_image_and_a_network_that_are_misspelt_are_both_named(trainer: RealDriverClass) -> None:
    trainer.openstack |= {"image": "debain-13", "network": "curse-net"}
    found = same_as_a_launch(trainer)["new machines"]
    assert "openstack.image: 'debain-13'" in found
    assert "openstack.network: 'curse-net'" in found


def test_a_quota_that_is_too_small(trainer: RealDriverClass) -> None:
    trainer.stand_in.set_quota("floatingip", 0)
    assert "The project's quota is too small for 1 machines" in same_as_a_launch(trainer)["quota"]


def test_a_flavor_without_a_disk(trainer: RealDriverClass) -> None:
    trainer.stand_in.compute.add_flavor("diskless", vcpus=2, ram=4096, disk=0)
    trainer.openstack["flavor"] = "diskless"
    assert "has no disk" in same_as_a_launch(trainer)["new machines"]


@pytest.mark.parametrize(("hours", "state"), [(-1, "wrong"), (12, "warning"), (40, "ok")])
def test_a_login_that_expires(trainer: RealDriverClass, hours: float, state: str) -> None:
    identity = trainer.stand_in.identity
    usual = identity.credentials[0]
    identity.credentials[0] = replace(usual, expires=time.time() + hours * 3600 + 60)
    trainer.openstack["cloud"] = "application"
    try:
        found = {row["state"]: row["finding"] for row in examined(trainer) if row["check"] == "driver openstack"}
        assert state in found
        assert ("warning" in found) == (state == "warning")
        if state == "wrong":
            same_as_a_launch(trainer)
    finally:
        identity.credentials[0] = usual


@pytest.mark.parametrize(("off", "direction"), [(3600, "behind"), (-3600, "ahead of"), (30, "")])
def test_a_clock_that_is_wrong(
    cloud: Cloud, stand_in: OwnCloud, monkeypatch: pytest.MonkeyPatch, off: float, direction: str
) -> None:
    get = cloud.api.session.get

    def at_another_time(url: str, **more: Any) -> Any:
        answer = get(url, **more)
        answer.headers["Date"] = email.utils.formatdate(time.time() + off, usegmt=True)
        return answer

    monkeypatch.setattr(cloud.api.session, "get", at_another_time)
    found = credential.check_clock(cloud)
    assert (found is None) == (not direction)
    if found:
        assert f"{direction} that of the cloud 'course'" in found.finding
        assert found.state == "warning"
