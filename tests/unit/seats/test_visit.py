"""A student's visit, to servers that work, that do not, and that are hostile."""

from __future__ import annotations

import json
import resource
import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from cloudscale.seats.visit import Door, Visit, visit_all
from tests.unit.seats.fake_jupyter import PASSWORD, PATH, FakeJupyter, answering, running

LONG = 30.0  # seconds


@pytest.fixture
def seat(loopback: str) -> Iterator[FakeJupyter]:
    with running(FakeJupyter(loopback)) as seat:
        yield seat
        assert not any(name.startswith("cloudscale-check-") for name in seat.files), "a file is left"
        assert not any(session["path"].startswith("cloudscale-check-") for session in seat.sessions.values())
        assert seat.logins == 0, "a login is left"


def one(url: str, timeout: float = LONG, *, password: str = PASSWORD, home: str = "") -> Visit:
    (made,) = visit_all([Door(url, password, home)], None, timeout, lambda done: None)
    return made


# --- what works ------------------------------------------------------------------------------


def test_a_student_logs_in_runs_a_cell_and_saves_a_file(seat: FakeJupyter) -> None:
    made = one(seat.url)
    assert (made.step, made.cause, made.is_absent) == ("", "", False)
    assert 0 <= made.seconds < LONG
    done = [asked.partition("cloudscale-check-")[0] for asked in seat.asked]
    assert done[:4] == ["GET /", "GET /", "GET /login", "GET /login"]
    assert [step for step in done if "contents" in step][:2] == ["PUT /api/contents/", "GET /api/contents/"]
    assert seat.cells[0] == "print(6 * 7)"


def test_a_file_is_removed_by_the_kernel_since_jupyter_would_keep_it_in_a_trash(seat: FakeJupyter) -> None:
    seat.files["mine.txt"] = "my own"
    assert one(seat.url).cause == ""
    assert not [asked for asked in seat.asked if asked.startswith("DELETE /api/contents")]
    assert seat.files == {"mine.txt": "my own"}


def test_a_kernel_of_another_language_works_too(seat: FakeJupyter) -> None:
    seat.kernel = "other"
    assert one(seat.url).cause == ""
    assert [asked for asked in seat.asked if asked.startswith("DELETE /api/contents")]


def test_all_seats_are_visited_at_once_and_reported_in_their_order(seat: FakeJupyter) -> None:
    counts: list[int] = []
    doors = [Door(seat.url, PASSWORD if number != 7 else "wrong") for number in range(20)]
    visits = visit_all(doors, None, LONG, counts.append)
    assert [number for number, made in enumerate(visits) if made.cause] == [7]
    assert seat.most_at_once > 1
    assert counts == list(range(1, 21))


def test_there_are_no_more_visits_at_once_than_files_may_be_open(
    seat: FakeJupyter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (6, 6))
    visits = visit_all([Door(seat.url, PASSWORD)] * 6, None, LONG, lambda done: None)
    assert [made.cause for made in visits] == [""] * 6
    assert seat.most_at_once <= 2


def test_behind_a_gateway_the_password_is_typed_at_its_address(loopback: str) -> None:
    with running(FakeJupyter(loopback)) as gateway, running(FakeJupyter(loopback)) as seat:
        home = f"http://{loopback}:{gateway.port}"
        seat.home = home
        gateway.leads["POST /login"] = f"{seat.url}/"  # with a ticket, which the fake does not need
        made = one(seat.url, home=f"{home}/")
        assert "POST /login" in gateway.asked and "POST /login" not in seat.asked
        assert made.step == "login"  # since no cookie of the gateway's is for the seat's address


# --- what does not ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "step", "cause"),
    [
        ("GET /", 500, "open", "the server answered 500"),
        ("GET /", 404, "open", "the server answered 404"),
        ("GET /login", 500, "open", "the server answered 500"),
        ("GET /login", 200, "login", "no field for the password"),
        ("POST /login", 401, "login", "the password is refused"),
        ("POST /login", 429, "login", "too many wrong passwords"),
        ("POST /login", 200, "login", "the server answered 200"),
        ("POST /api/sessions", 500, "kernel", "the server answered 500: [Errno 2] No such file"),
        ("POST /api/sessions", 201, "kernel", "the server answered without the id of a kernel"),
    ],
)
def test_the_step_that_fails_is_named_with_the_servers_reason(
    seat: FakeJupyter, asked: str, status: int, step: str, cause: str
) -> None:
    seat.instead[asked] = (status, json.dumps({"message": "[Errno 2] No such file"}).encode())
    made = one(seat.url)
    assert made.step == step
    assert cause in made.cause
    assert not made.is_absent


