from __future__ import annotations

from dataclasses import replace

import pytest

from cloudscale.course import naming
from cloudscale.model import Place, Seat, Student
from cloudscale.seats import jupyter
from cloudscale.seats.address import Addresses, Entrance
from cloudscale.seats.jupyter import Activity

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


def test_what_a_student_types_is_short_behind_a_gateway() -> None:
    plain = Addresses({"m1": "192.0.2.1"}, KEY)
    assert plain.to_type(ANN) == plain.url(ANN)
    for entrance, typed in (
        (Entrance("192.0.2.1"), "https://192.0.2.1/"),
        (Entrance("class.example.org", 8443, by_name=True), "https://class.example.org:8443/"),
    ):
        assert Addresses({"m1": "192.0.2.1"}, KEY, entrance, names=KEY).to_type(ANN) == typed


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The questions to servers."""
    found: list[dict[str, str]] = []

    def activity(url: str, **words: str) -> Activity:
        found.append({"url": url, **words})
        return Activity(1)

    monkeypatch.setattr(jupyter, "activity", activity)
    return found


def test_a_seat_is_asked_for_its_use_where_the_student_finds_it(asked: list[dict[str, str]]) -> None:
    addresses = Addresses({"m1": "192.0.2.1"}, KEY)
    assert addresses.activity(ANN, "status") == Activity(1)
    assert asked == [{"url": addresses.url(ANN), "status": "status"}]


def test_behind_a_gateway_a_seat_is_asked_through_it(asked: list[dict[str, str]]) -> None:
    addresses = Addresses({"m1": "192.0.2.1"}, KEY, Entrance("class.test"), "192.0.2.1", KEY)
    addresses.activity(ANN, "status")
    replace(addresses, gateway="").activity(ANN, "status")  # whose machine the course does not have any more
    through = {"at": "192.0.2.1", "probe": naming.gateway_probe(KEY), "status": "status"}
    assert asked == [{"url": addresses.url(ANN), **through}, {"url": "", **through, "at": ""}]


def test_the_key_is_in_no_log() -> None:
    assert str(KEY) not in repr(Addresses({}, KEY))
