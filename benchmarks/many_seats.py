"""75, 150 and 300 seats of a tiny image on one engine: whether a seat takes longer where there are many.

Each number begins with nothing but a swarm; looks at all seats, a command in each and a reset follow. The floor is
that of `seats`. The engine is one of the tests' lab's (root), with a network of its own; a seat takes 60 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from docker.errors import DockerException

from benchmarks import cpu_seconds
from benchmarks.seats import floor, tool
from cloudscale.fanout import WIDTH
from tests.lab.engine import LabEngine
from tests.lab.namespace import Namespace
from tests.lab.tiny_image import load_tiny_image

NUMBERS = (75, 150, 300)
GOAL = 1.1  # of the seconds a seat with the fewest
SEAT = 60  # MB of memory, with the engine's part
SPARE = 3000  # MB that are left to others
PATIENCE = ("--timeout", "3600")  # seconds: the computer may be busy
SERVER = ("jupyter", "server")  # the tiny image has no JupyterLab
AFTER = {
    "themachine again": ("themachine", *PATIENCE),
    "status": ("status",),
    "status --details": ("status", "--details"),
    "com_containers true": ("com_containers", "true"),
    "containers_reset": ("containers_reset", "--volumes", "--yes"),
}


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of CPU: of the process that commands, and of the engine without its containers."""

    wall: float
    own: float
    engine: float


class Bench:
    def __init__(self, engine: LabEngine, image: str) -> None:
        self._image = image
        parts = (engine.folder / "pid", engine.folder / "exec/containerd/containerd.pid")
        self._engine = [int(part.read_text()) for part in parts if part.exists()]

    def ours(self, seats: int) -> dict[str, Cost]:
        """What each command takes."""
        tool(self._image, seats, "themachine", "--onlycreate")
        costs = {}
        for name, words in {"themachine": ("themachine", *PATIENCE), **AFTER}.items():
            costs[name] = self._cost(functools.partial(tool, self._image, seats, *words))
            print(f"  {seats} seats, {name}: {costs[name].wall:.1f} s", flush=True)
        tool(self._image, seats, "driver_reset", "--yes")
        return costs

    def floor(self, seats: int) -> dict[str, Cost]:
        taken: list[float] = []
        cost = self._cost(lambda: taken.append(floor(self._image, seats, SERVER)))
        print(f"  {seats} bare containers: {taken[0]:.1f} s", flush=True)
        return {"floor": Cost(taken[0], cost.own, cost.engine)}  # the clock's without the removal

    def _cost(self, work: Callable[[], object]) -> Cost:
        start = (time.perf_counter(), cpu_seconds(), self._engines())
        work()
        end = (time.perf_counter(), cpu_seconds(), self._engines())
        return Cost(*(now - then for now, then in zip(end, start, strict=True)))

    def _engines(self) -> float:
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._engine]
        return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def check_memory(seats: int) -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) // 1000
    if free < (need := seats * SEAT + SPARE):
        raise SystemExit(f"{seats} seats need {need} MB of memory, and {free} are free: try --numbers with fewer.")


def show(costs: dict[int, list[dict[str, Cost]]]) -> None:
    """A line for each command: what it takes for a seat, by number."""
    numbers = list(costs)
    print(f"milliseconds a seat{'':17}" + "".join(f"{number:>9}" for number in numbers) + "    last against first")
    for name in costs[numbers[0]][0]:
        for what in ("wall", "own", "engine"):
            each = [
                statistics.median(getattr(run[name], what) for run in costs[number]) / number * 1000
                for number in numbers
            ]
            ratio = f"{each[-1] / each[0]:.2f}" if each[0] else "-"
            print(f"  {name:24}{what:10}" + "".join(f"{value:9.1f}" for value in each) + f"{ratio:>9}")


def judge(costs: dict[int, list[dict[str, Cost]]]) -> None:
    few, many = min(costs), max(costs)

    def slower(name: str) -> float:
        pairs = zip(costs[few], costs[many], strict=True)
        return statistics.median((b[name].wall / many) / (a[name].wall / few) for a, b in pairs)

    ratio = slower("themachine")
    print(
        f"{'kept  ' if ratio <= GOAL else 'MISSED'} seconds a seat with {many} against {few}: ratio {ratio:.2f}"
        f" (goal {GOAL}; the floor's own {slower('floor'):.2f})"
    )
    for number, runs in costs.items():
        against = statistics.median(run["themachine"].wall / run["floor"].wall for run in runs)
        print(f"       {number} seats against as many bare containers: ratio {against:.2f}")


def end(engine: LabEngine) -> None:
    """With all that runs on it: what is left of a run that was cut off would be too much for an engine that stops."""
    with contextlib.suppress(DockerException):  # one that is overloaded goes on with it all the same
        engine.client.swarm.leave(force=True)
    with ThreadPoolExecutor(WIDTH) as pool:
        list(pool.map(lambda container: container.remove(force=True), engine.client.containers.list(sparse=True)))
    engine.stop()


def measure(numbers: Sequence[int], rounds: int) -> dict[int, list[dict[str, Cost]]]:
    namespace = Namespace("benchmark")
    costs: dict[int, list[dict[str, Cost]]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as place, namespace.entered():
        folder = Path(place)
        engine = LabEngine(folder / "engine", namespace)
        try:
            image = load_tiny_image(engine, folder / "tiny")
            os.environ |= {
                "DOCKER_HOST": engine.url,
                "CLOUDSCALE_HOME": str(folder / "home"),
                "INVOKE_CLOUDSCALE_SEAT_RESERVE": "32M",  # so that the plan has room for as many as memory has
            }
            bench = Bench(engine, image)
            for at in range(rounds):
                for number in numbers:
                    check_memory(number)
                    turns = [bench.ours, bench.floor]
                    done = [turn(number) for turn in turns[:: -1 if at % 2 else 1]]
                    costs[number].append({name: cost for each in done for name, cost in each.items()})
                    print(f"{number}: load {os.getloadavg()[0]:.1f}", flush=True)
        finally:
            end(engine)
            namespace.remove()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the engine is taken away then, too
    costs = measure(sorted(chosen.numbers), chosen.rounds)
    show(costs)
    judge(costs)


if __name__ == "__main__":
    main()