def test_a_wrong_password_fails_at_the_login(seat: FakeJupyter) -> None:
    assert one(seat.url, password="wrong").cause == "the password is refused"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_finds_no_server_counts_as_no_server(seat: FakeJupyter, status: int) -> None:
    seat.instead["GET /"] = (status, b"The seat is starting.")
    made = one(seat.url)
    assert (made.step, made.is_absent) == ("open", True)


def test_where_nothing_listens_no_server_is_there(loopback: str) -> None:
    with answering(loopback, lambda send: None) as url:
        pass
    made = one(url)
    assert (made.step, made.is_absent) == ("open", True)
    assert "Connection refused" in made.cause


def test_a_seat_without_an_address_fails_at_once() -> None:
    assert one("") == Visit("open", 0.0, "the seat has no address", is_absent=True)


@pytest.mark.parametrize(
    ("kernel", "step", "cause"),
    [
        ("dies", "kernel", "the kernel died"),
        ("closes", "kernel", "the connection to the kernel was closed"),
        ("floods", "kernel", "more than 4 MiB"),
        ("fails", "run", "the cell ended with an error: SyntaxError: no such thing"),
        ("lies", "run", "did not print 42"),
    ],
)
def test_what_a_kernel_does_wrong_is_named(seat: FakeJupyter, kernel: str, step: str, cause: str) -> None:
    seat.kernel = kernel
    made = one(seat.url)
    assert (made.step, cause in made.cause) == (step, True), made


def test_nonsense_from_a_kernel_is_passed_over(seat: FakeJupyter) -> None:
    seat.kernel = "nonsense"
    assert one(seat.url).cause == ""


@pytest.mark.parametrize(("status", "step"), [(403, "run"), (404, "run"), (500, "kernel")])
def test_a_refused_websocket_is_the_ways_fault_or_the_kernels(seat: FakeJupyter, status: int, step: str) -> None:
    seat.socket_status = status
    made = one(seat.url)
    assert made.step == step
    assert f"opens no WebSocket (it answered {status})" in made.cause


def test_a_full_disk_fails_when_the_file_is_saved(seat: FakeJupyter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda count: "ab" * count)
    full = b'{"message": "Unexpected error while saving file: [Errno 28] No space left on device"}'
    seat.instead["PUT /api/contents/cloudscale-check-abababababababab.txt"] = (500, full)
    made = one(seat.url)
    assert (made.step, "No space left on device" in made.cause) == ("save", True)


def test_a_file_that_reads_back_otherwise_fails(seat: FakeJupyter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda count: "ab" * count)
    seat.instead["GET /api/contents/cloudscale-check-abababababababab.txt"] = (200, b'{"content": "other"}')
    made = one(seat.url)
    assert (made.step, "another content" in made.cause) == ("save", True)


# --- what is left ----------------------------------------------------------------------------


def left(number: int, *, connections: int, since: str, path: str = "") -> dict[str, object]:
    kernel = {"id": f"k{number}", "connections": connections, "last_activity": since}
    return {"id": f"s{number}", "path": path or f"cloudscale-check-{number:016}.txt", "kernel": kernel}


def test_what_a_killed_check_left_is_removed_by_the_next(seat: FakeJupyter) -> None:
    seat.sessions["s1"] = left(1, connections=-1, since="2026-11-27T09:00:00Z")
    seat.files["cloudscale-check-0000000000000001.txt"] = "x"
    assert one(seat.url).cause == ""


def test_what_another_check_does_now_is_left_alone_and_so_is_the_students(seat: FakeJupyter) -> None:
    others = {
        "s1": left(1, connections=1, since="2026-11-27T09:00:00Z"),
        "s2": left(2, connections=0, since="2026-11-27T09:59:00Z"),
        "s3": left(3, connections=0, since="2026-11-27T09:00:00Z", path="cloudscale-check-mine.txt"),
        "s4": left(4, connections=0, since="long ago"),
    }
    seat.sessions |= others
    assert one(seat.url).cause == ""
    assert seat.sessions == others
    seat.sessions.clear()


# --- hostile ---------------------------------------------------------------------------------


