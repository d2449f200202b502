"""A client for a machine's Docker Engine: connects to it, describes it, and makes its errors readable."""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, StreamParseError
from docker.tls import TLSConfig
from docker.utils import version_lt
from urllib3.exceptions import HTTPError

from cloudscale.course import naming
from cloudscale.engines.api import IMAGE_TIMEOUT, Client
from cloudscale.engines.endpoint import Endpoint, own_endpoint
from cloudscale.errors import CloudscaleError, EngineError, NotSetUp
from cloudscale.model import Machine, Node, Say
from cloudscale.networks import endpoint
from cloudscale.outside import PORT, UNEXPECTED, OtherForm, formed, in_words, is_of_library

CONNECT_TIMEOUT = 10  # seconds to connect to another machine
CONNECTIONS = 64  # that are kept for the next request
REQUEST_TIMEOUT = 60  # seconds for one answer of an engine; a loaded one is slow to create containers

INSTALL = (
    "Install and start one on this computer with: invoke machine_new local --driver local."
    " If yours listens elsewhere, set DOCKER_HOST."
)
GROUP = "docker"  # whose members may use the engine of their computer (docs.docker.com, "Post-installation steps")
OLDEST_API = "1.41"  # the first with a limit on the processes of a service


# what is needed of an engine's answers
INFO = {"NCPU": int, "MemTotal": int, "Swarm?": {"NodeID?": str}, "Labels?": [str]}
CONTAINER = {"Labels?": {"*": str}, "Ports?": [{"PublicPort?": PORT}]}
TASK = {"ServiceID": str, "Spec": {"Resources?": {"Reservations?": {"MemoryBytes?": int}}}}
SERVICE = {"ID": str, "Spec": {"Labels?": {"*": str}, "EndpointSpec?": {"Ports?": [{"PublishedPort?": PORT}]}}}
FAILURE = {"errorDetail?": {"message?": str}, "error?": str}


@dataclass(frozen=True)
class Engine:
    """A machine and a client for its engine. Safe to share between threads."""

    machine: Machine
    client: docker.DockerClient

    @property
    def api(self) -> Any:
        """docker-py's low-level client, which takes and returns the JSON of the engine's API."""
        return self.client.api

    @property
    def name(self) -> str:
        return self.machine.name


def from_environment(timeout: float = REQUEST_TIMEOUT, endpoint: Endpoint | None = None) -> docker.DockerClient:
    """The trainer's own engine. Raises EngineError if it is absent, not open to this user, too old, or does not answer.

    Raises RequestError if what names it is wrong.
    """
    endpoint = endpoint or own_endpoint()
    try:
        with engine_errors(endpoint.name):
            # with its environment given, docker-py does not look for a context by itself
            client = Client.from_env(
                environment=endpoint.environment, version="auto", timeout=int(timeout), max_pool_size=CONNECTIONS
            )
            return _new_enough(client, "this computer")
    except EngineError as error:
        if not endpoint.note or error.remedy != INSTALL:
            raise
        raise EngineError(
            error.message, f"Start that engine; or use this computer's own: {endpoint.way_back}."
        ) from None


def trainers_engine(say: Say | None = None) -> Engine:
    """The engine of the trainer's own computer, for images. Raises EngineError, RequestError.

    With `say`, an engine that is elsewhere is reported.
    """
    if say and (note := own_endpoint().note):
        say(note)
    return Engine(Machine("this computer", ""), from_environment(timeout=IMAGE_TIMEOUT))


