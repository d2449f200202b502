"""remote_com against a real OpenSSH server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import STATE
from tests.lab.namespace import Namespace
from tests.lab.sshd import PASSWORD, USER, LabSshd
from tests.lab.tool import Tool


@pytest.fixture
def sshd(namespace: Namespace) -> Iterator[LabSshd]:
    server = LabSshd(STATE / "sshd")
    yield server
    server.stop()


@pytest.fixture
def remote(tmp_path: Path) -> Tool:
    return Tool(None, tmp_path / "home", {"HOME": str(tmp_path), "SSH_AUTH_SOCK": ""})


def flags(sshd: LabSshd, *more: str) -> list[str]:
    return ["remote_com", "--hosts", "127.0.0.1", "--port", str(sshd.port), *more]


def test_a_key_lets_in_and_a_new_host_key_is_shown_and_remembered(sshd: LabSshd, remote: Tool) -> None:
    first = remote(*flags(sshd, "--kfile", str(sshd.key), "--com", 'echo "it\'s $USER"; exit 4', "--format", "json"))
    assert first.code == 1
    assert first.rows == [{"target": "127.0.0.1:2222", "exit_code": 4, "stdout": "it's root\n", "stderr": ""}]
    assert "new host key ssh-ed25519 SHA256:" in first.err
    again = remote(*flags(sshd, "--kfile", str(sshd.key), "--com", "pwd", "--path", "/var/log"))
    assert again.code == 0 and again.out.splitlines()[1] == "/var/log"
    assert "new host key" not in again.err


def test_a_changed_host_key_is_refused(sshd: LabSshd, remote: Tool) -> None:
    assert remote(*flags(sshd, "--kfile", str(sshd.key))).code == 0
    sshd.new_host_key()
    sshd.restart()
    refused = remote(*flags(sshd, "--kfile", str(sshd.key)))
    assert refused.code == 1 and "host key has changed" in refused.err
    assert "ssh-keygen -R" in refused.err


def test_a_password_lets_in_and_a_wrong_one_does_not(sshd: LabSshd, remote: Tool) -> None:
    done = remote(*flags(sshd, "--user", USER, "--pwd", PASSWORD, "--com", "id -un"))
    assert done.code == 0 and done.out.splitlines()[1] == USER
    refused = remote(*flags(sshd, "--user", USER, "--pwd", "wrong", "--com", "id -un"))
    assert refused.code == 1 and f"the login as {USER} was refused" in refused.err
    assert PASSWORD not in done.err


def test_a_key_with_a_passphrase(sshd: LabSshd, remote: Tool) -> None:
    closed = remote(*flags(sshd, "--kfile", str(sshd.locked_key)))
    assert closed.code == 1 and "passphrase" in closed.err
    assert remote(*flags(sshd, "--kfile", str(sshd.locked_key), "--pwd", PASSWORD)).code == 0


def test_hosts_that_fail_or_hang_do_not_stop_the_others(sshd: LabSshd, remote: Tool) -> None:
    hosts = f"127.0.0.1:1,root@127.0.0.2:{sshd.port},127.0.0.1:{sshd.port}"
    done = remote(
        *("remote_com", "--hosts", hosts, "--kfile", str(sshd.key), "--format", "json"),
        *("--com", "echo here; sleep 100", "--timeout", "2"),
    )
    assert done.code == 1
    assert [(row["target"], row["exit_code"]) for row in done.rows] == [
        ("127.0.0.1:1", 255),
        (f"127.0.0.2:{sshd.port}", 255),
        (f"127.0.0.1:{sshd.port}", 124),
    ]
    assert done.rows[2]["stdout"] == "here\n"
    assert "nothing listens on port 1" in done.err


def test_no_hosts_is_a_wrong_request(remote: Tool) -> None:
    assert remote("remote_com", "--com", "ls").code == 2
    assert remote("remote_com", "--hosts", "a@", "--com", "ls").code == 2
