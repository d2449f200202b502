"""A maker of machines at a stand-in for a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudscale.drivers.openstack.choices import choose
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import FloatingIp, Port, Server, read_inventory
from cloudscale.drivers.openstack.making import Blueprint, Maker
from cloudscale.sshkey import SshKey
from tests.unit.openstack_cloud import MARK, settings

KEY = SshKey(Path("id_ed25519"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNvdXJzZQ== cloudscale")


def new_maker(cloud: Cloud, group_size: int | None = 10, **given: Any) -> Maker:
    """As a run has it that begins now."""
    chosen = settings(**given)
    blueprint = Blueprint(MARK, chosen, choose(cloud, chosen), KEY)
    return Maker(cloud, blueprint, read_inventory(cloud, MARK), group_size)


def parts(maker: Maker, name: str = "bio-1") -> tuple[Port, FloatingIp | None, Server]:
    """All that a machine has; its server may be building yet."""
    port = maker.port(name)
    ip = maker.floating_ip(name, port)
    return port, ip, maker.server(name, port)


def machine(maker: Maker, name: str = "bio-1") -> Server:
    """One that is up."""
    *_, server = parts(maker, name)
    maker.await_active(name, server)
    return server
