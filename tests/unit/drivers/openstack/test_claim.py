"""Whose a course in the cloud is, from the first moment."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cloudscale.drivers.openstack import claim as module
from cloudscale.drivers.openstack.claim import claim, tag
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.security import ensure_group
from cloudscale.errors import RequestError
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import MARK, MARKS, OwnCloud
from tests.unit.drivers.openstack.course import RealDriverClass

pytestmark = MARKS
MINE, OTHER = "SHA256:mine/+", "SHA256:other"


def owners(stand_in: OwnCloud) -> list[list[str]]:
    """The tags of the course's groups, without the mark."""
    groups = [group for group in stand_in.network.groups.items.values() if group["description"] == MARK]
    return [[text for text in group["tags"] if text != MARK] for group in groups]


def refused(cloud: Cloud, fingerprint: str = MINE) -> None:
    with pytest.raises(RequestError, match="The course 'bio' in this cloud belongs to another trainer's folder") as no:
        claim(cloud, MARK, fingerprint)
    assert "Copy the course's folder" in no.value.remedy and "driver_reset --course bio" in no.value.remedy


def test_the_first_has_it_and_another_is_refused(stand_in: OwnCloud, cloud: Cloud) -> None:
    claim(cloud, MARK, MINE)
    refused(cloud, OTHER)
    assert owners(stand_in) == [[tag(MINE)]]


def test_the_same_one_again_changes_nothing(stand_in: OwnCloud, cloud: Cloud) -> None:
    claim(cloud, MARK, MINE)
    stand_in.requests.clear()
    claim(cloud, MARK, MINE)
    assert {request.method for request in stand_in.requests} == {"GET"}


def test_one_from_before_there_were_owners_gets_this_one(stand_in: OwnCloud, cloud: Cloud) -> None:
    group = ensure_group(cloud, MARK)
    claim(cloud, MARK, MINE)
    assert owners(stand_in) == [[tag(MINE)]]
    assert ensure_group(cloud, MARK) == group


def make_meanwhile(stand_in: OwnCloud, method: str, path: str, created: str, *, owner: str = "") -> None:
    """Another trainer's group appears before the first request of this kind."""

    def meanwhile(request: Any) -> None:
        if request.method == method and re.search(path, request.path):
            stand_in.seen = lambda request: None
            made = stand_in.network.groups.add(MARK, MARK)
            made |= {"created_at": created, "tags": [MARK, *([tag(owner)] if owner else [])]}

    stand_in.seen = meanwhile


PAST, FUTURE = "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z"


def test_of_two_at_the_same_moment_the_later_one_is_refused_and_takes_its_group_away(
    stand_in: OwnCloud, cloud: Cloud
) -> None:
    make_meanwhile(stand_in, "POST", "/security-groups$", PAST)
    with pytest.raises(RequestError, match="Another trainer began the course 'bio' in this cloud at the same moment"):
        claim(cloud, MARK, MINE)
    assert owners(stand_in) == [[]]  # the other one has not written its name yet


def test_of_two_at_the_same_moment_the_earlier_one_goes_on(stand_in: OwnCloud, cloud: Cloud) -> None:
    for _ in range(8):  # whichever of the two ids comes first
        stand_in.network.groups.items = {
            id: group for id, group in stand_in.network.groups.items.items() if group["description"] != MARK
        }
        make_meanwhile(stand_in, "POST", "/security-groups$", FUTURE)
        claim(cloud, MARK, MINE)
        made = {group["created_at"]: group["tags"] for group in stand_in.network.groups.items.values()}
        assert made.pop(FUTURE) == [MARK]
        assert [MARK, tag(MINE)] in [sorted(tags, key=len) for tags in made.values()]


def test_one_that_is_just_being_made_is_given_time_to_get_its_owner(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.network.groups.add(MARK, MARK)
    looks = 0

    def name_it(request: Any) -> None:
        nonlocal looks
        looks += "/security-groups" in request.path
        if looks == 4:
            (group,) = (one for one in stand_in.network.groups.items.values() if one["description"] == MARK)
            group["tags"] = [MARK, tag(OTHER)]

    stand_in.seen = name_it
    refused(cloud)
    assert owners(stand_in) == [[tag(OTHER)]]


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"drop": "before"}, {"status": 503}])
@pytest.mark.parametrize("request_", [("POST", "/security-groups$"), ("PUT", "/tags/")])
def test_it_is_had_once_whatever_becomes_of_an_answer(
    stand_in: OwnCloud, cloud: Cloud, request_: tuple[str, str], fault: dict[str, Any]
) -> None:
    stand_in.faults.append(Fault(*request_, **fault))
    claim(cloud, MARK, MINE)
    assert owners(stand_in) == [[tag(MINE)]]


def test_a_tag_is_no_longer_than_the_oldest_neutron_takes() -> None:
    assert len(tag(MINE)) <= 60
    assert re.fullmatch(rf"{re.escape(module.OWNER)}[0-9a-f]+", tag(MINE))


def test_a_launch_makes_nothing_in_the_course_of_another_folder(course: RealDriverClass) -> None:
    theirs = course.stand_in.network.groups.add(MARK, MARK)
    theirs["tags"] = [MARK, tag(OTHER)]
    with pytest.raises(RequestError, match="belongs to another trainer's folder"):
        course.launch()
    assert {request.method for request in course.stand_in.requests if "identity" not in request.path} == {"GET"}
    course.reset()
    assert course.stand_in.totals()["security groups"] == 0
    course.launch()
    (tags,) = owners(course.stand_in)
    assert len(tags) == 1 and tags != [tag(OTHER)]
