from __future__ import annotations

import contextlib
import errno
import getpass
import grp
import http.server
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests
import urllib3
from docker.errors import DockerException

from cloudscale.engines.api import Client
from cloudscale.engines.certificates import Authority
from cloudscale.engines.client import (
    describe,
    engine_errors,
    explain,
    failure,
    from_environment,
    over_tls,
)
from cloudscale.errors import EngineError, NotSetUp, RequestError, SeatError
from cloudscale.model import Machine
from cloudscale.units import GIB
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine, http_answer

POOL = urllib3.HTTPConnectionPool("localhost")


# --- errors ----------------------------------------------------------------------------------


def as_requests(cause: Exception) -> Exception:
    """As urllib3 and requests hand a cause on: in their arguments."""
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", cause))


def as_docker(cause: Exception) -> Exception:
    """As docker-py does on its first request: chained."""
    try:
        raise DockerException(f"Error while fetching server API version: {cause}") from as_requests(cause)
    except DockerException as error:
        return error


def as_context(cause: Exception) -> Exception:
    try:
        try:
            raise cause
        except Exception:
            raise DockerException("hidden")  # noqa: B904 - the cause is in the context only, as libraries have it
    except DockerException as error:
        return error


def as_reason(cause: Exception) -> Exception:
    return requests.ConnectionError(urllib3.exceptions.MaxRetryError(POOL, "/info", cause))


