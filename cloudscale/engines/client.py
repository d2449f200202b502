"""A machine's Docker Engine: reached as a client, described, and its errors made readable."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from docker.utils import parse_host, version_lt

from cloudscale.course import naming
from cloudscale.errors import CloudscaleError, EngineError, NotSetUp, RequestError
from cloudscale.fanout import WIDTH
from cloudscale.model import Machine, Node
from cloudscale.networks import endpoint

CONNECT_TIMEOUT = 10  # seconds for another machine to take a connection
REQUEST_TIMEOUT = 60  # seconds for one answer of an engine; a loaded one is slow to create containers
IMAGE_TIMEOUT = 1800  # the same for one that is given an image, or builds it


OLDEST_API = "1.41"  # limits of a service's processes


@dataclass(frozen=True)
class Engine:
    """A machine and the client that speaks to its engine. Safe to share between threads."""

    machine: Machine
    client: docker.DockerClient

    @property
    def api(self) -> Any:
        """docker-py's low-level client: it takes and gives the API's own JSON."""
        return self.client.api

    @property
    def name(self) -> str:
        return self.machine.name


def from_environment(timeout: float = REQUEST_TIMEOUT) -> docker.DockerClient:
    """The engine of DOCKER_HOST (with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH) or of the default socket.

    Raises EngineError where it is absent, closed to this user, too old, or does not answer.
    """
    host = os.environ.get("DOCKER_HOST", "")
    try:
        parse_host(host)
    except DockerException as error:
        raise RequestError(
            f"DOCKER_HOST is {host!r}, which names no engine: {error}.",
            "It is of the form unix:///run/docker.sock, tcp://HOST:PORT or ssh://USER@HOST; or unset it.",
        ) from None
    with engine_errors(f"this computer (DOCKER_HOST={host})" if host else "this computer"):
        return _new_enough(docker.from_env(version="auto", timeout=int(timeout), max_pool_size=WIDTH), "this computer")


def trainers_engine() -> Engine:
    """The engine of the trainer's own computer, for images. Raises EngineError, RequestError."""
    return Engine(Machine("this computer", ""), from_environment(timeout=IMAGE_TIMEOUT))


def over_tls(machine: str, host: str, port: int, *, ca: Path, certificate: tuple[Path, Path]) -> docker.DockerClient:
    """The engine of another machine, reached with a client's certificate. Raises EngineError."""
    where = f"{machine}: its Docker Engine, port {port},"
    try:
        # docker-py would wait for as long as an engine may take to answer
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
    except ConnectionRefusedError:
        raise NotSetUp(f"{where} does not run.", "invoke themachine sets it up and starts it.") from None
    except OSError as error:
        told = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise EngineError(
            f"{where} can't be reached ({told}).", f"Is the machine up, and is its port {port} open to you?"
        ) from None
    tls = TLSConfig(client_cert=(str(certificate[0]), str(certificate[1])), ca_cert=str(ca), verify=True)
    url = f"https://{endpoint(host, port)}"

    def client(version: str) -> docker.DockerClient:
        made = docker.DockerClient(url, version=version, timeout=REQUEST_TIMEOUT, tls=tls, max_pool_size=WIDTH)
        # load-bearing: else REQUESTS_CA_BUNDLE, where it is set, is trusted in the place of the course's authority
        made.api.trust_env = False
        return made

    with engine_errors(machine):
        # docker-py's version="auto" would ask before its environment can be left aside
        with contextlib.closing(client(OLDEST_API)) as asking:
            version = asking.api.version(api_version=False)["ApiVersion"]
        return _new_enough(client(version), machine)


def _new_enough(client: docker.DockerClient, machine: str) -> docker.DockerClient:
    if version_lt(client.api.api_version, OLDEST_API):
        raise EngineError(
            f"The Docker Engine of {machine} is too old: it speaks version {client.api.api_version} of its API,"
            f" and {OLDEST_API} (Docker Engine 20.10) is the oldest that will do.",
            "Upgrade it with your package manager.",
        )
    return client


