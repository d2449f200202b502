from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import paramiko
import pytest
from paramiko.kex_gex import KexGexSHA256

from cloudscale.hosts.transport import LONGEST_GREETING, LONGEST_PACKET, Transport
from cloudscale.waiting import poll
from tests.unit.hosts.fake_ssh import KEY

GREETING = b"SSH-2.0-x\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[Transport, socket.socket]]:
    """A connection, and its other end."""
    ours, theirs = socket.socketpair()
    transport = Transport(ours)
    yield transport, theirs
    transport.close()
    theirs.close()


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (GREETING + struct.pack(">I", 0xFFFFFFF4) + bytes(4), "a packet of 42949672.. bytes"),
        (GREETING + struct.pack(">I", LONGEST_PACKET + 12) + bytes(4), "a packet of"),
        (b"x" * (LONGEST_GREETING + 1), "greeting does not end"),
        (b"x\n" * 50 + b"x" * LONGEST_GREETING, "greeting does not end"),
        (GREETING + struct.pack(">I", 4) + b"\3\0\0\0", "no SSH: IndexError"),
    ],
    ids=["4 GiB", "long", "no end", "lines", "empty"],
)
def test_a_host_that_does_not_keep_to_the_protocol_is_left(
    ends: tuple[Transport, socket.socket], sent: bytes, message: str
) -> None:
    transport, theirs = ends
    theirs.sendall(sent)
    with pytest.raises(paramiko.SSHException, match=message):
        transport.start_client(timeout=10)


def test_no_number_is_searched_below_a_negative_prime() -> None:
    sent = paramiko.Message()
    sent.add_mpint(-(2**2047))
    sent.add_mpint(2)
    agreement = Transport._kex_info[KexGexSHA256.name](SimpleNamespace(_log=lambda *words: None))
    with pytest.raises(paramiko.SSHException, match="negative"):
        agreement.parse_next(31, paramiko.Message(sent.asbytes()))


class Everybody(paramiko.ServerInterface):
    def check_auth_none(self, username: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED


@pytest.mark.parametrize("stream", ["sendall", "sendall_stderr"])
def test_what_is_sent_beyond_the_window_is_not_kept(ends: tuple[Transport, socket.socket], stream: str) -> None:
    transport, theirs = ends
    server = paramiko.Transport(theirs)
    server.add_server_key(KEY)
    server.start_server(threading.Event(), Everybody())
    transport.start_client(timeout=10)
    transport.auth_none("ann")
    channel = transport.open_session(timeout=10)
    other = server.accept(10)
    assert other
    getattr(other, stream)(bytes(channel.in_window_size))
    assert poll(lambda: len(channel.in_buffer) + len(channel.in_stderr_buffer) == channel.in_window_size, timeout=10)
    assert transport.is_active()
    other.out_window_size = 2**30
    with contextlib.suppress(OSError, EOFError):
        getattr(other, stream)(bytes(2 * channel.in_window_size))
    assert poll(lambda: not transport.is_active(), timeout=10)
    assert isinstance(error := transport.get_exception(), paramiko.SSHException) and "more than it may" in str(error)
    server.close()


def test_the_end_of_the_program_waits_for_no_connection(ends: tuple[Transport, socket.socket]) -> None:
    transport, theirs = ends
    theirs.sendall(GREETING)
    transport.start_client(event=threading.Event())

    def timers() -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if getattr(getattr(thread, "function", None), "__self__", None) is transport.packetizer
        ]

    assert poll(timers, timeout=10)
    transport.close()
    assert poll(lambda: not timers(), timeout=5)
