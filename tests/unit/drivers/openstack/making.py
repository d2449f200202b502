"""A Maker of machines at a stand-in for a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.choices import Choices
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import FLOATING, FloatingIp, Inventory, Port, Server, read_inventory
from cloudscale.drivers.openstack.making import Blueprint, Maker
from cloudscale.hosts.facts import usable_memory
from cloudscale.hosts.login_key import SshKey
from cloudscale.model import Kind
from tests.unit.drivers.openstack.cloud import MARK, OwnCloud, settings

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHGDAzYpTnNAVOgPJkbRbI+RJb8N9kqVPRVBYsgiRHlm cloudscale"
KEY = SshKey(Path("id_ed25519"), PUBLIC)


def chosen(stand_in: OwnCloud, given: OpenStackSettings) -> Choices:
    """The same as `choose`, without a request to the cloud."""

    def find(items: Any, name: str) -> Any:
        return next(item for item in items.values() if item["name"] == name)

    network, flavor = stand_in.network, find(stand_in.compute.flavors, given.flavor)
    (inside,), outside = given.network, given.external_network.removesuffix("none")
    return Choices(
        image_id=find(stand_in.images.images, given.image)["id"],
        user=given.user,
        flavor_id=flavor["id"],
        kind=Kind(flavor["name"], flavor["vcpus"], usable_memory(flavor["ram"])),
        ram=flavor["ram"],
        network_id=find(network.networks.items, inside)["id"],
        cidrs=frozenset({"10.20.0.0/20"}),
        external_id=find(network.networks.items, outside)["id"] if outside else None,
    )


def new_maker(
    stand_in: OwnCloud, cloud: Cloud, group_size: int | None = 10, said: list[str] | None = None, **given: Any
) -> Maker:
    """The Maker of a new run."""
    given_settings = settings(**given)
    blueprint = Blueprint(MARK, given_settings, chosen(stand_in, given_settings), KEY)
    existing = read_inventory(cloud, MARK) if any(stand_in.totals().values()) else Inventory()
    return Maker(cloud, blueprint, existing, group_size, said.append if said is not None else print)


def parts(maker: Maker, name: str = "bio-1") -> tuple[Port, FloatingIp | None, Server]:
    """All parts of a machine; its server may still be in BUILD."""
    port = maker.port(name)
    assert port
    ip = maker.floating_ip(name, port)
    return port, ip, maker.server(name, port, FLOATING)


def machine(maker: Maker, name: str = "bio-1") -> Server:
    """A machine that is up."""
    *_, server = parts(maker, name)
    maker.await_active(name, server)
    return server
