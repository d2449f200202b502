"""What engines answer: each answer of a whole course's, and those that come as streams."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import struct
import tarfile
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import urllib3
from docker.errors import DockerException
from hypothesis import example
from hypothesis import strategies as st

from cloudscale.cli.report import Report
from cloudscale.engines import client
from cloudscale.engines.api import Api
from cloudscale.gateway.service import running_gateway
from cloudscale.gateway.volume import OpenVolume
from cloudscale.images import listing, on_engine
from cloudscale.images.recipes import RECIPE, recipe_on
from cloudscale.material import marks
from cloudscale.seats import changes, containers, usage
from cloudscale.seats.services import running_seats
from cloudscale.swarm import deadline, nodes
from cloudscale.workflow.status import status
from tests.unit.api_schema import api_error
from tests.unit.classroom import Class
from tests.unit.fake_stats import look
from tests.unit.fakes import fake_engine
from tests.unit.fuzz.inputs import (
    EDITS,
    Edit,
    changed,
    changed_bytes,
    changed_json,
    changed_text,
    edited,
    fuzz,
    reading,
)

# --- a whole course, one of whose engines answers oddly ------------------------------------------

READS = ("info", "containers", "services", "tasks", "nodes", "volumes", "configs", "inspect_swarm", "stats", "networks")


@contextlib.contextmanager
def odd(course: Class, call: str, edits: list[Edit]) -> Iterator[None]:
    """One call of the first machine's engine answers something else."""
    answer = getattr(course.api, call)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course.api, call, lambda *args, **kwargs: edited(answer(*args, **kwargs), edits))
        yield


def asks_changing_nothing(course: Class, ask: Callable[[], Report], call: str, edits: list[Edit]) -> None:
    with odd(course, call, edits), reading():
        for problem in ask().problems:
            assert not re.search(r"\w+Error\(|^\w+: '", problem), "that is Python's, and no message"
    assert course.changes == []


@fuzz(call=st.sampled_from(READS), edits=EDITS)
def test_any_answer_to_status(lab: Class, call: str, edits: list[Edit]) -> None:
    if not lab.apis[0].swarm.services:
        lab.launch()
    asks_changing_nothing(lab, lambda: status(lab.session()), call, edits)


@fuzz(call=st.sampled_from(READS), edits=EDITS)
@example(call="services", edits=[(2700, "add", {"x": {}}), (2700, "wrap", None), (2700, "cut", None)])
def test_any_answer_to_a_plan(lab: Class, call: str, edits: list[Edit]) -> None:
    if not lab.apis[0].swarm.services:
        lab.launch()
    asks_changing_nothing(lab, lambda: lab.launch(plan=True), call, edits)


# --- single answers ------------------------------------------------------------------------------

