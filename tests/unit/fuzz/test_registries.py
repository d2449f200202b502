"""What registries answer: whether they have an image, and tokens."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import requests
import urllib3
from hypothesis import example
from hypothesis import strategies as st

from cloudscale.images import registry
from tests.unit.fuzz.inputs import changed_bytes, changed_json, fuzz, reading
from tests.unit.talk import Talk

PATIENCE = 0.4  # seconds
LONGEST = 15.0  # seconds that it may really take on a busy computer
ASKING = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n"
    b'WWW-Authenticate: Bearer realm="https://auth.example.org/token",service="quay.io",scope="repository:x:pull"\r\n\r\n'
)
FOUND = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2000\r\nConnection: close\r\n\r\n"
MOVED = b"HTTP/1.1 307 Moved\r\nLocation: https://other.example.org/v2/\r\nConnection: close\r\n\r\n"
TOKEN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
TOKENS = changed_json({"token": "t", "expires_in": 300}) | changed_json({"access_token": "t"})


@pytest.fixture
def talk(loopback: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    talk = Talk()
    monkeypatch.setattr(registry, "ANSWERING", PATIENCE)
    # all hosts are this one, which speaks without TLS
    monkeypatch.setattr(
        requests.adapters.HTTPAdapter,
        "get_connection_with_tls_context",
        lambda *given, **settings: urllib3.HTTPConnectionPool("127.0.0.1", talk.port),
    )
    yield talk
    talk.close()


@fuzz(
    first=changed_bytes(ASKING, ASKING, FOUND, MOVED),
    token=TOKENS.map(lambda body: TOKEN + body) | changed_bytes(TOKEN + b'{"token": "t"}'),
    then=changed_bytes(FOUND, MOVED),
    is_silent=st.sampled_from([False, False, False, False, True]),
    slow=2,
)
@example(first=ASKING, token=TOKEN + b'["t"]', then=FOUND, is_silent=False)
@example(first=ASKING, token=TOKEN + b"[" * 20_000, then=FOUND, is_silent=False)
@example(first=ASKING, token=TOKEN + b'{"token": "a\\nb"}', then=FOUND, is_silent=False)
@example(first=ASKING, token=MOVED + b"x" * 200_000, then=FOUND, is_silent=True)
def test_any_answer_of_a_registry(talk: Talk, first: bytes, token: bytes, then: bytes, is_silent: bool) -> None:
    def speak(connection: socket.socket) -> None:
        with connection:
            asked = connection.recv(65536)
            connection.sendall(token if asked.startswith(b"GET") else then if b"Bearer" in asked else first)
            if is_silent:
                time.sleep(2 * PATIENCE)

    talk.speak = speak
    begun = time.monotonic()
    with reading():
        assert len(registry.check_in_registry("quay.io/jupyter/lab:1")) < 1000
    assert time.monotonic() - begun < LONGEST
