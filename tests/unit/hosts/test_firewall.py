from __future__ import annotations

from cloudscale.hosts.firewall import firewall


def test_the_places_that_seats_may_reach_are_in_the_script() -> None:
    assert "REACH='' " in firewall()
    assert "REACH='192.0.2.7/32:5432 192.0.2.64/26:0' " in firewall(["192.0.2.7/32:5432", "192.0.2.64/26:0"])
