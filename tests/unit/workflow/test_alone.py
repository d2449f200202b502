from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from cloudscale.errors import CloudscaleError
from cloudscale.hosts.holding import Busy
from cloudscale.workflow import reset
from cloudscale.workflow.alone import alone
from tests.unit.classroom import Class


class Others:
    """What keeps other runs away, and whether one is there already."""

    def __init__(self) -> None:
        self.is_busy = False
        self.held: list[str] = []
        self.let_go = 0

    @contextlib.contextmanager
    def exclusive(self, who: str) -> Iterator[None]:
        if self.is_busy:
            raise Busy("Another run is changing the course: ann at laptop.")
        self.held.append(who)
        yield
        self.let_go += 1


@pytest.fixture
def others(lab: Class, monkeypatch: pytest.MonkeyPatch) -> Others:
    made = Others()
    monkeypatch.setattr(lab.driver, "exclusive", made.exclusive, raising=False)
    return made


def test_a_course_is_kept_from_other_trainers_until_the_run_ends(lab: Class, others: Others) -> None:
    with alone(lab.session()) as driver:
        assert driver is lab.driver
        assert (len(others.held), others.let_go) == (1, 0)
    assert others.let_go == 1
    assert " at " in others.held[0]


def test_a_second_run_on_this_computer_is_refused_before_a_machine_is_asked(lab: Class, others: Others) -> None:
    with alone(lab.session()), pytest.raises(CloudscaleError, match="Another run is changing"), alone(lab.session()):
        raise AssertionError
    assert len(others.held) == 1


def test_a_plan_waits_for_nobody(lab: Class, others: Others) -> None:
    others.is_busy = True
    lab.launch(plan=True)
    assert not others.held


def test_a_launch_beside_another_trainers_run_changes_nothing(lab: Class, others: Others) -> None:
    others.is_busy = True
    with pytest.raises(Busy):
        lab.launch()
    assert not lab.driver.done
    others.is_busy = False
    lab.launch()
    assert others.let_go == 1


def test_a_reset_beside_another_trainers_run_changes_nothing(lab: Class, others: Others) -> None:
    lab.launch()
    others.is_busy = True
    before = lab.apis[0].services()
    with pytest.raises(Busy):
        reset.containers_reset(lab.session(), with_volumes=False)
    with pytest.raises(Busy):
        reset.driver_reset(lab.session())
    assert lab.apis[0].services() == before
