"""What a reset says of work that it would remove for good."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudscale.errors import EngineError
from cloudscale.material.marks import read_marks
from cloudscale.workflow import collect as module
from cloudscale.workflow import reset, uncollected
from cloudscale.workflow.collect import collect
from tests.unit.classroom import Class
from tests.unit.fakes import fake_engine
from tests.unit.workflow.worlds_of_work import with_disks, work_of


@pytest.fixture
def bio(bio: Class, tmp_path: Path, processes: None, monkeypatch: pytest.MonkeyPatch) -> Class:
    monkeypatch.setattr(module, "MARGIN", 0)
    with_disks(bio, tmp_path).launch()
    (work_of(bio, "1") / "a.txt").write_text("flux")
    return bio


def said(bio: Class) -> str:
    """What a reset says before it asks."""
    bio.agrees = False
    with pytest.raises(Exception, match="Nothing was removed"):
        reset.containers_reset(bio.session(), with_volumes=True)
    return "\n".join(bio.said.lines)


def test_work_that_was_never_collected_is_named(bio: Class) -> None:
    assert said(bio) == (
        "2 students have work that was never collected in full (Ann Lee, Bob Ray). --collect DIR collects it first."
    )


def test_after_a_collection_nothing_is_said_until_something_changes(bio: Class, tmp_path: Path) -> None:
    time.sleep(0.05)  # the times of files lag behind the clock
    collect(bio.session(), tmp_path / "out")
    assert said(bio) == ""
    time.sleep(0.05)
    (work_of(bio, "1") / ".ipynb_checkpoints").mkdir()
    (work_of(bio, "1") / ".ipynb_checkpoints" / "a.txt").write_text("no work")
    assert said(bio) == ""
    (work_of(bio, "2") / "sub").mkdir()
    (work_of(bio, "2") / "sub" / "b.txt").write_text("new")
    os.utime(work_of(bio, "2") / "sub" / "b.txt", (0, 0))
    assert said(bio).startswith("1 student has work that has changed since it was collected (Bob Ray).")


def test_work_that_was_refused_counts_as_not_collected(bio: Class, tmp_path: Path) -> None:
    with (work_of(bio, "1") / "huge").open("wb") as file:
        file.truncate(2**40)
    collect(bio.session(), tmp_path / "out")
    assert "never collected in full (Ann Lee)" in said(bio)


def test_what_is_not_known_is_said(bio: Class, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(bio.session(), tmp_path / "out")

    def fail(*args: object) -> None:
        raise EngineError("m1: it hangs.")

    monkeypatch.setattr(uncollected, "_look", fail)
    assert "may have changed since it was collected (Ann Lee, Bob Ray)" in said(bio)
    monkeypatch.setattr(uncollected, "read_marks", fail)
    assert said(bio) == "It is not known whether all work was collected: the machines could not be asked."


def test_it_takes_a_bounded_time(bio: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncollected, "PATIENCE", 0.1)
    monkeypatch.setattr(uncollected, "read_marks", lambda *args: time.sleep(2))
    start = time.monotonic()
    assert "not known" in said(bio)
    assert time.monotonic() - start < 1.5


def test_without_volumes_nothing_is_at_stake(bio: Class) -> None:
    reset.containers_reset(bio.session(), with_volumes=False)
    assert not any("collect" in line for line in bio.said.lines)


def test_what_is_known_goes_with_the_work(bio: Class, tmp_path: Path) -> None:
    collect(bio.session(), tmp_path / "out")
    tasks: list[Callable[[], object]] = [
        lambda: reset.containers_reset(bio.session(only="1"), with_volumes=True),
        lambda: reset.containers_reset(bio.session(), with_volumes=False),
    ]
    for task in tasks:
        task()
        assert read_marks(fake_engine(bio.api), "bio").keys() == {"2"}
    reset.driver_reset(bio.session())
    assert bio.api.configs_ == []


def test_what_a_killed_collection_left_does_not_keep_the_volumes(bio: Class) -> None:
    labels = {"cloudscale.course": "bio", "cloudscale.role": "helper"}
    left = {"Id": "left", "State": "running", "Labels": labels, "Ports": [], "Volumes": [*bio.api.volumes_]}
    bio.api.containers_.append(left)
    assert reset.containers_reset(bio.session(), with_volumes=True).problems == ()
    assert bio.api.volumes_ == {}
