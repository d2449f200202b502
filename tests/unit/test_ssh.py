from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from cloudscale import ssh
from cloudscale.errors import ConnectionFailed, RequestError
from cloudscale.ssh import Target, connect, parse_target

KEY = paramiko.ECDSAKey.generate()
OTHER_KEY = paramiko.ECDSAKey.generate()


def parse(text: str) -> Target:
    return parse_target(text, port=22, user="root", password=None, key_file=None)


# --- targets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("192.0.2.1", "root", "192.0.2.1", 22),
        ("debian@host.example", "debian", "host.example", 22),
        ("host.example:2222", "root", "host.example", 2222),
        ("debian@host.example:2222", "debian", "host.example", 2222),
        ("2001:db8::1", "root", "2001:db8::1", 22),
        ("[2001:db8::1]", "root", "2001:db8::1", 22),
        ("debian@[2001:db8::1]:2222", "debian", "2001:db8::1", 2222),
        ("user@domain@host", "user@domain", "host", 22),
    ],
)
def test_a_target_is_user_host_and_port(text: str, user: str, host: str, port: int) -> None:
    assert parse(text) == Target(host, port, user)


def test_what_a_target_leaves_out_is_the_flags() -> None:
    target = parse_target("host", port=2200, user="ann", password="secret", key_file=Path("key"))
    assert target == Target("host", 2200, "ann", "secret", Path("key"))


@pytest.mark.parametrize(
    "text", ["", "@host", "user@", ":22", "host:http", "host:-1", "host:0", "host:65536", "host:²", "[::1]x", "[]:22"]
)
def test_what_is_no_host_is_a_wrong_request(text: str) -> None:
    with pytest.raises(RequestError, match="is no host"):
        parse(text)


def test_a_target_is_named_with_its_port_where_that_is_not_the_usual_one() -> None:
    assert (Target("host").name, Target("host").entry) == ("host", "host")
    assert (Target("host", 2222).name, Target("host", 2222).entry) == ("host:2222", "[host]:2222")


def test_a_password_is_in_no_representation() -> None:
    assert "secret" not in repr(Target("host", password="secret"))


# --- logging in ------------------------------------------------------------------------------


class Client(paramiko.SSHClient):
    """A client whose host does as it is told."""

    outcome: Exception | None = None
    closed = 0
    given: dict[str, Any]

    def connect(self, hostname: str, **settings: Any) -> None:  # type: ignore[override]
        type(self).given = {"hostname": hostname, **settings}
        if self.outcome:
            raise self.outcome

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Client]:
    monkeypatch.setenv("HOME", str(tmp_path))  # no known hosts of the user who runs this

    class Own(Client):
        given: dict[str, Any] = {}  # noqa: RUF012 - one client a test

    monkeypatch.setattr(paramiko, "SSHClient", Own)
    return Own


def log_in(target: Target, tmp_path: Path, new_key: Callable[[str], None] = lambda text: None) -> None:
    with connect(target, timeout=5, known_hosts=tmp_path / "known_hosts", new_key=new_key):
        pass


def test_a_password_is_the_only_thing_that_is_tried_where_it_is_given(client: type[Client], tmp_path: Path) -> None:
    log_in(Target("host", 2222, "ann", "secret"), tmp_path)
    assert (client.given["hostname"], client.given["port"], client.given["username"]) == ("host", 2222, "ann")
    assert client.given["password"] == "secret"
    assert not client.given["allow_agent"]
    assert not client.given["look_for_keys"]
    assert client.given["passphrase"] is None


def test_of_a_key_file_the_password_is_the_passphrase(client: type[Client], tmp_path: Path) -> None:
    log_in(Target("host", password="secret", key_file=Path("~/key")), tmp_path)
    assert client.given["key_filename"] == str(tmp_path / "key")
    assert client.given["passphrase"] == "secret"
    assert not client.given["allow_agent"]


def test_without_either_the_users_own_keys_are_tried(client: type[Client], tmp_path: Path) -> None:
    log_in(Target("host"), tmp_path)
    assert client.given["allow_agent"]
    assert client.given["look_for_keys"]
    assert client.given["key_filename"] is None


