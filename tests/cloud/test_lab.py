"""The lab itself: the cloud is one that a trainer might have, and it fails as a test says."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from keystoneauth1.exceptions import ConnectFailure
from keystoneauth1.session import Session
from openstack.connection import Connection
from openstack.exceptions import ForbiddenException, HttpException

from tests.lab.cloud import LabCloud
from tests.lab.cloud_seed import BLANK, DOCKER, FLAVORS, PUBLIC, STOCK
from tests.lab.engine import LabEngine
from tests.lab.faults import Fault, FaultyCloud

GROUPS = r"^/v2\.0/security-groups$"


@pytest.fixture
def course(cloud: LabCloud) -> Iterator[Connection]:
    """The trainer's account."""
    with contextlib.closing(cloud.connect("course")) as connection:
        yield connection


@pytest.fixture
def through(faulty: FaultyCloud, cloud: LabCloud) -> Iterator[Connection]:
    """The trainer's account by way of the proxy."""
    with contextlib.closing(cloud.connect("course", faulty.urls["identity"])) as connection:
        yield connection


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1)


def group_names(connection: Connection) -> list[str]:
    return [str(group.name) for group in connection.network.security_groups()]


# --- the cloud -------------------------------------------------------------------------------


def test_a_trainer_finds_what_a_course_needs_and_rules_over_nothing(course: Connection) -> None:
    assert {flavor.name for flavor in course.compute.flavors()} == set(FLAVORS)
    assert {image.name for image in course.image.images()} == {STOCK, DOCKER, BLANK}
    assert {network.name for network in course.network.networks()} == {PUBLIC, "course-net"}
    with pytest.raises(ForbiddenException):
        list(course.compute.hypervisors())


def test_the_quotas_can_be_read_by_who_has_them_and_changed_by_the_lab(cloud: LabCloud, course: Connection) -> None:
    cloud.set_quota(instances=2, cores=3, floatingip=1)
    try:
        limits = course.compute.get_limits().absolute
        assert (limits.instances, limits.total_cores) == (2, 3)
        details = course.network.get(f"/quotas/{course.current_project_id}/details.json").json()["quota"]
        assert details["floatingip"] == {"limit": 1, "used": 0, "reserved": 0}
    finally:
        cloud.reset_quota()
    assert course.compute.get_limits().absolute.instances == 10


def test_another_project_sees_nothing_of_the_course(cloud: LabCloud) -> None:
    with contextlib.closing(cloud.connect("other")) as other:
        assert {network.name for network in other.network.networks()} == {PUBLIC}


def test_a_service_that_is_stopped_is_gone_until_it_starts(cloud: LabCloud, course: Connection) -> None:
    assert list(course.image.images())
    cloud.stop_service("glance")
    with pytest.raises(ConnectFailure):
        list(course.image.images())
    cloud.start_service("glance")
    assert list(course.image.images())


# --- faults ----------------------------------------------------------------------------------


def test_every_request_goes_through_the_proxy(through: Connection, faulty: FaultyCloud) -> None:
    sent: list[str] = []
    session = through.session
    assert isinstance(session, Session)
    session.session.hooks["response"].append(lambda response, *_, **__: sent.append(response.url))
    list(through.compute.servers())
    list(through.network.networks())
    list(through.image.images())
    through.compute.get_limits()
    assert len(sent) == len(faulty.requests) > 4
    assert all(url.startswith(tuple(faulty.urls.values())) for url in sent)


def test_a_fault_fires_as_often_as_it_should_and_is_recorded(through: Connection, faulty: FaultyCloud) -> None:
    fault = Fault("GET", GROUPS, "503", times=2, after=1)
    faulty.add(fault)
    answered = []
    for _ in range(4):
        try:
            group_names(through)
            answered.append(200)
        except HttpException as error:
            answered.append(error.status_code or 0)
    assert answered == [200, 503, 503, 200]
    assert faulty.faults == {fault: 2}
    assert [request.answer for request in faulty.asked("GET", GROUPS)] == ["200", "503", "503", "200"]


@pytest.mark.parametrize(("what", "made"), [("drop_before", False), ("drop_after", True)])
def test_a_lost_answer_may_be_that_of_something_done(
    what: str, made: bool, through: Connection, faulty: FaultyCloud
) -> None:
    faulty.add(Fault("POST", GROUPS, what))
    with pytest.raises(ConnectFailure):
        through.network.create_security_group(name=what)
    groups = [group for group in through.network.security_groups() if group.name == what]
    for group in groups:
        through.network.delete_security_group(group)
    assert bool(groups) is made


# --- the image -------------------------------------------------------------------------------


def test_the_tiny_image_is_small_and_has_a_jupyter_that_answers(cloud_engine: LabEngine, tiny_image: str) -> None:
    assert cloud_engine.client.images.get(tiny_image).attrs["Size"] < 120 * 10**6
    container = cloud_engine.client.containers.run(tiny_image, ["jupyter", "server"], detach=True, network_mode="none")
    try:
        asking = "import urllib.request as r; r.urlopen('http://127.0.0.1:8888/api')"
        until(lambda: container.exec_run(["python3", "-c", asking]).exit_code == 0, 60)
    finally:
        container.remove(force=True)
