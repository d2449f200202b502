"""A class through one HTTPS address, from nothing to all in, against JupyterHub with SwarmSpawner.

Both have the swarm and the image already, on the same engine in a namespace of its own. Time runs from the start of
the command until each of N students, all at once, has logged in with a password and has an answer of a server of
their own. Each server has a volume, a core and 2 GiB at most. The image is the tests' smallest, with JupyterHub's
package added, which its peer needs in it; ours starts `jupyter server` in it.

JupyterHub runs as a program of the engine's computer beside configurable-http-proxy (which has the certificate), with
what is best for it here: no limit of spawns at once, no throttle, an authenticator that compares one password (ours
hashes), and servers on a port of the computer each. An overlay network would cost more for each of them.

Needs root, Docker and npm. CLOUDSCALE_TESTS_CACHE keeps what is installed for it.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import requests

from benchmarks import paired, summary
from benchmarks.gateway import CHP, install_chp
from cloudscale.waiting import poll
from tests.lab.caddy_image import load_caddy_image
from tests.lab.engine import LabEngine
from tests.lab.namespace import Namespace, outside
from tests.lab.stock import kept
from tests.lab.tiny_image import load_tiny_image
from tests.lab.tool import Tool

HUB, SPAWNER = "jupyterhub==6.1.1", "dockerspawner==14.0.0"
PASSWORD = "benchmark"
FIRST_PORT = 14321
PATIENCE = 600.0  # seconds for all to be in
GOAL = 1.0

CONFIG = """
import docker

c.JupyterHub.bind_url = "https://ADDRESS:8000"
c.JupyterHub.ssl_key = "FOLDER/key.pem"
c.JupyterHub.ssl_cert = "FOLDER/certificate.pem"
c.JupyterHub.hub_ip = "ADDRESS"
c.JupyterHub.db_url = "sqlite:///FOLDER/hub.sqlite"
c.JupyterHub.cookie_secret_file = "FOLDER/secret"
c.JupyterHub.cleanup_servers = True
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.active_server_limit = 0
c.ConfigurableHTTPProxy.command = ["CHP"]
c.ConfigurableHTTPProxy.pid_file = "FOLDER/proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "PASSWORD"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "dockerspawner.SwarmSpawner"
c.Spawner.http_timeout = c.Spawner.start_timeout = 600
c.SwarmSpawner.image = "IMAGE"
c.SwarmSpawner.cmd = ["jupyterhub-singleuser"]
c.SwarmSpawner.cpu_limit = 1
c.SwarmSpawner.mem_limit = "2G"
c.SwarmSpawner.use_internal_ip = False
c.SwarmSpawner.host_ip = "ADDRESS"


def own_place(spawner):
    number = int(spawner.user.name.removeprefix("student"))
    spawner.extra_endpoint_spec = {"mode": "dnsrr", "ports": {FIRST_PORT + number: (spawner.port, "tcp", "host")}}
    work = docker.types.Mount("/home/jovyan/work", f"hub-{number}", labels={"benchmark": ""})
    spawner.extra_container_spec = {"mounts": [work]}


