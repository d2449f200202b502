"""The hosts ring: the whole tool on real engines and hosts. It fails, in one line, where the machine can't run it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.lab.engine import LabEngine
from tests.lab.hosts import LabHosts, end_hosts
from tests.lab.namespace import Namespace, outside
from tests.lab.ring import Ring
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
}
RING = Ring("hosts", PROGRAMS)
STATE = RING.folder
SMALL = "cloudscale-tests/small:1"
# what JupyterLab needs of the image, and no more: it goes from host to host
SMALL_IMAGE = """
FROM {image} AS full
USER 0
RUN cd /opt/jupyter/lib/python*/site-packages \\
 && rm -rf numpy* scipy* pandas* matplotlib* seaborn* bokeh* Cython* cython* sklearn* PIL* pillow* fontTools* \\
 && rm -rf /usr/lib/gcc /usr/libexec/gcc /usr/lib/git-core /usr/share/doc /usr/share/locale /usr/share/man \\
 && find / -xdev -name '*.a' -delete

FROM scratch
COPY --from=full / /
ENV PATH=/opt/jupyter/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 SHELL=/bin/bash HOME=/home/jovyan
USER 1000
WORKDIR /home/jovyan/work
ENTRYPOINT ["tini", "-g", "--"]
"""


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
    """The project's own notebook image, built as a user builds it where no registry answers."""
    tool = Tool(engine, STATE / "build-home", {})
    with outside():
        built = tool("image_build", "pydata")
    assert built.code == 0, built.err
    return built.out.strip()


@pytest.fixture(scope="session")
def small_image(engine: LabEngine, image: str) -> str:
    """A notebook image on the trainer's engine that is in no registry."""
    recipe = io.BytesIO(SMALL_IMAGE.format(image=image).encode())
    engine.client.images.build(fileobj=recipe, tag=SMALL, rm=True)
    return SMALL


@pytest.fixture(scope="session")
def lab_hosts(namespace: Namespace) -> Iterator[LabHosts]:
    """Three stock hosts without Docker."""
    hosts = LabHosts(STATE / "hosts", 3)
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
