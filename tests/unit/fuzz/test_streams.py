"""What engines send on the wire: answers, reports of pulls, loads and builds, archives."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example
from hypothesis import strategies as st

from cloudscale.engines import api as module
from cloudscale.engines.api import Api
from cloudscale.engines.client import Engine, engine_errors, failure
from cloudscale.images import build, on_engine
from cloudscale.images.recipes import find_recipe
from cloudscale.seats import containers
from tests.unit.fakes import fake_engine
from tests.unit.fuzz.inputs import changed_bytes, fuzz, reading
from tests.unit.talk import Talk

# docker-py leaves the file that it sends for a build to be collected, where the engine does not take it
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file")
PATIENCE = 0.4  # seconds
LONGEST = 15.0  # seconds that it may really take on a busy computer
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


def whole(body: bytes) -> bytes:
    return CLOSING + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*pieces: bytes, more: bytes = b"") -> bytes:
    sent = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in (*pieces, b""))
    return CLOSING + more + b"Transfer-Encoding: chunked\r\n\r\n" + sent


@pytest.fixture
def talk(loopback: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    for name in ("LONGEST_ANSWER", "LONGEST_REPORT"):
        monkeypatch.setattr(module, name, 2**21)
    for name in ("REPORTING", "IMAGE_TIMEOUT"):
        monkeypatch.setattr(module, name, PATIENCE)
    talk = Talk()
    yield talk
    talk.close()


def load(engine: Engine) -> None:
    with engine_errors("m1"):
        for event in engine.api.load_image(b"", quiet=False):
            failure(event)


def make(engine: Engine) -> None:
    with engine_errors("m1"):
        build._docker_build(engine, Path(build.__file__).parent / "builtin" / "pydata", find_recipe("pydata"), "x", {})


def take(engine: Engine) -> None:
    with engine_errors("m1"):
        for _ in engine.api.get_archive("c1", "/x")[0]:
            pass


def save(engine: Engine) -> None:
    with engine_errors("m1"):
        for _ in engine.api.get_image("lab:1"):
            pass


EVENTS = (
    {"status": "Downloading", "id": "a1", "progressDetail": {"current": 10, "total": 100}},
    {"stream": "Step 1/3 : FROM x\n"},
    {"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"},
)
REPORT = chunked(*(json.dumps(event).encode() + b"\r\n" for event in EVENTS[:2]))
FAILED = chunked(*(json.dumps(event).encode() + b"\r\n" for event in EVENTS))
REFUSED = whole(b'{"message": "no such image"}').replace(b"200 OK", b"404 Not Found")
IMAGE = whole(b'{"Id": "sha256:11", "RootFS": {"Layers": ["sha256:1"]}}')
ARCHIVE = chunked(b"x" * 512, b"x" * 512, more=b"X-Docker-Container-Path-Stat: e30=\r\n")
ASKED: tuple[tuple[Callable[[Engine], object], tuple[bytes, ...]], ...] = (
    (lambda engine: on_engine.find_image(engine, "lab:1"), (IMAGE, REFUSED)),
    (lambda engine: on_engine.pull_image(engine, "lab:1"), (REPORT, FAILED, REFUSED)),
    (lambda engine: containers.volumes(engine, "bio"), (whole(b'{"Volumes": []}'),)),
    (load, (REPORT, FAILED, REFUSED)),
    (make, (REPORT, FAILED, REFUSED)),
    (take, (ARCHIVE, REFUSED)),
    (save, (ARCHIVE, REFUSED)),
)
ANSWERS = st.sampled_from(ASKED).flatmap(lambda each: st.tuples(st.just(each[0]), changed_bytes(*each[1])))
ENDS = ("close", "close", "close", "silence", "again", "drops")


@fuzz(asked=ANSWERS, end=st.sampled_from(ENDS), slow=2)
@example(asked=(save, ARCHIVE), end="close")
@example(asked=(take, ARCHIVE[:-40]), end="silence")
@example(asked=(load, REPORT[:-40]), end="again")
def test_any_answer_on_the_wire(talk: Talk, asked: tuple[Callable[[Engine], object], bytes], end: str) -> None:
    ask, answer = asked

    def speak(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            deadline = time.monotonic() + 3 * PATIENCE
            while end in ("again", "drops") and time.monotonic() < deadline:
                connection.sendall(answer[-60:] * 100 if end == "again" else answer[-1:] or b" ")
                time.sleep(0.05 if end == "drops" else 0)
            if end == "silence":
                time.sleep(2 * PATIENCE)

    talk.speak = speak
    api = Api(f"http://127.0.0.1:{talk.port}", version="1.41")
    api.timeout = PATIENCE  # type: ignore[assignment]
    begun = time.monotonic()
    with contextlib.closing(api), reading():
        ask(fake_engine(api))
    assert time.monotonic() - begun < LONGEST
