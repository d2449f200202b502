"""What students send to the gateway: requests to its login service, as the proxy passes them on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example
from hypothesis import strategies as st
from tornado.iostream import StreamClosedError

from cloudscale.seats.address import Entrance
from tests.unit.conftest import Walls
from tests.unit.fuzz.inputs import changed_bytes, fuzz, reading
from tests.unit.gateway.login_service import LoginService


@pytest.fixture(params=[Entrance("192.0.2.7"), Entrance("class.test", by_name=True)], ids=["path", "subdomain"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, walls: Walls, caplog: pytest.LogCaptureFixture
) -> Iterator[LoginService]:
    walls.reachable = lambda address: address == str(tmp_path / "login.sock")
    started = LoginService(tmp_path, request.param)
    yield started
    started.close()
    failed = [(each.args, each.exc_info) for each in caplog.get_records("call") if each.levelname == "ERROR"]
    # but for who has gone before the answer came
    errors = [(what, info) for what, info in failed if not info or info[0] is not StreamClosedError]
    assert not errors, "a request ran into an error of the program"


FORM = b"password=ann-pass-word&next=%2Fannpath%2Flab"
BROWSER = b"Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: same-origin\r\n"
COOKIES = b"Cookie: __Host-Http-seat=anntoken; _xsrf=2|x|y; username-192=x\r\n"
HEAD = b"Host: 192.0.2.7\r\nX-Forwarded-For: 192.0.2.50, 192.0.2.51\r\nOrigin: https://192.0.2.7\r\n" + COOKIES
SOCKET = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"


def request(first: bytes, *more: bytes, body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n".encode() if body else b""
    return first + b" HTTP/1.1\r\n" + HEAD + b"".join(more) + length + b"\r\n" + body


REQUESTS = (
    request(b"GET /", BROWSER),
    request(b"GET /?next=/annpath/lab", BROWSER),
    request(b"GET /annpath/lab", BROWSER),
    request(b"GET /annpath/api/kernels/x/channels", SOCKET),
    request(b"POST /login?next=/annpath/", body=FORM),
    request(b"POST /annpath/login", b"Content-Type: application/x-www-form-urlencoded\r\n", BROWSER, body=FORM),
    request(b"POST /login", b"Content-Type: multipart/form-data; boundary=x\r\n", body=b"--x\r\n\r\ny\r\n--x--\r\n"),
    request(b"GET /logout", BROWSER),
    request(b"GET /.gateway/enter?ticket=x", BROWSER),
    request(b"GET /.gateway/starting", BROWSER),
    request(b"PUT /login", b"Transfer-Encoding: chunked\r\n", body=b"")[:-2] + b"\r\n5\r\nhello\r\n0\r\n\r\n",
)


@fuzz(data=changed_bytes(*REQUESTS), more=st.sampled_from([b"", b"", REQUESTS[0]]))
@example(data=request(b"POST /login", body=FORM).replace(b"https://192", b"https://[192"), more=b"")
@example(data=request(b"POST /login", body=FORM.replace(b"%2Fannpath", b"//[")).replace(b"Origin", b"X"), more=b"")
@example(data=request(b"GET /login").replace(b"_xsrf", b'\xff\xfe\x01"'), more=b"")
@example(data=request(b"GET //[/login"), more=b"")
@example(data=request(b"GET http://[/"), more=b"")
@example(data=request(b"GET /", b"Cookie: " + b"a=b; " * 200_000 + b"\r\n"), more=b"")
def test_any_request(service: LoginService, data: bytes, more: bytes) -> None:
    service.time.now += 60  # so that no wrong password waits for its turn
    with reading():
        answer = service.tell(data + more)
        assert not answer.startswith(b"HTTP/1.1 5") or b"/.gateway/starting" in data
        assert service.get("/.gateway/style.css").status == 200
