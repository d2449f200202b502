"""Addresses and address ranges."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

# Ranges for our own networks, the best one first. The range for benchmarks of network devices (RFC 2544) is hardly
# ever in use; the others are private ranges (RFC 1918).
SWARM_NETWORKS = ("198.18.0.0/16", *(f"10.{number}.0.0/16" for number in range(200, 216)))
ENGINE_NETWORKS = ("198.19.0.0/16", *(f"172.{number}.0.0/16" for number in range(17, 32)))

# not reached from the internet: RFC 1918, RFC 6598 (shared by providers), RFC 3927 and RFC 4193 (local), loopback
PRIVATE_V4 = "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"
PRIVATE = tuple(map(ipaddress.ip_network, (*PRIVATE_V4, "fc00::/7", "fe80::/10", "::1/128")))


def endpoint(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def spare_network(taken: Iterable[str], candidates: Iterable[str]) -> str:
    """The first candidate that overlaps no network in use, or if all do, the first candidate.

    A route for half of the internet (0.0.0.0/1), which VPNs set, does not show that an address is in use.
    """
    busy = [network for network in map(ipaddress.ip_network, taken) if network.version == 4 and network.prefixlen > 1]
    ranges = [ipaddress.IPv4Network(candidate) for candidate in candidates]
    return str(next((network for network in ranges if not any(map(network.overlaps, busy))), ranges[0]))


def family(network: str) -> str:
    """`IPv4` or `IPv6`, of an address or an address range."""
    return "IPv6" if ":" in network else "IPv4"


def is_address(text: str) -> bool:
    """Whether a text is an IP address, and not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_public(network: str) -> bool:
    """Whether an address or an address range is one of the internet's, and none of those for use inside a site."""
    block = ipaddress.ip_network(network, strict=False)
    return not any(block.version == inner.version and block.overlaps(inner) for inner in PRIVATE)
