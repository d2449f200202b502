from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.errors import RequestError
from cloudscale.hosts.target import Address, Target, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", Address("192.0.2.1")),
        ("debian@host.example", Address("host.example", "debian")),
        ("host.example:2222", Address("host.example", None, 2222)),
        ("debian@host.example:2222", Address("host.example", "debian", 2222)),
        ("2001:db8::1", Address("2001:db8::1")),
        ("[2001:db8::1]", Address("2001:db8::1")),
        ("debian@[2001:db8::1]:2222", Address("2001:db8::1", "debian", 2222)),
        ("user@domain@host", Address("host", "user@domain")),
    ],
)
def test_an_address_is_user_host_and_port(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "@host", "user@", ":22", "host:http", "host:-1", "host:0", "host:65536", "host:²", "[::1]x", "[]:22"]
)
def test_what_is_no_host_is_a_wrong_request(text: str) -> None:
    with pytest.raises(RequestError, match="is not a host"):
        parse_address(text)


def test_a_target_is_named_with_its_port_where_that_is_not_the_usual_one() -> None:
    assert (Target("host").name, Target("host").entry) == ("host", "host")
    assert (Target("host", 2222).name, Target("host", 2222).entry) == ("host:2222", "[host]:2222")


def test_a_target_with_a_label_is_called_by_it() -> None:
    target = Target("192.0.2.7", 2222, label="bio-1")
    assert (target.name, target.address, target.entry) == ("bio-1", "[192.0.2.7]:2222", "[192.0.2.7]:2222")


def test_a_target_with_an_alias_is_known_by_it_and_reached_at_its_address() -> None:
    target = Target("2001:db8::7", alias="4f1c")
    assert (target.name, target.address, target.entry) == ("2001:db8::7", "2001:db8::7", "4f1c")
    assert Target("2001:db8::7", 2222, alias="4f1c").address == "[2001:db8::7]:2222"


def test_a_password_is_in_no_representation() -> None:
    assert "secret" not in repr(Target("host", password="secret"))


def test_the_passphrase_of_a_key_is_no_password() -> None:
    assert Target("host", password="secret").sends_password
    assert not Target("host", password="secret", key_file=Path("key")).sends_password
    assert not Target("host").sends_password
