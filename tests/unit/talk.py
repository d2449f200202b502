"""A server on loopback, or of this computer alone at a `path`, that says whatever a test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import paramiko


class Talk:
    """What a server says to whoever connects. `speak` is called with each connection, in a thread."""

    def __init__(self, path: str = "") -> None:
        self.speak: Callable[[socket.socket], None] = lambda connection: None
        family = socket.AF_UNIX if path else socket.AF_INET
        self._socket = socket.create_server(path or ("127.0.0.1", 0), family=family)
        self.port = 0 if path else int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._one, args=(connection, self.speak), daemon=True).start()

    def _one(self, connection: socket.socket, speak: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            speak(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
