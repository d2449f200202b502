"""What a login offers to a host, in which order: a password, or keys of files and of the SSH agent."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH

from cloudscale.errors import LoginRefused, RequestError
from cloudscale.hosts.private_keys import Locked, NotPrivate, load_private_key, public_part, with_certificate
from cloudscale.hosts.target import Target
from cloudscale.outside import home_path

AGENT_TIMEOUT = 60.0  # seconds for the agent to answer; it may ask its user
USUAL = tuple(Path(f"~/.ssh/{name}") for name in ("id_rsa", "id_ecdsa", "id_ed25519"))


def log_in(target: Target, transport: paramiko.Transport) -> None:
    """Offers what there is until the host accepts it.

    Raises LoginRefused, which says what was offered, and RequestError if the key file can't be used.
    """
    tried: list[paramiko.PKey | None] = []
    unusable: list[str] = []
    last: Exception | None = None
    with contextlib.closing(_Keys(target, unusable)) as keys:
        for key in [None] if target.sends_password else keys:
            try:
                if key is None:
                    transport.auth_password(target.user, target.password or "")
                else:
                    transport.auth_publickey(target.user, key)
            except (paramiko.SSHException, EOFError, OSError) as error:
                last = error
            if transport.is_authenticated():
                return
            tried.append(key)
            if not transport.is_active():
                raise _ended(target, tried)
    raise _refusal(target, last, unusable)


def _ended(target: Target, tried: Sequence[paramiko.PKey | None]) -> LoginRefused:
    """A server ends the connection after some wrong keys: MaxAuthTries of sshd_config(5), 6 by default."""
    of_agent = sum(isinstance(key, paramiko.AgentKey) for key in tried)
    refused = f"{target.name}: the login as {target.user} was refused: the host ended it after {len(tried)} attempts"
    if not of_agent:
        return LoginRefused(f"{refused}.", "Check the user name, and the password or the key.")
    return LoginRefused(
        f"{refused}, {of_agent} of them with keys of the SSH agent.",
        "Name the right key with --kfile or generic.kfile, or with IdentityFile and IdentitiesOnly in ~/.ssh/config.",
    )


def _refusal(target: Target, last: Exception | None, unusable: Sequence[str]) -> LoginRefused:
    also = f" Not offered: {'; '.join(unusable)}." if unusable else ""
    refused = f"{target.name}: the login as {target.user} was refused"
    if last is None:
        return LoginRefused(
            f"{refused}: there is no key to offer, in the SSH agent or in a file.{also}",
            "Load a key into your agent (ssh-add), name the file of a key, or give a password.",
        )
    return LoginRefused(f"{refused} ({last}).{also}", "Check the user name, and the password or the key.")


class _Keys:
    """The keys for a host: that of the key file alone; or those of the configuration, of the agent, the usual ones."""

    def __init__(self, target: Target, unusable: list[str]) -> None:
        self._target = target
        self._unusable = unusable
        self._agent = _agent(target)
        self._of_agent = {key.asbytes(): key for key in self._agent.get_keys()} if self._agent else {}

    def close(self) -> None:
        if self._agent:
            self._agent._close()  # type: ignore[attr-defined]  # the agent at another socket has no public method

    def __iter__(self) -> Iterator[paramiko.PKey]:
        target = self._target
        if target.key_file:
            yield from self._of_file(target.key_file, target.password)
            return
        offered = set()
        for key in self._all():
            mark = key.asbytes(), key.public_blob is not None
            if mark not in offered:
                offered.add(mark)
                yield key

    def _all(self) -> Iterator[paramiko.PKey]:
        target = self._target
        yield from self._of_files(target.identities or ())
        if not target.only_identities:
            yield from self._of_agent.values()
        if target.identities is None:
            yield from self._of_files(home_path(file) for file in USUAL)

    def _of_files(self, files: Iterable[Path]) -> Iterator[paramiko.PKey]:
        for file in files:
            if not file.exists() and not Path(f"{file}.pub").exists():
                continue
            try:
                yield from self._of_file(file, None)
            except RequestError as error:
                self._unusable.append(error.message.rstrip("."))

    def _of_file(self, file: Path, passphrase: str | None) -> Iterator[paramiko.PKey]:
        """The key of a file, first with its certificate; the agent's if only the agent can use it.

        Raises RequestError.
        """
        try:
            key = load_private_key(file, passphrase)
        except (Locked, NotPrivate):
            of_agent = self._of_agent.get(public_part(file) or b"")
            if of_agent is None:
                raise
            yield of_agent
            return
        if certified := with_certificate(key, file):
            yield certified
        yield key


def check_key_file(target: Target) -> None:
    """Raises RequestError, before anything is connected, if the key file of a target can't be used."""
    with contextlib.closing(_Keys(target, [])) as keys:
        if target.key_file:
            next(iter(keys))


def _agent(target: Target) -> AgentSSH | None:
    """The SSH agent; None if none answers."""
    if target.agent == "none" or target.sends_password:
        return None
    with contextlib.suppress(OSError, paramiko.SSHException, EOFError):
        if not target.agent:
            return paramiko.Agent()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(AGENT_TIMEOUT)
        try:
            connection.connect(target.agent)
            agent = AgentSSH()
            agent._connect(connection)  # type: ignore[attr-defined]
        except BaseException:
            connection.close()
            raise
        return agent
    return None
