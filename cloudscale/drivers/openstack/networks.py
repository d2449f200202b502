"""The networks of the machines, and how their machines are reached: by floating IPs, or by their own addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cloudscale.course.settings import NO_FLOATING_IPS, OpenStackSettings
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import read_together
from cloudscale.drivers.openstack.lookup import among, missing, names_of
from cloudscale.errors import SettingsError
from cloudscale.model import Say
from cloudscale.networks import family, is_public
from cloudscale.outside import shaped

ROUTER_PORTS = (
    "network:router_interface",
    "network:router_interface_distributed",
    "network:ha_router_replicated_interface",
)
# what is needed of neutron's answers
NETWORK = {"id": str, "name": str, "project_id?": str, "subnet_ids?": [str]}
SUBNET = {"network_id": str, "cidr": str, "gateway_ip?": str}
ROUTER = {"id": str, "external_gateway_info?": {"network_id?": str}}
PORT = {"network_id": str, "device_id": str}
OWN = f"Leave out openstack.floating_ips, or set openstack.external_network to {NO_FLOATING_IPS}, not both."


@dataclass(frozen=True)
class Network:
    """A network that machines can join. `gateways`: ids of the external networks that its routers lead to.

    `is_known`: whether all of its routers can be seen, which is so for the networks of the project.
    `announces_gateway`: whether its machines get a default route into it.
    """

    id: str
    name: str
    cidrs: frozenset[str]
    is_external: bool
    is_shared: bool
    is_known: bool
    has_hidden_subnets: bool
    announces_gateway: bool
    gateways: tuple[str, ...]

    @property
    def is_public(self) -> bool:
        return any(is_public(cidr) for cidr in self.cidrs)

    @property
    def has_way_out(self) -> bool:
        """False only if that is certain."""
        return self.is_external or bool(self.gateways) or not self.is_known or self.is_public

    @property
    def families(self) -> frozenset[str]:
        """IPv4, IPv6, or both, which counts if its subnets can't be seen."""
        return frozenset(map(family, self.cidrs)) or frozenset({"IPv4", "IPv6"})


@dataclass(frozen=True)
class ChosenNetworks:
    """`others`: ids of further networks that each machine is in. `external_id`: None without floating IPs."""

    main: Network
    others: tuple[str, ...]
    cidrs: frozenset[str]
    external_id: str | None


def choose_networks(cloud: Cloud, settings: OpenStackSettings, say: Say) -> ChosenNetworks:
    """Looks up the networks. Raises SettingsError, with the names that exist, and CloudError."""
    listed, networks = _read(cloud)
    chosen = _named(cloud, settings, networks) if any(settings.network) else [_only(cloud, networks, say)]
    for network in chosen:
        _check_subnets(network, say)
    main = next((network for network in chosen if network.has_way_out), chosen[0])
    if not main.has_way_out:
        say(
            f"Warning: no router connects the network {main.name!r} to the outside. Machines in it can download"
            " nothing, and no floating IP leads to them. Add a router, or name a second network that has a way out:"
            f" openstack.network: [{main.name}, NAME]."
        )
    for network in chosen:
        if main.has_way_out and not network.has_way_out and network.announces_gateway:
            say(
                f"Warning: the network {network.name!r} has no way out, but its subnet has a gateway, which machines"
                f" may use instead of that of {main.name!r}. Set the subnet's gateway to none."
            )
    externals = [network for network in listed if network.is_router_external]
    external = _choose_external(cloud, settings, main, externals, say)
    _check_ranges(settings, frozenset({"IPv4"}) if external else main.families)
    return ChosenNetworks(
        main=main,
        others=tuple(network.id for network in chosen if network.id != main.id),
        cidrs=frozenset().union(*(network.cidrs for network in chosen)),
        external_id=external,
    )


# --- reading -------------------------------------------------------------------------------------


def _read(cloud: Cloud) -> tuple[list[Any], list[Network]]:
    """The networks that the project can use: as the library has them, and as the machines' possible networks."""
    api = cloud.api.network
    readers: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "networks": (api.networks, NETWORK),
        "subnets": (api.subnets, SUBNET),
        "routers": (api.routers, ROUTER),
        "ports": (partial(api.ports, device_owner=list(ROUTER_PORTS)), PORT),
    }

    def read(what: str, listing: Callable[[], Any], form: dict[str, Any]) -> list[Any]:
        return cloud.attempt(f"Reading the {what}", lambda: shaped(listing(), form))

    listed, subnets, routers, ports = read_together(
        {what: partial(read, what, *reader) for what, reader in readers.items()}
    )
    listed = [network for network in listed if _is_usable(cloud, network)]
    gateways = {router.id: (router.external_gateway_info or {}).get("network_id") for router in routers}
    return listed, [_network(cloud, network, subnets, ports, gateways) for network in listed]


def _is_usable(cloud: Cloud, network: Any) -> bool:
    """Whether it is the project's, or for all to use. Administrators see the networks of other projects too."""
    return bool(_is_own(cloud, network) or network.is_shared or network.is_router_external)


def _is_own(cloud: Cloud, network: Any) -> bool:
    return network.project_id in (None, cloud.project_id)


