from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.networks import ENGINE_NETWORKS, SWARM_NETWORKS, endpoint, family, is_public, spare_network


def test_an_ipv6_address_stands_in_brackets_before_a_port() -> None:
    assert endpoint("192.0.2.1", 2377) == "192.0.2.1:2377"
    assert endpoint("2001:db8::1", 2377) == "[2001:db8::1]:2377"
    assert endpoint("host.example.org", 80) == "host.example.org:80"


def test_the_first_range_that_collides_with_nothing_is_chosen() -> None:
    assert spare_network([], SWARM_NETWORKS) == SWARM_NETWORKS[0]
    assert spare_network(["198.18.3.0/24"], SWARM_NETWORKS) == "10.200.0.0/16"
    assert spare_network(["198.18.0.0/15", "172.17.0.0/16"], ENGINE_NETWORKS) == "172.18.0.0/16"
    assert spare_network(["198.18.0.0/15", "10.0.0.0/8"], SWARM_NETWORKS) == SWARM_NETWORKS[0]


def test_default_routes_and_ipv6_networks_collide_with_nothing() -> None:
    assert spare_network(["0.0.0.0/0", "::/0", "2001:db8::/32"], ENGINE_NETWORKS) == ENGINE_NETWORKS[0]


def test_a_route_for_everything_does_not_hide_networks_in_use() -> None:
    taken = ["0.0.0.0/1", "128.0.0.0/1", "198.18.0.0/16"]  # as set by OpenVPN's redirect-gateway
    assert spare_network(taken, SWARM_NETWORKS) == "10.200.0.0/16"


def test_the_ranges_for_swarm_and_engines_never_overlap() -> None:
    for swarm in map(ipaddress.ip_network, SWARM_NETWORKS):
        assert not any(swarm.overlaps(ipaddress.ip_network(engine)) for engine in ENGINE_NETWORKS)


networks = st.builds(
    lambda address, bits: str(ipaddress.ip_network((int(address), bits), strict=False)),
    st.one_of(
        st.ip_addresses(v=4),
        st.ip_addresses(v=4, network="172.16.0.0/12"),
        st.ip_addresses(v=4, network="198.18.0.0/15"),
    ),
    st.integers(8, 32),
)


@given(st.lists(networks, max_size=12))
def test_a_range_collides_only_where_all_do(taken: list[str]) -> None:
    def collides(candidate: str) -> bool:
        return any(ipaddress.ip_network(candidate).overlaps(ipaddress.ip_network(network)) for network in taken)

    chosen = spare_network(taken, ENGINE_NETWORKS)
    assert chosen in ENGINE_NETWORKS
    assert not collides(chosen) or all(map(collides, ENGINE_NETWORKS))


@pytest.mark.parametrize("text", ["192.0.2.7", "198.51.100.0/24", "2001:db8::/32", "172.32.0.1", "100.128.0.1"])
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize(
    "text", ["10.20.0.0/20", "172.31.9.9", "192.168.1.0/24", "100.64.0.1", "fd00:5::/64", "fe80::1"]
)
def test_addresses_of_a_site_are_not(text: str) -> None:
    assert not is_public(text)


def test_the_family_of_an_address_or_a_range_is_that_of_its_protocol() -> None:
    assert (family("192.0.2.0/24"), family("2001:db8::1")) == ("IPv4", "IPv6")
