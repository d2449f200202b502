"""An SSH connection of paramiko's that takes no more from a host than belongs to the protocol, whatever it sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.kex_gex import KexGexSHA256

from cloudscale.outside import in_words

LONGEST_PACKET = 256 * 1024  # bytes, as OpenSSH; what a packet has to hold is less (RFC 4253, 6.1)
LONGEST_GREETING = 64 * 1024  # bytes: the version, and the lines before it (RFC 4253, 4.2)


class _Packetizer(paramiko.packet.Packetizer):
    """Reads no packet and no greeting without limit, and leaves no timer that the end of the program waits for."""

    _greeting = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > LONGEST_PACKET:
            raise paramiko.SSHException(f"the host sends a packet of {n} bytes")
        return bytes(super().read_all(n, check_rekey))

    def _read_timeout(self, timeout: float) -> bytes:
        piece = bytes(super()._read_timeout(timeout))  # type: ignore[misc]
        self._greeting += len(piece)
        if self._greeting > LONGEST_GREETING:
            raise paramiko.SSHException("the host's greeting does not end")
        return piece

    def close(self) -> None:
        self.complete_handshake()
        super().close()


class _GroupExchange(KexGexSHA256):
    def _generate_x(self) -> None:
        if (self.p or 0) < 0:  # the search below it would never end
            raise paramiko.SSHException("the host's prime is negative")
        super()._generate_x()  # type: ignore[misc]


def _within_window(feed: Callable[[paramiko.Channel, Any], None]) -> Callable[[paramiko.Channel, Any], None]:
    """What a channel does with data, unless the host sends more than it may (RFC 4254, 5.2)."""

    def fed(channel: paramiko.Channel, message: Any) -> None:
        feed(channel, message)
        waiting = len(channel.in_buffer) + len(channel.in_stderr_buffer)
        if waiting > channel.in_window_size + LONGEST_PACKET:
            raise paramiko.SSHException("the host sends more than it may")

    return fed


class Transport(paramiko.Transport):
    _kex_info: ClassVar[dict[str, Any]] = {**paramiko.Transport._kex_info, KexGexSHA256.name: _GroupExchange}  # type: ignore[attr-defined]
    _channel_handler_table: ClassVar[dict[int, Any]] = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_DATA: _within_window(paramiko.Channel._feed),  # type: ignore[attr-defined]
        MSG_CHANNEL_EXTENDED_DATA: _within_window(paramiko.Channel._feed_extended),  # type: ignore[attr-defined]
    }

    def __init__(self, way: Any) -> None:
        super().__init__(way, packetizer_class=_Packetizer)

    def get_exception(self) -> Exception | None:
        """What ended the connection: any error of Python's, if paramiko did not understand the host."""
        error = super().get_exception()
        if error is None or isinstance(error, (paramiko.SSHException, OSError, EOFError)):
            return error
        return paramiko.SSHException(f"the host sends what is no SSH: {in_words(error)}")
