"""A small SSH server on loopback: it shows its key, lets some keys and a password in, and forwards connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import paramiko

from cloudscale.waiting import poll
from tests.unit.hosts.fake_ssh import KEY


class SshServer:
    """`keys`: those that it lets in; `tries`: wrong ones after which it ends a connection. `offered`: what it saw."""

    def __init__(
        self,
        *keys: paramiko.PKey,
        password: str = "",
        host_key: paramiko.PKey = KEY,
        tries: int = 6,
        forwards: bool = True,
    ) -> None:
        self.keys = {key.asbytes() for key in keys}
        self.password = password
        self.host_key = host_key
        self.tries = tries
        self.forwards = forwards
        self.offered: list[bytes | str] = []
        self.forwarded: list[tuple[str, int]] = []
        self.asked: list[str] = []  # global requests
        self.logins = 0
        self.silent = threading.Event()  # set: it accepts connections and says nothing
        self._ends: list[paramiko.Transport] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self.silent.is_set():
                continue
            transport = paramiko.Transport(connection)
            transport.daemon = True
            transport.add_server_key(self.host_key)
            self._ends.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(threading.Event(), _Session(self, transport))

    def fall_silent(self) -> None:
        """Says nothing from now on, as a host that hangs."""
        for transport in self._ends:
            transport.packetizer.send_message = lambda message: None  # type: ignore[method-assign, assignment]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for transport in self._ends:
            transport.close()
        self._thread.join(10)


@contextlib.contextmanager
def serving(*keys: paramiko.PKey, **settings: object) -> Iterator[SshServer]:
    server = SshServer(*keys, **settings)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.close()


class _Session(paramiko.ServerInterface):
    def __init__(self, server: SshServer, transport: paramiko.Transport) -> None:
        self._server = server
        self._transport = transport
        self._wrong = 0
        self._destinations: dict[int, socket.socket] = {}  # by the id of the channel to it

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password"

    def check_global_request(self, kind: str, msg: paramiko.Message) -> bool:
        self._server.asked.append(kind)
        return False

    def _answer(self, *, right: bool) -> int:
        if right:
            self._server.logins += 1
            return paramiko.common.AUTH_SUCCESSFUL
        self._wrong += 1
        if self._wrong >= self._server.tries:
            self._transport.close()
        return paramiko.common.AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._server.offered.append(key.asbytes())
        return self._answer(right=key.asbytes() in self._server.keys)

    def check_auth_password(self, username: str, password: str) -> int:
        self._server.offered.append(password)
        return self._answer(right=password == self._server.password)

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: tuple[str, int]) -> int:
        self._server.forwarded.append(destination)
        if not self._server.forwards:
            return paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            inner = socket.create_connection(("127.0.0.1", destination[1]), 5)
        except OSError:
            return paramiko.common.OPEN_FAILED_CONNECT_FAILED
        self._destinations[chanid] = inner
        threading.Thread(target=self._pump, daemon=True).start()
        return paramiko.common.OPEN_SUCCEEDED

    def _pump(self) -> None:
        # of two that wait at once, one may be woken for the channel of the other, and then gets none
        channel = poll(lambda: self._transport.accept(1), timeout=20)
        assert channel
        inner = self._destinations.pop(channel.get_id())

        def copy(source: socket.socket | paramiko.Channel, target: socket.socket | paramiko.Channel) -> None:
            with contextlib.suppress(OSError, EOFError):
                while data := source.recv(65536):
                    target.sendall(data)
            with contextlib.suppress(OSError, EOFError):
                target.shutdown(socket.SHUT_WR)

        inner.settimeout(None)
        back = threading.Thread(target=copy, args=(inner, channel), daemon=True)
        back.start()
        copy(channel, inner)
        back.join()
        channel.close()
        inner.close()
