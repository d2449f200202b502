"""A class of 1,000 on 10, 50 and 200 machines: the requests made and the time spent, in a cloud that answers at once.

The launch is the tool's own, from roster to table; cloud and machines are stood in for (scale_world.py), and the CPU
time of what is stood in for is not counted. The floor is the same requests written straight with openstacksdk in ten
threads: port, tag, floating IP, tag, server, console, tag for each machine, and one look at all servers every 2 s; it
makes no checks and no rules. Each runs in a process of its own. CPU seconds are judged: the wall's are the computer's.

What real engines would add (TLS, HTTP, JSON) and real logins is not in it; `fanout` and `course` have that.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import summary
from tests.lab.stand_in.process import StandInProcess

PROJECT = Path(__file__).parents[1]
SIZES = (10, 50, 200)
WAITING = (1, 50, 200)  # machines, of the looks that take long
LOOKS_TO_BUILD = "2"  # at a server, until it is up
INTERVAL = 2.0  # seconds between two looks, as the tool has it
ENDING = 600  # seconds
CPU_GOAL = 1.1  # of the floor's, for the machines
FLAT = 1.25  # of the memory with the fewest machines
STEADY = 1.05  # of the requests for each machine with few
POLLING = 1.1  # looks for each that the clock allows
ID = re.compile(r"/[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
OWN = ("OS_", "CLOUDSCALE_", "INVOKE_", "DOCKER_")  # what the environment may have of its user's
LOOK = "GET /compute/v2.1/servers/detail"


@dataclass(frozen=True)
class Run:
    """What one process reported; `requests` are those that the cloud was asked, by method and path."""

    moments: dict[str, dict[str, float]]
    listed: dict[str, int]
    calls: dict[str, int]
    threads: int
    requests: Counter[str]
    violations: list[str]

    def spent(self, what: str, begin: str, end: str) -> float:
        return self.moments[end][what] - self.moments[begin][what]

    def cpu(self, begin: str, end: str) -> float:
        """Without what is stood in for, and without the passwords."""
        return self.spent("cpu", begin, end) - sum(self.spent(kind, begin, end) for kind in ("stood in", "passwords"))

    @property
    def others(self) -> int:
        """Requests that are no looks at all servers."""
        return self.requests.total() - self.requests[LOOK]

    @property
    def polling(self) -> float:
        """Looks while machines boot, for each that the clock allows: one at the beginning and one every INTERVAL."""
        return self.spent("looks", "planned", "brought") / (self.spent("wall", "planned", "brought") / INTERVAL + 1)


def run(what: str, machines: int, seats: int = 0) -> Run:
    """In a process of its own, with a cloud of its own."""
    room = {"instances": machines, "cores": 4 * machines, "ram": 4096 * machines, "floatingip": machines}
    room["server_groups"] = machines // 10 + 1
    quotas = [word for name, number in room.items() for word in ("--quota", f"{name}={number}")]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with StandInProcess(folder, *quotas, "--looks-to-build", LOOKS_TO_BUILD) as cloud:
            measured = _measure(what, machines, seats, folder)
            requests = Counter(f"{r.method} {ID.sub('/{id}', r.path.partition('?')[0])}" for r in cloud.requests())
            return Run(**measured, requests=requests, violations=cloud.violations())


def _measure(what: str, machines: int, seats: int, folder: Path) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale_world", what, str(machines), str(seats), str(folder)],
        cwd=PROJECT,
        env={
            **environment,
            "HOME": str(folder),
            "CLOUDSCALE_HOME": str(folder / "home"),
            "OS_CLIENT_CONFIG_FILE": str(folder / "clouds.yaml"),
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDING,
    )
    measured: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"problems": done.stderr[-2000:]}
    if problems := measured.pop("problems"):
        raise SystemExit(f"{what} of {machines} machines failed: {problems}")
    return measured


# --- what is printed -------------------------------------------------------------------------


def table(runs: Sequence[Run], rows: Iterable[tuple[str, str, Callable[[Run, int], float]]]) -> None:
    for what, form, value in rows:
        print(f"  {what:58}" + "".join(f"{value(run, n):>9{form}}" for run, n in zip(runs, SIZES, strict=True)))


def show(runs: Sequence[Run], floors: Sequence[Run], seats: int) -> None:
    print(f"  {'machines':58}" + "".join(f"{machines:>9}" for machines in SIZES))
    print("requests to the cloud")
    kinds = [kind for kind, number in runs[-1].requests.items() if number >= SIZES[-1] and kind != LOOK]
    table(
        runs,
        [
            ("in all", "d", lambda run, n: run.requests.total()),
            *((kind, "d", _asked(kind)) for kind in kinds),
            ("looks at all servers", "d", lambda run, n: run.requests[LOOK]),
            ("all else", "d", lambda run, n: run.others - sum(run.requests[kind] for kind in kinds)),
            ("servers in these looks, for each machine", ".1f", lambda run, n: run.listed["read_servers"] / n),
        ],
    )
    print("calls to the machines")
    table(
        runs,
        [
            ("of hosts and engines before the seats, for each machine", ".1f", lambda run, n: _before_seats(run) / n),
            ("clients made for an engine, for each machine", ".1f", lambda run, n: run.calls["over_tls"] / n),
            ("swarm nodes listed, for each machine", ".1f", lambda run, n: run.listed["nodes"] / n),
            ("from there to the table, for each seat", ".1f", lambda run, n: run.spent("calls", "up", "done") / seats),
        ],
    )
    print("the tool's own CPU time")
    table(
        runs,
        [
            ("to the plan, s", ".2f", lambda run, n: run.cpu("start", "planned")),
            ("cloud, for each machine, ms", ".1f", lambda run, n: run.cpu("planned", "brought") / n * 1000),
            (
                "engine, swarm and image, for each machine, ms",
                ".1f",
                lambda run, n: run.cpu("brought", "up") / n * 1000,
            ),
            ("from there to the table, for each seat, ms", ".1f", lambda run, n: run.cpu("up", "done") / seats * 1000),
            ("for each password, slow on purpose, ms", ".1f", lambda run, n: _apart(run, "passwords") / seats * 1000),
            ("(not counted: what is stood in for, s)", ".2f", lambda run, n: _apart(run, "stood in")),
        ],
    )
    print("wall time, s (loaded as it is now; servers are up after two looks, so that more looks bring them up sooner)")
    table(runs, [("cloud", ".1f", _wall("planned", "brought"))])
    table(floors, [("  floor", ".1f", _wall("planned", "brought"))])
    table(runs, [("all of it", ".1f", _wall("start", "done"))])
    print("memory, MiB, and threads")
    table(runs, [("peak before the seats", ".0f", _peak("up"))])
    table(floors, [("  floor", ".0f", _peak("brought"))])
    table(
        runs,
        [
            ("peak of all, with the hashing of passwords", ".0f", _peak("done")),
            ("threads at once", "d", lambda run, n: run.threads),
        ],
    )


def _asked(kind: str) -> Callable[[Run, int], float]:
    return lambda run, n: run.requests[kind]


def _before_seats(run: Run) -> float:
    return run.spent("calls", "start", "up")


def _apart(run: Run, kind: str) -> float:
    return run.spent(kind, "start", "done")


def _wall(begin: str, end: str) -> Callable[[Run, int], float]:
    return lambda run, n: run.spent("wall", begin, end)


def _peak(moment: str) -> Callable[[Run, int], float]:
    return lambda run, n: run.moments[moment]["peak"]


# --- what is judged --------------------------------------------------------------------------


def judge(runs: Sequence[Run], slow: Sequence[int]) -> None:
    few, some, many = runs
    first = (some.others - few.others) / (SIZES[1] - SIZES[0])
    then = (many.others - some.others) / (SIZES[2] - SIZES[1])
    print(verdict(f"requests for one machine more: {first:.2f}, then {then:.2f}", then / first, STEADY))
    measured = ", ".join(f"{run.polling:.2f}" for run in runs)
    print(verdict(f"looks for each that the clock allows: {measured}", max(run.polling for run in runs), POLLING))
    measured = ", ".join(f"{looks} ({n} waiting)" for looks, n in zip(slow, WAITING, strict=True))
    print(verdict(f"looks that take longer than the pause between two: {measured}", slow[-1] / slow[0], 1.5))
    for what, moment in (("before the seats", "up"), ("of all", "done")):
        ratio = many.moments[moment]["peak"] / few.moments[moment]["peak"]
        more = (many.moments[moment]["peak"] - few.moments[moment]["peak"]) / (SIZES[-1] - SIZES[0])
        print(verdict(f"peak of memory {what}: {more:.2f} MiB for one machine more", ratio, FLAT))


def verdict(what: str, ratio: float, goal: float) -> str:
    return f"{'kept  ' if ratio <= goal else 'MISSED'} {what}: ratio {ratio:.2f} (goal {goal})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seats", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    runs: dict[int, list[Run]] = {size: [] for size in SIZES}
    floors: dict[int, list[Run]] = {size: [] for size in SIZES}
    for _ in range(chosen.rounds):
        for size in SIZES:
            floors[size].append(run("floor", size))
            runs[size].append(run("launch", size, chosen.seats))
    slow = [int(run("looks", waiting).calls["looks"]) for waiting in WAITING]
    last = [runs[size][-1] for size in SIZES]
    print(f"{chosen.seats} seats on so many machines, the last of {chosen.rounds} rounds")
    show(last, [floors[size][-1] for size in SIZES], chosen.seats)
    print("goals")
    judge(last, slow)
    for size in SIZES:
        ours = [run.cpu("planned", "brought") for run in runs[size]]
        floor = [run.cpu("planned", "brought") for run in floors[size]]
        ratio = statistics.median(a / b for a, b in zip(ours, floor, strict=True))
        print(
            "kept  " if ratio <= CPU_GOAL else "MISSED", summary(f"CPU time for {size} machines", ours, floor, CPU_GOAL)
        )
    for violation in sorted({violation for run in last for violation in run.violations}):
        print(f"noted by the stand-in as wrong: {violation}")


if __name__ == "__main__":
    main()
