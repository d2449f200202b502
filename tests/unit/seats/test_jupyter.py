from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from cloudscale.seats import jupyter

SALT = bytes(range(16))


# --- configuration and password --------------------------------------------------------------


def test_the_configuration_is_json_that_jupyter_reads() -> None:
    config = json.loads(
        jupyter.server_config(
            port=8888, path="/kw4h", work="/home/ann", hashed_password="argon2:x", gateway_pass="secret"
        )
    )
    assert config["ServerApp"] == {
        "ip": "0.0.0.0",
        "port": 8888,
        "port_retries": 0,
        "base_url": "/kw4h",
        "max_body_size": 256 * 2**20,
        "max_buffer_size": 256 * 2**20,
        "open_browser": False,
        "root_dir": "/home/ann",
        "allow_root": False,
        "trust_xheaders": True,
    }
    assert config["PasswordIdentityProvider"]["hashed_password"] == "argon2:x"
    assert config["PasswordIdentityProvider"]["password_required"] is True
    assert config["PasswordIdentityProvider"]["allow_password_change"] is False


@pytest.mark.parametrize("as_root", [True, False])
def test_only_an_image_of_root_runs_as_root(as_root: bool) -> None:
    config = json.loads(
        jupyter.server_config(
            port=80, path="/", work="/", hashed_password="argon2:x", gateway_pass="secret", as_root=as_root
        )
    )
    assert config["ServerApp"]["allow_root"] is as_root


def test_the_token_is_off_and_a_login_ends_with_the_day_or_the_browser() -> None:
    config = json.loads(
        jupyter.server_config(port=8888, path="/", work="/", hashed_password="argon2:x", gateway_pass="secret")
    )
    assert config["IdentityProvider"] == {
        "token": "",
        "cookie_options": {"expires_days": None, "samesite": "Lax"},
        "get_secure_cookie_kwargs": {"max_age_days": 1.0},
    }


def test_a_hash_accepts_its_password_and_no_other() -> None:
    kind, _, encoded = jupyter.hash_password("kw4h-7txe-cdrp", SALT).partition(":")
    assert kind == "argon2"
    assert encoded.startswith("$argon2id$")
    assert PasswordHasher().verify(encoded, "kw4h-7txe-cdrp")
    with pytest.raises(VerifyMismatchError):
        PasswordHasher().verify(encoded, "kw4h-7txe-cdrq")


def test_a_hash_is_the_same_for_the_same_salt_only() -> None:
    assert jupyter.hash_password("a", SALT) == jupyter.hash_password("a", SALT)
    assert jupyter.hash_password("a", SALT) != jupyter.hash_password("a", SALT[::-1])


# --- does a server answer? -------------------------------------------------------------------


@contextmanager
def serving(host: str, body: bytes, status: int = 200) -> Iterator[int]:
    """An HTTP server that gives this answer to GET /kw4h/api, and 404 to all else; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/kw4h/api" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with socketserver.ThreadingTCPServer((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_jupyter_server_answers(loopback: str) -> None:
    with serving(loopback, b'{"version": "2.14.0"}') as port:
        assert jupyter.answers(f"http://{loopback}:{port}/kw4h") is True


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"version": "2.14.0"}', 500),
        (b'{"version": "2.14.0"}', 302),
        (b"{}", 200),
        (b"<html>version</html>", 200),
        (b'"version"', 200),
        (b'["version"]', 200),
        (b"5", 200),
        (b"null", 200),
        (b"\xff\xfe", 200),
        (b"", 200),
        (b"[" * 60_000, 200),
    ],
)
def test_anything_else_is_no_answer(loopback: str, body: bytes, status: int) -> None:
    with serving(loopback, body, status) as port:
        assert jupyter.answers(f"http://{loopback}:{port}/kw4h") is False


class Greeting(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def test_a_server_of_another_protocol_is_no_answer(loopback: str) -> None:
    with socketserver.TCPServer((loopback, 0), Greeting) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert jupyter.answers(f"http://{loopback}:{server.server_address[1]}/kw4h") is False
        thread.join()


def test_a_port_that_nothing_listens_on_is_no_answer(loopback: str) -> None:
    with socketserver.TCPServer((loopback, 0), socketserver.BaseRequestHandler) as server:
        port = server.server_address[1]
    assert jupyter.answers(f"http://{loopback}:{port}/kw4h") is False


@pytest.mark.parametrize("pause", [0.05, 60])
def test_a_server_that_answers_slowly_on_purpose_holds_nobody_up(loopback: str, pause: float) -> None:
    ended = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(pause):
                    self.wfile.write(b"x")

    with socketserver.ThreadingTCPServer((loopback, 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        start = time.monotonic()
        assert jupyter.answers(f"http://{loopback}:{server.server_address[1]}/kw4h", timeout=0.3) is False
        assert time.monotonic() - start < 30
        ended.set()
        thread.join()


def test_of_an_answer_without_an_end_only_the_beginning_is_read(loopback: str) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
                while True:
                    self.wfile.write(b" " * 65536)

    with socketserver.ThreadingTCPServer((loopback, 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert jupyter.answers(f"http://{loopback}:{server.server_address[1]}/kw4h", timeout=50) is False
        thread.join()


def test_where_there_is_no_address_nothing_is_asked() -> None:
    assert jupyter.answers("") is False


def test_an_unknown_host_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert jupyter.answers("http://nobody.example:8888/kw4h") is False


# --- the container's own check ---------------------------------------------------------------


def probe(port: int) -> str:
    """The check's program."""
    test = jupyter.healthcheck(port)["Test"]
    assert isinstance(test, list)
    assert test[:-1] == ["CMD", "python3", "-IS", "-c"]
    return str(test[-1])


def test_the_containers_check_passes_where_a_server_answers(loopback: str) -> None:
    with serving(loopback, b"", 404) as port, pytest.raises(SystemExit) as ended:
        exec(probe(port), {})
    assert not ended.value.code


def test_the_containers_check_fails_where_something_else_answers(loopback: str) -> None:
    with socketserver.TCPServer((loopback, 0), Greeting) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(SystemExit) as ended:
            exec(probe(server.server_address[1]), {})
        thread.join()
    assert ended.value.code


def test_the_containers_check_runs_seldom_and_waits_while_the_server_starts() -> None:
    check = jupyter.healthcheck(8888)
    interval, timeout, start = (int(str(check[key])) / 10**9 for key in ("Interval", "Timeout", "StartPeriod"))
    assert 30 <= interval <= 300
    assert 300 <= start <= 3600
    assert 10 <= timeout < interval
