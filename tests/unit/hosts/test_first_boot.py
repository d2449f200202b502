"""The user data for the first boot of a machine."""

from __future__ import annotations

import json
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

from cloudscale.hosts.firewall import firewall
from cloudscale.hosts.first_boot import user_data
from cloudscale.hosts.login_key import ssh_key

PROJECT = Path(__file__).parents[3]
BOOT = (PROJECT / "cloudscale/hosts/scripts/boot.sh").read_text()
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNvdXJzZQ== cloudscale"
MOST = 16384  # bytes that every kind of cloud takes


def parts(text: str) -> list[tuple[str, str]]:
    """The kind and the content of each part, as cloud-init reads them."""
    whole = message_from_string(text)
    assert whole.get_content_type() == "multipart/mixed"
    contents = []
    for part in whole.get_payload():
        assert isinstance(part, Message)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        contents.append((part.get_content_type(), content.decode()))
    return contents


def test_it_is_a_configuration_and_a_script_that_runs_before_everything_else() -> None:
    (first, configuration), (second, script) = parts(user_data(PUBLIC))
    assert (first, second) == ("text/cloud-config", "text/cloud-boothook")
    assert configuration.startswith("#cloud-config\n")
    assert script.startswith("#cloud-boothook\n#!/bin/sh\n")


def test_the_courses_key_is_authorized_and_no_other() -> None:
    (_, configuration), _ = parts(user_data(PUBLIC))
    assert json.loads(configuration.partition("\n")[2])["ssh_authorized_keys"] == [PUBLIC]


def test_host_keys_are_made_of_the_kinds_that_are_quick() -> None:
    (_, configuration), _ = parts(user_data(PUBLIC))
    assert json.loads(configuration.partition("\n")[2])["ssh_genkeytypes"] == ["ed25519", "ecdsa"]


def test_the_script_arrives_as_it_is_with_the_firewall_in_it() -> None:
    _, (_, script) = parts(user_data(PUBLIC))
    before, _, after = BOOT.partition("@firewall.sh@\n")
    assert script.partition("\n")[2] == before + firewall() + after
    assert before and after


def test_it_is_the_same_each_time() -> None:
    assert user_data(PUBLIC) == user_data(PUBLIC)


def test_it_fits_into_what_a_cloud_takes() -> None:
    text = user_data(PUBLIC)
    assert text.isascii()
    assert len(text.encode()) <= MOST


def test_the_private_key_is_not_in_it(tmp_path: Path) -> None:
    key = ssh_key(tmp_path, create=True)
    assert key
    sent = "".join(content for _, content in parts(user_data(key.public)))
    private = [line for line in key.file.read_text().splitlines() if "KEY" not in line]
    assert key.public in sent
    assert not [line for line in private if line in sent]


@pytest.mark.parametrize("word", ["password", "secret", "token", "PRIVATE", "BEGIN OPENSSH"])
def test_nor_is_anything_else_that_is_secret(word: str) -> None:
    code = [line.partition("# ")[0] for _, content in parts(user_data(PUBLIC)) for line in content.splitlines()]
    assert not [line for line in code if word in line]
