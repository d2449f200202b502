from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH
from pathlib import Path
from typing import Any, cast

import paramiko
import pytest

from cloudscale.errors import ConnectionFailed, HostKeyChanged, LoginRefused, NotReached
from cloudscale.hosts import first_login, ssh
from cloudscale.hosts import known_hosts as module
from cloudscale.hosts.known_hosts import KnownHosts, fingerprint
from cloudscale.hosts.ssh import Connection, Conversation, Logins, connect
from cloudscale.hosts.target import Target
from tests.unit.fakes import FakeClock
from tests.unit.hosts.fake_ssh import KEY, OTHER_KEY, Client, Transport, known_hosts, log_in, meet, own_client
from tests.unit.hosts.ssh_server import SshServer, serving


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Client]:
    return own_client(monkeypatch, tmp_path)


def no_way(*numbers: int) -> Exception:
    """The error when no address of a host accepts the connection."""
    return ExceptionGroup("", [OSError(number, os.strerror(number)) if number else OSError() for number in numbers])


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (paramiko.AuthenticationException("Authentication failed."), "the login as root was refused"),
        (TimeoutError(), "no answer in 5 s"),
        (ExceptionGroup("", [OSError(ENETUNREACH, ""), TimeoutError()]), "no answer in 5 s"),
        (no_way(ENETUNREACH, ECONNREFUSED), "nothing listens on port 22"),
        (no_way(ECONNREFUSED, EHOSTUNREACH), "nothing listens on port 22"),
        (no_way(EHOSTUNREACH), "no route to host"),
        (no_way(0), "no answer"),
        (socket.gaierror(-2, "Name or service not known"), "the name host is not known"),
        (paramiko.SSHException("Error reading SSH protocol banner"), "protocol banner"),
        (EOFError(), "EOFError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_login_that_fails_is_reported_with_the_host_and_the_cause(
    client: type[Client], tmp_path: Path, cause: Exception, message: str
) -> None:
    client.outcome = cause
    with pytest.raises(ConnectionFailed, match=message) as raised:
        log_in(Target("host", password="secret", key_file=tmp_path), tmp_path)
    assert raised.value.message.startswith("host: ")
    assert "secret" not in str(raised.value)
    assert client.closed


REFUSALS = {
    paramiko.AuthenticationException("Authentication failed."): LoginRefused,
    paramiko.SSHException("Error reading SSH protocol banner"): ConnectionFailed,
    TimeoutError(): ConnectionFailed,
    EOFError(): ConnectionFailed,
}


@pytest.mark.parametrize("cause", REFUSALS, ids=lambda cause: type(cause).__name__)
def test_a_refused_login_has_an_error_of_its_own(client: type[Client], tmp_path: Path, cause: Exception) -> None:
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

    def slow() -> None:
        clock.sleep(seconds)
        log()

    monkeypatch.setattr(client, "connect", slow)
    with pytest.raises(ConnectionFailed, match="protocol banner" if seconds < 5 else "host: no answer in 5 s"):
        log_in(Target("host"), tmp_path)


def test_a_client_is_closed_whatever_happens_in_between(client: type[Client], tmp_path: Path) -> None:
    with pytest.raises(KeyError), connect(Target("host"), timeout=5, known=known_hosts(tmp_path)):
        raise KeyError
    assert client.closed


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
        transport: Any = Transport(None)
        self.transports.append(transport)
        return Connection(target, transport)


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


# --- through other hosts ---------------------------------------------------------------------

USER_KEY = paramiko.ECDSAKey.generate()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    USER_KEY.write_private_key_file(str(file))
    return file


@pytest.fixture
def jump(loopback: str) -> Iterator[SshServer]:
    with serving(USER_KEY, host_key=OTHER_KEY) as server:
        yield server


@pytest.fixture
def inner(loopback: str) -> Iterator[SshServer]:
    with serving(USER_KEY) as server:
        yield server


def through(jump: SshServer, inner: SshServer, key_file: Path) -> Target:
    """A host whose name means something to the jump host only."""
    via = Target("127.0.0.1", jump.port, "ann", key_file=key_file, label="jump host lab1")
    return Target("node1", inner.port, "root", key_file=key_file, via=via)


