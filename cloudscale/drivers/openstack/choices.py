"""What the configuration names, found in the cloud: image, flavor, networks, key pair."""

from __future__ import annotations

import difflib
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
from cloudscale.units import GIB

SHOWN = 12  # names in a message


@dataclass(frozen=True)
class Choices:
    """Ids for the requests to come. `cidrs`: the ranges of the machines' network; `ram`: of a machine, in MiB."""

    image_id: str
    flavor_id: str
    kind: Kind
    ram: int
    network_id: str
    cidrs: frozenset[str]
    external_id: str | None


def choose(cloud: Cloud, settings: OpenStackSettings) -> Choices:
    """Looks all of them up. Raises SettingsError, with the names that exist, CloudError."""
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
        raise SettingsError(f"The network {network.name!r} (openstack.network) has no subnet.", "Give it one.")
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


def _find(cloud: Cloud, key: str, wanted: str, find: Callable[..., Any], listing: Callable[[], Iterable[Any]]) -> Any:
    """One thing by name or id. Raises SettingsError, with the names that there are."""
    what = f"openstack.{key}: {wanted!r}"

    def look() -> Any:
        try:
            return find(wanted, ignore_missing=True)
        except DuplicateResource:
            raise SettingsError(f"{what} is the name of several.", "Give the id of the one that you mean.") from None

    found = cloud.attempt(f"Looking for {what}", look)
    if found is not None:
        return found
    names = sorted({str(one.name) for one in cloud.attempt(f"Looking for {what}", lambda: list(listing()))})
    close = difflib.get_close_matches(wanted, names, SHOWN)
    shown = [*close, *(name for name in names if name not in close)]
    there = ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
    extra = " Leave it empty where your machines' own addresses can be reached." if key == "external_network" else ""
    raise SettingsError(f"The cloud {cloud.name!r} does not have {what}.", f"There is: {there or 'none'}.{extra}")


def _among(listing: Callable[[], Iterable[Any]], wanted: str, *, ignore_missing: bool) -> Any:
    """As openstacksdk's own find_… methods, where they know no filter."""
    found = [one for one in listing() if wanted in (one.name, one.id)]
    if len(found) > 1:
        raise DuplicateResource(f"{wanted!r} is the name of {len(found)}")
    return next(iter(found), None)


def _check_zone(cloud: Cloud, zone: str | None) -> None:
    if zone:
        zones = cloud.attempt("Reading the zones", lambda: list(cloud.api.compute.availability_zones()))
        names = sorted(str(found.name) for found in zones)
        if zone not in names:
            raise SettingsError(
                f"The cloud {cloud.name!r} does not have openstack.availability_zone: {zone!r}.",
                f"There is: {', '.join(names)}.",
            )


def _check_size(image: Any, flavor: Any, settings: OpenStackSettings) -> None:
    """Nova would refuse each server, one by one."""
    disk = settings.boot_volume / GIB if settings.boot_volume else flavor.disk  # 0: as large as the image
    where = "openstack.boot_volume" if settings.boot_volume else f"the flavor {flavor.name!r}"
    if (image.min_ram or 0) > flavor.ram:
        raise SettingsError(
            f"The image {image.name!r} needs {image.min_ram} MiB of memory, and the flavor {flavor.name!r} has"
            f" {flavor.ram}.",
            "Choose a larger openstack.flavor.",
        )
    needed = max(image.min_disk or 0, (image.size or 0) / GIB)
    if disk and needed > disk:
        raise SettingsError(
            f"The image {image.name!r} needs {needed:.1f} GiB of disk, and {where} has {disk:g}.",
            "Choose a larger openstack.flavor, or set openstack.boot_volume.",
        )
