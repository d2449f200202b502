"""Commands that are killed, that two trainers run at once, or that get Ctrl-C, on real hosts and on a real OpenStack.

Run it with `script/soak kills`. It prints a line for each, with what stood then and how long the next run took, and
ends with exit code 1 if anything was not as it should be: the next run did not finish, a password or an address has
changed, something was left after driver_reset, both of two runs changed a course, or a Ctrl-C took over two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random, SystemRandom

from filelock import FileLock, Timeout

from tests.lab import namespace

namespace.PREFIX = PREFIX = "cloudscale-soak"  # before what takes it over: the tests remove whatever has their own

from tests.cloud.conftest import PROGRAMS as OF_CLOUD  # noqa: E402
from tests.hosts.conftest import PROGRAMS as OF_HOSTS  # noqa: E402
from tests.lab.caddy_image import load_caddy_image  # noqa: E402
from tests.lab.cloud import LabCloud  # noqa: E402
from tests.lab.engine import LabEngine, clear  # noqa: E402
from tests.lab.hosts import DEBIAN_12, DEBIAN_13, LATEST, LabHosts  # noqa: E402
from tests.lab.ring import PATH  # noqa: E402
from tests.lab.tiny_image import load_tiny_image  # noqa: E402
from tests.soak.interrupts import interrupt  # noqa: E402
from tests.soak.on_cloud import kill_on_cloud  # noqa: E402
from tests.soak.on_hosts import Place, kill_on_hosts  # noqa: E402
from tests.soak.running import Table, say  # noqa: E402
from tests.soak.two_trainers import two_trainers  # noqa: E402

STATE = Path(tempfile.gettempdir()) / PREFIX
PARTS = ("hosts", "trainers", "interrupts", "cloud")
KILLS = 42  # on the hosts


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
def three_hosts() -> Iterator[Place]:
    """Stock hosts without Docker, of three releases, as in the hosts ring."""
    hosts = LabHosts(STATE / "hosts", [DEBIAN_13, DEBIAN_12, LATEST])
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


def run(parts: list[str], count: int, seed: int, table: Table) -> None:
    if {*parts} - {"cloud"}:
        with three_hosts() as place:
            if "hosts" in parts:
                kill_on_hosts(place, table, count, Random(seed))
            if "trainers" in parts:
                two_trainers(place, table)
            if "interrupts" in parts:
                interrupt(place, table)
    if "cloud" in parts:
        with a_cloud() as cloud, an_engine("cloud-engine") as (engine, image):
            folder = STATE / "cloud-desk"
            folder.mkdir()
            kill_on_cloud(cloud, engine, image, folder, table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/soak kills", description=__doc__, allow_abbrev=False)
    parser.add_argument("count", nargs="?", type=int, default=KILLS, help="kills on the hosts, at least (%(default)s)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10_000), help="of the moments")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part of it; may be repeated")
    chosen = parser.parse_args()
    lacking = {package for program, package in (OF_HOSTS | OF_CLOUD).items() if not shutil.which(program, path=PATH)}
    if lacking:
        raise SystemExit(f"It needs {', '.join(sorted(lacking))}, which are installed by: sudo script/test hosts cloud")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is taken away then, too
    alone = FileLock(STATE.with_suffix(".lock"))
    try:
        alone.acquire(blocking=False)
    except Timeout:
        raise SystemExit("It runs on this machine already: wait until it has ended.") from None
    for left in STATE.glob("*"):  # by an earlier run
        clear(left)
    for path in namespace.FOLDER.glob(f"{PREFIX}-*"):
        namespace.remove(path)
    STATE.mkdir(exist_ok=True)
    table, begun = Table(), time.monotonic()
    say(f"The moments: --seed {chosen.seed}")
    run(chosen.only or list(PARTS), chosen.count, chosen.seed, table)
    shutil.rmtree(STATE, ignore_errors=True)
    print(f"\n{len(table.rows)} rows, {table.violations} of them with problems, in {time.monotonic() - begun:.0f} s")
    sys.exit(1 if table.violations else 0)


if __name__ == "__main__":
    main()
