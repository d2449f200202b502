from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from cloudscale.errors import CloudscaleError
from cloudscale.hosts import holding
from cloudscale.hosts.holding import Busy, held
from cloudscale.hosts.ssh import Connection


@dataclass
class Script:
    """A script on a host, with its answer, and the connection to it."""

    lines: list[str]
    words: tuple[str, ...] = ()
    beats: list[bytes] = field(default_factory=list)
    beaten: threading.Event = field(default_factory=threading.Event)
    is_over: bool = False

    @contextlib.contextmanager
    def conversation(self, script: str, *arguments: str, timeout: float) -> Iterator[Script]:
        self.words = arguments
        yield self
        self.is_over = True

    def line(self) -> str:
        return self.lines.pop(0)

    def send(self, data: bytes) -> bool:
        self.beats.append(data)
        self.beaten.set()
        return len(self.beats) < 2


def on(script: Script) -> Connection:
    return cast(Connection, script)


def test_a_host_is_kept_until_the_run_ends() -> None:
    script = Script(["held"])
    with held(on(script), "ann at laptop", print) as is_held:
        assert is_held and not script.is_over
    assert script.is_over
    assert script.words[0] == "ann at laptop"


def test_another_run_is_refused_and_reads_whose_turn_it_is() -> None:
    with (
        pytest.raises(Busy, match="Another run is changing the course: ann at laptop") as raised,
        held(on(Script(["waiting ann at laptop", "busy ann at laptop"])), "cid at desk", print),
    ):
        raise AssertionError
    assert isinstance(raised.value, CloudscaleError) and raised.value.exit_code == 1
    assert "Wait until that run has ended" in raised.value.remedy


def test_a_run_that_ends_soon_is_waited_for_and_that_is_reported() -> None:
    said: list[str] = []
    with held(on(Script(["waiting ann at laptop", "held"])), "cid at desk", said.append) as is_held:
        assert is_held
    assert said == ["Another run is changing the course (ann at laptop): waiting 5 s for its end"]


def test_a_host_that_can_not_keep_others_away_is_no_obstacle() -> None:
    """Such as one without flock: whatever it lacks is reported by what needs it."""
    with held(on(Script([""])), "ann at laptop", print) as is_held:
        assert not is_held


def test_signs_of_life_are_sent_while_the_script_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "BEAT", 0.01)
    script = Script(["held"])
    with held(on(script), "ann at laptop", print):
        assert script.beaten.wait(10)
    assert script.beats[0] == b"."
