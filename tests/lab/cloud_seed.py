"""What is in the cloud before a trainer comes: projects and users, flavors, networks and images."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from openstack.connection import Connection
from openstack.identity.v3._proxy import Proxy as Identity

from tests.lab.cloud_config import ADMIN_PASSWORD, REGION, SERVICE_PASSWORD, URLS
from tests.lab.namespace import run
from tests.lab.stock import GATEWAY
from tests.lab.vm_image import COMMAND_LINE, VmImages

USERS = {  # cloud → user, password, project
    "admin": ("admin", ADMIN_PASSWORD, "admin"),
    "course": ("trainer", "tr@iner", "course"),
    "other": ("colleague", "coll#ague", "elsewhere"),
}
ROLE = "member"  # what a trainer is given, and no more
FLAVORS = {"m1.tiny": (768, 1, 5), "m1.small": (1536, 1, 8), "m1.medium": (2560, 2, 10), "m1.large": (4096, 4, 20)}
NETWORK = GATEWAY.rpartition(".")[0]
PUBLIC = "public"
STOCK, DOCKER = "debian-13", "debian-13-docker"  # the images
BLANK = "blank"  # an image with nothing on it, for servers that need not come up
SERVICES = {"image": "glance", "placement": "placement", "compute": "nova", "network": "neutron"}


def seed_identity(admin: Connection) -> None:
    """The services' users and addresses, then the trainers."""
    identity = admin.identity
    assert isinstance(identity, Identity)  # not of the version before
    roles = {role.name: role for role in identity.roles()}
    service = identity.create_project(name="service", domain_id="default")
    for kind, name in SERVICES.items():
        user = identity.create_user(name=name, password=SERVICE_PASSWORD, domain_id="default")
        identity.assign_project_role_to_user(service, user, roles["admin"])
        made = identity.create_service(name=name, type=kind)
        identity.create_endpoint(service_id=made.id, interface="public", url=URLS[kind], region_id=REGION)
    for name, password, project_name in (USERS[cloud] for cloud in ("course", "other")):
        project = identity.create_project(name=project_name, domain_id="default")
        user = identity.create_user(name=name, password=password, domain_id="default")
        identity.assign_project_role_to_user(project, user, roles[ROLE])


def seed_networks(admin: Connection, course: Connection) -> None:
    """A public network, and one of the course's that reaches it through a router."""
    public = admin.network.create_network(
        name=PUBLIC, is_router_external=True, provider_network_type="flat", provider_physical_network="physnet1"
    )
    admin.network.create_subnet(
        name="public-subnet",
        network_id=public.id,
        ip_version=4,
        cidr=f"{NETWORK}.0/24",
        gateway_ip=GATEWAY,
        is_dhcp_enabled=False,
        allocation_pools=[{"start": f"{NETWORK}.10", "end": f"{NETWORK}.250"}],
    )
    own = course.network.create_network(name="course-net")
    subnet = course.network.create_subnet(
        name="course-subnet", network_id=own.id, ip_version=4, cidr="10.20.0.0/24", dns_nameservers=[GATEWAY]
    )
    router = course.network.create_router(name="course-router", external_gateway_info={"network_id": public.id})
    course.network.add_interface_to_router(router, subnet.id)


def seed_compute(admin: Connection, images: VmImages) -> None:
    """Flavors and images. The parts that boot an image are in nobody's list."""
    for name, (ram, vcpus, disk) in FLAVORS.items():
        admin.compute.create_flavor(name=name, ram=ram, vcpus=vcpus, disk=disk)
    with tempfile.TemporaryDirectory() as folder:
        blank = Path(folder) / BLANK
        _idle_system(blank)
        _upload(admin, BLANK, blank, container_format="bare", disk_format="raw", visibility="public")
    parts = {}
    for name, file, kind in (("kernel", images.kernel, "aki"), ("ramdisk", images.ramdisk, "ari")):
        made = _upload(admin, name, file, container_format=kind, disk_format=kind, visibility="community")
        parts[f"{name}_id"] = made.id
    for name, file in ((STOCK, images.stock), (DOCKER, images.docker)):
        _upload(
            admin,
            name,
            file,
            container_format="bare",
            disk_format="qcow2",
            visibility="public",
            os_command_line=COMMAND_LINE,
            **parts,
        )


def _idle_system(disk: Path) -> None:
    """A file system whose first program waits, in a container; a VM finds nothing to boot."""
    root = disk.with_name("root")
    (root / "sbin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "sbin/init")
    run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(disk), "8M")


def _upload(admin: Connection, name: str, file: Path, **properties: Any) -> Any:
    with file.open("rb") as data:  # by its name, the client would not close it
        return admin.create_image(name, data=data, wait=True, **properties)
