"""How often passwords can be guessed."""

from __future__ import annotations

import pytest

from tests.unit.gateway.login_service import Time, script

limits = script("limits")


@pytest.fixture
def time() -> Time:
    return Time()


def test_a_class_behind_one_address_waits_for_nothing(time: Time) -> None:
    class_ = limits.Limits(time)
    for _ in range(500):
        assert class_.take("192.0.2.1") == 0
        class_.give_back("192.0.2.1")


def test_who_guesses_waits_longer_and_longer_and_is_refused_in_the_end(time: Time) -> None:
    size, rate = limits.EACH
    guesser = limits.Limits(time)
    waits = [guesser.take("192.0.2.1") for _ in range(int(size) + limits.WAITING + 1)]
    assert waits[: int(size)] == [0] * int(size)
    assert waits[int(size)] == pytest.approx(1 / rate)
    assert waits[-1] is None
    time.now += 1
    assert guesser.take("192.0.2.1") is not None


def test_many_addresses_share_a_limit_in_all(time: Time) -> None:
    size, _ = limits.ALL
    many = limits.Limits(time)
    waits = [many.take(f"10.{n >> 8}.{n & 255}.1") for n in range(int(size) + 100)]
    assert waits[int(size) - 1] == 0 and waits[-1] > 0


def test_what_is_remembered_is_bounded(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST", 10)
    many = limits.Limits(time)
    for n in range(50):
        many.take(f"10.0.0.{n}")
    assert len(many._of) == 10


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("nonsense" * 20, ("nonsense" * 20)[:64]),
    ],
)
def test_one_guesser_is_an_address_or_a_network(address: str, network: str) -> None:
    assert limits.network_of(address) == network
