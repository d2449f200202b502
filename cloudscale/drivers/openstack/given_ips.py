"""Floating IPs that the project has already, and that the course may use."""

from __future__ import annotations

from collections.abc import Collection

from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import Inventory, read_project_ips
from cloudscale.errors import SettingsError


def check_given_ips(
    cloud: Cloud, given: Collection[str], external_id: str | None, mark: str, inventory: Inventory
) -> None:
    """Raises SettingsError if one of these addresses is not the project's, or can't be used for the machines."""
    if not given:
        return
    ips = {ip.address: ip for ip in read_project_ips(cloud, mark)}
    ours = {port.id for port in inventory.ports.values()}
    free = sorted(ip.address for ip in ips.values() if not ip.port_id)
    remedy = f"Free floating IPs of the project: {', '.join(free) or 'none'}."
    for address in given:
        ip = ips.get(address)
        if ip is None:
            raise SettingsError(f"openstack.floating_ips: the project has no floating IP {address}.", remedy)
        if ip.port_id and ip.port_id not in ours:
            raise SettingsError(f"openstack.floating_ips: {address} is in use for something else.", remedy)
        if ip.network_id != external_id:
            raise SettingsError(
                f"openstack.floating_ips: {address} is not of the external network of this course.",
                f"Set openstack.external_network to that of the address: {ip.network_id}.",
            )
