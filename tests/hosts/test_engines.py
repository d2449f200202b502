"""Engines that are absent, closed, full, or somebody else's: one message, the right exit code, no harm."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import STATE, Roster
from tests.lab.engine import LabEngine
from tests.lab.namespace import Namespace, cable
from tests.lab.tool import Tool

MARTY = "1;Marty;McFly;"


@contextlib.contextmanager
def another_engine(name: str, disk: str = "") -> Iterator[LabEngine]:
    namespace = Namespace(f"hosts-{name}")
    engine = LabEngine(STATE / f"engine-{name}", namespace, disk)
    try:
        yield engine
    finally:
        engine.stop()
        namespace.remove()


def test_no_engine_is_said_with_the_remedy(tmp_path: Path, roster: Roster) -> None:
    tool = Tool(None, tmp_path / "home", {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    failed = tool("themachine", *roster(MARTY))
    assert failed.code == 1 and failed.out == ""
    assert "No Docker Engine answers" in failed.err and "machine_new" in failed.err
    assert not list(tool.home.glob("*"))


def test_a_closed_socket_is_recognised(engine: LabEngine) -> None:
    script = (
        "import os\n"
        "from cloudscale.engines.client import from_environment\n"
        "from cloudscale.errors import EngineError\n"
        "os.setgroups([]); os.setuid(65534)\n"
        "try: from_environment()\n"
        "except EngineError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DOCKER_HOST": engine.url},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "You have no access to the Docker Engine" in done.stdout and "usermod" in done.stdout, done.stderr


def test_too_many_students_are_refused_with_the_numbers(tool: Tool, roster: Roster) -> None:
    file = roster(*(f"{n};Student;{n}" for n in range(3)))
    memory = tool("themachine", *file, INVOKE_CLOUDSCALE_SEAT_RESERVE="90T", INVOKE_CLOUDSCALE_SEAT_MEMORY="90T")
    assert memory.code == 2 and "276480.0 GiB" in memory.err and "room for 0" in memory.err
    ports = tool("themachine", *file, "--start", "5000", "--end", "5001")
    assert ports.code == 2 and "only 2 are free" in ports.err and "--end 5002" in ports.err
    assert not list(tool.home.glob("*"))


def test_a_full_disk_is_named(tmp_path: Path, roster: Roster) -> None:
    with another_engine("full", disk="20m") as engine:
        (tmp_path / "file").write_text("an image of one file")
        subprocess.run(["tar", "cf", str(tmp_path / "image.tar"), "-C", str(tmp_path), "file"], check=True)
        engine.client.api.import_image_from_file(str(tmp_path / "image.tar"), repository="tiny", tag="1")
        with contextlib.suppress(OSError), (engine.folder / "data/filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(1 << 12)):
                pass
        failed = Tool(engine, tmp_path / "home", {})("themachine", *roster(MARTY), "--image", "tiny:1")
        assert failed.code == 1
        assert "The disk of the Docker Engine" in failed.err and "docker system df" in failed.err


def test_a_worker_in_somebody_elses_swarm_is_refused(image: str, tmp_path: Path, roster: Roster) -> None:
    with another_engine("boss") as boss, another_engine("worker") as worker:
        cable(boss.namespace, "198.51.100.1", worker.namespace, "198.51.100.2")
        boss.client.swarm.init(advertise_addr="198.51.100.1")
        token = boss.client.swarm.attrs["JoinTokens"]["Worker"]
        worker.client.swarm.join(["198.51.100.1:2377"], token, advertise_addr="198.51.100.2")
        tool = Tool(worker, tmp_path / "home", {"INVOKE_CLOUDSCALE_IMAGE": image})
        for words in (("themachine", *roster(MARTY)), ("driver_reset", "--yes"), ("status",)):
            refused = tool(*words)
            assert refused.code == 1 and "somebody else's swarm" in refused.err
        assert worker.client.info()["Swarm"]["LocalNodeState"] == "active"


def test_seats_come_back_after_the_engine_was_restarted(engine: LabEngine, tool: Tool, roster: Roster) -> None:
    first = tool.launch(*roster(MARTY)).rows
    engine.restart()
    assert tool.launch(*roster(MARTY)).rows == first


@pytest.fixture(autouse=True)
def _no_engine_is_left(engine: LabEngine) -> Iterator[None]:
    yield
    assert engine.client.ping()
