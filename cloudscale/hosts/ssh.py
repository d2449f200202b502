"""Commands on hosts over SSH."""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from cloudscale.errors import CloudscaleError, ConnectionFailed, HostKeyChanged, LoginRefused, RequestError
from cloudscale.hosts.known_hosts import KnownHosts, fingerprint
from cloudscale.model import MOST_OUTPUT, TIMED_OUT, CommandResult, OnOutput, Printed, command_result

# our own errors report what goes wrong; without a handler, Python would print the library's tracebacks as well
logging.getLogger("paramiko").addHandler(logging.NullHandler())

CHUNK = 65536  # bytes
LINGER = 1.0  # seconds for the rest of the output, after a command has ended or was ended
PIECES = 64  # chunks that are taken at once; a channel's window (2 MiB) holds less
PAUSE = 0.02  # seconds between two checks of a running command
OUR_OUTPUT = 64 * MOST_OUTPUT  # bytes of a stream that are kept of what our own scripts print
KILLED = 137  # exit code of a command ended by a signal; paramiko does not report which, so this is SIGKILL's
KEEP_ALIVE = 15  # seconds between two keepalive messages; firewalls drop idle connections
# [user@]host[:port]; an IPv6 address needs brackets if a port follows
HOST = re.compile(
    r"(?:(?P<user>.+)@)?(?:\[(?P<bracketed>[^\]]+)\]|(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:.*)|(?P<host>[^@:\[\]]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class Target:
    """A host to log in to. Without password and key file, the agent's and the user's own keys are tried.

    `label`: its name in messages; `alias`: its name in known_hosts, for a host whose address others had before.
    """

    host: str
    port: int = 22
    user: str = "root"
    password: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    label: str = ""
    alias: str = ""

    @property
    def name(self) -> str:
        return self.label or (self.host if self.port == 22 else f"{self.host}:{self.port}")

    @property
    def address(self) -> str:
        """The host in OpenSSH's notation."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"

    @property
    def entry(self) -> str:
        """The host as it is written in known_hosts."""
        return self.alias or self.address


def parse_target(text: str, *, port: int, user: str, password: str | None, key_file: Path | None) -> Target:
    """`[user@]host[:port]`, an IPv6 address with a port in brackets. Raises RequestError."""
    match = HOST.fullmatch(text)
    if not match or not 0 < int(match["port"] or port) < 65536:
        raise RequestError(f"{text!r} is not a host.", "Write a host as [user@]host[:port].")
    host = match["bracketed"] or match["ipv6"] or match["host"]
    if not all(0 < len(part) < 64 for part in host.split(".")):
        raise RequestError(
            f"{host!r} is not a host name.", "Each part of a host name, between two dots, has 1 to 63 characters."
        )
    return Target(
        host=host,
        port=int(match["port"] or port),
        user=match["user"] or user,
        password=password,
        key_file=key_file.expanduser() if key_file else None,
    )


def connect(target: Target, *, timeout: float, known: KnownHosts) -> Connection:
    """Logs in, within `timeout` seconds for each step. Raises ConnectionFailed, with cause and remedy."""
    client = paramiko.SSHClient()
    try:
        known.prepare(client, target.address, entry=target.entry, name=target.name)
        with _login_errors(target, timeout, known):
            client.connect(
                target.host,
                port=target.port,
                username=target.user,
                # the passphrase of a key is not sent to the host
                password=None if target.key_file else target.password,
                key_filename=str(target.key_file) if target.key_file else None,
                passphrase=target.password if target.key_file else None,
                allow_agent=target.password is None,
                look_for_keys=target.password is None and target.key_file is None,
                timeout=timeout,
                banner_timeout=timeout,
                auth_timeout=timeout,
                channel_timeout=timeout,
            )
            transport = client.get_transport()
            assert transport
            transport.set_keepalive(KEEP_ALIVE)
            return Connection(target, client, transport)
    except BaseException:
        client.close()
        raise


@contextlib.contextmanager
def _login_errors(target: Target, timeout: float, known: KnownHosts) -> Iterator[None]:
    start = time.monotonic()
    silent = ConnectionFailed(
        f"{target.name}: no answer in {timeout:g} s.", "Check that the machine is up, or wait longer with --timeout."
    )
    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise HostKeyChanged(
            f"{target.name}: its host key has changed ({fingerprint(error.key)} now,"
            f" {fingerprint(error.expected_key)} before). This may be another machine, or an attacker in between.",
            f"If the machine was reinstalled, remove the old key: ssh-keygen -R '{target.entry}' -f {known.path}"
            " (without -f for your own known_hosts), then run again.",
        ) from None
    except paramiko.PasswordRequiredException:
        raise ConnectionFailed(
            f"{target.name}: the key {target.key_file} has a passphrase.",
            "Load it into your agent (ssh-add), or give the passphrase as the password.",
        ) from None
    except paramiko.AuthenticationException as error:
        raise LoginRefused(
            f"{target.name}: the login as {target.user} was refused ({error}).",
            "Check the user name, and the password or the key.",
        ) from None
    except TimeoutError:
        raise silent from None
    except FileNotFoundError as error:
        raise ConnectionFailed(
            f"{target.name}: the key file {error.filename} does not exist.", "Check the path of the key file."
        ) from None
    except paramiko.ssh_exception.NoValidConnectionsError as error:
        causes = list(error.errors.values())
        refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
        other = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), "no answer")
        cause = f"nothing listens on port {target.port}" if refused else other.lower()
        raise ConnectionFailed(
            f"{target.name}: {cause}.", f"Check that the machine is up and that its SSH server uses port {target.port}."
        ) from None
    except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
        if time.monotonic() - start >= timeout:  # paramiko raises different errors for it
            raise silent from None
        raise ConnectionFailed(
            f"{target.name}: {str(error) or type(error).__name__}.",
            f"Check that an SSH server listens on port {target.port}: ssh -v -p {target.port} {target.host}",
        ) from None


class Connection:
    """A login on a host, for any number of commands, also in parallel. `peer`: the address that was connected to."""

    def __init__(self, target: Target, client: paramiko.SSHClient, transport: paramiko.Transport) -> None:
        self.target = target
        self.peer = str(transport.getpeername()[0])
        self._client = client
        self._transport = transport

    @property
    def host_key(self) -> str:
        """The key with which the host proved what it is, as in a .pub file."""
        key = self._transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

    @property
    def is_alive(self) -> bool:
        return self._transport.is_active()

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        command: str,
        *,
        timeout: float,
        folder: str | None = None,
        data: bytes = b"",
        on_output: OnOutput | None = None,
        most: int = MOST_OUTPUT,
    ) -> CommandResult:
        """Runs a shell command, in `folder` if one is given, with `data` as its input.

        Of each stream, `most` bytes are kept.

        After `timeout` seconds it is ended (if the server supports that), with exit code 124.
        Raises ConnectionFailed if the connection is lost.
        """
        if folder:
            command = f"cd {_in_home(folder)} || exit; {command}"
        try:
            channel = self._transport.open_session(timeout=timeout)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ConnectionFailed(f"{self.target.name}: the connection is lost ({error}).", "Run again.") from None
        # paramiko waits without limit for the answer to a request: closing the connection ends that wait
        ending = threading.Timer(timeout + LINGER, self._transport.close)
        ending.daemon = True
        ending.start()
        try:
            channel.exec_command(command)
            ending.cancel()
            return _Running(channel, data, on_output, most).result(timeout)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ConnectionFailed(f"{self.target.name}: the connection is lost ({error}).", "Run again.") from None
        finally:
            ending.cancel()
            channel.close()

    def run_root(
        self, script: str, *arguments: str, timeout: float, data: bytes = b"", on_output: OnOutput | None = None
    ) -> CommandResult:
        """Runs a shell script as root, with sudo if the user is not root; the arguments are quoted here.

        Raises ConnectionFailed if sudo is missing or asks for a password, which no one could type.
        """
        words = ["sh", "-c", script, "cloudscale", *arguments]
        if self.target.user == "root":
            return self.run(quoted(words), timeout=timeout, data=data, on_output=on_output, most=OUR_OUTPUT)
        as_root = quoted(["env", "LC_ALL=C", "sudo", "-n", *words])
        done = self.run(as_root, timeout=timeout, data=data, on_output=on_output, most=OUR_OUTPUT)
        if done.exit_code and (cause := _sudo_refusal(done.stderr)):
            raise ConnectionFailed(
                f"{self.target.name}: {self.target.user} is not root on it, and {cause}.",
                f"Allow {self.target.user} to use sudo without a password (with the line"
                f" '{self.target.user} ALL=(ALL) NOPASSWD:ALL' in /etc/sudoers.d/cloudscale on it), or log in as root.",
            )
        return done


def _in_home(folder: str) -> str:
    """The folder, quoted for a shell, which still replaces a `~` or `~user` at its beginning."""
    home, slash, rest = folder.partition("/")
    if not re.fullmatch(r"~[a-z_][a-z0-9_-]*|~", home):
        return shlex.quote(folder)
    return f"{home}{slash}{shlex.quote(rest) if rest else ''}"


def quoted(words: Sequence[str]) -> str:
    """The words, quoted for a shell."""
    return shlex.join(words)


def _sudo_refusal(stderr: str) -> str:
    if re.search(r"^sudo: .*(password is required|askpass|tty)", stderr, re.MULTILINE):
        return "sudo asks for a password"
    if re.search(r"not in the sudoers file|may not run sudo|^Sorry, user .* is not allowed to", stderr, re.MULTILINE):
        return "sudo does not allow it"
    if re.search(r"sudo.*: (command not found|not found|No such file)", stderr):
        return "sudo is not installed"
    return ""


class _Running:
    """A running command: sends its input and receives its output until it ends."""

    def __init__(self, channel: paramiko.Channel, data: bytes, on_output: OnOutput | None, most: int) -> None:
        self._channel = channel
        self._data = memoryview(data)
        self._on_output = on_output or (lambda piece: None)
        self._out, self._err = Printed(most), Printed(most)
        if not data:
            channel.shutdown_write()

    def result(self, timeout: float) -> CommandResult:
        channel, deadline = self._channel, time.monotonic() + timeout
        while not (channel.exit_status_ready() and channel.eof_received) and not channel.closed:
            self._drain()
            if channel.exit_status_ready():
                # a child in the background may keep the streams open after the command itself has ended
                deadline = min(deadline, time.monotonic() + LINGER)
            if time.monotonic() >= deadline:
                break
            if not self._feed():
                # set when the exit status arrives; paramiko has no public event for arriving output
                channel.status_event.wait(PAUSE)
                if channel.exit_status_ready() and not channel.eof_received:
                    time.sleep(PAUSE)
        self._drain()
        if channel.exit_status_ready():
            return self._result(channel.recv_exit_status())
        self._end()
        return command_result(TIMED_OUT, self._out, self._err, f"ended after {timeout:g} s (--timeout)")

    def _feed(self) -> bool:
        """Sends the next piece of the input, if any is left and the window has room; returns whether it did."""
        if not self._data or not self._channel.send_ready():
            return False
        try:
            self._data = self._data[self._channel.send(bytes(self._data[:CHUNK])) :]
            if not self._data:
                self._channel.shutdown_write()
        except OSError:  # the command has ended without reading all of it, which is no error
            self._data = self._data[:0]
        return True

    def _drain(self) -> None:
        """Takes what has arrived. Of an endless output only a part: it would leave no time for the deadline."""
        for ready, receive, printed in (
            (self._channel.recv_ready, self._channel.recv, self._out),
            (self._channel.recv_stderr_ready, self._channel.recv_stderr, self._err),
        ):
            for _ in range(PIECES):
                if not ready():
                    break
                piece = receive(CHUNK)
                printed.add(piece)
                self._on_output(piece)

    def _end(self) -> None:
        """Asks the server to end the command: closing the channel alone would leave it running (RFC 4254, 6.9)."""
        for name in ("TERM", "KILL"):
            message = paramiko.Message()
            message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
            message.add_int(self._channel.remote_chanid)
            message.add_string("signal")
            message.add_boolean(False)
            message.add_string(name)
            with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
                # paramiko has no method for this request
                self._channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]

    def _result(self, exit_code: int) -> CommandResult:
        if exit_code < 0:
            if not self._channel.eof_received:
                raise EOFError("it ended before the command did")
            exit_code = KILLED
        return command_result(exit_code, self._out, self._err)


class Logins:
    """One login for each host, made when it is first needed, and made again if it was lost."""

    def __init__(self, known: KnownHosts) -> None:
        self._known = known
        self._lock = threading.Lock()
        self._locks: dict[Target, threading.Lock] = {}
        self._open: dict[Target, Connection] = {}
        self._failed: dict[Target, CloudscaleError] = {}

    def __call__(self, target: Target, timeout: float) -> Connection:
        """The connection to a host, with `timeout` seconds for each step of a login.

        Raises ConnectionFailed; a host that failed once is not tried again.
        """
        with self._lock:
            lock = self._locks.setdefault(target, threading.Lock())
        with lock:
            if target in self._failed:
                raise self._failed[target]
            connection = self._open.get(target)
            if connection is None or not connection.is_alive:
                try:
                    connection = self._open[target] = connect(target, timeout=timeout, known=self._known)
                except CloudscaleError as error:
                    self._failed[target] = error
                    raise
            return connection

    def keep(self, connection: Connection) -> None:
        """Stores a login that was made elsewhere, for later calls."""
        with self._lock:
            self._open[connection.target] = connection
            self._failed.pop(connection.target, None)
