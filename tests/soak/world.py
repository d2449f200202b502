"""What long runs need: the lab's engines, hosts and cloud, under names of their own, beside whatever the tests have."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tests.cloud.conftest import PROGRAMS as OF_CLOUD
from tests.hosts.conftest import PROGRAMS as OF_HOSTS
from tests.lab import namespace
from tests.lab.caddy_image import load_caddy_image
from tests.lab.cloud import LabCloud
from tests.lab.engine import LabEngine, clear
from tests.lab.hosts import DEBIAN_12, DEBIAN_13, LATEST, LabHosts
from tests.lab.ring import PATH
from tests.lab.tiny_image import load_tiny_image
from tests.soak import PREFIX
from tests.soak.on_hosts import Place

STATE = Path(tempfile.gettempdir()) / PREFIX


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Alone on this machine, with the programs that the lab needs, and without what an earlier run has left."""
    lacking = {package for program, package in (OF_HOSTS | OF_CLOUD).items() if not shutil.which(program, path=PATH)}
    if lacking:
        raise SystemExit(f"It needs {', '.join(sorted(lacking))}, which are installed by: sudo script/test hosts cloud")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is taken away then, too
    alone = FileLock(STATE.with_suffix(".lock"))
    try:
        alone.acquire(blocking=False)
    except Timeout:
        raise SystemExit("It runs on this machine already: wait until it has ended.") from None
    for left in STATE.glob("*"):
        clear(left)
    for path in namespace.FOLDER.glob(f"{PREFIX}-*"):
        namespace.remove(path)
    STATE.mkdir(exist_ok=True)
    yield
    shutil.rmtree(STATE, ignore_errors=True)


@contextlib.contextmanager
def an_engine(name: str) -> Iterator[tuple[LabEngine, str]]:
    """The trainer's own, with the image."""
    network = namespace.Namespace(name)
    engine = LabEngine(STATE / name, network)
    try:
        yield engine, load_tiny_image(engine, STATE / "tiny")
    finally:
        engine.stop()
        network.remove()


@contextlib.contextmanager
def three_hosts(disk: str = "") -> Iterator[Place]:
    """Stock hosts without Docker, of three releases, as in the hosts ring.

    `disk`: the size of a disk of its own for the engine of the second one, such as 64m.
    """
    hosts = LabHosts(STATE / "hosts", [DEBIAN_13, DEBIAN_12, LATEST])
    if disk:
        namespace.run("mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", str(hosts.hosts[1].docker_data))
    try:
        hosts.start()
        with an_engine("engine") as (engine, image):
            load_caddy_image(engine.client, STATE / "caddy")
            folder = STATE / "desk"
            folder.mkdir()
            yield Place(hosts, engine, image, folder)
    finally:
        hosts.stop()


@contextlib.contextmanager
def a_cloud() -> Iterator[LabCloud]:
    cloud = LabCloud(STATE / "cloud")
    STATE.chmod(0o755)  # some of its services give up root
    try:
        cloud.start()
        with cloud.namespace.entered():
            yield cloud
    finally:
        cloud.stop()
