"""A course's deadline is on its security group: the one resource that is there from the first moment to the last."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from cloudscale.cluster.look import look
from cloudscale.drivers.openstack.claim import OWNER
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import read_inventory
from cloudscale.drivers.openstack.security import ensure_group, mark_deadline
from cloudscale.errors import CloudError
from cloudscale.workflow import reset
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import MARK, MARKS, OwnCloud
from tests.unit.drivers.openstack.course import RealDriverClass

pytestmark = MARKS
FIRST, SECOND = datetime(2026, 12, 1, 17, tzinfo=UTC), datetime(2026, 12, 2, 17, tzinfo=UTC)
TAG, SECOND_TAG = "cloudscale.until:2026-12-01T17:00:00Z", "cloudscale.until:2026-12-02T17:00:00Z"


def tags(stand_in: OwnCloud) -> list[list[str]]:
    """Those of the course's groups, without the one that says whose it is."""
    groups = [group for group in stand_in.network.groups.items.values() if group["description"] == MARK]
    return [[tag for tag in group["tags"] if not tag.startswith(OWNER)] for group in groups]


def changes(stand_in: OwnCloud) -> list[str]:
    return [request.method for request in stand_in.requests if request.method != "GET"]


def deadline(cloud: Cloud) -> datetime | None:
    return read_inventory(cloud, MARK).deadline


def test_the_group_is_made_for_it_if_there_is_none(stand_in: OwnCloud, cloud: Cloud) -> None:
    assert deadline(cloud) is None
    mark_deadline(cloud, MARK, FIRST)
    assert tags(stand_in) == [[TAG, MARK]]
    assert deadline(cloud) == FIRST


def test_the_same_one_again_changes_nothing(stand_in: OwnCloud, cloud: Cloud) -> None:
    mark_deadline(cloud, MARK, FIRST)
    stand_in.requests.clear()
    mark_deadline(cloud, MARK, FIRST)
    assert changes(stand_in) == []


@pytest.mark.parametrize(("before", "after"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_another_one_takes_its_place(stand_in: OwnCloud, cloud: Cloud, before: datetime, after: datetime) -> None:
    mark_deadline(cloud, MARK, before)
    stand_in.requests.clear()
    mark_deadline(cloud, MARK, after)
    assert changes(stand_in) == ["PUT", "DELETE"]  # never without one
    assert deadline(cloud) == after


def test_none_is_taken_away_and_makes_no_group(stand_in: OwnCloud, cloud: Cloud) -> None:
    mark_deadline(cloud, MARK, None)
    assert tags(stand_in) == []
    mark_deadline(cloud, MARK, FIRST)
    mark_deadline(cloud, MARK, None)
    assert tags(stand_in) == [[MARK]]
    assert deadline(cloud) is None


def test_of_several_groups_and_tags_the_latest_counts_until_they_are_tidied_up(
    stand_in: OwnCloud, cloud: Cloud
) -> None:
    ensure_group(cloud, MARK)
    stand_in.network.groups.make({"name": MARK, "description": MARK})["tags"] = [SECOND_TAG, "cloudscale.until:soon"]
    mark_deadline(cloud, MARK, FIRST)
    assert sorted(tag for each in tags(stand_in) for tag in each if tag != MARK) == [TAG]
    assert deadline(cloud) == FIRST


def test_a_tag_of_somebody_else_is_neither_read_nor_removed(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.network.groups.make({"name": "theirs", "description": "cloudscale:other"})["tags"] = [SECOND_TAG]
    mark_deadline(cloud, MARK, FIRST)
    mark_deadline(cloud, MARK, None)
    (theirs,) = [group for group in stand_in.network.groups.items.values() if group["name"] == "theirs"]
    assert theirs["tags"] == [SECOND_TAG]
    assert deadline(cloud) is None


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_request_without_an_answer_is_repeated(stand_in: OwnCloud, cloud: Cloud, method: str) -> None:
    mark_deadline(cloud, MARK, FIRST)
    stand_in.faults.append(Fault(method, "/tags/cloudscale.until", drop="after"))
    mark_deadline(cloud, MARK, SECOND)
    assert tags(stand_in) == [[SECOND_TAG, MARK]]


def test_a_cloud_that_does_not_take_it_says_why(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault("PUT", "/tags/cloudscale.until", status=403, times=None))
    with pytest.raises(CloudError, match="Marking the deadline failed"):
        mark_deadline(cloud, MARK, FIRST)


@pytest.mark.usefixtures("at_noon", "few_rules")
def test_a_whole_course_has_it_from_before_its_machines_to_after_their_loss(course: RealDriverClass) -> None:
    course.launch(until="2026-12-01 17:00")
    requests = [f"{request.method} {request.path}" for request in course.stand_in.requests]
    (marked,) = [at for at, request in enumerate(requests) if request.startswith("PUT") and TAG in request]
    (made,) = [at for at, request in enumerate(requests) if re.match("POST .*/servers$", request)]
    assert marked < made
    assert look(course.session()).until == FIRST
    course.launch()
    assert tags(course.stand_in) == [[TAG, MARK]]
    course.lose("bio-1")
    assert look(course.session()).until == FIRST
    reset.driver_reset(course.session())
    assert course.stand_in.totals()["security groups"] == 0
