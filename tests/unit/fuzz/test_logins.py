"""What SSH servers say: greetings, the exchange of keys, logins, and the channels of commands."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
import pytest
from hypothesis import example
from hypothesis import strategies as st
from paramiko.server import InteractiveQuery

from cloudscale.hosts import first_login, signs_of_life
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import connect
from cloudscale.hosts.target import Target
from cloudscale.units import MIB
from tests.unit.fuzz.inputs import PIECES, changed_bytes, fuzz, reading
from tests.unit.hosts.fake_ssh import KEY
from tests.unit.talk import Talk

PATIENCE = 0.6  # seconds for a login
LONGEST = 15.0  # seconds that it may really take on a busy computer

Change = tuple[int, str, bytes]


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What ends threads."""
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: errors.append(args.exc_value))
    return errors


@pytest.fixture
def talk(loopback: str, monkeypatch: pytest.MonkeyPatch, errors: list[object]) -> Iterator[Talk]:
    talk = Talk()
    monkeypatch.setattr(signs_of_life, "INTERVAL", 0.05)
    monkeypatch.setattr(signs_of_life, "SILENCE", PATIENCE)
    monkeypatch.setattr(first_login, "PROBE", PATIENCE)
    yield talk
    talk.close()
    assert errors == []


def visit(talk: Talk, folder: Path) -> bool:
    """A login and two commands, which end in time, with an error of the project or without one: then it is true."""
    target = Target("127.0.0.1", talk.port, "ann", password="secret", label="m1")
    known = KnownHosts(folder / "known_hosts", lambda text: None)
    known.trust(target.entry, [f"{KEY.get_name()} {KEY.get_base64()}"])
    begun, is_whole = time.monotonic(), False
    with reading():
        first_login._answers(target, None)
        with connect(target, timeout=PATIENCE, known=known) as connection:
            connection.run("true", timeout=PATIENCE)
            with connection.conversation("true", timeout=PATIENCE) as conversation:
                is_whole = conversation.line() == "out"
    assert time.monotonic() - begun < LONGEST
    return is_whole


GREETING = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"


def packet(payload: bytes) -> bytes:
    """As before the keys are agreed on (RFC 4253, 6)."""
    padding = 3 + 8 - (len(payload) + 8) % 8
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def offer() -> bytes:
    """The server's part of an agreement on algorithms."""
    names = (
        *(b"curve25519-sha256@libssh.org,ecdh-sha2-nistp256", b"ecdsa-sha2-nistp256"),
        *(b"aes128-ctr", b"aes128-ctr", b"hmac-sha2-256", b"hmac-sha2-256", b"none", b"none", b"", b""),
    )
    lists = b"".join(struct.pack(">I", len(name)) + name for name in names)
    return packet(b"\x14" + bytes(16) + lists + b"\0" + bytes(4))


@fuzz(
    data=changed_bytes(GREETING + offer(), GREETING + offer() + packet(b"\x1f" + bytes(40))),
    rest=st.sampled_from("cscb"),
    slow=2,
)
def test_any_greeting(talk: Talk, tmp_path: Path, data: bytes, rest: str) -> None:
    def speak(connection: socket.socket) -> None:
        with connection:
            if rest == "b":
                for at in range(min(len(data), 200)):
                    connection.sendall(data[at : at + 1])
            connection.sendall(data if rest != "b" else data[200:])
            if rest == "s":
                time.sleep(2 * PATIENCE)

    talk.speak = speak
    assert not visit(talk, tmp_path)


class Changing(paramiko.packet.Packetizer):
    """Sends some messages of a server otherwise than it should be: they are changed before they are encrypted."""

    def __init__(self, changes: list[Change], connection: socket.socket) -> None:
        super().__init__(connection)
        self.changes = changes
        self.count = 0

    def send_message(self, data: Any) -> None:
        message = data.asbytes()
        for number, how, piece in self.changes:
            if number == self.count:
                message = changed_message(message, how, piece)
        self.count += 1
        super().send_message(paramiko.Message(message or b"\0"))


def changed_message(message: bytes, how: str, piece: bytes) -> bytes:
    kind, _, at = how.partition(" ")
    place = int(at) % (len(message) + 1)
    match kind:
        case "insert":
            return message[:place] + piece + message[place:]
        case "replace":
            return message[:place] + piece + message[place + len(piece) :]
        case "cut":
            return message[:place]
        case "kind":
            return bytes([int(at) % 256]) + message[1:]
    return piece


class Session(paramiko.ServerInterface):
    def get_allowed_auths(self, username: str) -> str:
        return "password,keyboard-interactive"

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def answer() -> None:
            time.sleep(0.02)  # the request itself is answered first
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                channel.sendall(b"out\n")
                channel.sendall_stderr(b"err\n")
                channel.send_exit_status(0)
                channel.close()

        threading.Thread(target=answer, daemon=True).start()
        return True


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 16),
        st.tuples(st.sampled_from(["insert", "replace", "cut", "kind", "all"]), st.integers(0, 400)).map(
            lambda pair: f"{pair[0]} {pair[1]}"
        ),
        st.sampled_from([*PIECES[:-1], b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80" + bytes(200)])
        | st.binary(max_size=20),
    ),
    min_size=1,
    max_size=3,
)


@fuzz(changes=CHANGES, slow=2)
@example(changes=[])
@example(changes=[(2, "all 0", b"\x7b")])
@example(changes=[(16, "replace 7", b"\xe6\xbc\xa2"), (16, "replace 7", b"1e999")])
def test_any_message(talk: Talk, tmp_path: Path, changes: list[Change]) -> None:
    def speak(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection, packetizer_class=partial(Changing, changes))  # type: ignore[arg-type]
        transport.add_server_key(KEY)
        transport.start_server(threading.Event(), Session())
        transport.join(3 * PATIENCE)
        transport.close()

    talk.speak = speak
    assert visit(talk, tmp_path) or changes


class Asking(Session):
    """Wants no password, but to ask, again and again, for nothing."""

    def get_allowed_auths(self, username: str) -> str:
        return "keyboard-interactive"

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.common.AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: str) -> InteractiveQuery:
        return InteractiveQuery("", "x" * 1000)

    def check_auth_interactive_response(self, responses: list[str]) -> InteractiveQuery:
        return InteractiveQuery("", "x" * 1000)


class Silent(Session):
    """Waits before it answers to the password."""

    def check_auth_password(self, username: str, password: str) -> int:
        time.sleep(3 * PATIENCE)
        return paramiko.common.AUTH_FAILED


BANNER = b"\x35" + struct.pack(">I", 1000) + b"x" * 1000 + bytes(4)
REQUEST = b"\x50" + struct.pack(">I", 1) + b"x\x01"


@pytest.mark.parametrize("flood", [b"", BANNER, REQUEST], ids=["questions", "banners", "requests"])
def test_a_server_that_keeps_talking_in_a_login_is_left(talk: Talk, tmp_path: Path, flood: bytes) -> None:
    def speak(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(KEY)
        transport.start_server(threading.Event(), Silent() if flood else Asking())
        deadline = time.monotonic() + 4 * PATIENCE
        while transport.is_alive() and time.monotonic() < deadline:
            if flood and transport.initial_kex_done:
                transport._send_message(paramiko.Message(flood))  # type: ignore[attr-defined]
            else:
                time.sleep(0.01)
        transport.close()

    talk.speak = speak
    before = peak()
    assert not visit(talk, tmp_path)
    assert peak() - before < 64 * MIB


def peak() -> int:
    """The most bytes of memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
