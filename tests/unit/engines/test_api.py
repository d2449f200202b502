from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
import requests

from cloudscale.engines import api as module
from cloudscale.engines.api import IMAGE_TIMEOUT, Api
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import EngineError, ImageError
from cloudscale.images.on_engine import MOST_LAYERS, find_image, pull_image
from tests.unit.fakes import fake_engine, http_answer
from tests.unit.talk import Talk

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSED = HEAD + b"Connection: close\r\n\r\n"
SILENCE = 0.5  # seconds


@pytest.fixture
def talk(loopback: str) -> Iterator[Talk]:
    talk = Talk()
    yield talk
    talk.close()


@pytest.fixture
def engine(talk: Talk) -> Iterator[Engine]:
    made = Api(f"http://127.0.0.1:{talk.port}", version="1.41")
    made.timeout = SILENCE  # type: ignore[assignment]
    with contextlib.closing(made) as api:
        yield fake_engine(api)


def saying(
    *pieces: bytes, again: bytes = b"", pause: float = 0.0, rest: float = 0.0
) -> Callable[[socket.socket], None]:
    """A server that sends these, then `again` and again, or nothing for `rest` seconds."""

    def speak(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
            while again:
                connection.sendall(again)
                time.sleep(pause)
            time.sleep(rest)

    return speak


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def find(engine: Engine) -> object:
    return find_image(engine, "lab:1")


def pull(engine: Engine) -> None:
    pull_image(engine, "lab:1")


def take(engine: Engine) -> object:
    with engine_errors("m1"):
        return [*engine.api.get_archive("c1", "/x")[0]]


STAT = b"X-Docker-Container-Path-Stat: e30=\r\n"


@pytest.mark.parametrize(
    ("ask", "speak", "message"),
    [
        (find, saying(UNTIL_CLOSED, again=b"[" * 65536), "longer than 1048576 bytes"),
        (find, saying(CHUNKED, again=chunk(b"[" * 65536)), "longer than 1048576 bytes"),
        (find, saying(CHUNKED, b"7fffffff\r\n", again=b" " * 65536), "longer than 1048576 bytes"),
        (find, saying(UNTIL_CLOSED, again=b" ", pause=0.05), "took too long"),
        (find, saying(CHUNKED, b"5" * 200_000, rest=2), "m1"),
        (find, saying(b"HTTP/1.1 500 x\r\n\r\n", again=b"x" * 65536), "longer than 1048576 bytes"),
        (find, saying(b"HTTP/1.1 301 x\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), "can't be used"),
        (pull, saying(CHUNKED, again=chunk(b'{"id":"' + b"a" * 65000)), "a line of more than"),
        (pull, saying(CHUNKED, again=chunk(b'{"status":"x"}\r\n' * 1000)), "longer than 262144 bytes"),
        (pull, saying(CHUNKED, again=chunk(b'{"status":"x"}\r\n'), pause=0.05), "took too long"),
        (pull, saying(CHUNKED, chunk(b'{"status":"x"}\r\n')), "broken"),
        (pull, saying(CHUNKED, chunk(b"[\n[\n[\n"), b"0\r\n\r\n"), "no JSON"),
        (pull, saying(CHUNKED, rest=3), "took too long"),
        (pull, saying(b"HTTP/1.1 500 x\r\n\r\n", again=b"x" * 65536), "longer than 1048576 bytes"),
        (take, saying(HEAD + STAT + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b"x"), rest=3), "took too long"),
        (take, saying(HEAD + STAT + b"Transfer-Encoding: chunked\r\n\r\n", b"5" * 200_000, rest=3), "m1"),
    ],
    ids=[
        *("no end", "chunks", "one chunk", "drops", "a chunk's head", "an error", "elsewhere"),
        *("a line", "lines", "slow lines", "broken", "no JSON", "silence", "a refusal"),
        *("a silent archive", "an archive's head"),
    ],
)
def test_no_answer_is_without_an_end(
    talk: Talk,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Engine], object],
    speak: Callable[[socket.socket], None],
    message: str,
) -> None:
    monkeypatch.setattr(module, "LONGEST_ANSWER", 2**20)
    monkeypatch.setattr(module, "LONGEST_REPORT", 2**18)
    monkeypatch.setattr(module, "LONGEST_LINE", 2**17)
    monkeypatch.setattr(module, "REPORTING", SILENCE)
    monkeypatch.setattr(module, "IMAGE_TIMEOUT", SILENCE)
    talk.speak = speak
    begun = time.monotonic()
    with pytest.raises(EngineError, match=message):
        ask(engine)
    assert time.monotonic() - begun < 10


def test_what_an_engine_reports_is_read_to_its_end(talk: Talk, engine: Engine) -> None:
    lines = [{"status": "a"}, {"status": "b", "id": "é"}, {"error": "no such image"}]
    data = b"\r\n".join(json.dumps(line, ensure_ascii=False).encode() for line in lines)  # none at the end
    talk.speak = saying(CHUNKED, *(chunk(data[at : at + 7]) for at in range(0, len(data), 7)), b"0\r\n\r\n")
    assert [*engine.api.load_image(b"", quiet=False)] == lines
    with pytest.raises(ImageError, match="no such image"):
        pull_image(engine, "lab:1")


def test_an_image_of_more_layers_than_there_are_is_refused(engine: Engine, talk: Talk) -> None:
    progress = {"status": "Downloading", "progressDetail": {"current": 1, "total": 2}}
    data = b"".join(json.dumps({**progress, "id": str(number)}).encode() + b"\n" for number in range(MOST_LAYERS + 1))
    talk.speak = saying(CHUNKED, chunk(data), b"0\r\n\r\n")
    with pytest.raises(EngineError, match="more than 1000 layers"):
        pull_image(engine, "lab:1")


def test_the_output_of_a_container_is_read_within_its_limits(
    engine: Engine, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.api, "inspect_container", lambda name: {"Config": {"Tty": False}})
    monkeypatch.setattr(module, "LONGEST_ANSWER", 2**20)
    frame = b"\1\0\0\0\0\0\0\4out\n"
    talk.speak = saying(CHUNKED, chunk(frame), chunk(frame), b"0\r\n\r\n")
    assert b"".join(engine.api.logs("c1", stream=True, follow=True)) == b"out\nout\n"
    talk.speak = saying(CHUNKED, again=chunk(frame * 5000))
    with pytest.raises(EngineError, match="longer than"), engine_errors("m1"):
        b"".join(engine.api.logs("c1", stream=True, follow=True))


def test_an_engine_that_works_on_an_image_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def send(api: docker.APIClient, request: requests.PreparedRequest, **settings: object) -> requests.Response:
        given[request.path_url.removeprefix("/v1.43").partition("?")[0]] = settings["timeout"]
        return http_answer(b"{}")

    monkeypatch.setattr(docker.APIClient, "send", send)
    api: Any = Api("http://192.0.2.1:1", version="1.43", timeout=60)
    api.get_image("bio/get:1")
    [*api.load_image(iter([b""]), quiet=False)]
    [*api.pull("bio/get", "1", stream=True, decode=True)]
    api.inspect_image("bio/get:1")
    assert given == {
        "/images/bio/get:1/get": IMAGE_TIMEOUT,
        "/images/load": IMAGE_TIMEOUT,
        "/images/create": IMAGE_TIMEOUT,
        "/images/bio/get:1/json": 60,
    }
