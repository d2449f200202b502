"""Hosts as paramiko shows them: clients, transports and channels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from cloudscale.errors import LoginRefused
from cloudscale.hosts import known_hosts as module
from cloudscale.hosts import ssh
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import connect
from cloudscale.hosts.target import Target

KEY = paramiko.ECDSAKey.generate()
OTHER_KEY = paramiko.ECDSAKey.generate()


class Client:
    """A host that shows `key` and lets everybody in, or fails with `outcome`."""

    key: paramiko.PKey = KEY
    outcome: Exception | None = None
    closed = 0

    @classmethod
    def connect(cls) -> None:
        """Called when a login begins."""
        if cls.outcome:
            raise cls.outcome


class Door:
    """The way to a host up to its login: paramiko's transport. `types` are those of the keys that it may show."""

    def __init__(self, client: type[Client]) -> None:
        self._client = client
        self.types = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
        self.is_closed = False

    def get_security_options(self) -> Any:
        return SimpleNamespace(key_types=self.types)

    def start_client(self, timeout: float) -> None:
        assert timeout == 5 or timeout == 10
        if not isinstance(self._client.outcome, paramiko.AuthenticationException):
            self._client.connect()

    def get_remote_server_key(self) -> paramiko.PKey:
        return self._client.key

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.7", 22

    def global_request(self, kind: str, wait: bool) -> None:
        """Is there."""

    def is_active(self) -> bool:
        return not self.is_closed

    def close(self) -> None:
        self.is_closed = True
        self._client.closed += 1


def own_client(monkeypatch: pytest.MonkeyPatch, home: Path) -> type[Client]:
    """A client of this test alone, for a user who knows no hosts."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(module, "GLOBAL_FILES", (str(home / "etc/ssh/ssh_known_hosts"),))

    class Own(Client):
        pass

    def log_in(target: Target, transport: Door) -> None:
        if isinstance(Own.outcome, paramiko.AuthenticationException):
            raise LoginRefused(f"{target.name}: the login as {target.user} was refused ({Own.outcome}).")

    monkeypatch.setattr(ssh, "Transport", lambda way: Door(Own))
    monkeypatch.setattr(ssh, "_way", lambda *_: None)
    monkeypatch.setattr(ssh, "log_in", log_in)
    return Own


def known_hosts(tmp_path: Path, new_key: Callable[[str], None] = lambda text: None) -> KnownHosts:
    return KnownHosts(tmp_path / "known_hosts", new_key)


def log_in(target: Target, tmp_path: Path, new_key: Callable[[str], None] = lambda text: None) -> None:
    with connect(target, timeout=5, known=known_hosts(tmp_path, new_key)):
        pass


def meet(client: type[Client], monkeypatch: pytest.MonkeyPatch, key: paramiko.PKey) -> None:
    """Has the host show this key."""
    monkeypatch.setattr(client, "key", key)


class Channel:
    """A channel with all of its output at once, that ends with `exit_code` after some looks, or never (None).

    It takes `window` bytes of input at a time; `deaf`: none any more.
    """

    remote_chanid = 7

    def __init__(
        self,
        exit_code: int | None,
        out: bytes = b"",
        err: bytes = b"",
        looks: int = 0,
        *,
        window: int = 2**21,
        deaf: bool = False,
    ) -> None:
        self._exit_code = exit_code
        self._looks = looks
        self._window = window
        self._deaf = deaf
        self._out, self._err = [out], [err]
        self.transport = Transport(self)
        self.status_event = threading.Event()
        self.closed = False
        self.eof_received = True
        self.command = ""
        self.taken = b""
        self.writable = True

    def exec_command(self, command: str) -> None:
        self.command = command

    def get_transport(self) -> Transport:
        return self.transport

    def shutdown_write(self) -> None:
        assert self.writable
        self.writable = False

    def send_ready(self) -> bool:
        return not self.closed

    def send(self, data: bytes) -> int:
        assert self.writable
        if self._deaf:
            raise OSError("Socket is closed")
        self.taken += data[: self._window]
        return len(data[: self._window])

    def exit_status_ready(self) -> bool:
        self._looks -= 1
        return self.closed or (self._exit_code is not None and self._looks < 0)

    def recv_exit_status(self) -> int:
        return -1 if self._exit_code is None else self._exit_code

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
        self.status_event.set()


class Transport:
    """The way to a host with one channel."""

    def __init__(self, channel: Channel | Exception | None) -> None:
        self._channel = channel
        self.messages: list[bytes] = []
        self.is_closed = False

    def is_active(self) -> bool:
        return not self.is_closed

    def open_session(self, timeout: float) -> Channel:
        if isinstance(self._channel, Exception):
            raise self._channel
        assert self._channel
        return self._channel

    def _send_user_message(self, message: paramiko.Message) -> None:
        self.messages.append(message.asbytes())

    def getpeername(self) -> tuple[str, int, int, int]:
        if self.is_closed:
            raise OSError(9, "Bad file descriptor")
        return "2001:db8::1", 22, 0, 0

    def close(self) -> None:
        self.is_closed = True
        if isinstance(self._channel, Channel):
            self._channel.close()