def test_every_step_has_the_deadline(client: type[Client], tmp_path: Path) -> None:
    log_in(Target("host"), tmp_path)
    assert {client.given[step] for step in client.given if step.endswith("timeout")} == {5}
    assert client.given["timeout"] == 5


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (paramiko.AuthenticationException("Authentication failed."), "does not let root in"),
        (paramiko.PasswordRequiredException(), "has a passphrase"),
        (paramiko.BadHostKeyException("host", KEY, OTHER_KEY), "host key is not the one that is known"),
        (TimeoutError(), "no answer in 5 s"),
        (paramiko.ssh_exception.NoValidConnectionsError({("host", 22): OSError()}), "nothing listens on port 22"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (paramiko.SSHException("Error reading SSH protocol banner"), "protocol banner"),
        (EOFError(), "EOFError"),
        (FileNotFoundError(2, "No such file or directory", "/key"), "/key"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_host_that_does_not_let_us_in_is_named_with_the_cause(
    client: type[Client], tmp_path: Path, cause: Exception, message: str
) -> None:
    client.outcome = cause
    with pytest.raises(ConnectionFailed, match=message) as raised:
        log_in(Target("host", password="secret"), tmp_path)
    assert raised.value.message.startswith("host: ")
    assert "secret" not in str(raised.value)
    assert client.closed


def test_a_client_is_closed_whatever_happens_in_between(client: type[Client], tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError),
        connect(Target("host"), timeout=5, known_hosts=tmp_path / "x", new_key=lambda text: None),
    ):
        raise KeyError
    assert client.closed


# --- host keys -------------------------------------------------------------------------------


def meet(client: type[Client], monkeypatch: pytest.MonkeyPatch, key: paramiko.PKey) -> None:
    """Has the host show this key, which paramiko looks up before it asks the policy."""

    def show(self: Client, hostname: str, **settings: Any) -> None:
        name = hostname if settings["port"] == 22 else f"[{hostname}]:{settings['port']}"
        known = self._system_host_keys.lookup(name)  # type: ignore[attr-defined]
        if known is None:
            self._policy.missing_host_key(self, name, key)  # type: ignore[attr-defined]
        elif known.get(key.get_name()) != key:
            raise paramiko.BadHostKeyException(hostname, key, known[key.get_name()])

    monkeypatch.setattr(client, "connect", show)


@pytest.mark.parametrize("target", [Target("host"), Target("host", 2222)], ids=lambda target: target.name)
def test_a_new_host_key_is_told_once_and_remembered(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: Target
) -> None:
    meet(client, monkeypatch, KEY)
    told: list[str] = []
    for _ in range(2):
        log_in(target, tmp_path, told.append)
    assert len(told) == 1
    assert "SHA256:" in told[0]
    entry, kind, encoded = (tmp_path / "known_hosts").read_text().split()
    assert (entry, kind) == (target.entry, KEY.get_name())
    assert base64.b64decode(encoded) == KEY.asbytes()


def test_a_host_key_that_changed_is_refused(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    log_in(Target("host"), tmp_path)
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(ConnectionFailed, match="ssh-keygen -R"):
        log_in(Target("host"), tmp_path)


@pytest.mark.usefixtures("client")
def test_a_line_of_the_users_known_hosts_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text("host ssh-rsa not-base64\n")
    with pytest.raises(ConnectionFailed, match=r"\.ssh/known_hosts can't be read"):
        log_in(Target("host"), tmp_path)


# --- commands --------------------------------------------------------------------------------


class Channel:
    """A channel that has all of its output at once and ends with `exit_code` after some looks, or never (None)."""

    closed = False
    eof_received = True

    def __init__(self, exit_code: int | None, out: bytes = b"", err: bytes = b"", looks: int = 0) -> None:
        self._exit_code = exit_code
        self._looks = looks
        self._out, self._err = [out], [err]
        self.command = ""
        self.writable = True

    def exec_command(self, command: str) -> None:
        self.command = command

    def shutdown_write(self) -> None:
        self.writable = False

    def exit_status_ready(self) -> bool:
        self._looks -= 1
        return self._exit_code is not None and self._looks < 0

    def recv_exit_status(self) -> int:
        assert self._exit_code is not None
        return self._exit_code

    def recv_ready(self) -> bool:
        return bool(self._out)

    def recv(self, size: int) -> bytes:
        return self._out.pop()

    def recv_stderr_ready(self) -> bool:
        return bool(self._err)

    def recv_stderr(self, size: int) -> bytes:
        return self._err.pop()

    def close(self) -> None:
        self.closed = True


def run(channel: Channel, monkeypatch: pytest.MonkeyPatch, folder: str | None = None, timeout: float = 5) -> Any:
    client = paramiko.SSHClient()

    class Transport:
        def open_session(self, timeout: float) -> Channel:
            return channel

        def close(self) -> None:
            channel.close()

    monkeypatch.setattr(client, "get_transport", Transport)
    return ssh.run(client, "ls | wc -l", folder=folder, timeout=timeout)


def test_a_command_gives_exit_code_and_both_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(3, b"out\n", "fällt\n".encode())
    result = run(channel, monkeypatch)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "fällt\n")
    assert channel.command == "ls | wc -l"
    assert channel.closed


def test_a_command_is_waited_for_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(Channel(0, b"out\n", looks=3), monkeypatch).exit_code == 0


def test_a_command_has_nothing_to_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(0)
    run(channel, monkeypatch)
    assert not channel.writable


def test_a_command_that_leaves_a_child_with_its_streams_has_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(0, b"out\n")
    channel.eof_received = False
    result = run(channel, monkeypatch, timeout=0.05)
    assert (result.exit_code, result.stdout) == (0, "out\n")


def test_a_folder_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(0)
    run(channel, monkeypatch, folder="Ann's work; rm -rf /")
    assert channel.command == """cd 'Ann'"'"'s work; rm -rf /' && ls | wc -l"""


def test_a_command_past_its_deadline_is_given_up_with_exit_code_124(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(None, b"begun\n")
    result = run(channel, monkeypatch, timeout=0.05)
    assert (result.exit_code, result.stdout) == (124, "begun\n")
    assert "--timeout" in result.stderr
    assert channel.closed


def test_a_connection_that_ends_before_the_command_is_a_target_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(Channel(-1), monkeypatch).exit_code == 255


def test_a_closed_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    client = paramiko.SSHClient()
    monkeypatch.setattr(client, "get_transport", lambda: None)
    with pytest.raises(ConnectionFailed):
        ssh.run(client, "ls", folder=None, timeout=5)


def test_the_file_of_host_keys_is_made_with_a_folder_for_its_owner_only(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    known_hosts = tmp_path / "bio" / "known_hosts"
    with connect(Target("host"), timeout=5, known_hosts=known_hosts, new_key=lambda text: None):
        pass
    assert os.stat(known_hosts.parent).st_mode & 0o777 == 0o700
