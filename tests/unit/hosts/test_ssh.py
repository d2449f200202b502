from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH
from pathlib import Path
from typing import Any

import paramiko
import pytest

from cloudscale.errors import ConnectionFailed, HostKeyChanged, LoginRefused, RequestError
from cloudscale.hosts import ssh
from cloudscale.hosts.known_hosts import KnownHosts, fingerprint
from cloudscale.hosts.ssh import Connection, Logins, Target, connect, parse_target
from tests.unit.fakes import FakeClock
from tests.unit.hosts.fake_ssh import KEY, OTHER_KEY, Client, Transport, known_hosts, log_in, meet, own_client


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
    with pytest.raises(RequestError, match="is not a host"):
        parse(text)


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


# --- logging in ------------------------------------------------------------------------------


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Client]:
    return own_client(monkeypatch, tmp_path)


def test_a_password_is_the_only_thing_that_is_tried_where_it_is_given(client: type[Client], tmp_path: Path) -> None:
    log_in(Target("host", 2222, "ann", "secret"), tmp_path)
    assert (client.given["hostname"], client.given["port"], client.given["username"]) == ("host", 2222, "ann")
    assert client.given["password"] == "secret"
    assert not client.given["allow_agent"]
    assert not client.given["look_for_keys"]
    assert client.given["passphrase"] is None


def test_the_password_is_the_passphrase_of_a_key_file(client: type[Client], tmp_path: Path) -> None:
    target = parse_target("host", port=22, user="root", password="secret", key_file=Path("~/key"))
    log_in(target, tmp_path)
    assert client.given["key_filename"] == str(tmp_path / "key")
    assert client.given["passphrase"] == "secret"
    assert client.given["password"] is None  # it is not sent to the host
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


