"""What the configuration names, looked up in the cloud: image, flavor, networks, key pair."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from openstack.exceptions import DuplicateResource

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import read_together
from cloudscale.errors import SettingsError
from cloudscale.hosts.facts import usable_memory
from cloudscale.model import Kind
from cloudscale.units import GIB, gib

SHOWN = 12  # names in a message


@dataclass(frozen=True)
class Choices:
    """Ids for later requests. `cidrs`: address ranges of the machines' network; `ram`: of a machine, in MiB."""

    image_id: str
    flavor_id: str
    kind: Kind
    ram: int
    network_id: str
    cidrs: frozenset[str]
    external_id: str | None


def choose(cloud: Cloud, settings: OpenStackSettings) -> Choices:
    """Looks up everything. Raises SettingsError, with the names that exist, and CloudError."""
    api = cloud.api

    def externals() -> list[Any]:
        return list(api.network.networks(is_router_external=True))

    image, flavor, network, external, _, _ = read_together(
        {
            "image": partial(
                _find, cloud, "image", settings.image, api.image.find_image, lambda: api.image.images(status="active")
            ),
            "flavor": partial(
                _find, cloud, "flavor", settings.flavor, api.compute.find_flavor, lambda: api.compute.flavors()
            ),
            "network": partial(
                _find, cloud, "network", settings.network, api.network.find_network, lambda: api.network.networks()
            ),
            "external network": lambda: (
                _find(cloud, "external_network", settings.external_network, partial(_among, externals), externals)
                if settings.external_network
                else None
            ),
            "key pair": lambda: (
                _find(cloud, "key_pair", settings.key_pair, api.compute.find_keypair, lambda: api.compute.keypairs())
                if settings.key_pair
                else None
            ),
            "zone": lambda: _check_zone(cloud, settings.availability_zone),
        }
    )
    subnets = cloud.attempt("Reading the subnets", lambda: list(api.network.subnets(network_id=network.id)))
    if not subnets:
        raise SettingsError(
            f"The network {network.name!r} (openstack.network) has no subnet.",
            "Create a subnet, or use another network.",
        )
    _check_size(image, flavor, settings)
    return Choices(
        image_id=image.id,
        flavor_id=flavor.id,
        kind=Kind(flavor.name, flavor.vcpus, usable_memory(flavor.ram)),
        ram=flavor.ram,
        network_id=network.id,
        cidrs=frozenset(subnet.cidr for subnet in subnets),
        external_id=external.id if external else None,
    )


def volume_size(settings: OpenStackSettings) -> int:
    """The size of a boot volume in GiB, the unit of cinder; 0 if machines have none."""
    return math.ceil((settings.boot_volume or 0) / GIB)


def _find(cloud: Cloud, key: str, name: str, find: Callable[..., Any], listing: Callable[[], Iterable[Any]]) -> Any:
    """One resource by name or id. Raises SettingsError, with the names that exist."""
    what = f"openstack.{key}: {name!r}"

    def look() -> Any:
        try:
            return find(name, ignore_missing=True)
        except DuplicateResource:
            raise SettingsError(f"{what}: the cloud has several with this name.", "Use an id instead.") from None

    resource = cloud.attempt(f"Looking for {what}", look)
    if resource is not None:
        return resource
    names = sorted({str(one.name) for one in cloud.attempt(f"Looking for {what}", lambda: list(listing()))})
    close = difflib.get_close_matches(name, names, SHOWN)
    ordered = [*close, *(other for other in names if other not in close)]
    available = ", ".join(ordered[:SHOWN]) + (f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")
    extra = " Leave it empty if your machines' own addresses can be reached." if key == "external_network" else ""
    raise SettingsError(f"The cloud {cloud.name!r} does not have {what}.", f"Available: {available or 'none'}.{extra}")


def _among(listing: Callable[[], Iterable[Any]], name: str, *, ignore_missing: bool) -> Any:
    """Like the find_… methods of openstacksdk, for a listing that these can't filter."""
    matches = [one for one in listing() if name in (one.name, one.id)]
    if len(matches) > 1:
        raise DuplicateResource(f"{len(matches)} have the name {name!r}")
    return next(iter(matches), None)


def _check_zone(cloud: Cloud, zone: str | None) -> None:
    if zone:
        zones = cloud.attempt("Reading the zones", lambda: list(cloud.api.compute.availability_zones()))
        names = sorted(str(one.name) for one in zones)
        if zone not in names:
            raise SettingsError(
                f"The cloud {cloud.name!r} does not have openstack.availability_zone: {zone!r}.",
                f"Available: {', '.join(names)}.",
            )


def _check_size(image: Any, flavor: Any, settings: OpenStackSettings) -> None:
    """Checks memory and disk now: otherwise nova would refuse each single server."""
    disk = settings.boot_volume or flavor.disk * GIB  # 0: as large as the image
    where = "openstack.boot_volume" if settings.boot_volume else f"the flavor {flavor.name!r}"
    if (image.min_ram or 0) > flavor.ram:
        raise SettingsError(
            f"The image {image.name!r} needs {image.min_ram} MiB of memory, but the flavor {flavor.name!r} has only"
            f" {flavor.ram} MiB.",
            "Choose a larger openstack.flavor.",
        )
    needed = max((image.min_disk or 0) * GIB, image.size or 0)
    if disk and needed > disk:
        raise SettingsError(
            f"The image {image.name!r} needs {gib(needed)} of disk, but {where} has only {gib(disk)}.",
            "Choose a larger openstack.flavor, or set openstack.boot_volume.",
        )
