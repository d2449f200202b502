"""The images that were delivered for a course are marked, and removed when it ends."""

from __future__ import annotations

from cloudscale.images.delivery import Delivery, Sources, remove_delivered, tag_delivered
from cloudscale.model import Survey
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine
from tests.unit.images.deliveries import BUILT, MARK, OWN, PUBLIC, PULLED, Course


def test_images_that_were_delivered_are_removed_when_the_course_ends(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN)
    for engine in course.driver.engines.values():
        for _ in range(2):
            remove_delivered(engine, "bio")
    assert [api.images_ for api in course.apis] == [{}, {}, {}]


def test_an_image_from_before_the_course_stays(course: Course) -> None:
    course.apis[0].images_[PUBLIC] = PULLED
    course.deliver(PUBLIC, "m1")
    remove_delivered(course.driver.engines["m1"], "bio")
    assert list(course.apis[0].images_) == [PUBLIC]
    assert course.apis[0].changes == []


def test_an_image_that_was_given_other_names_keeps_those(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN, "m1")
    course.apis[0].tag(OWN, "mine/own", "1")
    remove_delivered(course.driver.engines["m1"], "bio")
    assert sorted(course.apis[0].images_) == [OWN, "mine/own:1"]


def test_an_image_that_somebody_else_uses_stays(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN, "m1")
    course.apis[0].containers_ = [{"Image": "sha256:22"}]
    remove_delivered(course.driver.engines["m1"], "bio")
    assert list(course.apis[0].images_) == [OWN]


def test_an_image_of_another_course_stays(course: Course) -> None:
    api = course.apis[0]
    api.images_[PUBLIC] = PULLED
    tag_delivered(fake_engine(api), PUBLIC, "geo")
    remove_delivered(fake_engine(api), "bio")
    assert len(api.images_) == 2


def test_both_builds_of_an_image_are_removed(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN, "m1")
    course.has({**BUILT, "Id": "sha256:33", "Created": "2025-02-02"})
    course.deliver(OWN, "m1")
    assert sum(name.startswith(MARK) for name in course.apis[0].images_) == 2
    remove_delivered(course.driver.engines["m1"], "bio")
    assert course.apis[0].images_ == {}


def test_where_the_swarm_is_adopted_no_mark_is_left() -> None:
    api = FakeApi()
    api.registry[PUBLIC] = PULLED
    engine = fake_engine(api)
    way = Delivery(
        PUBLIC,
        "bio",
        Sources(trainer=lambda: None),
        bytes_done=lambda done, of: None,
        say=lambda text: None,
    )
    way.deliver(engine, Survey(engine.machine, "127.0.0.1"))
    assert api.changes == [f"pull {PUBLIC}"]