def over_tls(machine: str, host: str, port: int, *, ca: Path, certificate: tuple[Path, Path]) -> docker.DockerClient:
    """The engine of another machine, with a client certificate. Raises EngineError, NotSetUp if nothing listens."""
    engine = f"{machine}: its Docker Engine, port {port},"
    try:
        # docker-py would wait as long for the connection as for an answer
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
    except ConnectionRefusedError:
        raise NotSetUp(f"{engine} does not run.", "invoke themachine sets it up and starts it.") from None
    except OSError as error:
        cause = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise EngineError(
            f"{engine} can't be reached ({cause}).",
            f"Check that the machine is up and that no firewall blocks port {port}.",
        ) from None
    tls = TLSConfig(client_cert=(str(certificate[0]), str(certificate[1])), ca_cert=str(ca), verify=True)
    url = f"https://{endpoint(host, port)}"

    def client(version: str) -> docker.DockerClient:
        made = Client(url, version=version, timeout=REQUEST_TIMEOUT, tls=tls, max_pool_size=CONNECTIONS)
        # load-bearing: else REQUESTS_CA_BUNDLE, if set, is trusted instead of the course's authority
        made.api.trust_env = False
        return made

    with engine_errors(machine):
        # docker-py's version="auto" would send a request before trust_env can be switched off
        with contextlib.closing(client(OLDEST_API)) as probe:
            version = probe.api.version(api_version=False)["ApiVersion"]
        return _new_enough(client(version), machine)


def _new_enough(client: docker.DockerClient, machine: str) -> docker.DockerClient:
    if version_lt(client.api.api_version, OLDEST_API):
        raise EngineError(
            f"The Docker Engine of {machine} is too old: its API has version {client.api.api_version},"
            f" and {OLDEST_API} (Docker Engine 20.10) or later is needed.",
            "Upgrade it with your package manager.",
        )
    return client


def describe(engine: Engine, course: str, *, manages: bool) -> Node:
    """The engine's resources, and the ports and reserved memory in use by others than this course.

    `manages`: the engine is a manager of its swarm, which knows more.
    """
    with engine_errors(engine.name):
        info = formed(engine.api.info(), INFO)
        containers = formed(engine.api.containers(), [CONTAINER])
        node_id = (info.get("Swarm") or {}).get("NodeID") or ""
        tasks, services = [], []
        if manages:
            tasks = engine.api.tasks(filters={"node": node_id, "desired-state": "running"})
            services = engine.api.services()
        return _node(engine.machine, course, info, containers, formed(tasks, [TASK]), formed(services, [SERVICE]))


def _node(
    machine: Machine,
    course: str,
    info: Mapping[str, Any],
    containers: Sequence[Mapping[str, Any]],
    tasks: Sequence[Mapping[str, Any]],
    services: Sequence[Mapping[str, Any]],
) -> Node:
    ours = {service["ID"] for service in services if _labels(service["Spec"]).get(naming.MARK) == course}
    reserved = sum(
        ((task["Spec"].get("Resources") or {}).get("Reservations") or {}).get("MemoryBytes") or 0
        for task in tasks
        if task["ServiceID"] not in ours
    )
    ports = _published(container for container in containers if _labels(container).get(naming.MARK) != course) | {
        # a seat of another course holds its port while it is down
        port["PublishedPort"]
        for service in services
        if service["ID"] not in ours
        for port in (service["Spec"].get("EndpointSpec") or {}).get("Ports") or []
        if port.get("PublishedPort")
    }
    return Node(
        machine=machine,
        id=(info.get("Swarm") or {}).get("NodeID") or "",
        cpus=info["NCPU"],
        memory=info["MemTotal"],
        has_quotas=naming.QUOTAS in (info.get("Labels") or ()),
        taken_ports=frozenset(ports),
        taken_memory=reserved,
        own_ports=_published(
            container
            for container in containers
            if _labels(container).get(naming.MARK) == course and naming.STUDENT in _labels(container)
        ),
    )


def _labels(value: Mapping[str, Any]) -> Mapping[str, str]:
    """Of something that may be somebody else's, who gave it none."""
    return value.get("Labels") or {}


def close_stream(stream: Any) -> None:
    """Closes what docker-py's `exec_start(socket=True)` returned, with the answer that it is a part of.

    Closed without it, Python 3.13 and newer print a traceback when the answer is collected ("Exception ignored in").
    """
    getattr(stream, "_response", stream).close()


