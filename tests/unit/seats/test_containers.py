from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from cloudscale.engines.client import Engine
from cloudscale.errors import EngineError, SeatError
from cloudscale.model import MOST_OUTPUT, CommandResult, Machine, Place
from cloudscale.seats import containers
from cloudscale.seats.containers import (
    SeatContainer,
    clear_orphans,
    execute,
    remembered_places,
    remove_others,
    remove_stopped,
    remove_volume,
    seat_containers,
    volumes,
    wait_gone,
    wait_stopped,
)
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine


def marked(course: str, student: str | None = None, **more: str) -> dict[str, str]:
    return {"cloudscale.course": course, **({"cloudscale.student": student} if student else {}), **more}


@pytest.fixture
def api() -> FakeApi:
    """An engine with seats of two courses, one of which ended, a look into an image, and somebody else's container."""
    api = FakeApi()
    for id, state, labels in (
        ("c1", "running", marked("bio", "1", **{containers.SERVICE: "bio-ann"})),
        ("c2", "exited", marked("bio", "2")),
        ("c3", "running", marked("geo", "1")),
        ("c4", "running", marked("bio")),
        ("c5", "running", {}),
    ):
        api.containers_.append({"Id": id, "State": state, "Labels": labels, "Ports": [], "Volumes": []})
    return api


# --- seats -----------------------------------------------------------------------------------


def test_running_seats_are_listed_by_student(api: FakeApi) -> None:
    assert seat_containers(fake_engine(api), "bio") == {"1": SeatContainer("c1", "bio-ann")}
    assert seat_containers(fake_engine(api), "geo") == {"1": SeatContainer("c3", "")}


def test_seats_that_ended_are_listed_on_request(api: FakeApi) -> None:
    assert seat_containers(fake_engine(api), "bio", all_states=True) == {
        "1": SeatContainer("c1", "bio-ann"),
        "2": SeatContainer("c2", ""),
    }


def test_containers_that_are_gone_are_not_waited_for(api: FakeApi) -> None:
    assert wait_gone(fake_engine(api), "bio", ["3", "4"]) == []


def test_a_container_that_stays_is_a_failure_that_names_student_and_machine(api: FakeApi) -> None:
    outcomes = wait_gone(fake_engine(api), "bio", ["3", "2", "1"], timeout=0)
    assert [outcome.target for outcome in outcomes] == ["1", "2"]
    assert all("m1" in str(outcome.error) for outcome in outcomes)


