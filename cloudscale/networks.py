"""Addresses and ranges of addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

# Ranges for networks of our own, best first: the one for benchmarks of network devices (RFC 2544),
# hardly ever in use elsewhere, then private ones (RFC 1918).
SWARM_NETWORKS = ("198.18.0.0/16", *(f"10.{number}.0.0/16" for number in range(200, 216)))
ENGINE_NETWORKS = ("198.19.0.0/16", *(f"172.{number}.0.0/16" for number in range(17, 32)))


def endpoint(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def spare_network(taken: Iterable[str], candidates: Iterable[str]) -> str:
    """The first of some ranges that collides with no network that is in use; the first of all where all do.

    A tunnel's halves of the whole internet (0.0.0.0/1) say nothing about who lives there.
    """
    busy = [network for network in map(ipaddress.ip_network, taken) if network.version == 4 and network.prefixlen > 1]
    ranges = [ipaddress.IPv4Network(candidate) for candidate in candidates]
    return str(next((found for found in ranges if not any(map(found.overlaps, busy))), ranges[0]))
