"""remote_com against a real OpenSSH server."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import STATE
from tests.lab.namespace import Namespace, run
from tests.lab.sshd import PASSWORD, SHELLS, USER, LabSshd
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
    unknown = remote(*flags(sshd, "--user", USER, "--pwd", PASSWORD, "--com", "id -un"))
    assert unknown.code == 1 and "so the password is not sent" in unknown.err
    done = remote(*flags(sshd, "--user", USER, "--pwd", PASSWORD, "--com", "id -un", "--yes"))
    assert done.code == 0 and done.out.splitlines()[1] == USER
    refused = remote(*flags(sshd, "--user", USER, "--pwd", "wrong", "--com", "id -un"))
    assert refused.code == 1 and f"the login as {USER} was refused" in refused.err
    assert PASSWORD not in done.err


def test_a_key_with_a_passphrase(sshd: LabSshd, remote: Tool) -> None:
    closed = remote(*flags(sshd, "--kfile", str(sshd.locked_key)))
    assert closed.code == 2 and "passphrase" in closed.err
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


def test_doctor_names_hosts_that_refuse_and_hang_and_remembers_none(
    sshd: LabSshd, remote: Tool, tmp_path: Path
) -> None:
    (tmp_path / "students.csv").write_text("1;Marty;McFly\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = ["127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}", f"nobody@127.0.0.1:{sshd.port}"]
        generic = {
            "INVOKE_CLOUDSCALE_DRIVER": "generic",
            "INVOKE_CLOUDSCALE_GENERIC_HOSTS": ",".join(hosts),
            "INVOKE_CLOUDSCALE_GENERIC_KFILE": str(sshd.key),
        }
        start = time.monotonic()
        done = remote("doctor", "--students", str(tmp_path / "students.csv"), "--format", "json", **generic)
        assert time.monotonic() - start < 10
    found = {row["check"]: row["finding"] for row in done.rows if row["state"] == "wrong"}
    assert done.code == 1 and not list(remote.home.glob("*"))
    assert "nothing listens on port 1" in found[f"machine {hosts[0]}"]
    assert "no answer in 5 s" in found[f"machine {hosts[1]}"]
    assert "the login as nobody was refused" in found[f"machine 127.0.0.1:{sshd.port}"]


def test_no_hosts_is_a_wrong_request(remote: Tool) -> None:
    assert remote("remote_com", "--com", "ls").code == 2
    assert remote("remote_com", "--hosts", "a@", "--com", "ls").code == 2


@pytest.mark.parametrize("user", SHELLS)
def test_the_login_shell_may_be_any(sshd: LabSshd, remote: Tool, user: str) -> None:
    command = "echo it\\'s \"a\nb\" '!!' $((1 + 1))\ncat <<'END'\n`x` $HOME\nEND\nexit 3"
    words = ("--user", user, "--kfile", str(sshd.key), "--path", "~", "--format", "json", "--com", command)
    (row,) = remote(*flags(sshd, *words)).rows
    assert (row["exit_code"], row["stdout"]) == (3, "it's a\nb !! 2\n`x` $HOME\n"), row


def test_names_jump_hosts_and_keys_are_those_of_the_configuration_of_ssh(
    sshd: LabSshd, remote: Tool, tmp_path: Path
) -> None:
    inner = LabSshd(STATE / "sshd-inner", 2223, "0.0.0.0")
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "config").write_text(
        f"Host lab1\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User root\n  IdentityFile {sshd.key}\n"
        f"Host node1\n  HostName 127.0.0.2\n  Port {inner.port}\n  ProxyJump lab1\n  IdentityFile {inner.key}\n"
        f"Host node2\n  HostName 127.0.0.2\n  Port {inner.port}\n  IdentityFile {inner.key}\n"
        f"  ProxyCommand ssh -F {folder}/config -o UserKnownHostsFile={folder}/known_hosts"
        " -o StrictHostKeyChecking=accept-new -W %h:%p lab1\n"
    )
    (folder / "config").chmod(0o600)
    try:
        done = remote("remote_com", "--hosts", "lab1,node1,node2", "--com", "echo $SSH_CONNECTION", "--format", "json")
    finally:
        inner.stop()
    assert done.code == 0, done.err
    assert [row["stdout"].split()[2:] for row in done.rows] == [
        ["127.0.0.1", str(sshd.port)],
        ["127.0.0.2", str(inner.port)],
        ["127.0.0.2", str(inner.port)],
    ]
    assert "jump host lab1: new host key" in done.err or "lab1: new host key" in done.err
    assert re.search("node[12]: new host key", done.err)  # they are one server: whichever is first learns its key


def test_an_agent_with_too_many_keys_is_the_cause(namespace: Namespace, remote: Tool, tmp_path: Path) -> None:
    server = LabSshd(STATE / "sshd", settings="MaxAuthTries 3\n")
    socket, pid = tmp_path / "agent", ""
    try:
        pid = run("ssh-agent", "-s", "-a", str(socket)).split("SSH_AGENT_PID=")[1].partition(";")[0]
        for at in range(7):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / f"key{at}"))
            run("env", f"SSH_AUTH_SOCK={socket}", "ssh-add", "-q", str(tmp_path / f"key{at}"))
        refused = remote(*flags(server), SSH_AUTH_SOCK=str(socket))
        assert refused.code == 1 and "3 of them with keys of the SSH agent" in refused.err
        assert remote(*flags(server, "--kfile", str(server.key)), SSH_AUTH_SOCK=str(socket)).code == 0
    finally:
        if pid:
            run("kill", pid)
        server.stop()
