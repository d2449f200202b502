"""What is offered to real SSH servers on loopback, with an agent that answers as ssh-agent does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from cloudscale.errors import ConnectionFailed, LoginRefused, RequestError
from cloudscale.hosts.credentials import check_key_file
from cloudscale.hosts.ssh import connect
from cloudscale.hosts.target import Target
from tests.unit.conftest import Walls
from tests.unit.hosts.fake_ssh import known_hosts
from tests.unit.hosts.ssh_server import SshServer, serving

KEYS = [paramiko.ECDSAKey.generate() for _ in range(8)]
RIGHT = KEYS[-1]


class Agent:
    """An SSH agent (draft-ietf-sshm-ssh-agent): it lists its keys and signs with them."""

    def __init__(self, path: Path, keys: list[paramiko.ECDSAKey]) -> None:
        self.path = path
        self._keys = {key.asbytes(): key for key in keys}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            while head := requests.read(4):
                request = paramiko.Message(requests.read(struct.unpack(">I", head)[0]))
                answer = paramiko.Message()
                if request.get_byte() == b"\x0b":
                    answer.add_byte(b"\x0c")
                    answer.add_int(len(self._keys))
                    for blob in self._keys:
                        answer.add_string(blob)
                        answer.add_string("comment")
                else:
                    key = self._keys[request.get_string()]
                    answer.add_byte(b"\x0e")
                    answer.add_string(key.sign_ssh_data(request.get_string()).asbytes())
                connection.sendall(struct.pack(">I", len(answer.asbytes())) + answer.asbytes())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def agent(walls: Walls, loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Agent]:
    """The user's agent, with all keys; the right one is the last."""
    agent = Agent(tmp_path / "agent", KEYS)
    walls.reachable = lambda address: address == str(agent.path) or isinstance(address, tuple)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
    yield agent
    agent.close()


@pytest.fixture
def server(loopback: str) -> Iterator[SshServer]:
    with serving(RIGHT, tries=100) as server:
        yield server


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    RIGHT.write_private_key_file(str(file))
    return file


def public_file(tmp_path: Path, key: paramiko.PKey) -> Path:
    file = tmp_path / "id.pub"
    file.write_text(f"{key.get_name()} {key.get_base64()} ann@home\n")
    return file


def locked(tmp_path: Path, key: paramiko.PKey) -> Path:
    """A key file with a passphrase, and its public key beside it."""
    key.write_private_key_file(str(tmp_path / "id"), password="secret")
    public_file(tmp_path, key)
    return tmp_path / "id"


def offered(server: SshServer, tmp_path: Path, **settings: object) -> list[bytes | str]:
    """The keys that a login offers, each once, in their order."""
    target = Target("127.0.0.1", server.port, "ann", **settings)  # type: ignore[arg-type]
    connect(target, timeout=20, known=known_hosts(tmp_path)).close()
    return [*dict.fromkeys(server.offered)]


def blobs(*keys: paramiko.PKey) -> list[bytes | str]:
    return [key.asbytes() for key in keys]


def test_the_key_of_a_key_file_is_the_only_one_that_is_offered(
    agent: Agent, server: SshServer, tmp_path: Path, key_file: Path
) -> None:
    assert offered(server, tmp_path, key_file=key_file, identities=(tmp_path / "other",)) == blobs(RIGHT)


def test_the_keys_of_the_agent_are_offered_in_its_order(agent: Agent, server: SshServer, tmp_path: Path) -> None:
    assert offered(server, tmp_path) == blobs(*KEYS)


def test_the_keys_of_the_configuration_come_before_those_of_the_agent(
    agent: Agent, server: SshServer, tmp_path: Path, key_file: Path
) -> None:
    server.keys = {KEYS[1].asbytes()}
    assert offered(server, tmp_path, identities=(tmp_path / "none", key_file)) == blobs(RIGHT, *KEYS[:2])


@pytest.mark.parametrize("kind", ["whole", "public", "locked"])
def test_with_identities_only_no_other_key_of_the_agent_is_offered(
    agent: Agent, server: SshServer, tmp_path: Path, key_file: Path, kind: str
) -> None:
    file = {"whole": key_file, "public": public_file(tmp_path, RIGHT), "locked": locked(tmp_path, RIGHT)}[kind]
    assert offered(server, tmp_path, identities=(file,), only_identities=True) == blobs(RIGHT)


def test_the_usual_files_come_after_the_agent(agent: Agent, server: SshServer, tmp_path: Path) -> None:
    folder = Path("~/.ssh").expanduser()
    folder.mkdir(parents=True)
    own = paramiko.ECDSAKey.generate()
    own.write_private_key_file(str(folder / "id_ecdsa"))
    server.keys = {own.asbytes()}
    assert offered(server, tmp_path) == blobs(*KEYS, own)
    server.offered.clear()
    assert offered(server, tmp_path, agent="none") == blobs(own)


def test_the_agent_may_be_another_one(
    agent: Agent, server: SshServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    assert offered(server, tmp_path, agent=str(agent.path)) == blobs(*KEYS)


@pytest.mark.parametrize("kind", ["public", "locked"])
def test_the_agent_may_have_the_key_of_a_key_file_that_can_not_be_read(
    agent: Agent, server: SshServer, tmp_path: Path, kind: str
) -> None:
    file = public_file(tmp_path, RIGHT) if kind == "public" else locked(tmp_path, RIGHT)
    assert offered(server, tmp_path, key_file=file) == blobs(RIGHT)
    check_key_file(Target("host", key_file=file))
    with pytest.raises(RequestError, match="the SSH agent does not have"):
        check_key_file(Target("host", key_file=file, agent="none"))


def test_the_passphrase_of_a_key_file_is_not_sent(server: SshServer, tmp_path: Path) -> None:
    assert offered(server, tmp_path, key_file=locked(tmp_path, RIGHT), password="secret") == blobs(RIGHT)


def test_more_keys_in_the_agent_than_a_server_wants_to_see_are_named_as_the_cause(
    agent: Agent, loopback: str, tmp_path: Path
) -> None:
    with serving(RIGHT, tries=3) as server, pytest.raises(LoginRefused) as raised:
        offered(server, tmp_path)
    assert "3 of them with keys of the SSH agent" in raised.value.message
    assert "--kfile" in raised.value.remedy
    assert "IdentitiesOnly" in raised.value.remedy


def test_a_key_that_could_not_be_offered_is_named_with_its_cause(server: SshServer, tmp_path: Path) -> None:
    (tmp_path / "x.ppk").write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    with pytest.raises(LoginRefused, match=r"no key to offer.*x\.ppk is a key of PuTTY"):
        offered(server, tmp_path, identities=(tmp_path / "x.ppk",))


def test_a_login_without_any_key_says_that_there_is_none(server: SshServer, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="there is no key to offer"):
        offered(server, tmp_path)
    assert server.offered == []
