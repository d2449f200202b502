"""The cloud ring: the tool on a real OpenStack with VMs. It fails, in one line, where the machine can't run it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.hosts.conftest import STATE
from tests.lab.cloud import LabCloud, end_cloud
from tests.lab.engine import LabEngine, clear
from tests.lab.faults import FaultyCloud
from tests.lab.hosts import end_hosts
from tests.lab.namespace import Namespace, remove_all
from tests.lab.tiny_image import load_tiny_image

PROGRAMS = {
    "dockerd": "docker.io",
    "ip": "iproute2",
    "iptables": "iptables",
    "dnsmasq": "dnsmasq-base",
    "apt-ftparchive": "apt-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "genisoimage": "genisoimage",
    "libvirtd": "libvirt-daemon-system",
    "mariadbd": "mariadb-server",
    "rabbitmq-server": "rabbitmq-server",
    "uwsgi": "uwsgi-plugin-python3",
    "keystone-manage": "keystone",
    "glance-api": "glance",
    "placement-api": "placement-api",
    "nova-api": "nova-api",
    "nova-conductor": "nova-conductor",
    "nova-scheduler": "nova-scheduler",
    "nova-compute": "nova-compute-qemu",
    "neutron-server": "neutron-server",
    "neutron-linuxbridge-agent": "neutron-linuxbridge-agent",
    "neutron-dhcp-agent": "neutron-dhcp-agent",
    "neutron-l3-agent": "neutron-l3-agent",
    "neutron-metadata-agent": "neutron-metadata-agent",
}


def pytest_configure(config: pytest.Config) -> None:
    for category in ("DeprecationWarning", "PendingDeprecationWarning"):  # of the SDK about itself
        config.addinivalue_line("filterwarnings", f"ignore::{category}:openstack")


@pytest.fixture(scope="session")
def cloud() -> Iterator[LabCloud]:
    """The cloud, with the tests inside of its network."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    lacking = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)]
    if os.geteuid() != 0:
        lacking.insert(0, "root")
    if lacking:
        pytest.exit(f"The cloud ring needs {', '.join(lacking)}: sudo script/test cloud sees to it.", 3)
    end_hosts()
    end_cloud()
    remove_all()
    for folder in STATE.glob("*"):
        clear(folder)
    clear(STATE)
    STATE.mkdir(mode=0o755)
    made = LabCloud(STATE / "cloud")
    try:
        made.start()
        with made.namespace.entered():
            yield made
    finally:
        made.stop()
        clear(STATE)


@pytest.fixture
def faulty(cloud: LabCloud) -> Iterator[FaultyCloud]:
    """The same cloud, by a way on which things go wrong when a test says so."""
    made = FaultyCloud(cloud.clouds_yaml, cloud.namespace)
    yield made
    made.close()


@pytest.fixture(scope="session")
def cloud_engine(cloud: LabCloud) -> Iterator[LabEngine]:
    """The trainer's own, in another network than the cloud: it changes the packet filter."""
    namespace = Namespace("engine")
    started = LabEngine(STATE / "engine", namespace)
    yield started
    started.stop()
    namespace.remove()


@pytest.fixture(scope="session")
def tiny_image(cloud_engine: LabEngine) -> str:
    """A notebook image that an emulated machine takes in half a minute."""
    return load_tiny_image(cloud_engine, STATE / "tiny")