@pytest.mark.parametrize("hidden", [lambda cause: cause, as_requests, as_docker, as_context, as_reason])
@pytest.mark.parametrize(
    ("cause", "message", "remedy"),
    [
        (
            PermissionError(13, "Permission denied"),
            "You have no access to the Docker Engine of m1",
            "usermod -aG docker",
        ),
        (FileNotFoundError(2, "No such file"), "No Docker Engine answers on m1", "machine_new local"),
        (ConnectionRefusedError(111, "Connection refused"), "No Docker Engine answers on m1", "DOCKER_HOST"),
        (TimeoutError("timed out"), "took too long to answer", "load"),
        (ssl.SSLError("certificate verify failed"), "certificate verify failed", "DOCKER_CERT_PATH"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_cause_is_reported_with_its_remedy_however_deep_it_is(
    hidden: Callable[[Exception], Exception], cause: Exception, message: str, remedy: str
) -> None:
    error = explain(hidden(cause), "m1")
    assert message in error.message
    assert "m1" in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("members", "groups", "remedy"),
    [(["ann"], [1000], "newgrp docker"), (["ann"], [1000, 108], "usermod"), (["bob"], [1000], "usermod")],
)
def test_who_is_in_the_group_and_has_not_logged_in_since_is_asked_to_do_just_that(
    monkeypatch: pytest.MonkeyPatch, members: list[str], groups: list[int], remedy: str
) -> None:
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", 108, members)))
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    monkeypatch.setattr(os, "getgroups", lambda: groups)
    assert remedy in explain(PermissionError(13, "Permission denied"), "this computer").remedy


@pytest.mark.parametrize("timeout", [requests.ReadTimeout("60 s"), requests.ConnectTimeout("60 s")])
def test_a_timeout_is_reported(timeout: Exception) -> None:
    assert "took too long" in explain(timeout, "m1").message


def test_a_full_disk_is_reported_with_its_remedy() -> None:
    error = explain(api_error(500, "write /var/lib/docker/tmp: no space left on device\n"), "m1")
    assert "disk of the Docker Engine of m1 is full" in error.message
    assert "docker system df" in error.remedy


def test_a_message_of_an_engine_is_passed_on() -> None:
    assert "m1 refused the request: name conflicts" in explain(api_error(409, "name conflicts\n"), "m1").message


def test_an_unknown_cause_is_reported_with_its_own_message() -> None:
    assert "the moon is full" in explain(DockerException("the moon is full"), "m1").message


def test_errors_that_refer_to_each_other_are_no_endless_loop() -> None:
    first, second = DockerException("a"), DockerException("b")
    first.__cause__, second.__cause__ = second, first
    assert "can't be used: a" in explain(first, "m1").message


def test_whatever_lies_below_docker_becomes_an_error_that_names_the_machine() -> None:
    for below in (api_error(500, "broken"), requests.ConnectionError("x"), socket.gaierror(-2, "unknown host")):
        with pytest.raises(EngineError, match="m1"), engine_errors("m1"):
            raise below


def test_the_projects_own_errors_and_mistakes_pass_unchanged() -> None:
    with pytest.raises(SeatError, match=r"^broken$"), engine_errors("m1"):
        raise SeatError("broken")
    with pytest.raises(KeyError), engine_errors("m1"):
        raise KeyError


@pytest.mark.usefixtures("no_engine")
def test_a_missing_engine_is_reported() -> None:
    with pytest.raises(EngineError, match="No Docker Engine answers on this computer"):
        from_environment()


@pytest.mark.parametrize("host", ["nonsense", "ftp://192.0.2.1", "tcp://"])
def test_a_docker_host_that_is_invalid_is_reported(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(RequestError, match=f"DOCKER_HOST is '{host}'"):
        from_environment()


def test_every_request_has_a_deadline_and_a_connection_for_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    given: Json = {}

    def client(**settings: object) -> object:
        given.update(settings)
        return SimpleNamespace(api=SimpleNamespace(api_version="1.41"))

    monkeypatch.setattr(Client, "from_env", client)
    from_environment(timeout=5)
    assert given["timeout"] == 5
    assert given["max_pool_size"] >= 16


def test_an_engine_that_is_too_old_is_reported_with_the_oldest_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(api=SimpleNamespace(api_version="1.40"))
    monkeypatch.setattr(Client, "from_env", lambda **settings: old)
    with pytest.raises(EngineError, match=r"1\.40.*20\.10"):
        from_environment()


# --- descriptions ----------------------------------------------------------------------------


def test_an_engine_outside_a_swarm_is_described() -> None:
    node = describe(fake_engine(FakeApi(memory=4 * GIB, cpus=2, in_swarm=False)), "bio", manages=False)
    assert (node.machine, node.id, node.cpus, node.memory) == (Machine("m1", "192.0.2.1"), "", 2, 4 * GIB)
    assert (node.taken_ports, node.taken_memory) == (frozenset(), 0)


def test_only_what_others_than_the_course_hold_is_described() -> None:
    api = FakeApi()
    for course, port in (("bio", 4321), ("geo", 4322), ("", 80)):
        labels = {"cloudscale.course": course} if course else {}
        resources = {"Reservations": {"MemoryBytes": GIB * port}} if course else {}
        api.services_[course] = {"ID": course, "Spec": {"Labels": labels, "TaskTemplate": {"Resources": resources}}}
        api.add_task(course, "running")
        ports = [{"PublicPort": port, "PrivatePort": 8888}, {"PrivatePort": 9999}]
        api.containers_.append({"State": "running", "Labels": labels, "Ports": ports})
    api.swarm.add_task("geo", "complete", node_id=api.node_id, desired="shutdown")  # holds nothing any more
    node = describe(fake_engine(api), "bio", manages=True)
    assert node.id == "node1"
    assert node.taken_ports == {4322, 80}
    assert node.taken_memory == 4322 * GIB


def test_the_ports_of_the_courses_running_seats_are_its_own() -> None:
    api = FakeApi()
    student = {"cloudscale.student": "1"}
    for port, state, labels in (
        (4321, "running", {"cloudscale.course": "bio", **student}),
        (4322, "exited", {"cloudscale.course": "bio", **student}),
        (4323, "running", {"cloudscale.course": "geo", **student}),
        (4324, "running", {"cloudscale.course": "bio"}),
        (4325, "running", {}),
    ):
        ports = [{"PublicPort": port, "PrivatePort": 8888}, {"PrivatePort": 9999}]
        api.containers_.append({"State": state, "Labels": labels, "Ports": ports})
    assert describe(fake_engine(api), "bio", manages=True).own_ports == {4321}


def test_a_seat_of_another_course_keeps_its_port_while_it_is_down() -> None:
    api = FakeApi()
    for course, port in (("bio", 4321), ("geo", 4322)):
        endpoint = {"Ports": [{"PublishedPort": port}, {"TargetPort": 9999}]}
        spec = {"Labels": {"cloudscale.course": course}, "EndpointSpec": endpoint}
        api.services_[course] = {"ID": course, "Spec": spec}
    api.services_["other"] = {"ID": "other", "Spec": {"Labels": {}, "EndpointSpec": {"Ports": None}}}
    assert describe(fake_engine(api), "bio", manages=True).taken_ports == {4322}


def test_a_worker_in_a_swarm_is_described_without_asking_what_only_managers_know() -> None:
    api = FakeApi()
    node_id = api.node_id
    api.become_worker()
    assert describe(fake_engine(api), "bio", manages=False).id == node_id


# --- over TLS --------------------------------------------------------------------------------


class Answers(http.server.BaseHTTPRequestHandler):
    """The answers of an engine about itself."""

    protocol_version = "HTTP/1.1"
    version = "1.43"

    def do_GET(self) -> None:
        known = {"/version": {"ApiVersion": self.version}, f"/v{self.version}/info": {"Name": "m1"}}
        self.send_response(200 if self.path in known else 404)
        text = json.dumps(known.get(self.path, {"message": f"{self.path} is not known"})).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


class TlsEngine(http.server.ThreadingHTTPServer):
    """An engine that accepts certificates of the course only, as with tlsverify."""

    daemon_threads = True

    def __init__(self, bio: Authority, folder: Path, names: Sequence[str], answers: type[Answers] = Answers) -> None:
        super().__init__(("127.0.0.1", 0), answers)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(cadata=bio.pem.decode())
        pair = bio.server("m1", names)
        (folder / "pair.pem").write_bytes(pair.certificate + pair.key)
        self.context.load_cert_chain(folder / "pair.pem")
        self.port = self.server_address[1]

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.context.wrap_socket(request, server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # refused clients


@contextlib.contextmanager
def running(server: TlsEngine) -> Iterator[TlsEngine]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reach(port: int, ca: Authority, client: Authority) -> docker.DockerClient:
    return over_tls("m1", "127.0.0.1", port, ca=ca.ca_file, certificate=client.client_files)


@pytest.mark.usefixtures("loopback")
def test_an_engine_is_reached_with_the_trainers_certificate(bio: Authority, tmp_path: Path) -> None:
    with running(TlsEngine(bio, tmp_path, ["127.0.0.1"])) as server:
        client = reach(server.port, bio, bio)
        assert client.api.api_version == "1.43"
        assert client.info()["Name"] == "m1"
        client.close()


@pytest.mark.usefixtures("loopback")
def test_no_other_authority_and_no_proxy_of_the_environment_is_asked(
    bio: Authority, geo: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(geo.ca_file))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(geo.ca_file))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.99:3128")
    with running(TlsEngine(bio, tmp_path, ["127.0.0.1"])) as server:
        reach(server.port, bio, bio).close()


@pytest.mark.usefixtures("loopback")
def test_an_engine_of_another_course_or_with_another_name_is_refused(
    bio: Authority, geo: Authority, tmp_path: Path
) -> None:
    for server_signer, name in ((geo, "127.0.0.1"), (bio, "192.0.2.1")):
        with (
            running(TlsEngine(server_signer, tmp_path, [name])) as server,
            pytest.raises(EngineError, match="m1 and this computer do not trust each other's certificates"),
        ):
            reach(server.port, bio, bio)


@pytest.mark.usefixtures("loopback")
def test_an_engine_that_refuses_the_trainer_is_reported(bio: Authority, geo: Authority, tmp_path: Path) -> None:
    with running(TlsEngine(bio, tmp_path, ["127.0.0.1"])) as server, pytest.raises(EngineError, match="m1"):
        reach(server.port, bio, geo)


@pytest.mark.usefixtures("loopback")
def test_an_engine_elsewhere_that_is_too_old_is_named(bio: Authority, tmp_path: Path) -> None:
    class Old(Answers):
        version = "1.40"

    server = TlsEngine(bio, tmp_path, ["127.0.0.1"], Old)
    with running(server), pytest.raises(EngineError, match=r"1\.40") as raised:
        reach(server.port, bio, bio)
    assert "m1" in raised.value.message


@pytest.mark.usefixtures("loopback")
def test_an_engine_that_does_not_run_is_one_that_is_not_set_up(bio: Authority) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # without listening
        port = bound.getsockname()[1]
        with pytest.raises(NotSetUp, match=f"m1: its Docker Engine, port {port}, does not run") as raised:
            reach(port, bio, bio)
    assert "themachine" in raised.value.remedy


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (TimeoutError("timed out"), "no answer"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("odd"), "odd"),
    ],
)
def test_a_machine_that_does_not_answer_is_reported_in_time(
    bio: Authority, monkeypatch: pytest.MonkeyPatch, cause: OSError, reason: str
) -> None:
    def refuse(address: tuple[str, int], timeout: float) -> None:
        assert address == ("127.0.0.1", 2376)
        assert 0 < timeout <= 30
        raise cause

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(
        EngineError, match=rf"m1: its Docker Engine, port 2376, can't be reached \({reason}\)"
    ) as raised:
        reach(2376, bio, bio)
    assert not isinstance(raised.value, NotSetUp)
    assert "no firewall blocks port 2376" in raised.value.remedy


def test_an_engine_at_an_ipv6_address_is_asked_in_brackets(bio: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    urls: list[str] = []

    def send(api: docker.APIClient, request: requests.PreparedRequest, **settings: object) -> requests.Response:
        urls.append(str(request.url).removesuffix("/version"))
        return http_answer(b'{"ApiVersion": "1.43"}')

    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: socket.socket())
    monkeypatch.setattr(docker.APIClient, "send", send)
    over_tls("m1", "2001:db8::1", 2376, ca=bio.ca_file, certificate=bio.client_files)
    over_tls("m1", "m1.example", 2376, ca=bio.ca_file, certificate=bio.client_files)
    assert {*urls} == {"https://[2001:db8::1]:2376", "https://m1.example:2376"}


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"errorDetail": {"message": "no space left"}, "error": "something"}, "no space left"),
        ({"errorDetail": {"code": 1, "message": "no space left"}}, "no space left"),
        ({"error": "no space left"}, "no space left"),
        ({"stream": "Step 1/4"}, ""),
        ({"errorDetail": None}, ""),
    ],
)
def test_an_error_in_a_stream_is_read_as_new_and_as_old_engines_send_it(event: dict[str, object], message: str) -> None:
    assert failure(event) == message
