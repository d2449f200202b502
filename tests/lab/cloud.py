"""A real OpenStack on one machine: keystone, placement, glance, nova, neutron with routers, floating IPs and security
groups. Nothing of it is reached from outside of its namespace, and nothing gets out.

Its servers are containers of libvirt's: they boot Debian's systemd and cloud-init, and run a Docker Engine, at the
machine's own speed. Where the machine has no control groups of version 1 they are VMs in software, many times slower.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session
from openstack.connection import Connection

from tests.lab import cloud_seed, namespace
from tests.lab.cloud_config import OUTER, REGION, URLS, clouds
from tests.lab.cloud_services import CloudServices, wait_until
from tests.lab.control_groups import remove_control_groups
from tests.lab.enclosure import Enclosure
from tests.lab.engine import clear
from tests.lab.namespace import FOLDER, Namespace, run
from tests.lab.stock import GATEWAY
from tests.lab.vm_image import VmImages, vm_images

NAME = "cloud"
INNER = "veth-world"  # has the world's address in the public network
ENDING = 30  # seconds
AGENTS = 4
NETWORK_QUOTAS = {"floatingip", "network", "port", "router", "security_group", "security_group_rule", "subnet"}


class LabCloud:
    """The cloud in a folder of its own. What an earlier run left is cleared first.

    Its services answer in `namespace`, where the floating IPs are reached, too: enter it first.
    """

    def __init__(self, folder: Path) -> None:
        end_cloud()
        self.folder = folder
        _free_disks(folder)
        clear(folder)
        folder.mkdir(parents=True)
        folder.chmod(0o755)  # some services give up root
        self.clouds_yaml = folder / "clouds.yaml"
        self.engine_key = ""  # the identity that the engine of the image with Docker was cloned with
        self.namespace = Namespace(NAME)
        self._enclosure = Enclosure(folder, self.namespace)
        self._services = CloudServices(self._enclosure)
        self.images = VmImages(folder)  # the real ones from `start` on

    def start(self) -> None:
        """Starts everything, and returns when VMs can be asked for."""
        self.clouds_yaml.write_text(clouds(cloud_seed.USERS))
        self._wire()
        with ThreadPoolExecutor(1) as pool:
            building = pool.submit(vm_images, self.folder / "images")
            self._services.start_all(self._seed_identity)
            with self._connected() as admin, self._connected("course") as course:
                cloud_seed.seed_networks(admin, course)
                self.images = images = building.result()
                self.engine_key = images.engine_key.read_text()
                self._services.serve(images.repository)
                cloud_seed.seed_compute(admin, images)
                wait_until(lambda: _is_ready(admin), "the compute service and the network's agents")

    def stop(self) -> None:
        """Ends every process, and removes all there was."""
        self._enclosure.close()
        self.namespace.remove()
        _free_disks(self.folder)
        clear(self.folder)

    def connect(self, cloud: str = "admin", identity: str = "") -> Connection:
        """A client, which works inside the namespace. `identity`: where it logs in, if not at the service itself."""
        user, password, project = cloud_seed.USERS[cloud]
        login = Password(identity or URLS["identity"], username=user, password=password, project_name=project,
                         user_domain_name="Default", project_domain_name="Default")  # fmt: skip
        return Connection(session=Session(login), region_name=REGION)

    def stop_service(self, name: str) -> None:
        """Kills one: see cloud_services.services for the names."""
        self._services.stop(name)

    def start_service(self, name: str) -> None:
        self._services.start(name)

    def log(self, name: str) -> str:
        """The end of a service's log."""
        return self._enclosure.log(name)

    def set_quota(self, **limits: int) -> None:
        """Limits of the project course: nova's (instances, cores, ram, …) and neutron's (floatingip, port, …)."""
        network = {name: limit for name, limit in limits.items() if name in NETWORK_QUOTAS}
        compute = {name: limit for name, limit in limits.items() if name not in NETWORK_QUOTAS}
        with self._connected() as admin:
            if compute:
                admin.set_compute_quotas("course", **compute)
            if network:
                admin.set_network_quotas("course", **network)

    def reset_quota(self) -> None:
        """The project's limits are the cloud's own again."""
        with self._connected() as admin:
            admin.delete_compute_quotas("course")
            admin.delete_network_quotas("course")

    @contextlib.contextmanager
    def _connected(self, cloud: str = "admin") -> Iterator[Connection]:
        with self.namespace.entered(), contextlib.closing(self.connect(cloud)) as connection:
            yield connection

    def _wire(self) -> None:
        """The public network's cable: on one end is the world, on the other the cloud."""
        self.namespace.run("ip", "link", "add", INNER, "type", "veth", "peer", "name", OUTER)
        self.namespace.run("ip", "address", "add", f"{GATEWAY}/24", "dev", INNER)
        for end in (INNER, OUTER):
            self.namespace.run("ip", "link", "set", end, "up")

    def _seed_identity(self) -> None:
        with self._connected() as admin:
            cloud_seed.seed_identity(admin)


def end_cloud() -> None:
    """Ends the cloud that an earlier run left, and returns when nothing of it lives any more."""
    path = FOLDER / f"{namespace.PREFIX}-{NAME}"
    if not path.exists():
        return
    inode = path.stat().st_ino
    deadline = time.monotonic() + ENDING
    while left := _inside(inode):
        if time.monotonic() > deadline:
            raise RuntimeError(f"These processes of a cloud don't end: {' '.join(map(str, left))}")
        for process in left:  # the enclosure's first is among them, and takes with it those in inner namespaces
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    remove_control_groups(path.name)


def _free_disks(folder: Path) -> None:
    """Of servers that had no time to end: their files would fill the machine's disk."""
    for line in run("losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE").splitlines():
        device, _, file = line.partition(" ")
        if file.startswith(f"{folder}/"):
            run("losetup", "--detach", device)


def _inside(inode: int) -> list[int]:
    """The processes in a network namespace, but for this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if (process / "ns/net").stat().st_ino == inode and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


def _is_ready(admin: Connection) -> bool:
    hosts = [service for service in admin.compute.services() if service.binary == "nova-compute"]
    return (
        any(host.state == "up" for host in hosts)
        and any(admin.compute.hypervisors())  # those that the scheduler knows
        and sum(agent.is_alive for agent in admin.network.agents()) == AGENTS
    )