def _network(
    cloud: Cloud, network: Any, subnets: Sequence[Any], ports: Sequence[Any], gateways: Mapping[str, str | None]
) -> Network:
    own = [subnet for subnet in subnets if subnet.network_id == network.id]
    cidrs = frozenset(subnet.cidr for subnet in own)
    routers = {port.device_id for port in ports if port.network_id == network.id}
    is_own = _is_own(cloud, network)
    leading = [gateway for router in routers if (gateway := gateways.get(router))]
    return Network(
        id=network.id,
        name=network.name,
        cidrs=cidrs,
        is_external=bool(network.is_router_external),
        is_shared=bool(network.is_shared),
        is_known=is_own and routers <= gateways.keys(),
        has_hidden_subnets=not cidrs and (not is_own or bool(network.subnet_ids)),
        announces_gateway=any(subnet.gateway_ip for subnet in own),
        gateways=tuple(dict.fromkeys(leading)),
    )


# --- choosing ------------------------------------------------------------------------------------


def _named(cloud: Cloud, settings: OpenStackSettings, networks: Sequence[Network]) -> list[Network]:
    chosen: dict[str, Network] = {}
    for name in filter(None, settings.network):
        network = among(networks, "network", name)
        if network is None:
            raise missing(cloud, "network", name, networks, ' Or leave it empty (network: "") for the only one.')
        chosen[network.id] = network
    return list(chosen.values())


def _only(cloud: Cloud, networks: Sequence[Network], say: Say) -> Network:
    """The only network that machines can join; of several, the only one with a way out."""
    possible = [network for network in networks if network.is_shared or not network.is_external] or list(networks)
    leading = [network for network in possible if network.has_way_out] if len(possible) > 1 else possible
    if not possible:
        raise SettingsError(f"The cloud {cloud.name!r} has no network that this account can see.", "Create a network.")
    if len(leading) != 1:
        raise SettingsError(
            f"openstack.network is empty, but the cloud {cloud.name!r} has several networks.",
            f"Set openstack.network. Available: {names_of(possible)}.",
        )
    why = "the only network" if len(possible) == 1 else "the only network with a way out"
    say(f"openstack.network is empty: {leading[0].name!r} is taken, {why}. Set it to use another.")
    return leading[0]


def _check_subnets(network: Network, say: Say) -> None:
    if network.has_hidden_subnets:
        say(f"Warning: the subnets of the network {network.name!r} can't be seen, so its address ranges are not known")
    elif not network.cidrs:
        raise SettingsError(
            f"The network {network.name!r} (openstack.network) has no subnet.",
            "Create a subnet, or use another network.",
        )


def _choose_external(
    cloud: Cloud, settings: OpenStackSettings, main: Network, externals: Sequence[Any], say: Say
) -> str | None:
    """The id of the network for floating IPs; None if the machines' own addresses are used."""
    if settings.external_network == NO_FLOATING_IPS:
        if settings.floating_ips:
            raise SettingsError(
                f"openstack.floating_ips is set, but openstack.external_network is {NO_FLOATING_IPS}.", OWN
            )
        return None
    if why := _why_own(main):
        if settings.floating_ips:
            raise SettingsError(f"openstack.floating_ips can't be used: {why}.", "Leave it out.")
        say(f"No floating IPs are made: {why}. The machines are reached by their own addresses.")
        return None
    if settings.external_network:
        network = among(externals, "external_network", settings.external_network)
        if network is None:
            extra = f" Set it to {NO_FLOATING_IPS} if your machines' own addresses can be reached, or leave it empty."
            raise missing(cloud, "external_network", settings.external_network, externals, extra)
        return str(network.id)
    return _only_external(cloud, main, externals, say)


def _why_own(main: Network) -> str:
    """Why no floating IP can lead to machines in this network; "" if one can."""
    if main.is_external:
        return f"the network {main.name!r} is an external one itself"
    if main.families == {"IPv6"}:
        return f"the network {main.name!r} has only IPv6"
    if main.is_public and not main.gateways and any(is_public(cidr) for cidr in main.cidrs if family(cidr) == "IPv4"):
        return f"the network {main.name!r} has public addresses and no router of the project"
    return ""


def _only_external(cloud: Cloud, main: Network, externals: Sequence[Any], say: Say) -> str | None:
    """The external network that the machines' router leads to, or the only one."""
    leading = [network for network in externals if network.id in main.gateways]
    possible = leading or list(externals)
    if not possible:
        say(
            f"openstack.external_network is empty, and the cloud {cloud.name!r} has none: no floating IPs are made. The"
            " machines are reached by their own addresses."
        )
        return None
    if len(possible) > 1:
        raise SettingsError(
            f"openstack.external_network is empty, but the cloud {cloud.name!r} has several.",
            f"Set openstack.external_network. Available: {names_of(possible)}. {NO_FLOATING_IPS} if your machines' own"
            " addresses can be reached.",
        )
    why = f"to which the router of {main.name!r} leads" if leading and len(externals) > 1 else "the only one"
    say(f"openstack.external_network is empty: {possible[0].name!r} is taken, {why}. Set it to use another.")
    return str(possible[0].id)


def _check_ranges(settings: OpenStackSettings, families: frozenset[str]) -> None:
    """Raises SettingsError if nobody could reach the machines."""
    for key in ("admin_cidr", "student_cidr"):
        ranges: tuple[str, ...] = getattr(settings, key)
        if not families & {*map(family, ranges)}:
            used = " or ".join(sorted(families))
            raise SettingsError(
                f"openstack.{key}: {', '.join(ranges)} has no range of {used}, by which the machines are reached.",
                f"Add one, such as {'0.0.0.0/0' if 'IPv4' in families else '::/0'} for everybody.",
            )
