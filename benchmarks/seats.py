"""N seats to all answering, against the same N containers by bare docker-py calls with the same concurrency.

Ours is the whole command, start of the interpreter included, on an engine whose swarm is there.
Uses the engine of DOCKER_HOST, the course `benchmark`, and the ports from 14321 on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker

from benchmarks import paired, summary
from cloudscale.fanout import WIDTH
from cloudscale.seats import jupyter

PROJECT = Path(__file__).parents[1]
FIRST_PORT = 14321
LABEL = "cloudscale.benchmark"


def tool(image: str, seats: int, *words: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as roster:
        roster.writelines(f"{number};Student;Number {number};\n" for number in range(seats))
        roster.flush()
        flags = ["--driver", "local", "--course", "benchmark"]
        if words[0] == "themachine":
            flags += ["--students", roster.name, "--image", image, "--start", str(FIRST_PORT)]
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words, *flags],
            cwd=PROJECT,
            check=False,
            capture_output=True,
            text=True,
            env=os.environ,
        )
    if done.returncode:
        raise SystemExit(f"{words[0]} failed: {done.stderr[-2000:]}")


def ours(image: str, seats: int) -> float:
    tool(image, seats, "themachine", "--onlycreate")  # the floor's engine is ready, too
    start = time.perf_counter()
    tool(image, seats, "themachine")
    taken = time.perf_counter() - start
    tool(image, seats, "driver_reset", "--yes")
    return taken


def floor(image: str, seats: int, server: Sequence[str] = ("jupyter", "lab")) -> float:
    """Seconds to as many containers that answer; then they are removed."""
    start = time.perf_counter()
    client = docker.from_env(max_pool_size=WIDTH)

    def run(number: int) -> None:
        hashed = jupyter.hash_password(f"password {number}", b"0123456789abcdef")
        client.containers.run(
            image,
            [*server, "--ip=0.0.0.0", f"--PasswordIdentityProvider.hashed_password={hashed}"],
            detach=True,
            ports={"8888/tcp": FIRST_PORT + number},
            volumes={f"benchmark-{number}": {"bind": "/home/jovyan/work", "mode": "rw"}},
            nano_cpus=10**9,
            mem_limit="2g",
            pids_limit=512,
            labels=[LABEL],
        )

    with ThreadPoolExecutor(WIDTH) as pool:
        list(pool.map(run, range(seats)))
        waiting = set(range(seats))
        while waiting:
            answers = pool.map(lambda n: (n, jupyter.answers(f"http://127.0.0.1:{FIRST_PORT + n}")), waiting)
            waiting -= {number for number, answer in answers if answer}
            time.sleep(0.5 if waiting else 0)
        taken = time.perf_counter() - start
        list(pool.map(lambda c: c.remove(force=True, v=True), client.containers.list(filters={"label": LABEL})))
        list(pool.map(lambda n: client.volumes.get(f"benchmark-{n}").remove(), range(seats)))
    client.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seats", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image", default="cloudscale/pydata:latest")
    chosen = parser.parse_args()
    mine, bare = paired(
        lambda: ours(chosen.image, chosen.seats), lambda: floor(chosen.image, chosen.seats), chosen.rounds
    )
    print(summary(f"{chosen.seats} seats to all answering", mine, bare, goal=1.05))


if __name__ == "__main__":
    main()