def _published(containers: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """The machine's ports that lead to containers."""
    return frozenset(
        port["PublicPort"] for each in containers for port in each.get("Ports") or () if port.get("PublicPort")
    )


@contextlib.contextmanager
def engine_errors(machine: str) -> Iterator[None]:
    """Turns the errors of docker-py and of the libraries below it into an EngineError that names the machine."""
    try:
        yield
    except CloudscaleError:
        raise
    except (DockerException, requests.RequestException, HTTPError, OSError) as error:
        raise explain(error, machine) from error
    except (OtherForm, StreamParseError, *UNEXPECTED) as error:
        if isinstance(error, UNEXPECTED) and not is_of_library(error):
            raise
        raise EngineError(
            f"The Docker Engine of {machine} gave an answer that can't be understood ({in_words(error)}).",
            "Check its version on that machine: docker version. --debug shows more.",
        ) from error


def explain(error: BaseException, machine: str) -> EngineError:
    """The error as the user can understand it, with its cause and remedy."""
    causes = list(_causes(error))
    text = str(getattr(error, "explanation", "") or error)
    if isinstance(error, APIError):
        return explain_text(text, machine)
    for cause in causes:
        if isinstance(cause, PermissionError):
            return EngineError(
                f"You have no access to the Docker Engine of {machine} (permission denied on its socket).",
                _access_remedy(),
            )
        if isinstance(cause, (FileNotFoundError, ConnectionRefusedError)):
            return EngineError(
                f"No Docker Engine answers on {machine}.",
                INSTALL,
            )
        if isinstance(cause, ssl.SSLError):
            return EngineError(
                f"The Docker Engine of {machine} and this computer do not trust each other's certificates ({cause}).",
                "invoke themachine renews the certificates of the course's machines."
                " For an engine of your own, check DOCKER_CERT_PATH and DOCKER_TLS_VERIFY.",
            )
        if isinstance(cause, (TimeoutError, requests.Timeout)):
            return EngineError(
                f"The Docker Engine of {machine} took too long to answer.",
                "Check the machine's load and the engine's log (journalctl -u docker), then run again.",
            )
    return EngineError(
        f"The Docker Engine of {machine} can't be used: {text}",
        "Check that it runs and that DOCKER_HOST, if set, is correct.",
    )


def explain_text(text: str, machine: str) -> EngineError:
    """An engine's own message, with a remedy if the cause is a known one."""
    if "no space left on device" in text.lower():
        return EngineError(
            f"The disk of the Docker Engine of {machine} is full ({text.strip()}).",
            "Free some space on that machine (docker system df shows what takes it, docker image prune removes unused"
            " images), then run again.",
        )
    return EngineError(f"The Docker Engine of {machine} refused the request: {text.strip()}")


def _access_remedy() -> str:
    """What opens the socket to the user: the group docker counts only from the next login on."""
    with contextlib.suppress(KeyError):  # no such group, or no such user
        group = grp.getgrnam(GROUP)
        if getpass.getuser() in group.gr_mem and group.gr_gid not in os.getgroups():
            return (
                f"You are in its group {GROUP}, but this login is not yet: log in again,"
                f" or continue in the shell that this command opens: newgrp {GROUP}."
            )
    return f"Add yourself to its group (sudo usermod -aG {GROUP} $USER) and log in again, or run this as root."


def failure(event: Mapping[str, Any]) -> str:
    """The error in an event of a pull, load or build; empty if it has none. `error` is what older engines call it."""
    event = formed(event, FAILURE)
    return (event.get("errorDetail") or {}).get("message") or event.get("error") or ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all of its causes: docker-py and urllib3 hide some of them in `args`."""
    todo, seen = [error], set()
    while todo:
        current = todo.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        todo += [arg for arg in current.args if isinstance(arg, BaseException)]
        todo += [linked for linked in (current.__cause__, current.__context__) if linked]
        if isinstance(reason := getattr(current, "reason", None), BaseException):
            todo.append(reason)
