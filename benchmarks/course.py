"""Three stock hosts to N ready seats, with the time of each phase, against the same by ssh and docker alone.

The floor makes no checks, no certificates, no passwords and no volumes, and sends the image from here to each host,
which costs nothing where all of them are one computer. Needs root, and the image on the engine of DOCKER_HOST;
the hosts are the tests' lab's, so not both at once (CLOUDSCALE_TESTS_CACHE keeps what they are made of).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import paired, summary
from cloudscale.seats import jupyter
from tests.lab.hosts import DEBIAN_13, LabHost, LabHosts

PROJECT = Path(__file__).parents[1]
FIRST_PORT = 4321
HOSTS = 3
GOAL = 1.2


class Bench:
    def __init__(self, folder: Path, image: str, seats: int) -> None:
        self._folder = folder
        self._image = image
        self._seats = seats
        self._runs = 0
        self.phases: list[str] = []

    def _on_stock(self, measure: Callable[[LabHosts], float]) -> float:
        lab = LabHosts(self._folder / "lab", [DEBIAN_13] * HOSTS)
        try:
            lab.start()
            return measure(lab)
        finally:
            lab.stop()

    def ours(self) -> float:
        return self._on_stock(self._ours)

    def floor(self) -> float:
        return self._on_stock(self._floor)

    def _ours(self, lab: LabHosts) -> float:
        self._runs += 1
        (self._folder / "students.csv").write_text("".join(f"{n};Student;No {n};\n" for n in range(self._seats)))
        words = ["themachine", "--driver", "generic", "--students", f"{self._folder}/students.csv"]
        start = time.perf_counter()
        done = subprocess.run(
            lab.namespace.wrap(sys.executable, "-m", "invoke", *words),
            cwd=PROJECT,
            env={
                **os.environ,
                "CLOUDSCALE_HOME": str(self._folder / f"home{self._runs}"),
                "INVOKE_CLOUDSCALE_IMAGE": self._image,
                "INVOKE_CLOUDSCALE_GENERIC_HOSTS": ",".join(f"root@{host.address}" for host in lab.hosts),
                "INVOKE_CLOUDSCALE_GENERIC_KFILE": str(lab.key),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        taken = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr)
        self.phases.append(done.stderr.splitlines()[-1])
        return taken

    def _floor(self, lab: LabHosts) -> float:
        first, *others = lab.hosts

        def on(host: LabHost, command: str, before: str = "") -> str:
            options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
            line = f"{before} ssh {options} -i {lab.key} root@{host.address} '{command}'"
            return subprocess.run(
                lab.namespace.wrap("sh", "-c", line), check=True, capture_output=True, text=True
            ).stdout.strip()

        def prepare(host: LabHost) -> None:
            on(host, "apt-get -qq update && apt-get -qq -y --no-install-recommends install docker.io >/dev/null 2>&1")
            on(host, "docker load", f"docker save {self._image} |")

        start = time.perf_counter()
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(prepare, lab.hosts))
            on(first, f"docker swarm init --advertise-addr {first.address}")
            token = on(first, "docker swarm join-token -q manager")
            list(pool.map(lambda host: on(host, f"docker swarm join --token {token} {first.address}"), others))
            on(
                first,
                f"seq 0 {self._seats - 1} | xargs -P 16 -IN sh -c"
                f' "docker service create --quiet --detach --no-resolve-image --name seatN'
                f" --constraint node.hostname==cloudscale-tests-\\$((N % {HOSTS} + 1))"
                f" --publish mode=host,published=\\$((N / {HOSTS} + {FIRST_PORT})),target=8888 --endpoint-mode dnsrr"
                f' {self._image} jupyter lab --ip=0.0.0.0 >/dev/null"',
            )
            self._wait(lab, pool)
        return time.perf_counter() - start

    def _wait(self, lab: LabHosts, pool: ThreadPoolExecutor) -> None:
        waiting = {(lab.hosts[n % HOSTS].address, n // HOSTS + FIRST_PORT) for n in range(self._seats)}

        def answers(place: tuple[str, int]) -> bool:
            with lab.namespace.entered():
                return jupyter.answers("http://{}:{}".format(*place))

        while waiting:
            found = list(pool.map(lambda place: (place, answers(place)), waiting))
            waiting -= {place for place, answer in found if answer}
            time.sleep(0.5 if waiting else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seats", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--image", default="cloudscale/pydata:latest")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place), chosen.image, chosen.seats)
        Path(place).chmod(0o755)
        ours, floor = paired(bench.ours, bench.floor, chosen.rounds)
    print(summary(f"{HOSTS} stock hosts to {chosen.seats} seats", ours, floor, goal=GOAL))
    for line in bench.phases:
        print(f"  {line}")


if __name__ == "__main__":
    main()