def test_many_containers_that_go_one_after_another_are_waited_for(
    api: FakeApi, no_waiting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = [{"Id": f"d{n}", "State": "running", "Labels": marked("cid", str(n)), "Ports": []} for n in range(9)]
    api.containers_ += course
    looks, list_them = itertools.count(1), api.containers

    def listed(**given: Any) -> Any:
        if next(looks) % 4 == 0 and course[1:]:  # one each second; the last one stays
            api.containers_.remove(course.pop())
        return list_them(**given)

    monkeypatch.setattr(api, "containers", listed)
    outcomes = wait_gone(fake_engine(api), "cid", [str(n) for n in range(9)], timeout=2)
    assert [outcome.target for outcome in outcomes] == ["0"]


def test_other_containers_of_the_course_are_removed_and_nothing_else(api: FakeApi) -> None:
    remove_others(fake_engine(api), "bio")
    assert [container["Id"] for container in api.containers_] == ["c1", "c2", "c3", "c5"]


def test_a_container_whose_service_was_removed_is_waited_for_and_what_is_left_of_it_removed(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was cut off has removed the service."""
    api.containers_ += [
        {"Id": id, "State": state, "Labels": marked("bio", "3", **{containers.SERVICE: "bio-cid"}), "Ports": []}
        for id, state in (("c6", "running"), ("c7", "exited"))
    ]
    waits: list[int] = []

    def stops(step: Callable[[], object], *, timeout: float) -> bool:
        waits.append(bool(step()))
        next(each for each in api.containers_ if each["Id"] == "c6")["State"] = "exited"
        waits.append(bool(step()))
        return True

    monkeypatch.setattr(containers, "poll", stops)
    clear_orphans(fake_engine(api), "bio", {"bio-ann"})
    assert waits == [False, True]
    assert [container["Id"] for container in api.containers_] == ["c1", "c2", "c3", "c4", "c5"]


# --- volumes ---------------------------------------------------------------------------------


def volume(name: str, labels: dict[str, str]) -> Json:
    return {"Name": name, "Labels": labels, "CreatedAt": "2025-03-14T09:00:00+01:00"}


def test_only_the_students_volumes_of_the_course_are_its_volumes(api: FakeApi) -> None:
    api.volumes_ = {
        "v1": volume("v1", marked("bio", "1")),
        "v2": volume("v2", marked("geo", "1")),
        "v3": volume("v3", marked("bio")),
        "v4": volume("v4", {}),
    }
    assert [each["Name"] for each in volumes(fake_engine(api), "bio")] == ["v1"]


def test_an_engine_without_volumes_has_none(api: FakeApi) -> None:
    assert volumes(fake_engine(api), "bio") == []


def test_volumes_remember_where_their_students_sat(api: FakeApi) -> None:
    api.volumes_ = {
        "v1": volume("v1", marked("bio", "1", **{"cloudscale.port": "4325"})),
        "v2": volume("v2", marked("bio", "2")),  # of a version that did not write the port down
    }
    since = datetime(2025, 3, 14, 8, tzinfo=UTC)
    assert remembered_places(fake_engine(api), "bio") == {
        "1": (since, Place("m1", 4325)),
        "2": (since, Place("m1", 0)),
    }


def test_a_volume_whose_folder_was_removed_has_no_date_and_remembers_nothing(api: FakeApi) -> None:
    api.volumes_ = {"v1": volume("v1", marked("bio", "1")), "v2": volume("v2", marked("bio", "2"))}
    del api.volumes_["v1"]["CreatedAt"]
    assert list(remembered_places(fake_engine(api), "bio")) == ["2"]


def test_a_volume_is_removed_once_or_twice(api: FakeApi) -> None:
    api.volumes_ = {"v1": volume("v1", marked("bio", "1"))}
    assert remove_volume(fake_engine(api), "v1") == "removed"
    assert api.volumes_ == {}
    assert remove_volume(fake_engine(api), "v1") == "removed"


def test_an_engine_is_asked_only_for_volumes_that_it_has(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another one, a manager asks its leader, whose engine may be too old to know of volumes."""
    api.volumes_ = {"v1": volume("v1", marked("bio", "1"))}
    removed = api.remove_volume

    def remove(name: str) -> None:
        if name not in api.volumes_:
            raise api_error(500, "rpc error: code = Unimplemented desc = unknown method ListVolumes")
        removed(name)

    monkeypatch.setattr(api, "remove_volume", remove)
    for _ in range(2):
        assert remove_volume(fake_engine(api), "v1") == "removed"
    assert api.volumes_ == {}


def test_a_volume_in_use_is_reported(api: FakeApi) -> None:
    api.volumes_ = {"v1": volume("v1", marked("bio", "1"))}
    api.containers_[0]["Volumes"] = ["v1"]
    with pytest.raises(EngineError, match="v1 on m1 is in use"):
        remove_volume(fake_engine(api), "v1")


def test_another_failure_is_reported_in_the_engines_words(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise api_error(500, "input/output error")

    api.volumes_ = {"v1": volume("v1", marked("bio", "1"))}
    monkeypatch.setattr(api, "remove_volume", broken)
    with pytest.raises(EngineError, match="input/output error"):
        remove_volume(fake_engine(api), "v1")


# --- commands --------------------------------------------------------------------------------


class Exec:
    """An engine that runs one command: `write` writes its frames to the connection."""

    def __init__(self, write: Callable[[socket.socket], object], exit_code: int | None = 0) -> None:
        self._write = write
        self._exit_code = exit_code
        self.command: list[str] = []
        self.other_end: socket.socket | None = None

    def exec_create(self, container: str, cmd: list[str]) -> Json:
        if container != "c1":
            raise api_error(404, f"No such container: {container}")
        self.command = cmd
        return {"Id": "exec1"}

    def exec_start(self, exec_id: str, socket: bool) -> Any:
        assert exec_id == "exec1" and socket
        ours, self.other_end = connected_pair()
        self._write(self.other_end)
        answer = SimpleNamespace(raw=SimpleNamespace(_fp=SimpleNamespace(fp=ours.makefile("rb"))), close=ours.close)
        return SimpleNamespace(_sock=ours, _response=answer)

    def exec_inspect(self, exec_id: str) -> Json:
        return {"ExitCode": self._exit_code}


def connected_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def frame(channel: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", channel, len(data)) + data


def test_a_command_gives_exit_code_and_both_streams() -> None:
    def write(connection: socket.socket) -> None:
        connection.sendall(frame(1, b"one ") + frame(2, b"wrong\n") + frame(1, "zwölf\n".encode()))
        connection.close()

    api = Exec(write, exit_code=3)
    assert execute(fake_engine(api), "c1", "ls | wc", timeout=5) == CommandResult(3, "one zwölf\n", "wrong\n")


ANSWERS = {
    "/exec": b'{"Id": "exec1"}',
    "/json": b'{"ExitCode": 0}',
    "/start": frame(1, b"one ") + frame(1, b"two\n"),
}


class Daemon(BaseHTTPRequestHandler):
    """An engine on a busy computer: headers and output of a command come in one packet."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = ANSWERS[f"/{self.path.rpartition('/')[2]}"]
        self.close_connection = self.path.endswith("/start")
        head = "101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade" if self.close_connection else "200 OK"
        length = "" if self.close_connection else f"Content-Length: {len(body)}\r\n"
        self.wfile.write(f"HTTP/1.1 {head}\r\nContent-Type: application/json\r\n{length}\r\n".encode() + body)

    do_GET = do_POST = answer

    def log_message(self, format: str, *words: object) -> None:
        pass


@pytest.fixture
def busy(loopback: str) -> Iterator[Engine]:
    with ThreadingHTTPServer((loopback, 0), Daemon) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Engine(
            Machine("m1", loopback), docker.DockerClient(f"tcp://{loopback}:{server.server_port}", version="1.41")
        )
        server.shutdown()


def test_output_that_comes_together_with_the_answer_is_not_lost(busy: Engine) -> None:
    assert execute(busy, "c1", "ls", timeout=5) == CommandResult(0, "one two\n", "")


def test_the_answer_is_closed_with_its_stream(busy: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else Python 3.13 prints a traceback when it collects the answer."""
    streams = []
    start = busy.api.exec_start

    def exec_start(*words: object, **more: object) -> Any:
        streams.append(start(*words, **more))
        return streams[0]

    monkeypatch.setattr(busy.api, "exec_start", exec_start)
    execute(busy, "c1", "ls", timeout=5)
    assert [stream._response.raw._fp.isclosed() for stream in streams] == [True]


def test_the_command_reaches_the_shell_as_it_is_with_its_deadline() -> None:
    api = Exec(lambda connection: connection.close())
    command = """echo "it's $HOME"; exit 1"""
    execute(fake_engine(api), "c1", command, timeout=2.5)
    assert api.command[:2] == ["sh", "-c"]
    assert api.command[-2:] == ["2.5", command]


def test_bytes_that_are_no_text_are_shown_as_well_as_possible() -> None:
    def write(connection: socket.socket) -> None:
        connection.sendall(frame(1, b"\xff\xfe"))
        connection.close()

    assert execute(fake_engine(Exec(write)), "c1", "cat", timeout=5).stdout == "��"


def test_of_an_endless_output_the_beginning_is_kept_and_that_is_said() -> None:
    def write(connection: socket.socket) -> None:
        def send() -> None:
            for channel in (1, 2) * 20:
                connection.sendall(frame(channel, b"\x00" * 100_000))
            connection.close()

        threading.Thread(target=send, daemon=True).start()

    result = execute(fake_engine(Exec(write, exit_code=3)), "c1", "cat /dev/zero", timeout=5)
    assert (result.exit_code, len(result.stdout)) == (3, MOST_OUTPUT)
    assert result.stderr.endswith("\nstdout: cut off after 1 MiB\nstderr: cut off after 1 MiB\n")


@pytest.mark.parametrize("exit_code", [124, None], ids=["ended inside", "still running"])
def test_a_command_past_its_deadline_has_exit_code_124_and_says_so(exit_code: int | None) -> None:
    def write(connection: socket.socket) -> None:
        connection.sendall(frame(1, b"working\n"))
        connection.close()

    result = execute(fake_engine(Exec(write, exit_code)), "c1", "sleep 99", timeout=5)
    assert (result.exit_code, result.stdout) == (124, "working\n")
    assert "--timeout" in result.stderr


@pytest.mark.parametrize("code", [137, 143], ids=["coreutils", "BusyBox"])
@pytest.mark.parametrize(("timeout", "is_late"), [(5, False), (0, True)], ids=["by something else", "by the deadline"])
def test_a_command_that_was_killed_is_late_only_past_its_deadline(code: int, timeout: float, is_late: bool) -> None:
    result = execute(fake_engine(Exec(lambda connection: connection.close(), code)), "c1", "python", timeout)
    assert result.exit_code == (124 if is_late else code)
    assert ("--timeout" in result.stderr) == is_late


def test_a_stream_that_stays_open_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "ENDING", 0)
    # the other end stays open, in the middle of a frame
    api = Exec(lambda connection: connection.sendall(frame(1, b"done\n") + frame(2, b"half")[:-2]), exit_code=0)
    result = execute(fake_engine(api), "c1", "sleep 99 &", timeout=0.05)
    assert (result.exit_code, result.stdout) == (0, "done\n")
    assert api.other_end
    api.other_end.close()


def test_a_container_that_is_gone_is_a_seats_failure() -> None:
    with pytest.raises(SeatError, match="No such container: c9"):
        execute(fake_engine(Exec(lambda connection: None)), "c9", "ls", timeout=5)


# --- one student -----------------------------------------------------------------------------


def test_a_container_that_has_ended_is_one_that_has_stopped(api: FakeApi, no_waiting: None) -> None:
    wait_stopped(fake_engine(api), "bio", "2")
    with pytest.raises(SeatError, match="student '1' still runs on m1 after 60 s"):
        wait_stopped(fake_engine(api), "bio", "1")


def test_of_a_students_containers_those_that_have_ended_are_removed(api: FakeApi) -> None:
    for student in ("1", "2"):
        remove_stopped(fake_engine(api), "bio", student)
    assert [container["Id"] for container in api.containers_] == ["c1", "c3", "c4", "c5"]


def test_with_a_volume_goes_what_says_that_it_does_not_count(api: FakeApi) -> None:
    for name in ("work", "work-copying", "work-other"):
        api.create_volume(name, marked("bio"))
    remove_volume(fake_engine(api), "work")
    assert list(api.volumes_) == ["work-other"]
