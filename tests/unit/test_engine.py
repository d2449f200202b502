from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from types import SimpleNamespace

import docker
import pytest
import requests
import urllib3
from docker.errors import DockerException

from cloudscale.engine import describe, engine_errors, explain, from_environment
from cloudscale.errors import EngineError, RequestError, SeatError
from cloudscale.model import Machine
from cloudscale.plan import GIB
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

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
        (PermissionError(13, "Permission denied"), "does not let this user in", "usermod -aG docker"),
        (FileNotFoundError(2, "No such file"), "No Docker Engine answers on m1", "machine_new local"),
        (ConnectionRefusedError(111, "Connection refused"), "No Docker Engine answers on m1", "DOCKER_HOST"),
        (TimeoutError("timed out"), "took too long to answer", "load"),
        (ssl.SSLError("certificate verify failed"), "certificate verify failed", "DOCKER_CERT_PATH"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_cause_is_found_however_deep_and_told_with_its_remedy(
    hidden: Callable[[Exception], Exception], cause: Exception, message: str, remedy: str
) -> None:
    error = explain(hidden(cause), "m1")
    assert message in error.message
    assert "m1" in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize("timeout", [requests.ReadTimeout("60 s"), requests.ConnectTimeout("60 s")])
def test_an_answer_that_does_not_come_is_told(timeout: Exception) -> None:
    assert "took too long" in explain(timeout, "m1").message


def test_a_full_disk_is_told_with_its_remedy() -> None:
    error = explain(api_error(500, "write /var/lib/docker/tmp: no space left on device\n"), "m1")
    assert "disk of the Docker Engine of m1 is full" in error.message
    assert "docker system df" in error.remedy


def test_what_an_engine_says_is_passed_on() -> None:
    assert "m1 refused: name conflicts" in explain(api_error(409, "name conflicts\n"), "m1").message


def test_an_unknown_cause_is_told_in_its_own_words() -> None:
    assert "the moon is full" in explain(DockerException("the moon is full"), "m1").message


def test_errors_that_point_at_each_other_are_no_endless_loop() -> None:
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
def test_where_no_engine_is_that_is_told() -> None:
    with pytest.raises(EngineError, match="No Docker Engine answers on this computer"):
        from_environment()


@pytest.mark.parametrize("host", ["nonsense", "ftp://192.0.2.1", "tcp://"])
def test_a_docker_host_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(RequestError, match=f"DOCKER_HOST is '{host}'"):
        from_environment()


def test_every_request_has_a_deadline_and_a_connection_for_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    given: Json = {}

    def client(**settings: object) -> object:
        given.update(settings)
        return SimpleNamespace(api=SimpleNamespace(api_version="1.41"))

    monkeypatch.setattr(docker, "from_env", client)
    from_environment(timeout=5)
    assert given["timeout"] == 5
    assert given["max_pool_size"] >= 16


def test_an_engine_that_is_too_old_is_told_with_the_oldest_that_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(api=SimpleNamespace(api_version="1.40"))
    monkeypatch.setattr(docker, "from_env", lambda **settings: old)
    with pytest.raises(EngineError, match=r"1\.40.*20\.10"):
        from_environment()


# --- what is there ---------------------------------------------------------------------------


def test_an_engine_outside_a_swarm_is_described() -> None:
    node = describe(fake_engine(FakeApi(memory=4 * GIB, cpus=2, in_swarm=False)), "bio")
    assert (node.machine, node.id, node.cpus, node.memory) == (Machine("m1", "192.0.2.1"), "", 2, 4 * GIB)
    assert (node.taken_ports, node.taken_memory) == (frozenset(), 0)


def test_what_others_hold_is_told_and_what_the_course_holds_is_not() -> None:
    api = FakeApi()
    for course, port in (("bio", 4321), ("geo", 4322), ("", 80)):
        labels = {"cloudscale.course": course} if course else {}
        resources = {"Reservations": {"MemoryBytes": GIB * port}} if course else {}
        api.services_[course] = {"ID": course, "Spec": {"Labels": labels, "TaskTemplate": {"Resources": resources}}}
        api.add_task(course, "running")
        ports = [{"PublicPort": port, "PrivatePort": 8888}, {"PrivatePort": 9999}]
        api.containers_.append({"State": "running", "Labels": labels, "Ports": ports})
    api.add_task("geo", "complete", desired="shutdown")  # holds nothing any more
    node = describe(fake_engine(api), "bio")
    assert node.id == "node1"
    assert node.taken_ports == {4322, 80}
    assert node.taken_memory == 4322 * GIB


def test_a_seat_of_another_course_keeps_its_port_while_it_is_down() -> None:
    api = FakeApi()
    for course, port in (("bio", 4321), ("geo", 4322)):
        endpoint = {"Ports": [{"PublishedPort": port}, {"TargetPort": 9999}]}
        spec = {"Labels": {"cloudscale.course": course}, "EndpointSpec": endpoint}
        api.services_[course] = {"ID": course, "Spec": spec}
    api.services_["other"] = {"ID": "other", "Spec": {"Labels": {}, "EndpointSpec": {"Ports": None}}}
    assert describe(fake_engine(api), "bio").taken_ports == {4322}


def test_a_worker_in_a_swarm_is_described_without_asking_what_only_managers_know() -> None:
    api = FakeApi()
    api.manages = False
    assert describe(fake_engine(api), "bio").id == "node1"