c.Spawner.pre_spawn_hook = own_place
"""


@dataclass(frozen=True)
class Cost:
    """What a run took beyond time. `memory`: bytes that processes have for themselves once all are in (PSS)."""

    cpu: float
    memory: int


class Bench:
    def __init__(self, folder: Path, namespace: Namespace, engine: LabEngine, students: int) -> None:
        self._folder = folder
        self._namespace = namespace
        self._students = students
        self.costs: dict[str, list[Cost]] = {"ours": [], "JupyterHub": []}
        self._peer = kept(f"hub-{HUB}-{SPAWNER}-{CHP}", folder / "peer", [], install_peer)
        self._engine = engine
        self._image = load_tiny_image(self._engine, folder / "image", HUB)
        load_caddy_image(self._engine.client, folder / "caddy")
        self._address = psutil.net_if_addrs()["docker0"][0].address
        self._engine.client.swarm.init(advertise_addr=self._address)
        self._tool = Tool(self._engine, folder / "home", {"INVOKE_CLOUDSCALE_IMAGE": self._image})

    # --- the tool ---------------------------------------------------------------------------

    def ours(self) -> float:
        roster = self._folder / "students.csv"
        roster.write_text("".join(f"{number};Student;Number {number};\n" for number in range(self._students)))
        self._tool.launch("--onlycreate")  # the other's engine is ready, too
        before, start = self._spent(), time.perf_counter()
        rows = self._tool.launch("--gateway", "path", "--students", str(roster)).rows
        launched = time.perf_counter() - start
        authority = str(next(self._tool.home.glob("**/web-ca.pem")))
        self._all_in(lambda number: visit_gateway(rows[number], authority))
        taken = time.perf_counter() - start
        self._note("ours", before)
        print(f"  ours: launched after {launched:.1f} s, all in after {taken:.1f} s", flush=True)
        # on a busy computer 40 containers may take longer to stop than one command waits
        assert poll(lambda: self._tool("driver_reset", "--yes").code == 0, timeout=PATIENCE)
        return taken

    # --- JupyterHub -------------------------------------------------------------------------

    def peer(self) -> float:
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            self._configure(folder)
            certificate, address = str(folder / "certificate.pem"), f"https://{self._address}:8000"
            before, start = self._spent(), time.perf_counter()
            with self._hub(folder) as hub:
                try:
                    with self._namespace.entered():
                        assert poll(lambda: answers(f"{address}/hub/login", certificate), timeout=60)
                    up = time.perf_counter() - start
                    self._all_in(lambda number: visit_hub(address, f"student{number}", certificate))
                except Exception:
                    print((folder / "log").read_text()[-5000:])
                    raise
                taken = time.perf_counter() - start
                self._note("JupyterHub", before, psutil.Process(hub.pid))
        print(f"  JupyterHub: up after {up:.1f} s, all in after {taken:.1f} s", flush=True)
        self._unmake()
        return taken

    def _configure(self, folder: Path) -> None:
        files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
        names = ["-subj", "/CN=benchmark", "-addext", f"subjectAltName=IP:{self._address}"]
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        subprocess.run(["openssl", "req", "-x509", *kind, *files, *names], check=True, capture_output=True)
        words = {
            "FOLDER": folder,
            "ADDRESS": self._address,
            "CHP": self._peer / "node_modules/.bin/configurable-http-proxy",
        }
        words |= {"IMAGE": self._image, "PASSWORD": PASSWORD, "FIRST_PORT": FIRST_PORT}
        config = re.sub(r"\b(FOLDER|ADDRESS|CHP|IMAGE|PASSWORD|FIRST_PORT)\b", lambda word: str(words[word[0]]), CONFIG)
        (folder / "jupyterhub_config.py").write_text(config)

    @contextlib.contextmanager
    def _hub(self, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
        command = [str(self._peer / "venv/bin/python"), "-m", "jupyterhub", "-f", str(folder / "jupyterhub_config.py")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                self._namespace.wrap(*command),
                cwd=folder,
                env={**os.environ, "DOCKER_HOST": self._engine.url},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.terminate()  # it removes the servers
            process.wait(PATIENCE)

    def _unmake(self) -> None:
        client = self._engine.client
        for service in client.api.services():  # type: ignore[no-untyped-call]
            client.api.remove_service(service["ID"])  # type: ignore[no-untyped-call]
        assert poll(lambda: not client.api.containers(all=True), timeout=PATIENCE)
        for volume in client.volumes.list(filters={"label": "benchmark"}):
            client.api.remove_volume(volume.name)

    # --- both -------------------------------------------------------------------------------

    def _all_in(self, visit: Callable[[int], None]) -> None:
        def one(number: int) -> None:
            with self._namespace.entered():
                visit(number)

        with ThreadPoolExecutor(self._students) as pool:
            list(pool.map(one, range(self._students)))

    def _spent(self, *programs: psutil.Process) -> float:
        """Seconds of CPU time of the engine, its containers, these programs, and those that have ended."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime + sum(cpu_of(process) for process in self._processes(*programs))

    def _note(self, name: str, before: float, *programs: psutil.Process) -> None:
        cpu = self._spent(*programs) - before
        self.costs[name].append(Cost(cpu, sum(memory_of(process) for process in self._processes(*programs))))

    def _processes(self, *programs: psutil.Process) -> set[psutil.Process]:
        """These, the engine's (all name its folder in their command) and its containers', with their children."""
        found = {*programs}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self._engine.folder) in word for word in process.cmdline()):
                    found.add(process)
        for process in (*found,):
            with contextlib.suppress(psutil.Error):
                found.update(process.children(recursive=True))
        return found - {psutil.Process()}