MARKS = {"cloudscale.course": "bio"}
STUDENT = {**MARKS, "cloudscale.student": "1", "cloudscale.name": "Ann Lee", "cloudscale.port": "4321"}
INFO = {
    "NCPU": 4,
    "MemTotal": 2**33,
    "Architecture": "x86_64",
    "Labels": ["cloudscale.quotas"],
    "Swarm": {
        "LocalNodeState": "active",
        "NodeID": "n1",
        "ControlAvailable": True,
        "RemoteManagers": [{"NodeID": "n1", "Addr": "10.0.0.1:2377"}],
        "Error": "",
    },
}
SERVICE = {
    "ID": "s1",
    "Version": {"Index": 7},
    "Spec": {
        "Name": "bio-ann",
        "Labels": STUDENT,
        "TaskTemplate": {
            "ContainerSpec": {"Image": "lab:1", "Mounts": [{"VolumeOptions": {"Labels": STUDENT}}], "Env": ["A=b"]},
            "Placement": {"Constraints": ["node.id==n1"]},
        },
        "EndpointSpec": {"Ports": [{"PublishedPort": 4321, "TargetPort": 8888}]},
    },
}
DETAILS = {
    "Id": "sha256:11",
    "RepoTags": ["cloudscale/pydata:latest"],
    "RepoDigests": ["quay.io/jupyter/lab@sha256:aa"],
    "RootFS": {"Layers": ["sha256:1", "sha256:2"]},
    "Created": "2025-03-14T09:00:00.123Z",
    "Size": 5 * 10**8,
    "Architecture": "amd64",
    "Config": {"Labels": {RECIPE: "0011"}},
}
ANSWERS: dict[str, Any] = {
    "info": INFO,
    "inspect_swarm": {"Spec": {"Labels": MARKS}, "CreatedAt": "2024-01-01T00:00:00Z", "JoinTokens": {"Worker": "x"}},
    "nodes": [
        {
            "ID": "n1",
            "Spec": {"Role": "manager", "Labels": {"cloudscale.machine": "m1", "cloudscale.address": "10.0.0.1"}},
            "Status": {"State": "ready", "Addr": "10.0.0.1"},
            "ManagerStatus": {"Leader": True, "Addr": "10.0.0.1:2377"},
        }
    ],
    "containers": [
        {"Id": "c1", "Labels": STUDENT, "Ports": [{"PublicPort": 4321}, {"PrivatePort": 1}], "State": "running"},
        {"Id": "c2", "Labels": {}, "Ports": [], "State": "exited"},
    ],
    "services": [SERVICE],
    "tasks": [{"ServiceID": "s1", "Spec": {"Resources": {"Reservations": {"MemoryBytes": 2**29}}}}],
    "volumes": {
        "Volumes": [{"Name": "v1", "Labels": STUDENT, "CreatedAt": "2025-03-14T09:00:00+01:00", "Options": None}],
        "Warnings": None,
    },
    "configs": [
        {
            "ID": "k1",
            "Spec": {
                "Name": "x",
                "Labels": {**STUDENT, "cloudscale.count": "2", "cloudscale.until": "2026-12-01T17:00:00Z"},
                "Data": "eyIxIjogMTd9",
            },
        }
    ],
    "stats": look(1, cores=0.5, memory=10**8, limit=2 * 10**9),
    "images": [{"Id": "sha256:11", "RepoTags": ["cloudscale/pydata:latest"]}],
    "inspect_image": DETAILS,
    "version": {"ApiVersion": "1.41", "Arch": "amd64"},
}
AN_IMAGE = on_engine.EngineImage("sha256:11", "", ("sha256:1",), "", 1, "arm64")
ASKED: tuple[tuple[str, Callable[[Any], object]], ...] = (
    *(
        (call, lambda e: client.describe(e, "bio", manages=True))
        for call in ("info", "containers", "services", "tasks")
    ),
    *((call, nodes.membership) for call in ("info", "inspect_swarm")),
    ("nodes", nodes.swarm_nodes),
    ("services", lambda engine: running_seats(engine, "bio", {"n1": "m1"})),
    ("services", lambda engine: running_gateway(engine, "bio")),
    ("containers", lambda engine: containers.seat_containers(engine, "bio")),
    ("volumes", lambda engine: containers.remembered_places(engine, "bio")),
    ("volumes", lambda engine: containers.without_limit(engine, "bio")),
    ("volumes", lambda engine: containers.volumes(engine, "bio")),
    ("configs", lambda engine: changes.password_changes(engine, "bio")),
    ("configs", lambda engine: deadline.read_deadline(engine, "bio")),
    ("configs", lambda engine: marks.read_marks(engine, "bio")),
    *(
        (call, lambda e: usage.usages(usage.samples(e, "bio"), usage.samples(e, "bio")))
        for call in ("stats", "containers")
    ),
    *(
        (call, lambda e: listing.rows(listing.built_on(e), {"m1": listing.built_on(e)}))
        for call in ("images", "inspect_image")
    ),
    ("inspect_image", lambda engine: on_engine.find_image(engine, "quay.io/jupyter/lab:1")),
    ("inspect_image", lambda engine: recipe_on(engine, "cloudscale/pydata:latest")),
    ("version", lambda engine: on_engine.other_architecture(engine, AN_IMAGE)),
)


class Answers:
    """An engine that answers to what reads alone."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {**ANSWERS, **answers}

    def __getattr__(self, call: str) -> Callable[..., Any]:
        answer = self.answers[call] if call in self.answers else pytest.fail(f"{call} is not a read")
        return lambda *args, **kwargs: answer


@fuzz(asked=st.sampled_from(ASKED), edits=EDITS)
def test_any_single_answer(asked: tuple[str, Callable[[Any], object]], edits: list[Edit]) -> None:
    call, ask = asked
    with reading():
        ask(fake_engine(Answers(**{call: edited(ANSWERS[call], edits)})))


@fuzz(
    text=changed_text("no such image", "no space left on device", "port is already allocated", "\x1b[31mno"),
    status=st.sampled_from([400, 404, 409, 500, 503]),
)
def test_any_refusal(text: str, status: int) -> None:
    error = api_error(status, text)
    for ask in (
        lambda: on_engine.pull_image(fake_engine(Failing(error)), "lab:1"),
        lambda: on_engine.check_pullable(fake_engine(Failing(error)), "lab:1"),
        lambda: nodes.membership(fake_engine(Failing(error))),
    ):
        with reading():
            ask()
    with reading():
        raise client.explain(DockerException(text), "m1")


class Failing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, call: str) -> Callable[..., Any]:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise self._error

        return fail


EVENTS = [
    {"status": "Pulling from jupyter/lab", "id": "1"},
    {"status": "Downloading", "id": "a1", "progressDetail": {"current": 10, "total": 100}},
    {"status": "Downloading", "id": "a1", "progressDetail": {"current": 90, "total": 100}},
    {"stream": "Step 1/3 : FROM x\n"},
    {"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"},
]


class Wire(requests.adapters.BaseAdapter):
    """An engine whose every answer has the same body."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._body = body

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, str(request.url)
        answer.raw = urllib3.HTTPResponse(io.BytesIO(self._body), preload_content=False)
        return answer

    def close(self) -> None:
        pass


