"""Commands on hosts over SSH; the only importer of paramiko."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from cloudscale.errors import ConnectionFailed, RequestError
from cloudscale.model import TIMED_OUT, UNREACHED, CommandResult

# what goes wrong is told once, by us; without a handler, Python would print the library's tracebacks
logging.getLogger("paramiko").addHandler(logging.NullHandler())

CHUNK = 65536  # bytes
LINGER = 1.0  # seconds for the rest of the output, after a command has ended or is given up
PAUSE = 0.02  # seconds between two looks at a running command
# [user@]host[:port]; an IPv6 address, with colons of its own, needs brackets where a port follows
HOST = re.compile(
    r"(?:(?P<user>.+)@)?(?:\[(?P<bracketed>[^\]]+)\]|(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:.*)|(?P<host>[^@:\[\]]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_FILE_LOCK = threading.Lock()  # one known_hosts, many threads


@dataclass(frozen=True)
class Target:
    """A host to log in to. Without password and key file, the agent's and the user's own keys are tried."""

    host: str
    port: int = 22
    user: str = "root"
    password: str | None = field(default=None, repr=False)
    key_file: Path | None = None

    @property
    def name(self) -> str:
        return self.host if self.port == 22 else f"{self.host}:{self.port}"

    @property
    def entry(self) -> str:
        """The host as known_hosts writes it."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


def parse_target(text: str, *, port: int, user: str, password: str | None, key_file: Path | None) -> Target:
    """`[user@]host[:port]`, an IPv6 address with a port in brackets. Raises RequestError."""
    match = HOST.fullmatch(text)
    if not match or not 0 < int(match["port"] or port) < 65536:
        raise RequestError(f"{text!r} is no host.", "A host is [user@]host[:port].")
    return Target(
        host=match["bracketed"] or match["ipv6"] or match["host"],
        port=int(match["port"] or port),
        user=match["user"] or user,
        password=password,
        key_file=key_file,
    )


@contextlib.contextmanager
def connect(
    target: Target, *, timeout: float, known_hosts: Path, new_key: Callable[[str], None]
) -> Iterator[paramiko.SSHClient]:
    """Logs in, within `timeout` seconds for each step. Raises ConnectionFailed, with cause and remedy.

    The host's key is checked against the user's known_hosts and the given one. A key never seen is
    told to `new_key` and remembered; one that changed is refused.
    """
    client = paramiko.SSHClient()
    _load_known(client, known_hosts)
    client.set_missing_host_key_policy(_Remember(target, known_hosts, new_key))
    try:
        client.connect(
            target.host,
            port=target.port,
            username=target.user,
            password=target.password,
            key_filename=str(target.key_file.expanduser()) if target.key_file else None,
            passphrase=target.password if target.key_file else None,
            allow_agent=target.password is None and target.key_file is None,
            look_for_keys=target.password is None and target.key_file is None,
            timeout=timeout,
            banner_timeout=timeout,
            auth_timeout=timeout,
            channel_timeout=timeout,
        )
        yield client
    except paramiko.BadHostKeyException as error:
        raise ConnectionFailed(
            f"{target.name}: its host key is not the one that is known ({_fingerprint(error.key)} now,"
            f" {_fingerprint(error.expected_key)} before): this may be another machine, or somebody in between.",
            f"If the machine was set up anew, forget the old key: ssh-keygen -R '{target.entry}' -f {known_hosts}"
            " (and without -f for your own file), then run again.",
        ) from None
    except paramiko.PasswordRequiredException:
        raise ConnectionFailed(
            f"{target.name}: the key {target.key_file} has a passphrase.", "Give it with --pwd, or load it: ssh-add."
        ) from None
    except paramiko.AuthenticationException as error:
        raise ConnectionFailed(
            f"{target.name}: it does not let {target.user} in ({error}).", "Check --user, and --pwd or --kfile."
        ) from None
    except TimeoutError:
        raise ConnectionFailed(
            f"{target.name}: no answer in {timeout:g} s.", "Is it up? --timeout waits longer."
        ) from None
    except paramiko.ssh_exception.NoValidConnectionsError:
        raise ConnectionFailed(f"{target.name}: nothing listens on port {target.port}.", "Check --port.") from None
    except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
        raise ConnectionFailed(
            f"{target.name}: {str(error) or type(error).__name__}.",
            f"Is it an SSH server that listens on port {target.port}? Try: ssh -v -p {target.port} {target.host}",
        ) from None
    finally:
        client.close()


def _load_known(client: paramiko.SSHClient, known_hosts: Path) -> None:
    for path in (Path("~/.ssh/known_hosts").expanduser(), known_hosts):
        with _FILE_LOCK:
            try:
                client.load_system_host_keys(str(path))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, paramiko.hostkeys.InvalidHostKey) as error:
                raise ConnectionFailed(
                    f"{path} can't be read, so no host can be told from another ({error}).", "Mend or remove the line."
                ) from None


class _Remember(paramiko.MissingHostKeyPolicy):
    """Trust on first use, said aloud and written down."""

    def __init__(self, target: Target, known_hosts: Path, new_key: Callable[[str], None]) -> None:
        self._target = target
        self._known_hosts = known_hosts
        self._new_key = new_key

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        with _FILE_LOCK:
            self._known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._known_hosts.open("a") as file:
                file.write(f"{self._target.entry} {key.get_name()} {key.get_base64()}\n")
        self._new_key(f"{self._target.name}: new host key {_fingerprint(key)}, remembered in {self._known_hosts}")


def _fingerprint(key: paramiko.PKey) -> str:
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def run(client: paramiko.SSHClient, command: str, *, folder: str | None, timeout: float) -> CommandResult:
    """Runs a shell command, in `folder` where one is given; past `timeout` seconds it is given up (124)."""
    if folder:
        command = f"cd {shlex.quote(folder)} && {command}"
    transport = client.get_transport()
    if transport is None:
        raise ConnectionFailed("The connection was closed.")
    channel = transport.open_session(timeout=timeout)
    # paramiko waits without limit for the answer to a request: the end of the connection ends that, too
    ending = threading.Timer(timeout + LINGER, transport.close)
    ending.daemon = True
    ending.start()
    try:
        channel.exec_command(command)
        channel.shutdown_write()
        out: list[bytes] = []
        err: list[bytes] = []
        deadline = time.monotonic() + timeout
        while not (channel.exit_status_ready() and channel.eof_received) and not channel.closed:
            _drain(channel, out, err)
            if channel.exit_status_ready():
                # a child in the background may keep the streams open after the command itself has ended
                deadline = min(deadline, time.monotonic() + LINGER)
            if time.monotonic() >= deadline:
                break
            time.sleep(PAUSE)
        _drain(channel, out, err)
        if channel.exit_status_ready():
            return _result(channel.recv_exit_status(), out, err)
        return _result(TIMED_OUT, out, [*err, f"given up after {timeout:g} s (--timeout)\n".encode()])
    finally:
        ending.cancel()
        channel.close()


def _drain(channel: paramiko.Channel, out: list[bytes], err: list[bytes]) -> None:
    while channel.recv_ready():
        out.append(channel.recv(CHUNK))
    while channel.recv_stderr_ready():
        err.append(channel.recv_stderr(CHUNK))


def _result(exit_code: int, out: list[bytes], err: list[bytes]) -> CommandResult:
    if exit_code < 0:  # the connection ended before the command did
        exit_code = UNREACHED
    return CommandResult(exit_code, b"".join(out).decode(errors="replace"), b"".join(err).decode(errors="replace"))