def no_way(errors: dict[str, int]) -> Exception:
    """The error of paramiko when no address of a host accepts the connection."""
    causes: Any = {
        (host, 22): OSError(number, os.strerror(number)) if number else OSError() for host, number in errors.items()
    }
    return paramiko.ssh_exception.NoValidConnectionsError(causes)


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (paramiko.AuthenticationException("Authentication failed."), "the login as root was refused"),
        (paramiko.PasswordRequiredException(), "has a passphrase"),
        (paramiko.BadHostKeyException("host", KEY, OTHER_KEY), "host key has changed"),
        (TimeoutError(), "no answer in 5 s"),
        (no_way({"::1": ENETUNREACH, "192.0.2.1": ECONNREFUSED}), "nothing listens on port 22"),
        (no_way({"192.0.2.1": EHOSTUNREACH}), "no route to host"),
        (no_way({"192.0.2.1": 0}), "no answer"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (paramiko.SSHException("Error reading SSH protocol banner"), "protocol banner"),
        (EOFError(), "EOFError"),
        (FileNotFoundError(2, "No such file or directory", "/key"), "the key file /key does not exist"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_login_that_fails_is_reported_with_the_host_and_the_cause(
    client: type[Client], tmp_path: Path, cause: Exception, message: str
) -> None:
    client.outcome = cause
    with pytest.raises(ConnectionFailed, match=message) as raised:
        log_in(Target("host", password="secret"), tmp_path)
    assert raised.value.message.startswith("host: ")
    assert "secret" not in str(raised.value)
    assert client.closed


REFUSALS = {
    paramiko.AuthenticationException("Authentication failed."): LoginRefused,
    paramiko.BadHostKeyException("host", KEY, OTHER_KEY): HostKeyChanged,
    paramiko.PasswordRequiredException(): ConnectionFailed,  # our own key is locked
    paramiko.SSHException("Error reading SSH protocol banner"): ConnectionFailed,
    TimeoutError(): ConnectionFailed,
    EOFError(): ConnectionFailed,
}


@pytest.mark.parametrize("cause", REFUSALS, ids=lambda cause: type(cause).__name__)
def test_a_refused_login_and_a_changed_host_have_errors_of_their_own(
    client: type[Client], tmp_path: Path, cause: Exception
) -> None:
    """Waiting may help with the others."""
    client.outcome = cause
    with pytest.raises(ConnectionFailed) as raised:
        log_in(Target("192.0.2.7", label="bio-1"), tmp_path)
    assert type(raised.value) is REFUSALS[cause]
    assert raised.value.message.startswith("bio-1: ")


def test_a_host_key_that_changed_is_reported_with_both_keys_and_how_to_remove_the_old_one(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    log_in(Target("host", 2222), tmp_path)
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(HostKeyChanged) as raised:
        log_in(Target("host", 2222), tmp_path)
    assert f"{fingerprint(OTHER_KEY)} now, {fingerprint(KEY)} before" in raised.value.message
    assert f"ssh-keygen -R '[host]:2222' -f {tmp_path / 'known_hosts'}" in raised.value.remedy


@pytest.mark.parametrize("seconds", [4.9, 5, 60])
def test_any_error_after_the_deadline_means_that_the_host_did_not_answer(
    client: type[Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    client.outcome = paramiko.SSHException("Error reading SSH protocol banner")
    clock = FakeClock()
    monkeypatch.setattr("cloudscale.hosts.ssh.time.monotonic", clock.now)
    log = client.connect

    def slow(self: Client, hostname: str, **settings: Any) -> None:
        clock.sleep(seconds)
        log(self, hostname, **settings)

    monkeypatch.setattr(client, "connect", slow)
    with pytest.raises(ConnectionFailed, match="protocol banner" if seconds < 5 else "host: no answer in 5 s"):
        log_in(Target("host"), tmp_path)


def test_a_client_is_closed_whatever_happens_in_between(client: type[Client], tmp_path: Path) -> None:
    with pytest.raises(KeyError), connect(Target("host"), timeout=5, known=known_hosts(tmp_path)):
        raise KeyError
    assert client.closed


def test_a_connection_sends_keepalive_messages(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    transport = Transport(None)
    monkeypatch.setattr(client, "get_transport", lambda self: transport)
    with connect(Target("host"), timeout=5, known=known_hosts(tmp_path)) as connection:
        assert 0 < transport.keep_alive <= 60
        assert connection.is_alive


# --- logins ----------------------------------------------------------------------------------


class Doors:
    """A replacement for connect: it records the targets, and fails with `failure`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.targets: list[Target] = []
        self.failure: Exception | None = None
        self.transports: list[Transport] = []
        self.together = threading.Barrier(1)
        monkeypatch.setattr(ssh, "connect", self)

    def __call__(self, target: Target, *, timeout: float, known: KnownHosts) -> Connection:
        assert timeout == 5
        self.targets.append(target)
        self.together.wait(10)
        if self.failure:
            raise self.failure
        client: Any = None
        transport: Any = Transport(None)
        self.transports.append(transport)
        return Connection(target, client, transport)


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> Doors:
    return Doors(monkeypatch)


@pytest.fixture
def logins(doors: Doors, tmp_path: Path) -> Logins:
    return Logins(known_hosts(tmp_path))


def test_a_host_is_logged_in_to_once(doors: Doors, logins: Logins) -> None:
    first = logins(Target("a"), 5)
    assert logins(Target("a"), 5) is first
    assert logins(Target("b"), 5) is not first
    assert doors.targets == [Target("a"), Target("b")]


def test_a_login_that_was_lost_is_made_again(doors: Doors, logins: Logins) -> None:
    first = logins(Target("a"), 5)
    doors.transports[0].close()
    assert logins(Target("a"), 5) is not first
    assert len(doors.targets) == 2


def test_a_host_that_did_not_answer_is_not_asked_twice(doors: Doors, logins: Logins) -> None:
    doors.failure = ConnectionFailed("a: no answer in 5 s.")
    for _ in range(3):
        with pytest.raises(ConnectionFailed, match="no answer"):
            logins(Target("a"), 5)
    assert len(doors.targets) == 1
    doors.failure = None
    assert logins(Target("b"), 5)


def test_a_login_that_was_made_elsewhere_is_used(doors: Doors, logins: Logins) -> None:
    made = doors(Target("a"), timeout=5, known=known_hosts(Path("nowhere")))
    logins.keep(made)
    assert logins(Target("a"), 5) is made
    assert len(doors.targets) == 1
    doors.transports[0].close()
    assert logins(Target("a"), 5) is not made


def test_a_login_that_was_made_elsewhere_replaces_one_that_failed(doors: Doors, logins: Logins) -> None:
    doors.failure = ConnectionFailed("a: no answer in 5 s.")
    with pytest.raises(ConnectionFailed):
        logins(Target("a"), 5)
    doors.failure = None
    made = doors(Target("a"), timeout=5, known=known_hosts(Path("nowhere")))
    logins.keep(made)
    assert logins(Target("a"), 5) is made


def test_a_new_host_at_an_address_that_another_had_gets_its_own_login(doors: Doors, logins: Logins) -> None:
    first = logins(Target("a", label="bio-1", alias="4f1c"), 5)
    assert logins(Target("a", label="bio-1", alias="77ab"), 5) is not first


def together(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_several_threads_for_one_host_share_a_login(doors: Doors, logins: Logins) -> None:
    connections: list[Connection] = []

    def log_in() -> None:
        connections.append(logins(Target("a"), 5))

    together(*[log_in] * 8)
    assert len({*map(id, connections)}) == len(doors.targets) == 1


def test_several_hosts_are_logged_in_to_side_by_side(doors: Doors, logins: Logins) -> None:
    doors.together = threading.Barrier(4)  # no login ends before all have begun
    together(*(lambda at=at: logins(Target(f"m{at}"), 5) for at in range(4)))
    assert len(doors.targets) == 4