def wired(body: bytes) -> client.Engine:
    api = Api("http://127.0.0.1:1", version="1.41")
    api.mount("http://", Wire(body))
    return fake_engine(api)


ENDPOINTS: tuple[tuple[Any, Callable[[client.Engine], object]], ...] = (
    (INFO, nodes.membership),
    ([SERVICE], lambda engine: running_seats(engine, "bio")),
    (ANSWERS["volumes"], lambda engine: containers.remembered_places(engine, "bio")),
    (ANSWERS["stats"], lambda engine: usage.samples(engine, "bio")),
    (DETAILS, lambda engine: on_engine.find_image(engine, "lab:1")),
)


@fuzz(st.sampled_from(ENDPOINTS).flatmap(lambda each: st.tuples(changed_json(each[0]), st.just(each[1]))))
@example((b"[" * 20_000, nodes.membership))
@example((b"9" * 5000, nodes.membership))
def test_any_body(asked: tuple[bytes, Callable[[client.Engine], object]]) -> None:
    body, ask = asked
    with reading():
        ask(wired(body))


@fuzz(body=changed_bytes(b"".join(json.dumps(event).encode() + b"\r\n" for event in EVENTS)))
@example(body=b"[" * 20_000)
@example(body=b"\0{}")
def test_any_body_of_a_pull(body: bytes) -> None:
    with reading():
        on_engine.pull_image(wired(body), "lab:1")


# --- streams -------------------------------------------------------------------------------------


@fuzz(events=changed(EVENTS))
@example(events=[None])
@example(events=[{"errorDetail": "no"}])
def test_any_events_of_a_pull_or_a_load(events: Any) -> None:
    if isinstance(events, list):
        for last in (events, events[:-1]):
            with reading():
                on_engine.pull_image(fake_engine(Answers(pull=last)), "lab:1", lambda done, of: None)
            with reading(), client.engine_errors("m1"):
                for event in last:
                    client.failure(event)


@fuzz(said=changed_bytes(b"lab\n1000\n100\n/home/jovyan/work\n1048576\n"), ended=changed({"StatusCode": 0}))
def test_any_look_into_an_image(said: bytes, ended: Any) -> None:
    container = SimpleNamespace(
        start=lambda: None, wait=lambda timeout: ended, logs=lambda stdout, stderr: said, remove=lambda force, v: None
    )
    engine = fake_engine(Answers(), SimpleNamespace(create=lambda *args, **kwargs: container))
    with reading():
        on_engine.look_inside(engine, "lab:1", "lab:1", "bio")


FRAMES = b"".join(struct.pack(">BxxxL", channel, len(text)) + text for channel, text in ((1, b"out\n"), (2, b"err\n")))


@fuzz(data=changed_bytes(FRAMES), ended=changed({"ExitCode": 0}))
@example(data=struct.pack(">BxxxL", 3, 1) + b"x", ended={"ExitCode": 0})
@example(data=b"", ended={"ExitCode": {}})
@example(data=b"", ended={})
def test_any_output_of_a_command(data: bytes, ended: Any) -> None:
    reader = io.BytesIO(data)
    response = SimpleNamespace(raw=SimpleNamespace(_fp=SimpleNamespace(fp=reader)), close=lambda: None)
    stream = SimpleNamespace(_response=response, _sock=SimpleNamespace(shutdown=lambda how: None))
    engine = fake_engine(Answers(exec_create={"Id": "e1"}, exec_start=stream, exec_inspect=ended))
    with reading():
        result = containers.execute(engine, "c1", "ls", 10)
        assert len(result.stdout) <= len(data)


def _archive() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("state.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))
    return data.getvalue()


@fuzz(data=changed_bytes(_archive()))
@example(data=b"no archive")
@example(data=gzip.compress(_archive()))
def test_any_file_of_the_gateways_volume(data: bytes) -> None:
    volume = OpenVolume(fake_engine(Answers(get_archive=([data], {}))), "c1")
    with reading():
        volume.read("state.json")