def forever(data: bytes, first: bytes = b"", pause: float = 0) -> Callable[[Callable[[bytes], None]], None]:
    def send(to: Callable[[bytes], None]) -> None:
        to(first)
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            to(data)
            time.sleep(pause)

    return send


@pytest.mark.parametrize(
    "send",
    [
        forever(b"H", pause=0.05),
        forever(b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", 0.05),
        forever(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", 0.05),
        forever(b"X: y\r\n", b"HTTP/1.1 200 OK\r\n", 0.05),
        forever(b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05),
    ],
    ids=["start line", "body", "silence", "headers", "continue"],
)
def test_a_visit_ends_in_time_however_slowly_a_server_answers(
    loopback: str, send: Callable[[Callable[[bytes], None]], None]
) -> None:
    start = time.monotonic()
    with answering(loopback, send) as url:
        made = one(url, 0.5)
        assert made.cause == "the address did not answer within 0.5 s"
        assert 0.5 <= made.seconds < 10
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "send",
    [
        forever(b"x" * 65536, b"HTTP/1.1 200 OK\r\n\r\n"),
        forever(b"10000\r\n" + b"x" * 65536 + b"\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        forever(b"x" * 65536, b"HTTP/1.1 200 OK\r\nX: "),
        forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        lambda to: to(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
        lambda to: to(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        lambda to: to(b"\xff\xfe\r\n\r\n"),
    ],
    ids=["body", "chunks", "header", "continue", "length", "another protocol", "bytes"],
)
def test_an_answer_without_an_end_or_of_no_form_ends_the_visit(
    loopback: str, send: Callable[[Callable[[bytes], None]], None], capfd: pytest.CaptureFixture[str]
) -> None:
    with answering(loopback, send) as url:
        made = one(url)
    assert (made.step, made.is_absent) == ("open", False)
    assert "is no HTTP, or longer than 1 MiB" in made.cause
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "location",
    ["http://elsewhere.example/x", "https://127.0.0.1/", "//elsewhere.example", "file:///etc/passwd", "http://["],
)
def test_nothing_is_asked_of_another_address(seat: FakeJupyter, location: str) -> None:
    seat.leads["GET /"] = location
    made = one(seat.url)
    assert made.step == "open"
    assert "it leads to" in made.cause


def test_nor_after_the_login(seat: FakeJupyter, loopback: str) -> None:
    with running(FakeJupyter(loopback)) as other:
        seat.leads["POST /login"] = f"{other.url}/"
        made = one(seat.url)
        assert (made.step, "it leads to another address" in made.cause) == ("login", True)
        assert other.asked == []


def test_a_circle_of_redirects_ends(seat: FakeJupyter) -> None:
    seat.leads["GET /"] = f"{PATH}/"
    assert "from one to the next" in one(seat.url).cause


def test_a_silent_kernel_fails_in_time_and_nothing_is_left(seat: FakeJupyter) -> None:
    seat.kernel = "silent"
    made = one(seat.url, 1)
    assert (made.step, made.cause) == ("kernel", "the kernel did not answer within 1 s")


@pytest.mark.parametrize("body", [b"[" * 100_000, b"7", b'{"id": 7}', b'{"id": "../x"}', b'{"id": "a"}', b'["id"]'])
def test_what_is_no_session_starts_no_kernel(seat: FakeJupyter, body: bytes) -> None:
    seat.instead["POST /api/sessions"] = (201, body)
    made = one(seat.url)
    assert made.step == "kernel" and made.cause


@pytest.mark.parametrize("body", [b"[" * 100_000, b"7", b"[7]", b'[{"path": 3, "kernel": 4}]', b'{"path": "x"}'])
def test_sessions_that_are_none_do_not_keep_the_own_one_from_being_removed(seat: FakeJupyter, body: bytes) -> None:
    seat.instead["GET /api/sessions"] = (200, body)
    assert one(seat.url).cause == ""


def test_a_reason_is_short_and_on_one_line(seat: FakeJupyter) -> None:
    reason = {"message": "line\nline " + "x" * 100_000}
    seat.instead["POST /api/sessions"] = (500, json.dumps(reason).encode())
    cause = one(seat.url).cause
    assert len(cause) < 400 and "\n" not in cause and "line line" in cause


def test_a_door_does_not_show_its_password() -> None:
    assert PASSWORD not in repr(Door("http://192.0.2.1/x", PASSWORD))
