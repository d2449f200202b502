"""What a course brought, and what becomes of it when the course ends."""

from __future__ import annotations

import pytest

from cloudscale.images.delivery import Delivery, remove_delivered, tag_delivered
from cloudscale.model import Survey
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine
from tests.unit.images.deliveries import BUILT, LAB, MARK, OWN, PULLED, Course


@pytest.fixture
def course() -> Course:
    return Course()


def test_what_the_course_brought_is_found_and_removed_when_it_ends(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN)
    for engine in course.driver.engines.values():
        for _ in range(2):
            remove_delivered(engine, "bio")
    assert [api.images_ for api in course.apis] == [{}, {}, {}]


def test_what_was_there_before_stays(course: Course) -> None:
    course.apis[0].images_[LAB] = PULLED
    course.deliver(LAB, "m1")
    remove_delivered(course.driver.engines["m1"], "bio")
    assert list(course.apis[0].images_) == [LAB]
    assert course.apis[0].changes == []


def test_one_that_got_other_names_since_keeps_those(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN, "m1")
    course.apis[0].tag(OWN, "mine/own", "1")
    remove_delivered(course.driver.engines["m1"], "bio")
    assert sorted(course.apis[0].images_) == [OWN, "mine/own:1"]


def test_one_that_somebody_else_uses_stays_in_use(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN, "m1")
    course.apis[0].containers_ = [{"Image": "sha256:22"}]
    remove_delivered(course.driver.engines["m1"], "bio")
    assert list(course.apis[0].images_) == [OWN]


def test_the_mark_of_one_course_is_none_of_another(course: Course) -> None:
    api = course.apis[0]
    api.images_[LAB] = PULLED
    tag_delivered(fake_engine(api), LAB, "geo")
    remove_delivered(fake_engine(api), "bio")
    assert len(api.images_) == 2


def test_both_of_one_built_anew_are_removed(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN, "m1")
    course.has({**BUILT, "Id": "sha256:33", "Created": "2025-02-02"})
    course.deliver(OWN, "m1")
    assert sum(name.startswith(MARK) for name in course.apis[0].images_) == 2
    remove_delivered(course.driver.engines["m1"], "bio")
    assert course.apis[0].images_ == {}


def test_where_the_swarm_is_adopted_no_mark_is_left() -> None:
    api = FakeApi()
    api.registry[LAB] = PULLED
    engine = fake_engine(api)
    way = Delivery(
        LAB,
        "bio",
        copy=None,
        trainer=lambda: None,
        is_own=False,
        bytes_done=lambda done, of: None,
        say=lambda text: None,
    )
    way.deliver(engine, Survey(engine.machine, "127.0.0.1"))
    assert api.changes == [f"pull {LAB}"]
