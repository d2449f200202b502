"""Two VMs of a real cloud, from nothing to one swarm with an image on each, against the same calls written straight.

The floor makes no checks: no quotas, no host keys, no certificates, no marks, and asks again for nothing. Both boot the
stock image, and bring an image of a few bytes. Needs root; the cloud is the tests' lab's, so not both at once
(CLOUDSCALE_TESTS_CACHE keeps what its VMs are made of). The image comes from the engine of DOCKER_HOST.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openstack.connection import Connection

from benchmarks import paired, summary
from tests.lab.cloud import LabCloud

PROJECT = Path(__file__).parents[1]
IMAGE = "cloudscale-benchmark/nothing:1"
NAMES, GROUP = ("floor-1", "floor-2"), "floor"
GOAL = 1.1
SSH = "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=3"


class Bench:
    def __init__(self, folder: Path, cloud: LabCloud) -> None:
        self._folder = folder
        self._cloud = cloud
        self._key = folder / "key"
        self.phases: list[str] = []
        self.floor_phases: list[str] = []
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)], check=True)

    # --- the tool ---------------------------------------------------------------------------

    def ours(self) -> float:
        start = time.perf_counter()
        said = self._invoke("themachine", "--onlycreate", "--nodes", str(len(NAMES)))
        taken = time.perf_counter() - start
        self.phases.append(said.splitlines()[-1])
        self._invoke("driver_reset", "--yes")
        return taken

    def _invoke(self, *words: str) -> str:
        settings = {"DRIVER": "openstack", "IMAGE": IMAGE, "OPENSTACK_CLOUD": "course"}
        done = subprocess.run(
            self._cloud.namespace.wrap(sys.executable, "-m", "invoke", *words),
            cwd=PROJECT,
            env={
                **os.environ,
                "CLOUDSCALE_HOME": str(self._folder / "home"),
                "OS_CLIENT_CONFIG_FILE": str(self._cloud.clouds_yaml),
                **{f"INVOKE_CLOUDSCALE_{key}": value for key, value in settings.items()},
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        return done.stderr

    # --- the floor --------------------------------------------------------------------------

    def floor(self) -> float:
        with self._cloud.namespace.entered(), ThreadPoolExecutor(len(NAMES)) as pool:
            client = self._cloud.connect("course")
            start = time.perf_counter()
            self._marks = [(0.0, "start")]
            made = self._make(client, pool)
            list(pool.map(self._install, made))
            self._mark("docker", start)
            first = made[0]
            own = self._on(first, "ip route get 192.0.2.1").partition(" src ")[2].split()[0]  # not the engine's bridge
            self._on(first, f"sudo docker swarm init --advertise-addr {own}")
            token = self._on(first, "sudo docker swarm join-token -q worker")
            list(pool.map(lambda host: self._on(host, f"sudo docker swarm join --token {token} {own}"), made[1:]))
            taken = time.perf_counter() - start
            self.floor_phases.append(", ".join(f"{what} {at:.1f} s" for at, what in self._marks[1:]))
            unmake(client, NAMES, GROUP)
        return taken

    def _mark(self, what: str, start: float) -> None:
        self._marks.append((time.perf_counter() - start, what))

    def _make(self, client: Connection, pool: ThreadPoolExecutor) -> list[str]:
        """The addresses of two servers that let us in."""
        start = time.perf_counter()
        network, compute = client.network, client.compute
        net, public = network.find_network("course-net"), network.find_network("public")
        image, flavor = client.image.find_image("debian-13"), compute.find_flavor("m1.small")
        assert net and public and image and flavor
        group = network.create_security_group(name=GROUP)
        network.create_security_group_rule(security_group_id=group.id, direction="ingress", ether_type="IPv4")
        public_key = self._key.with_suffix(".pub").read_text().strip()
        config = base64.b64encode(f"#cloud-config\nssh_authorized_keys: ['{public_key}']\n".encode()).decode()

        def one(name: str) -> str:
            port = network.create_port(network_id=net.id, name=name, security_groups=[group.id])
            server = compute.create_server(
                name=name, image_id=image.id, flavor_id=flavor.id, networks=[{"port": port.id}], user_data=config
            )
            address = network.create_ip(floating_network_id=public.id, port_id=port.id).floating_ip_address
            compute.wait_for_server(server, interval=1, wait=300)
            self._mark("active", start)
            while subprocess.run(self._ssh(address, "true"), shell=True, capture_output=True, check=False).returncode:
                time.sleep(1)
            self._mark("ssh", start)
            return str(address)

        return list(pool.map(one, NAMES))

    def _install(self, address: str) -> None:
        install = (
            "apt-get -qq update && apt-get -qq -y --no-install-recommends install docker.io docker-cli >/dev/null 2>&1"
        )
        self._on(address, f"cloud-init status --wait >/dev/null; sudo sh -c '{install}'")
        subprocess.run(
            f"docker save {IMAGE} | {self._ssh(address, 'sudo docker load')}",
            shell=True,
            check=True,
            capture_output=True,
        )

    def _ssh(self, address: str, command: str) -> str:
        return f'{SSH} -i {self._key} debian@{address} "{command}"'

    def _on(self, address: str, command: str) -> str:
        done = subprocess.run(self._ssh(address, command), shell=True, check=True, capture_output=True, text=True)
        return done.stdout.strip()


def unmake(client: Connection, names: Sequence[str], group: str) -> None:
    """Deletes these servers with their ports, a security group, and all addresses."""
    network, compute = client.network, client.compute
    servers = [server for server in compute.servers() if server.name in names]
    for server in servers:
        compute.delete_server(server)
    for ip in network.ips():
        network.delete_ip(ip)
    for server in servers:
        compute.wait_for_delete(server, wait=300)
    for port in network.ports():
        if port.name in names:
            network.delete_port(port)
    for made in network.security_groups(name=group):
        network.delete_security_group(made)


@contextlib.contextmanager
def lab_cloud() -> Iterator[tuple[Path, LabCloud]]:
    """The cloud that has started and a folder, and the image on the engine of DOCKER_HOST."""
    subprocess.run(
        f"tar -c --files-from /dev/null | docker import - {IMAGE}", shell=True, check=True, capture_output=True
    )
    with tempfile.TemporaryDirectory() as place:
        cloud = LabCloud(Path(place) / "cloud")
        Path(place).chmod(0o755)
        try:
            cloud.start()
            yield Path(place), cloud
        finally:
            cloud.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    with lab_cloud() as (folder, cloud):
        bench = Bench(folder, cloud)
        ours, floor = paired(bench.ours, bench.floor, chosen.rounds)
    print(summary("two VMs to a joined swarm", ours, floor, goal=GOAL))
    for line in bench.phases:
        print(f"  {line}")
    for line in bench.floor_phases:
        print(f"  floor: {line}")


if __name__ == "__main__":
    main()
