from __future__ import annotations

import pytest

from cloudscale.course import naming
from cloudscale.model import Place, Seat, Student
from cloudscale.seats.address import Addresses

KEY = bytes(range(32))
ANN = Seat(Student("1", "Ann"), Place("m1", 4321))


@pytest.mark.parametrize(("host", "origin"), [("192.0.2.1", "192.0.2.1:4321"), ("2001:db8::1", "[2001:db8::1]:4321")])
def test_an_address_is_whole(host: str, origin: str) -> None:
    addresses = Addresses({"m1": host}, KEY)
    assert addresses.url(ANN) == f"http://{origin}{naming.seat_path(KEY, '1')}"
    assert addresses.host(ANN) == host


def test_a_machine_without_an_address_has_no_seats_to_open() -> None:
    for hosts in ({}, {"m1": ""}):
        assert (Addresses(hosts, KEY).url(ANN), Addresses(hosts, KEY).host(ANN)) == ("", "")


def test_the_key_is_in_no_log() -> None:
    assert str(KEY) not in repr(Addresses({}, KEY))