def cpu_of(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        return float(sum(process.cpu_times()[:4]))  # with those of its children that have ended
    return 0.0


def memory_of(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def install_peer(folder: Path) -> None:
    with outside():
        venv.create(folder / "venv", with_pip=True)
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, HUB, SPAWNER], check=True, capture_output=True)
        install_chp(folder)


# --- a student -------------------------------------------------------------------------------


def visit_gateway(row: dict[str, Any], authority: str) -> None:
    session = session_of(authority)
    address = "{0.scheme}://{0.netloc}".format(urlsplit(row["url"]))
    form = {"password": row["password"]}
    session.post(f"{address}/login", data=form, timeout=PATIENCE, allow_redirects=False).raise_for_status()
    assert poll(lambda: is_in(session, row["url"]), timeout=PATIENCE), row["student"]


def visit_hub(address: str, name: str, certificate: str) -> None:
    """As its pages do in a browser: the form, the page that waits for the server's events, and then the server."""
    session = session_of(certificate)
    session.get(f"{address}/hub/login", timeout=PATIENCE).raise_for_status()
    form = {"username": name, "password": PASSWORD, "_xsrf": session.cookies.get("_xsrf", path="/hub/")}
    page = session.post(f"{address}/hub/login", data=form, timeout=PATIENCE)
    page.raise_for_status()
    if waits := re.search(r'new EventSource\("([^"]+)"\)', page.text):
        with session.get(address + html.unescape(waits[1]), stream=True, timeout=PATIENCE) as events:
            events.raise_for_status()
            lines = (line.removeprefix("data:") for line in events.iter_lines(1, True) if line.startswith("data:"))
            last = next(event for event in map(json.loads, lines) if event.get("ready") or event.get("failed"))
            assert last.get("ready"), last
    own = f"{address}/user/{name}"
    session.get(f"{own}/files/", timeout=PATIENCE)  # the first that needs a login there: to the hub and back for it
    assert poll(lambda: is_in(session, own), timeout=PATIENCE), name


def session_of(authority: str) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.verify = authority
    return session


def is_in(session: requests.Session, own: str) -> bool:
    answer = session.get(f"{own}/api/status", timeout=PATIENCE, allow_redirects=False)
    return answer.status_code == 200 and "started" in answer.json()


def answers(url: str, authority: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return session_of(authority).get(url, timeout=PATIENCE).status_code == 200
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    namespace = Namespace("benchmark-hub")
    with tempfile.TemporaryDirectory(prefix="cloudscale-benchmark-") as place:
        folder = Path(place)
        try:
            with namespace.entered():
                engine = LabEngine(folder / "engine", namespace)
                try:
                    bench = Bench(folder, namespace, engine, chosen.students)
                    ours, peer = paired(bench.ours, bench.peer, chosen.rounds)
                finally:
                    engine.stop()
        finally:
            namespace.remove()
    print(summary(f"{chosen.students} students to all in", ours, peer, GOAL, other="JupyterHub"))
    for name, costs in bench.costs.items():
        cpu, memory = (statistics.median(values) for values in zip(*((c.cpu, c.memory) for c in costs), strict=True))
        print(f"  {name}: {cpu:.1f} s of CPU time, {memory / 2**20:.0f} MiB once all are in")


if __name__ == "__main__":
    main()
