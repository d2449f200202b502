"""The cloud ring: the tool on a real OpenStack with servers. It fails, in one line, where the machine can't run it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.cloud import LabCloud, end_cloud
from tests.lab.engine import LabEngine
from tests.lab.faults import FaultyCloud
from tests.lab.namespace import Namespace
from tests.lab.ring import Ring
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
    "busybox": "busybox-static",
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
RING = Ring("cloud", PROGRAMS)
STATE = RING.folder


def pytest_configure(config: pytest.Config) -> None:
    for category in ("DeprecationWarning", "PendingDeprecationWarning"):  # of the SDK about itself
        config.addinivalue_line("filterwarnings", f"ignore::{category}:openstack")


@pytest.fixture(scope="session")
def cloud() -> Iterator[LabCloud]:
    """The cloud, with the tests inside of its network."""
    RING.require()
    end_cloud()
    with RING.cleared():
        made = LabCloud(STATE / "cloud")
        try:
            made.start()
            with made.namespace.entered():
                yield made
        finally:
            made.stop()


@pytest.fixture
def faulty(cloud: LabCloud) -> Iterator[FaultyCloud]:
    """The same cloud, by a way on which things go wrong when a test says so."""
    made = FaultyCloud(cloud.clouds_yaml, cloud.namespace)
    yield made
    made.close()


@pytest.fixture(scope="session")
def cloud_engine(cloud: LabCloud) -> Iterator[LabEngine]:
    """The trainer's own, in another network than the cloud: it changes the packet filter."""
    namespace = Namespace("cloud-engine")
    started = LabEngine(STATE / "engine", namespace)
    yield started
    started.stop()
    namespace.remove()


@pytest.fixture(scope="session")
def tiny_image(cloud_engine: LabEngine) -> str:
    """A notebook image that an emulated machine takes in half a minute."""
    return load_tiny_image(cloud_engine, STATE / "tiny")