def test_a_host_is_reached_through_another_and_each_shows_its_own_key(
    jump: SshServer, inner: SshServer, key_file: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    logins = Logins(known_hosts(tmp_path, said.append))
    target = through(jump, inner, key_file)
    with logins.fresh(target, 10) as connection:
        assert connection.is_alive
        assert connection.peer == "node1"
    assert jump.forwarded == [("node1", inner.port)]
    assert [text.partition(",")[0] for text in said] == [
        f"jump host lab1: new host key {fingerprint(OTHER_KEY)}",
        f"node1:{inner.port}: new host key {fingerprint(KEY)}",
    ]
    inner.host_key = OTHER_KEY  # as if the jump host led to itself
    with pytest.raises(HostKeyChanged, match=f"node1:{inner.port}: its host key has changed"):
        logins.fresh(target, 10)


def test_a_jump_host_is_logged_in_to_once(jump: SshServer, inner: SshServer, key_file: Path, tmp_path: Path) -> None:
    logins = Logins(known_hosts(tmp_path))
    for _ in range(3):
        logins.fresh(through(jump, inner, key_file), 10).close()
    assert (jump.logins, inner.logins) == (1, 3)


def test_a_chain_of_hosts_is_as_long_as_it_is(
    jump: SshServer, inner: SshServer, key_file: Path, tmp_path: Path
) -> None:
    first = through(jump, inner, key_file)
    with serving(USER_KEY, host_key=OTHER_KEY) as last:
        target = Target("node2", last.port, key_file=key_file, via=first)
        Logins(known_hosts(tmp_path))(target, 10).close()
    assert inner.forwarded == [("node2", last.port)]


def test_a_host_that_the_jump_host_does_not_reach_is_named_with_it(
    jump: SshServer, inner: SshServer, key_file: Path, tmp_path: Path
) -> None:
    inner.close()
    with pytest.raises(ConnectionFailed, match=r"^jump host lab1: no connection from there to node1, port"):
        Logins(known_hosts(tmp_path))(through(jump, inner, key_file), 10)


def test_a_host_that_does_not_answer_the_jump_host_in_time_may_do_so_later(
    jump: SshServer, inner: SshServer, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = through(jump, inner, key_file)
    assert target.via
    over = Logins(known_hosts(tmp_path))(target.via, 10)

    def wait(*_: object, timeout: float, **given: object) -> None:
        raise paramiko.SSHException("Timeout opening channel.")

    monkeypatch.setattr(over._transport, "open_channel", wait)
    with pytest.raises(NotReached, match=f"no connection from there to {target.host}, port {target.port}, in 3 s"):
        over.open(target.host, target.port, 3)
    assert not first_login._answers(target, over)


def test_a_jump_host_that_forwards_nothing_is_reported_with_its_setting(
    jump: SshServer, inner: SshServer, key_file: Path, tmp_path: Path
) -> None:
    jump.forwards = False
    with pytest.raises(
        ConnectionFailed, match="jump host lab1: its SSH server does not let you connect to others"
    ) as raised:
        Logins(known_hosts(tmp_path))(through(jump, inner, key_file), 10)
    assert "AllowTcpForwarding" in raised.value.remedy


def test_a_way_may_end_before_the_connection_through_it(
    jump: SshServer, inner: SshServer, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: object) -> None:
        raise EOFError

    logins = Logins(known_hosts(tmp_path))
    target = through(jump, inner, key_file)
    logins(target, 10)
    assert target.via
    over = logins(target.via, 10)
    with contextlib.ExitStack() as resources:
        way = ssh._way(target, 10, over, resources)
        with monkeypatch.context() as lost:
            lost.setattr(over._transport, "_send_user_message", send)
            way.close()  # paramiko does so in a thread, whose error would be shown


def test_the_whole_way_has_one_deadline(jump: SshServer, inner: SshServer, key_file: Path, tmp_path: Path) -> None:
    inner.silent.set()
    begun = time.monotonic()
    with pytest.raises(ConnectionFailed, match=f"node1:{inner.port}: no answer in"):
        Logins(known_hosts(tmp_path))(through(jump, inner, key_file), 1)
    assert time.monotonic() - begun < 5


# --- passwords -------------------------------------------------------------------------------


def test_a_password_is_not_sent_to_a_host_that_is_not_known(
    loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "on_terminal", lambda: False)
    with serving(password="secret") as server:
        target = Target("127.0.0.1", server.port, "ann", "secret")
        with pytest.raises(ConnectionFailed, match=r"its host key is not known .*, so the password is not sent"):
            connect(target, timeout=10, known=known_hosts(tmp_path))
        assert server.offered == []
        known = KnownHosts(tmp_path / "known_hosts", lambda text: None, yes=True)
        connect(target, timeout=10, known=known).close()
        connect(target, timeout=10, known=known_hosts(tmp_path)).close()  # it is known now
        assert server.offered == ["secret"] * 2


@pytest.mark.parametrize("answer", ["y\n", "n\n", ""])
def test_who_sits_at_a_terminal_is_asked(
    loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str
) -> None:
    monkeypatch.setattr(module, "on_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    said: list[str] = []
    with serving(password="secret") as server:
        target = Target("127.0.0.1", server.port, "ann", "secret")
        with contextlib.suppress(ConnectionFailed):
            connect(target, timeout=10, known=known_hosts(tmp_path, said.append)).close()
        assert server.offered == (["secret"] if answer.startswith("y") else [])
    assert fingerprint(KEY) in said[0]
    assert "[y/N]" in said[0]


def test_a_wrong_password_is_refused(loopback: str, tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known_hosts", lambda text: None, yes=True)
    with serving(password="secret") as server, pytest.raises(LoginRefused, match="the login as ann was refused"):
        connect(Target("127.0.0.1", server.port, "ann", "wrong"), timeout=10, known=known)


# --- conversations ---------------------------------------------------------------------------


class Spoken:
    """A channel that gives a byte at a time, and one that is closed nothing more."""

    def __init__(self, text: bytes, pause: float = 0.0) -> None:
        self._text, self._pause = text, pause
        self._is_closed = threading.Event()

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return cast(io.BufferedReader, self)

    def readline(self, most: int) -> bytes:
        said = b""
        for byte in self._text:
            if self._is_closed.wait(self._pause) or len(said) == most:
                break
            said += bytes([byte])
            if byte == 10:
                break
        return said

    def close(self) -> None:
        self._is_closed.set()


def test_a_line_is_read_and_is_no_longer_than_it_may_be() -> None:
    assert Conversation("host", cast(paramiko.Channel, Spoken(b"held\n")), 5).line() == "held"
    assert len(Conversation("host", cast(paramiko.Channel, Spoken(b"x" * 9999)), 5).line()) == 1000
    assert Conversation("host", cast(paramiko.Channel, Spoken(b"\xa2x\n")), 5).line() == "\ufffdx"


def test_a_line_that_comes_byte_by_byte_has_one_deadline() -> None:
    begun = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"host: no answer in 0\.2 s"):
        Conversation("host", cast(paramiko.Channel, Spoken(b"x" * 100, pause=0.05)), 0.2).line()
    assert time.monotonic() - begun < 3
