"""The hosts ring: the whole tool on real engines and hosts. It fails, in one line, where the machine can't run it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.lab.engine import LabEngine
from tests.lab.hosts import DEBIAN_12, DEBIAN_13, LATEST, LabHosts, end_hosts
from tests.lab.namespace import WORKER, WORKERS, Namespace
from tests.lab.ring import Ring
from tests.lab.tiny_image import load_tiny_image
from tests.lab.tool import Tool

MARTY, EMMETT, JENNIFER = "1;Marty;McFly;", "2;Emmett;Brown;e.brown@thefuture.io", "3;Jennifer;O'Parker;"
PROGRAMS = {
    "dockerd": "docker.io",
    "ip": "iproute2",
    "iptables": "iptables",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "dnsmasq": "dnsmasq-base",
    "apt-ftparchive": "apt-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "chromium": "chromium",
    "tcsh": "tcsh",
    "fish": "fish",
}
RING = Ring("hosts", PROGRAMS)
STATE = RING.folder


# What takes minutes begins first, so that several processes end at about the same time.
ON_HOSTS = ("many", "test_own_engine")
FIRST = (*ON_HOSTS, "test_vms", "test_images")


def subject(test: str) -> str:
    """A test's file or, of several that share fixtures, the folder."""
    return test.partition("tests/hosts/")[2].partition("::")[0].partition("/")[0].removesuffix(".py")


class Subjects(LoadScopeScheduling):  # type: ignore[misc] # --dist loadgroup does nothing with pytest 9.2
    """What is tested by one process: a subject, and those on `lab_hosts` together, so that the hosts boot once."""

    def _split_scope(self, nodeid: str) -> str:
        found = subject(nodeid)
        return "hosts" if found in ON_HOSTS else found


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Subjects:
    return Subjects(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(subject(item.nodeid)) if subject(item.nodeid) in FIRST else len(FIRST))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where tests run in several processes, the one that starts the others takes away what some have left."""
    if session.config.option.collectonly:
        return
    RING.require()
    if not WORKER:
        clear_workers()


@pytest.hookimpl(trylast=True)  # when those of an interrupted run have been killed
def pytest_sessionfinish() -> None:
    if not WORKER and RING.is_held:
        clear_workers()


def clear_workers() -> None:
    end_hosts(WORKERS)
    RING.clear_workers()


@pytest.fixture(scope="session")
def namespace() -> Iterator[Namespace]:
    RING.require()
    end_hosts()
    with RING.cleared():
        made = Namespace("hosts-main")
        with made.entered():
            yield made
        made.remove()


@pytest.fixture(scope="session")
def engine(namespace: Namespace) -> Iterator[LabEngine]:
    started = LabEngine(STATE / "engine-main", namespace)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def image(engine: LabEngine) -> str:
    """A small notebook image on the trainer's engine that is in no registry."""
    return load_tiny_image(engine, STATE / "tiny")


@pytest.fixture(scope="session")
def lab_hosts(namespace: Namespace) -> Iterator[LabHosts]:
    """Three stock hosts without Docker, of three releases. What they will install is from 20.10 to what 29 is like."""
    hosts = LabHosts(STATE / "hosts", [DEBIAN_13, DEBIAN_12, LATEST])
    hosts.start()
    yield hosts
    hosts.stop()


@pytest.fixture
def tool(engine: LabEngine, image: str, tmp_path: Path) -> Iterator[Tool]:
    """The tool with the image, and an engine that is left without a trace of the course."""
    used = Tool(engine, tmp_path / "home", {"INVOKE_CLOUDSCALE_IMAGE": image})
    yield used
    left = used("driver_reset", "--yes")
    assert left.code == 0, left.err


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    return Roster(tmp_path / "students.csv")


class Roster:
    """A students' file that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *lines: str) -> Sequence[str]:
        """Writes the lines, and returns the flags that name the file."""
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return ("--students", str(self.path))


@pytest.fixture
def client(engine: LabEngine) -> docker.DockerClient:
    return engine.client


def seat_containers(client: docker.DockerClient, course: str = "course") -> dict[str, str]:
    """Student's id → container's id."""
    found = client.containers.list(filters={"label": [f"cloudscale.course={course}", "cloudscale.student"]})
    return {container.labels["cloudscale.student"]: str(container.id) for container in found}


def services(client: docker.DockerClient) -> dict[str, Any]:
    return {service.attrs["Spec"]["Labels"]["cloudscale.student"]: service for service in client.services.list()}
