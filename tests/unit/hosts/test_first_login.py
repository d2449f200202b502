"""The first login on a server that runs, verified by the host keys on its console."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import CONSOLE, read_console
from cloudscale.errors import ConnectionFailed, HostKeyChanged, LoginRefused, MachineError
from cloudscale.hosts import first_login, ssh
from cloudscale.hosts.first_login import LINES, SETTLING, SHOWING, Booting, NoLogin, host_keys, log_in
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import Connection
from cloudscale.hosts.target import Target
from tests.lab.stand_in import Fault
from tests.lab.stand_in.machines import Server
from tests.unit.drivers.openstack.cloud import MARK, MARKS, OwnCloud, Time
from tests.unit.hosts.fake_ssh import KEY, OTHER_KEY, Client, meet, own_client

pytestmark = MARKS
BEGIN, END = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHGDAzYpTnNAVOgPJkbRbI+RJb8N9kqVPRVBYsgiRHlm"


def line(key: paramiko.PKey, name: str = "root@bio-1") -> str:
    return f"{key.get_name()} {key.get_base64()} {name}"


def block(*lines: str) -> str:
    return "\n".join([BEGIN, *lines, END, ""])


class Machine:
    """A server that runs, and how the driver gets into it."""

    def __init__(self, server: Server, cloud: Cloud, tmp_path: Path) -> None:
        self.server = server
        self.cloud = cloud
        self.reports: list[str] = []
        self.target = Target("192.0.2.7", user="debian", label="bio-1", alias=server.id)
        self.known = KnownHosts(tmp_path / "known_hosts", self.reports.append)

    @property
    def booting(self) -> Booting:
        return Booting(functools.partial(read_console, self.cloud, self.server.id), self.cloud.clock)

    def enter(self, timeout: float = 600) -> Connection:
        return log_in(self.booting, self.target, self.known, timeout, self.reports.append)

    def file(self) -> list[str]:
        return self.known.path.read_text().splitlines() if self.known.path.exists() else []


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Client]:
    """A host that shows KEY, and lets everybody in."""
    client = own_client(monkeypatch, tmp_path)
    meet(client, monkeypatch, KEY)
    monkeypatch.setattr(first_login, "_answers", lambda target, over: True)
    return client


@pytest.fixture
def machine(stand_in: OwnCloud, cloud: Cloud, client: type[Client], tmp_path: Path) -> Machine:
    stand_in.compute.consoles["bio-1"] = f"[    0.0] Linux\n{block(line(KEY))}bio-1 login: "
    return Machine(stand_in.compute.add_server("bio-1", tags=[MARK]), cloud, tmp_path)


def failing(client: type[Client], monkeypatch: pytest.MonkeyPatch, *errors: Exception, forever: bool = False) -> None:
    """Has the next logins fail, and those after them too."""
    left = list(errors)

    def log_in(target: Target, transport: object) -> None:
        if not left:
            return
        error = left[0] if forever else left.pop(0)
        if isinstance(error, paramiko.AuthenticationException):
            raise LoginRefused(f"{target.name}: the login as {target.user} was refused ({error}).")
        raise error

    monkeypatch.setattr(ssh, "log_in", log_in)


# --- what a console shows ---


def test_the_keys_stand_between_their_marks() -> None:
    console = f"ci-info: ssh-ed25519 AAAA nobody\n{block(ED25519, line(KEY))}\n{line(OTHER_KEY)}\n"
    assert host_keys(console) == [ED25519, f"{KEY.get_name()} {KEY.get_base64()}"]


@given(st.randoms(use_true_random=False), st.integers(0, 6))
def test_messages_of_others_may_stand_between_them(chance: random.Random, count: int) -> None:
    lines = [line(KEY), ED25519 + " root@bio-1", line(OTHER_KEY)]
    for _ in range(count):
        message = chance.choice(["[   21.340291] cloud-init[521]: done", "", "ssh-ed25519", "Debian GNU/Linux 12"])
        lines.insert(chance.randrange(len(lines) + 1), message)
    assert len(host_keys(f"boot\r\n{block(*lines)}")) == 3


def test_lines_may_end_as_a_terminal_ends_them() -> None:
    assert host_keys(block(line(KEY), ED25519).replace("\n", "\r\n")) == [
        f"{KEY.get_name()} {KEY.get_base64()}",
        ED25519,
    ]


@pytest.mark.parametrize(
    "console",
    [
        "",
        f"{BEGIN}\n{ED25519} root@bio-1\n",  # the end is yet to come
        f"{ED25519} root@bio-1\n{END}\n",  # the beginning has scrolled away
        block(),
        block(f"{ED25519[:60]}[   21.3] eth0: link is up"),
        f"{BEGIN}\n{ED25519}{END}\n",
    ],
)
def test_what_is_not_whole_is_no_key(console: str) -> None:
    assert host_keys(console) == []


def test_keys_that_are_shown_twice_are_read_twice() -> None:
    assert len(host_keys(block(ED25519) + "x\n" + block(line(KEY)))) == 2


@given(st.text())
def test_any_console_can_be_read(text: str) -> None:
    assert host_keys(text) == []


# --- a login that is verified ---


def test_the_first_login_is_verified_by_the_console(machine: Machine, clock: Time) -> None:
    assert machine.enter().target == machine.target
    assert machine.reports == []  # nothing had to be trusted
    # by the server's id: others may have had its address
    assert machine.file() == [f"{machine.server.id} {KEY.get_name()} {KEY.get_base64()}"]
    assert clock.pauses == []


def test_keys_that_the_console_shows_late_are_waited_for(stand_in: OwnCloud, machine: Machine, clock: Time) -> None:
    whole = stand_in.compute.consoles["bio-1"]
    stand_in.compute.consoles["bio-1"] = f"[    0.0] Linux\n{BEGIN}\n"

    def show(request: Any) -> None:
        if clock.now() > SHOWING / 2:
            stand_in.compute.consoles["bio-1"] = whole

    stand_in.seen = show
    machine.enter()
    assert machine.reports == []
    assert SHOWING / 2 < clock.now() < SHOWING


def test_another_key_than_the_consoles_is_refused_at_once(
    machine: Machine, client: type[Client], monkeypatch: pytest.MonkeyPatch, clock: Time
) -> None:
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(HostKeyChanged, match="This may be another machine, or an attacker in between"):
        machine.enter()
    assert clock.pauses == []


def test_a_console_without_keys_is_reported_and_the_first_key_is_trusted(
    stand_in: OwnCloud, machine: Machine, clock: Time
) -> None:
    stand_in.compute.consoles["bio-1"] = "[    0.0] Linux\nbio-1 login: "
    machine.enter()
    missing, trusted = machine.reports
    assert missing.startswith("bio-1: its console does not show its host keys")
    assert "new host key" in trusted
    assert machine.file() == [f"{machine.server.id} {KEY.get_name()} {KEY.get_base64()}"]
    assert SHOWING <= clock.now() < SHOWING + 10


def test_a_cloud_without_consoles_is_reported_without_waiting(
    stand_in: OwnCloud, machine: Machine, clock: Time
) -> None:
    stand_in.compute.consoles["bio-1"] = None
    machine.enter()
    assert machine.reports[0].startswith("bio-1: its console does not show its host keys")
    assert clock.pauses == []


def test_a_key_once_trusted_is_the_only_one(
    stand_in: OwnCloud, machine: Machine, client: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.compute.consoles["bio-1"] = None
    machine.enter()
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(HostKeyChanged):
        machine.enter()


@pytest.mark.parametrize("fault", [{"status": 500}, {"drop": "after"}])
def test_a_console_that_can_not_be_read_for_a_moment_is_read_again(
    stand_in: OwnCloud, machine: Machine, fault: dict[str, Any]
) -> None:
    stand_in.faults.append(Fault("POST", "/action$", **fault))
    machine.enter()
    assert machine.reports == []


def test_one_that_can_never_be_read_is_none(stand_in: OwnCloud, machine: Machine, cloud: Cloud, clock: Time) -> None:
    stand_in.faults.append(Fault("POST", "/action$", status=503, times=None))
    assert read_console(cloud, machine.server.id) is None
    assert 0 < clock.now() <= CONSOLE


# --- no login succeeds ---


def test_a_machine_that_is_slow_is_waited_for(machine: Machine, monkeypatch: pytest.MonkeyPatch, clock: Time) -> None:
    monkeypatch.setattr(first_login, "_answers", lambda target, over: clock.now() > 100)
    machine.enter()
    assert 100 < clock.now() < 103


def test_one_that_never_answers_is_reported(machine: Machine, monkeypatch: pytest.MonkeyPatch, clock: Time) -> None:
    monkeypatch.setattr(first_login, "_answers", lambda target, over: False)
    with pytest.raises(NoLogin, match=r"^nothing answers on 192\.0\.2\.7, port 22, after 90 s$"):
        machine.enter(timeout=90)
    assert 90 <= clock.now() < 92


def test_a_machine_that_answers_without_a_login_is_reported_with_the_cause(
    machine: Machine, client: type[Client], monkeypatch: pytest.MonkeyPatch, clock: Time
) -> None:
    failing(client, monkeypatch, paramiko.SSHException("Error reading SSH protocol banner"), forever=True)
    with pytest.raises(NoLogin, match=r"^no login succeeded within 90 s \(.*Error reading SSH protocol banner\)$"):
        machine.enter(timeout=90)
    assert 90 <= clock.now() < 100


def test_a_login_that_fails_for_a_moment_is_tried_again(
    machine: Machine, client: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(client, monkeypatch, EOFError(), ConnectionResetError(104, "reset"), TimeoutError())
    assert machine.enter()


def test_a_machine_that_does_not_know_the_key_yet_is_given_its_time(
    machine: Machine, client: type[Client], monkeypatch: pytest.MonkeyPatch, clock: Time
) -> None:
    failing(client, monkeypatch, *[paramiko.AuthenticationException("Authentication failed.")] * 20)
    assert machine.enter()
    assert 20 <= clock.now() < SETTLING


def test_one_that_never_knows_it_is_reported_with_the_user_name(
    machine: Machine, client: type[Client], monkeypatch: pytest.MonkeyPatch, clock: Time
) -> None:
    failing(client, monkeypatch, paramiko.AuthenticationException("Authentication failed."), forever=True)
    with pytest.raises(LoginRefused, match="bio-1: the login as debian was refused") as raised:
        machine.enter()
    assert isinstance(raised.value, ConnectionFailed)
    assert SETTLING < clock.now() < SETTLING + 5


def test_a_refusal_is_reported_as_one_however_short_the_timeout_is(
    machine: Machine, client: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(client, monkeypatch, paramiko.AuthenticationException("Authentication failed."), forever=True)
    with pytest.raises(LoginRefused, match="bio-1: the login as debian was refused"):
        machine.enter(timeout=SETTLING / 2)


def test_the_last_login_is_given_its_time_however_late_the_machine_is(
    machine: Machine, client: type[Client], monkeypatch: pytest.MonkeyPatch, clock: Time
) -> None:
    monkeypatch.setattr(first_login, "_answers", lambda target, over: clock.now() > 89)
    failing(client, monkeypatch, EOFError(), EOFError(), EOFError())
    assert machine.enter(timeout=90)


def test_one_that_has_ended_is_not_waited_for(machine: Machine, monkeypatch: pytest.MonkeyPatch, clock: Time) -> None:
    monkeypatch.setattr(first_login, "_answers", lambda target, over: False)

    def check() -> None:
        if clock.now() > 10:
            raise MachineError("bio-1: its process has ended.")

    booting = dataclasses.replace(machine.booting, check=check)
    with pytest.raises(MachineError, match="has ended"):
        log_in(booting, machine.target, machine.known, 600, machine.reports.append)
    assert clock.now() < 15


# --- the console's end, for a message ---


def test_the_last_lines_of_the_console_are_shown(stand_in: OwnCloud, machine: Machine) -> None:
    stand_in.compute.consoles["bio-1"] = "\n\n".join(f"line {number} " for number in range(100))
    shown = machine.booting.console_end().splitlines()
    assert shown == ["The end of its console:", *(f"  | line {number}" for number in range(100 - LINES, 100))]


def test_they_are_shown_without_control_sequences(
    machine: Machine, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = "\x1b[2J\x1b[31mKernel panic\x1b[0m\x07 - \x1b[?25lnot \x00syncing\r\n\x1b[1;1H"
    monkeypatch.setattr(cloud.api.compute, "get_server_console_output", lambda id: {"output": wild})
    assert machine.booting.console_end() == "The end of its console:\n  | Kernel panic - not syncing"


@pytest.mark.parametrize(
    ("console", "message"),
    [
        (None, "Its console can't be read."),
        ("", "Its console is empty."),
        ("\n \n\r\n", "Its console is empty."),
    ],
)
def test_a_console_without_output_is_reported(
    stand_in: OwnCloud, machine: Machine, console: str | None, message: str
) -> None:
    stand_in.compute.consoles["bio-1"] = console
    assert machine.booting.console_end() == message


# --- whether anything answers ---


@pytest.fixture
def listen(loopback: str) -> Iterator[Callable[[bytes | None], Target]]:
    """A port on which a server sends this first, or nothing at all (None: it closes the connection)."""
    sockets: list[socket.socket] = []

    def begin(words: bytes | None) -> Target:
        listener = socket.create_server((loopback, 0))
        sockets.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if words is not None:
                    connection.sendall(words)
                    with contextlib.suppress(ConnectionError):
                        connection.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        return Target(loopback, listener.getsockname()[1])

    yield begin
    for listener in sockets:
        listener.close()


@pytest.mark.parametrize(
    ("words", "is_ssh"),
    [(b"SSH-2.0-OpenSSH_9.2p1\r\n", True), (b"HTTP/1.1 400 Bad\r\n", False), (None, False), (b"", False)],
)
def test_what_answers_is_an_ssh_server_or_nothing(
    listen: Callable[[bytes | None], Target], monkeypatch: pytest.MonkeyPatch, words: bytes | None, is_ssh: bool
) -> None:
    monkeypatch.setattr(first_login, "PROBE", 30 if words else 0.05)  # only silence is waited for
    assert first_login._answers(listen(words), None) == is_ssh


def test_where_nothing_listens_nothing_answers(loopback: str) -> None:
    assert not first_login._answers(Target(loopback, 1), None)


def test_the_stand_ins_own_console_shows_a_key_of_its_form(stand_in: OwnCloud, machine: Machine) -> None:
    (key,) = host_keys(machine.server.console)
    assert len(base64.b64decode(key.split()[1])) == 51
