from __future__ import annotations

import pytest

from cloudscale.errors import CloudscaleError
from cloudscale.model import WorkVolume
from cloudscale.workflow.work_volumes import check_attached, delete_question, work_volumes


def volume(name: str, *, is_used: bool = True, is_attached: bool = True) -> WorkVolume:
    return WorkVolume(name=f"{name}-work", machine=name, is_used=is_used, is_attached=is_attached)


def test_a_driver_without_such_volumes_has_none() -> None:
    assert work_volumes(object()) == ()


def test_the_question_says_how_many_go_with_the_rest_or_alone() -> None:
    volumes = [volume("bio-1"), volume("bio-2")]
    assert delete_question(volumes, "bio", more=True).startswith("Also delete the 2 volumes with the students' work")
    assert delete_question(volumes, "bio", more=False).startswith("Delete 2 volumes with the students' work")


def test_work_that_can_not_be_collected_stops_everything_and_is_named() -> None:
    check_attached([volume("bio-1"), volume("bio-2", is_used=False, is_attached=False)])
    with pytest.raises(CloudscaleError, match=r"no machine has bio-2-work,"):
        check_attached([volume("bio-1"), volume("bio-2", is_attached=False)])
