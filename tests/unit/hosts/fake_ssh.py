"""Hosts as paramiko shows them: clients, transports and channels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import Target, connect

KEY = paramiko.ECDSAKey.generate()
OTHER_KEY = paramiko.ECDSAKey.generate()


class Client(paramiko.SSHClient):
    """A client whose host succeeds, or fails with `outcome`."""

    outcome: Exception | None = None
    closed = 0
    given: dict[str, Any]

    def connect(self, hostname: str, **settings: Any) -> None:  # type: ignore[override]
        type(self).given = {"hostname": hostname, **settings}
        if self.outcome:
            raise self.outcome

    def get_transport(self) -> Any:
        return Transport(None)

    def close(self) -> None:
        type(self).closed += 1


def own_client(monkeypatch: pytest.MonkeyPatch, home: Path) -> type[Client]:
    """A client of this test alone, for a user who knows no hosts."""
    monkeypatch.setenv("HOME", str(home))

    class Own(Client):
        given: dict[str, Any] = {}  # noqa: RUF012 - one client a test

    monkeypatch.setattr(paramiko, "SSHClient", Own)
    return Own


def known_hosts(tmp_path: Path, new_key: Callable[[str], None] = lambda text: None) -> KnownHosts:
    return KnownHosts(tmp_path / "known_hosts", new_key)


def log_in(target: Target, tmp_path: Path, new_key: Callable[[str], None] = lambda text: None) -> None:
    with connect(target, timeout=5, known=known_hosts(tmp_path, new_key)):
        pass


def meet(client: type[Client], monkeypatch: pytest.MonkeyPatch, key: paramiko.PKey) -> None:
    """Has the host show this key, which paramiko looks up before it asks the policy."""

    def show(self: Client, hostname: str, **settings: Any) -> None:
        name = hostname if settings["port"] == 22 else f"[{hostname}]:{settings['port']}"
        known = self.get_host_keys().lookup(name)
        if known is None:
            self._policy.missing_host_key(self, name, key)  # type: ignore[attr-defined]
        elif known.get(key.get_name()) != key:
            raise paramiko.BadHostKeyException(hostname, key, known[key.get_name()])

    monkeypatch.setattr(client, "connect", show)


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
        self.keep_alive = 0
        self.is_closed = False

    def set_keepalive(self, seconds: int) -> None:
        self.keep_alive = seconds

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