def describe(engine: Engine, course: str, *, manages: bool) -> Node:
    """What the engine has, and what others than this course hold of it: published ports and reserved memory.

    `manages`: the engine speaks for its swarm, which knows more.
    """
    with engine_errors(engine.name):
        info = engine.api.info()
        containers = engine.api.containers()
        tasks, services = [], []
        if manages:
            tasks = engine.api.tasks(filters={"node": info["Swarm"]["NodeID"], "desired-state": "running"})
            services = engine.api.services()
    ours = {service["ID"] for service in services if service["Spec"]["Labels"].get(naming.MARK) == course}
    reserved = sum(
        task["Spec"].get("Resources", {}).get("Reservations", {}).get("MemoryBytes", 0)
        for task in tasks
        if task["ServiceID"] not in ours
    )
    ports = _published(container for container in containers if container["Labels"].get(naming.MARK) != course) | {
        # a seat of another course keeps its port while it is down
        port["PublishedPort"]
        for service in services
        if service["ID"] not in ours
        for port in service["Spec"].get("EndpointSpec", {}).get("Ports") or []
        if "PublishedPort" in port
    }
    return Node(
        machine=engine.machine,
        id=(info.get("Swarm") or {}).get("NodeID", ""),
        cpus=info["NCPU"],
        memory=info["MemTotal"],
        taken_ports=frozenset(ports),
        taken_memory=reserved,
        own_ports=_published(
            container
            for container in containers
            if container["Labels"].get(naming.MARK) == course and naming.STUDENT in container["Labels"]
        ),
    )


def _published(containers: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """The machine's ports that lead to containers."""
    return frozenset(port["PublicPort"] for each in containers for port in each["Ports"] if "PublicPort" in port)


@contextlib.contextmanager
def engine_errors(machine: str) -> Iterator[None]:
    """Turns whatever docker-py and what lies below it raise into an EngineError that names the machine."""
    try:
        yield
    except CloudscaleError:
        raise
    except (DockerException, requests.RequestException, OSError) as error:
        raise explain(error, machine) from error


def explain(error: BaseException, machine: str) -> EngineError:
    """The cause, in the user's words, and the remedy."""
    causes = list(_causes(error))
    text = str(getattr(error, "explanation", "") or error)
    if isinstance(error, APIError):
        return explain_text(text, machine)
    for cause in causes:
        if isinstance(cause, PermissionError):
            return EngineError(
                f"The Docker Engine of {machine} does not let this user in (permission denied on its socket).",
                "Add yourself to its group with: sudo usermod -aG docker $USER, log in again; or run as root.",
            )
        if isinstance(cause, (FileNotFoundError, ConnectionRefusedError)):
            return EngineError(
                f"No Docker Engine answers on {machine}.",
                "Install and start one on this computer with: invoke machine_new local --driver local."
                " If yours listens elsewhere, set DOCKER_HOST.",
            )
        if isinstance(cause, ssl.SSLError):
            return EngineError(
                f"The Docker Engine of {machine} and this computer do not trust each other's certificates ({cause}).",
                "Those of the course's machines are renewed by invoke themachine;"
                " for an engine of your own check DOCKER_CERT_PATH and DOCKER_TLS_VERIFY.",
            )
        if isinstance(cause, (TimeoutError, requests.Timeout)):
            return EngineError(
                f"The Docker Engine of {machine} took too long to answer.",
                "Look at the machine's load and at the engine's log (journalctl -u docker), then run again.",
            )
    return EngineError(
        f"The Docker Engine of {machine} can't be used: {text}", "Does it run, and is DOCKER_HOST right, if it is set?"
    )


def explain_text(text: str, machine: str) -> EngineError:
    """An engine's own message, with a remedy where the cause is a known one."""
    if "no space left on device" in text.lower():
        return EngineError(
            f"The disk of the Docker Engine of {machine} is full ({text.strip()}).",
            "Make room there (docker system df shows what takes it, docker image prune removes unused images),"
            " then run again.",
        )
    return EngineError(f"The Docker Engine of {machine} refused: {text.strip()}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it was made from: docker-py and urllib3 hide the cause in `args` as well."""
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
