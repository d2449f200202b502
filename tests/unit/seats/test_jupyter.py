from __future__ import annotations

import ast
import contextlib
import hmac
import json
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from cloudscale.course.passwords import Passwords
from cloudscale.seats import jupyter
from cloudscale.seats.jupyter import Activity

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
        "cookie_secret_file": "/tmp/cloudscale-cookie-secret",
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
def serving(host: str, body: bytes, status: int = 200, path: str = "/kw4h/api") -> Iterator[int]:
    """An HTTP server that gives this answer to GET of one path, and 404 to all else; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == path else 404)
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


# --- how is it used? -------------------------------------------------------------------------


def activity(loopback: str, body: bytes, status: int = 200) -> Activity:
    with serving(loopback, body, status, "/kw4h/api/status") as port:
        return jupyter.activity(f"http://{loopback}:{port}/kw4h", status="the tool")


def test_a_server_says_how_it_is_used(loopback: str) -> None:
    body = b'{"connections": 1, "kernels": 2, "last_activity": "2026-01-02T03:04:05.678901Z", "started": "x"}'
    last = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert activity(loopback, body) == Activity(2, last)


@pytest.mark.parametrize("status", [403, 302, 500])
def test_a_server_that_refuses_to_say_it_says_nothing(loopback: str, status: int) -> None:
    assert activity(loopback, b'{"kernels": 2}', status) == Activity()


@pytest.mark.parametrize(
    "kernels", ["-1", "true", "2.0", '"2"', "null", "[2]", "1e3", "NaN", str(10**30), "9" * 5000, '"\\u001b[2J"']
)
def test_only_a_number_of_kernels_is_believed(loopback: str, kernels: str) -> None:
    assert activity(loopback, f'{{"kernels": {kernels}}}'.encode()) == Activity()


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "1970-01-01T00:00:00Z",
        "2026-01-02T03:04:05Z\\u001b[2J",
        "2" * 60_000,
    ],
)
def test_only_a_date_that_can_be_is_believed(loopback: str, date: str) -> None:
    assert activity(loopback, f'{{"kernels": 0, "last_activity": "{date}"}}'.encode()) == Activity(0)


def test_a_clock_that_is_a_little_ahead_is_forgiven(loopback: str) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=1)
    found = activity(loopback, json.dumps({"last_activity": ahead.isoformat()}).encode())
    assert found.last and found.last < ahead


def test_the_server_knows_the_tool_by_what_it_shows() -> None:
    """And by nothing else: of the code that runs in the seats, this is the part that decides."""
    tree = ast.parse(jupyter.server_code())
    parts = [node for node in tree.body if getattr(node, "name", "") == "asks_for_status"]
    names: dict[str, Any] = {"hmac": hmac, "STATUS_HEADER": jupyter.STATUS_HEADER}
    assert f'STATUS_HEADER = "{jupyter.STATUS_HEADER}"' in jupyter.server_code().decode()
    exec(compile(ast.Module(parts, []), "jupyter_config.py", "exec"), names)
    passwords = Passwords(bytes(range(32)))
    known, secret = passwords.status_pass("1"), passwords.gateway_pass("1")

    def is_let_in(shown: str, method: str = "GET", path: str = "/kw4h/api/status", secret: str = secret) -> bool:
        request = SimpleNamespace(method=method, path=path, headers={jupyter.STATUS_HEADER: shown} if shown else {})
        handler = SimpleNamespace(request=request, settings={"base_url": "/kw4h/"})
        return bool(names["asks_for_status"](handler, secret))

    assert is_let_in(known)
    assert not is_let_in("") and not is_let_in("é") and not is_let_in(secret)
    assert not is_let_in(passwords.status_pass("2"))
    assert not is_let_in(known, method="POST") and not is_let_in(known, path="/kw4h/api/contents")
    assert not is_let_in(hmac.digest(b"", b"status", "sha256").hex(), secret="")


TRIAL = """
import fcntl, sys, tempfile, termios
with tempfile.TemporaryFile() as file:
    attributes = bytearray(28)
    fcntl.ioctl(file, 0x801C581F, attributes)  # to read them is harmless
    fcntl.ioctl(file, termios.FIONREAD, bytearray(4))
    try:
        fcntl.ioctl(file, 0x401C5820, bytes(attributes))
    except PermissionError:
        print("refused")
    else:
        print("done")
"""


@pytest.mark.usefixtures("processes")
def test_what_a_server_starts_can_not_leave_the_quota_of_its_disk(tmp_path: Path) -> None:
    tree = ast.parse(jupyter.server_code())
    names = ("Instruction", "Program", "keep_quota")
    parts = [node for node in tree.body if isinstance(node, ast.Assign) or getattr(node, "name", "") in names]
    code = ast.unparse(ast.Module(parts, [])).partition("serverapp.")[0]
    start = "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    kept = f"import ctypes, subprocess, sys\n{code}\nctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\nkeep_quota()\n{start}"

    def answer(program: str) -> str:
        command = [sys.executable, "-c", program, TRIAL]
        environment = {"TMPDIR": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    assert answer(f"import subprocess, sys; {start}") == "done"
    assert answer(kept) == "refused"


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
