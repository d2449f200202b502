"""A port of this computer that leads to a port of a host, through the SSH connection to it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from cloudscale.errors import CloudscaleError

LOOPBACK = "127.0.0.1"
CHUNK = 65536  # bytes


class End(Protocol):
    """One end of a connection: a socket, or a channel of an SSH connection."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def settimeout(self, seconds: float, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Tunnel:
    """Listens on `port` of this computer's loopback until the program ends. `open` makes the other end's connection."""

    def __init__(self, open: Callable[[], End]) -> None:
        self._open = open
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                near, _ = self._socket.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        with near:
            try:
                far = self._open()
            except CloudscaleError:  # who connected sees it closed, and asks the host itself for the cause
                return
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            _copy(near, far)
            back.join()
            with contextlib.suppress(OSError, EOFError):  # the connection that it belongs to was closed before
                far.close()


def _copy(source: End, target: End) -> None:
    """Passes everything on, and then the end of it."""
    with contextlib.suppress(OSError, EOFError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError, EOFError):
        target.shutdown(socket.SHUT_WR)
