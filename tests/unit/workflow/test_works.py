from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.cluster.look import look
from cloudscale.workflow import reset
from cloudscale.workflow.works import Rooms, find_works
from tests.unit.classroom import Class


def test_the_work_is_where_the_seat_is(lab: Class) -> None:
    rows = lab.rows(lab.launch())
    works = find_works(look(lab.session()), "bio")
    assert {(work.student.full_name, work.machine) for work in works} == {(row["student"], row["node"]) for row in rows}
    assert all(work.seat and work.volume and not work.others for work in works)


def test_without_a_seat_the_youngest_volume_counts_and_others_are_named(lab: Class) -> None:
    first = lab.rows(lab.launch())[0]["node"]
    labels = {"cloudscale.course": "bio", "cloudscale.student": "1"}
    (other, *_) = (api for api in lab.apis if api.name != first)
    other.volumes_["older"] = {"Name": "older", "Labels": labels, "CreatedAt": "1999-01-01T00:00:00Z"}
    for _ in range(2):
        (ann,) = (work for work in find_works(look(lab.session()), "bio") if work.student.id == "1")
        assert (ann.machine, ann.others) == (first, (other.name,))
        reset.containers_reset(lab.session(), with_volumes=False)


def test_a_copy_that_a_move_has_not_finished_counts_less_than_any_other(lab: Class) -> None:
    first = lab.rows(lab.launch())[0]["node"]
    labels = {"cloudscale.course": "bio", "cloudscale.student": "1"}
    (other, *_) = (api for api in lab.apis if api.name != first)
    other.volumes_["copy"] = {"Name": "copy", "Labels": labels, "CreatedAt": "2099-01-01T00:00:00Z"}
    marks = {"cloudscale.course": "bio", "cloudscale.copying": "1"}
    other.volumes_["copy-copying"] = {"Name": "copy-copying", "Labels": marks, "CreatedAt": "2099-01-01T00:00:00Z"}
    reset.containers_reset(lab.session(), with_volumes=False)
    (ann,) = (work for work in find_works(look(lab.session()), "bio") if work.student.id == "1")
    assert (ann.machine, ann.others) == (first, (other.name,))


def test_an_interrupted_run_leaves_no_helper(bio: Class) -> None:
    bio.launch()
    session = bio.session()
    cluster = look(session)

    def interrupt(*args: object) -> None:
        (helper,) = (c for c in bio.api.containers_ if c["Labels"].get("cloudscale.role") == "helper")
        bio.api.containers_.append({**helper, "Id": "of a thread that has no time to remove it"})
        raise KeyboardInterrupt

    rooms = Rooms(cluster, session)
    with pytest.raises(RuntimeError, match="KeyboardInterrupt"), rooms._cleared_if_interrupted():
        rooms.each(find_works(cluster, "bio")[:1], interrupt, writable=False, what="Collecting").get()
    assert not any(c["Labels"].get("cloudscale.role") == "helper" for c in bio.api.containers_)


def test_a_seat_that_never_started_has_no_work(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    bio.api.volumes_.clear()
    cluster = look(bio.session())
    assert [work.may_exist(cluster) for work in find_works(cluster, "bio")] == [False, False]
