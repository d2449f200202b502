"""What the configuration names, looked up in the cloud: image, flavor, networks, key pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack import lookup
from cloudscale.drivers.openstack.cloud import Cloud, understood
from cloudscale.drivers.openstack.images import choose_image, choose_user
from cloudscale.drivers.openstack.inventory import read_together
from cloudscale.drivers.openstack.networks import choose_networks
from cloudscale.errors import SettingsError
from cloudscale.hosts.facts import usable_memory
from cloudscale.model import Kind, Say
from cloudscale.outside import shaped, typed
from cloudscale.units import GIB, gib

FLAVOR = {
    "id": str,
    "name": str,
    "vcpus": int,
    "ram": int,
    "disk": int,
    "extra_specs?": dict,
}  # needed of nova's answer


@dataclass(frozen=True)
class Choices:
    """Ids for later requests. `cidrs`: address ranges of the machines' networks; `ram`: of a machine, in MiB.

    The machines are reached in the network `network_id`, by addresses of `families`, and are in `other_networks` too.
    `external_id`: None without floating IPs. `user`: for logins.
    """

    image_id: str
    user: str
    flavor_id: str
    kind: Kind
    ram: int
    network_id: str
    cidrs: frozenset[str]
    external_id: str | None
    other_networks: tuple[str, ...] = ()
    families: frozenset[str] = frozenset({"IPv4"})


@understood("Reading what the machines are made of")
def choose(cloud: Cloud, settings: OpenStackSettings, say: Say) -> Choices:
    """Looks up everything, and reports what the configuration leaves open.

    Raises SettingsError, with the names that exist, and CloudError.
    """
    api = cloud.api
    notes: dict[str, list[str]] = {"image": [], "networks": []}  # in this order, although they are read in parallel
    try:
        (flavor, image), networks, *_ = read_together(
            {
                "image": partial(_flavor_and_image, cloud, settings, notes["image"].append),
                "networks": partial(choose_networks, cloud, settings, notes["networks"].append),
                "key pair": lambda: (
                    settings.key_pair
                    and lookup.find(
                        cloud, "key_pair", settings.key_pair, api.compute.find_keypair, lambda: api.compute.keypairs()
                    )
                ),
                "zone": lambda: _check_zone(cloud, settings.availability_zone),
                "volumes": lambda: _check_volumes(cloud, settings),
            }
        )
        user = choose_user(settings, image, notes["image"].append)
    finally:
        for note in (*notes["image"], *notes["networks"]):
            say(note)
    _check_size(image, flavor, settings)
    chosen = Choices(
        image_id=image.id,
        user=user,
        flavor_id=flavor.id,
        kind=Kind(flavor.name, flavor.vcpus, usable_memory(flavor.ram)),
        ram=flavor.ram,
        network_id=networks.main.id,
        cidrs=networks.cidrs,
        external_id=networks.external_id,
        other_networks=networks.others,
        families=networks.main.families,
    )
    typed(chosen.kind)
    return typed(chosen)


def _flavor_and_image(cloud: Cloud, settings: OpenStackSettings, say: Say) -> tuple[Any, Any]:
    compute = cloud.api.compute
    flavor = lookup.find(cloud, "flavor", settings.flavor, compute.find_flavor, lambda: compute.flavors())
    shaped([flavor], FLAVOR)
    return flavor, choose_image(cloud, settings, flavor, say)


def volume_size(settings: OpenStackSettings) -> int:
    """The size of a boot volume in GiB, the unit of cinder; 0 if machines have none."""
    return math.ceil((settings.boot_volume or 0) / GIB)


def work_size(settings: OpenStackSettings) -> int:
    """The size of a work volume in GiB; 0 if machines have none."""
    return math.ceil((settings.work_volume or 0) / GIB)


def _check_zone(cloud: Cloud, zone: str | None) -> None:
    if zone:
        zones = cloud.attempt("Reading the zones", lambda: list(cloud.api.compute.availability_zones()))
        names = sorted(str(one.name) for one in zones)
        if zone not in names:
            raise SettingsError(
                f"The cloud {cloud.name!r} does not have openstack.availability_zone: {zone!r}.",
                f"Available: {', '.join(names)}.",
            )


def _check_volumes(cloud: Cloud, settings: OpenStackSettings) -> None:
    """Checks what is configured for volumes."""
    given = [f"openstack.{key}" for key in ("boot_volume", "work_volume") if getattr(settings, key)]
    if not given:
        return
    if not cloud.api.has_service("block-storage"):
        raise SettingsError(f"{given[0]} is set, but the cloud {cloud.name!r} has no volumes.", "Leave it out.")
    storage: Any = cloud.api.block_storage
    for key, name, listing in (
        ("volume_type", settings.volume_type, storage.types),
        ("volume_zone", settings.volume_zone, storage.availability_zones),
    ):
        if name:
            existing = cloud.attempt(f"Looking for openstack.{key}: {name!r}", lambda: list(listing()))  # noqa: B023
            if not any(name in (one.name, one.id) for one in existing):
                raise lookup.missing(cloud, key, name, existing)


def _check_size(image: Any, flavor: Any, settings: OpenStackSettings) -> None:
    """Checks memory and disk now: otherwise nova would refuse each single server."""
    disk = settings.boot_volume or flavor.disk * GIB
    where = "openstack.boot_volume" if settings.boot_volume else f"the flavor {flavor.name!r}"
    if (image.min_ram or 0) > flavor.ram:
        raise SettingsError(
            f"The image {image.name!r} needs {image.min_ram} MiB of memory, but the flavor {flavor.name!r} has only"
            f" {flavor.ram} MiB.",
            "Choose a larger openstack.flavor.",
        )
    if not disk:
        raise SettingsError(
            f"The flavor {flavor.name!r} has no disk: its machines boot from volumes.",
            "Set openstack.boot_volume, such as 20G, or choose another openstack.flavor.",
        )
    needed = max((image.min_disk or 0) * GIB, image.size or 0)
    if needed > disk:
        raise SettingsError(
            f"The image {image.name!r} needs {gib(needed)} of disk, but {where} has only {gib(disk)}.",
            "Choose a larger openstack.flavor, or set openstack.boot_volume.",
        )
