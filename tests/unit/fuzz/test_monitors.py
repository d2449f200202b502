"""What the monitors of QEMU answer: greetings, answers, events, and what is none of these."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example
from hypothesis import strategies as st
from qemu.qmp import QMPClient

from cloudscale.drivers.vm import qemu as module
from cloudscale.drivers.vm.hypervisor import Vm
from cloudscale.drivers.vm.qemu import Qemu
from tests.unit.conftest import Walls
from tests.unit.fuzz.inputs import EDITS, Edit, changed_bytes, edited, fuzz, reading
from tests.unit.fuzz.test_vms import a_vm
from tests.unit.talk import Talk

PATIENCE = 0.4  # seconds
LONGEST = 15.0  # seconds that it may really take on a busy computer
MESSAGES: list[Any] = [
    {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}},
    {"return": {}},
    {"event": "RTC_CHANGE", "data": {"offset": 0}, "timestamp": {"seconds": 1, "microseconds": 2}},
    {"return": {"status": "paused", "running": False}},
]
ENDS = ("close", "close", "close", "silence", "again", "deaf")


@pytest.fixture
def vm(walls: Walls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vm:
    walls.reachable = lambda address: isinstance(address, str)
    monkeypatch.setattr(module, "ANSWERING", PATIENCE)
    monkeypatch.setattr(module, "_process", lambda vm: 1)
    return a_vm(tmp_path)


@pytest.fixture
def talk(vm: Vm, caplog: pytest.LogCaptureFixture) -> Iterator[Talk]:
    talk = Talk(str(vm.folder / "qmp"))
    yield talk
    talk.close()
    gc.collect()  # a task whose error nobody takes is logged, with a traceback, when it is collected
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert not [record for record in records if record.name == "asyncio"]


def telling(lines: list[bytes], end: str) -> Callable[[socket.socket], None]:
    """Sends the first line, and of each one asked the next ones up to an answer."""

    def speak(connection: socket.socket) -> None:
        with connection:
            connection.sendall(lines[0])
            for line in lines[1:]:
                if b'"event"' not in line:
                    if end == "deaf" or not (text := connection.recv(65536)):
                        break
                    if (number := json.loads(text).get("id")) is not None:
                        line = line.replace(b'"return"', f'"id": "{number}", "return"'.encode())
                connection.sendall(line)
            deadline = time.monotonic() + 3 * PATIENCE
            while end == "again" and time.monotonic() < deadline:
                connection.sendall(lines[-1] * 100)
            if end in ("silence", "deaf"):
                time.sleep(2 * PATIENCE)

    return speak


def lines_of(messages: Any) -> list[bytes]:
    return [json.dumps(message).encode() + b"\r\n" for message in messages] if isinstance(messages, list) else [b"x"]


TEXT = b"".join(lines_of(MESSAGES))


def asks(vm: Vm) -> str:
    """The state of a VM, and whether its ports can be changed, in time."""
    qemu = Qemu("bio")
    begun, state = time.monotonic(), ""
    with reading():
        state = qemu.state(vm)
        assert isinstance(state, str)
    with reading():
        qemu.forward(vm, replace(vm, seat_ports=(4321, 4322)))
    assert time.monotonic() - begun < LONGEST
    return state


@fuzz(edits=EDITS, end=st.sampled_from(ENDS), slow=2)
@example(edits=[], end="close")
def test_any_message(talk: Talk, vm: Vm, edits: list[Edit], end: str) -> None:
    talk.speak = telling(lines_of(edited(MESSAGES, edits)) or [b"x"], end)
    assert asks(vm) == "paused" or edits or end != "close"


@pytest.mark.parametrize("answer", [None, [], "running", 1, {}, {"status": {}}, {"status": None}])
def test_an_answer_that_is_none(talk: Talk, vm: Vm, answer: Any) -> None:
    talk.speak = telling(lines_of([*MESSAGES[:3], {"return": answer}]), "close")
    asks(vm)


def test_what_the_library_leaves_behind_is_not_printed(talk: Talk, vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise OSError

    class Leaving(QMPClient):
        async def connect(self, address: Any, ssl: Any = None) -> None:
            self.left = asyncio.create_task(fail())
            await super().connect(address, ssl)

    monkeypatch.setattr(module, "QMPClient", Leaving)
    talk.speak = telling(lines_of(MESSAGES), "close")
    assert asks(vm) == "paused"


@fuzz(data=changed_bytes(TEXT), end=st.sampled_from(ENDS), slow=2)
@example(data=TEXT.replace(b'"offset": 0', b'"offset": 0@'), end="close")
@example(data=TEXT[:150] + b"[" * 60_000 + b"\n", end="silence")
def test_any_bytes(talk: Talk, vm: Vm, data: bytes, end: str) -> None:
    talk.speak = telling(data.splitlines(keepends=True) or [b"x"], end)
    asks(vm)
