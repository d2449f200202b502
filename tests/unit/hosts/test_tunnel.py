from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from cloudscale.errors import NotReached
from cloudscale.hosts.ssh import Connection, connect
from cloudscale.hosts.target import Target
from cloudscale.hosts.tunnel import LOOPBACK, Tunnel
from tests.unit.hosts.fake_ssh import known_hosts
from tests.unit.hosts.ssh_server import serving

KEY = paramiko.ECDSAKey.generate()


@pytest.fixture
def connection(loopback: str, tmp_path: Path) -> Iterator[Connection]:
    KEY.write_private_key_file(str(tmp_path / "key"))
    with serving(KEY) as server:
        target = Target(loopback, server.port, key_file=tmp_path / "key")
        with connect(target, timeout=20, known=known_hosts(tmp_path)) as made:
            yield made


@pytest.fixture
def service(loopback: str) -> Iterator[int]:
    """A port that answers, once it has read everything, with the number of bytes."""
    listening = socket.create_server((loopback, 0))

    def count(near: socket.socket) -> None:
        total = 0
        with near:
            while data := near.recv(65536):
                total += len(data)
            near.sendall(b"%d" % total)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=count, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listening.getsockname()[1]
    listening.close()


def answer(port: int, data: bytes) -> bytes:
    with socket.create_connection((LOOPBACK, port), 20) as near:
        near.sendall(data)
        near.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: near.recv(100), b""))


def test_what_goes_in_comes_out_at_the_host_and_the_answer_comes_back(connection: Connection, service: int) -> None:
    tunnel = Tunnel(lambda: connection.open(LOOPBACK, service, 20))
    with contextlib.closing(tunnel):
        assert answer(tunnel.port, b"") == b"0"
        assert answer(tunnel.port, b"x" * 3_000_000) == b"3000000"


def test_several_connections_go_side_by_side(connection: Connection, service: int) -> None:
    with contextlib.closing(Tunnel(lambda: connection.open(LOOPBACK, service, 20))) as tunnel:
        waiting = socket.create_connection((LOOPBACK, tunnel.port), 20)
        with waiting:
            assert answer(tunnel.port, b"abc") == b"3"


def test_where_nothing_listens_the_connection_is_closed(connection: Connection) -> None:
    with socket.create_server((LOOPBACK, 0)) as unused:
        port = unused.getsockname()[1]
    with contextlib.closing(Tunnel(lambda: connection.open(LOOPBACK, port, 20))) as tunnel:
        assert answer(tunnel.port, b"") == b""
    with pytest.raises(NotReached, match=f"no connection from there to {LOOPBACK}, port {port}"):
        connection.open(LOOPBACK, port, 20)


@pytest.mark.usefixtures("loopback")
def test_the_end_of_the_whole_connection_is_the_end_of_one_through_the_tunnel() -> None:
    closed = threading.Event()

    class Ended:
        """A channel of a connection that is closed at this moment."""

        def recv(self, size: int) -> bytes:
            return b""

        def sendall(self, data: bytes) -> None:
            raise EOFError

        def settimeout(self, seconds: float) -> None:
            pass

        def shutdown(self, how: int) -> None:
            raise EOFError

        def close(self) -> None:
            closed.set()
            raise EOFError

    with contextlib.closing(Tunnel(Ended)) as tunnel:  # an error in its thread would fail the test
        assert answer(tunnel.port, b"") == b""
    assert closed.wait(10)


def test_a_tunnel_that_is_closed_takes_no_connection(connection: Connection, service: int) -> None:
    tunnel = Tunnel(lambda: connection.open(LOOPBACK, service, 20))
    tunnel.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, tunnel.port), 5)
