"""Logins on hosts over SSH, also through other hosts, and commands on them."""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import paramiko

from cloudscale.errors import CloudscaleError, ConnectionFailed, NotReached
from cloudscale.hosts.credentials import log_in
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.proxy import ProxyCommand
from cloudscale.hosts.running import LINGER, Running
from cloudscale.hosts.shells import for_any_shell, quoted
from cloudscale.hosts.signs_of_life import SILENCE, SignsOfLife
from cloudscale.hosts.target import Target
from cloudscale.hosts.transport import Transport
from cloudscale.model import MOST_OUTPUT, CommandResult, OnOutput
from cloudscale.waiting import at_most

# our own errors report what goes wrong; without a handler, Python would print the library's tracebacks as well
logging.getLogger("paramiko").addHandler(logging.NullHandler())

OUR_OUTPUT = 64 * MOST_OUTPUT  # bytes of a stream that are kept of what our own scripts print
MOST_OF_LINE = 1000  # bytes


class _Unknown(Exception):
    """A host has a key that no file has, and it is to get a password."""

    def __init__(self, key: paramiko.PKey) -> None:
        super().__init__()
        self.key = key


def connect(target: Target, *, timeout: float, known: KnownHosts, over: Connection | None = None) -> Connection:
    """Logs in, within `timeout` seconds. Raises ConnectionFailed, with cause and remedy.

    `over`: the connection to the host through which this one is reached (`target.via`).
    """
    timeout = target.patience or timeout
    try:
        return _connect(target, timeout, known, over)
    except _Unknown as unknown:
        known.accept(target, unknown.key)  # it asks the user; meanwhile no connection waits
        return _connect(target, timeout, known, over)


def _connect(target: Target, timeout: float, known: KnownHosts, over: Connection | None) -> Connection:
    with contextlib.ExitStack() as resources:
        deadline = time.monotonic() + timeout
        with _login_errors(target, timeout):
            transport = Transport(_way(target, timeout, over, resources))
            resources.callback(transport.close)
            # each step has a limit of its own in paramiko; this one is for all of them
            with at_most(deadline - time.monotonic(), transport.close):
                _start(transport, target, timeout, known)
                log_in(target, transport)
        signs = SignsOfLife(transport)
        resources.callback(signs.end)
        return Connection(target, transport, resources.pop_all(), signs)


def _way(
    target: Target, timeout: float, over: Connection | None, resources: contextlib.ExitStack
) -> socket.socket | paramiko.Channel:
    """What carries the connection: a channel through another host, a command, or a socket."""
    if target.via:
        assert over
        return over.open(target.host, target.port, timeout)
    if target.proxy:
        return resources.enter_context(ProxyCommand(target.name, target.proxy)).socket
    return socket.create_connection((target.host, target.port), timeout, all_errors=True)


def _closable(channel: paramiko.Channel) -> paramiko.Channel:
    """The channel, which can be closed in any thread, at any time: its connection may be lost or closed by then."""
    close = channel.close

    def quietly() -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            close()

    channel.close = quietly  # type: ignore[method-assign]
    return channel


def _start(transport: paramiko.Transport, target: Target, timeout: float, known: KnownHosts) -> None:
    """Agrees on keys with the host, and checks who it is."""
    transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = timeout
    kinds = known.kinds(target)
    options = transport.get_security_options()
    # it is to show the key by which it is known; RSA keys have names of their own for each digest
    preferred = [name for name in options.key_types if name in kinds or ("ssh-rsa" in kinds and name.startswith("rsa"))]
    options.key_types = [*preferred, *(name for name in options.key_types if name not in preferred)]
    transport.start_client(timeout=timeout)
    key = transport.get_remote_server_key()
    if not known.check(target, key):
        if target.sends_password:
            raise _Unknown(key)
        known.accept(target, key)


@contextlib.contextmanager
def _login_errors(target: Target, timeout: float) -> Iterator[None]:
    start = time.monotonic()
    silent = ConnectionFailed(
        f"{target.name}: no answer in {timeout:g} s.", "Check that the machine is up, or wait longer with --timeout."
    )
    try:
        yield
    except CloudscaleError:
        if time.monotonic() - start >= timeout:  # it seemed to end the connection, and the limit did
            raise silent from None
        raise
    except TimeoutError:
        raise silent from None
    except ExceptionGroup as group:  # one error for each address
        if any(isinstance(error, TimeoutError) for error in group.exceptions):
            raise silent from None
        refused = any(isinstance(error, ConnectionRefusedError) for error in group.exceptions)
        error = group.exceptions[-1]
        cause = f"nothing listens on port {target.port}" if refused else _cause(error)
        raise ConnectionFailed(
            f"{target.name}: {cause}.", f"Check that the machine is up and that its SSH server uses port {target.port}."
        ) from None
    except socket.gaierror as error:
        raise ConnectionFailed(
            f"{target.name}: the name {target.host} is not known ({_cause(error)}).",
            "Check the name: it is that of the host, or one that ~/.ssh/config has.",
        ) from None
    except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
        if time.monotonic() - start >= timeout:  # paramiko raises different errors for it
            raise silent from None
        raise ConnectionFailed(
            f"{target.name}: {str(error) or type(error).__name__}.",
            f"Check that an SSH server listens on port {target.port}: ssh -v -p {target.port} {target.host}",
        ) from None


def _cause(error: Exception) -> str:
    return ((isinstance(error, OSError) and error.strerror) or "no answer").lower()


class Connection:
    """A login on a host, for any number of commands, also in parallel. `peer`: the address that was connected to."""

    def __init__(
        self,
        target: Target,
        transport: paramiko.Transport,
        resources: contextlib.ExitStack | None = None,
        signs: SignsOfLife | None = None,
    ) -> None:
        self.target = target
        self.peer = target.host if target.via or target.proxy else str(transport.getpeername()[0])
        self._transport = transport
        self._resources = resources or contextlib.ExitStack()
        self._signs = signs

    @property
    def host_key(self) -> str:
        """The key with which the host proved what it is, as in a .pub file."""
        key = self._transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

    @property
    def is_alive(self) -> bool:
        return self._transport.is_active()

    def close(self) -> None:
        self._resources.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, host: str, port: int, timeout: float) -> paramiko.Channel:
        """A connection from this host to another one, or to itself. Raises ConnectionFailed."""
        try:
            way = self._transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout)
            return _closable(way)
        except paramiko.ChannelException as error:
            if error.code == paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
                raise ConnectionFailed(
                    f"{self.target.name}: its SSH server does not let you connect to others through it.",
                    "Set AllowTcpForwarding yes in its sshd_config.",
                ) from None
            raise NotReached(
                f"{self.target.name}: no connection from there to {host}, port {port} ({error.text or error}).",
                f"Check that {host} is up, and that this host knows its name and reaches its port.",
            ) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            if self._transport.is_active():  # nothing came of it in time
                raise NotReached(
                    f"{self.target.name}: no connection from there to {host}, port {port}, in {timeout:g} s.",
                    f"Check that {host} is up, and that no firewall blocks its port {port}.",
                ) from None
            raise self._lost(error) from None

    def _lost(self, error: Exception) -> ConnectionFailed:
        if self._signs and self._signs.are_missing:
            return ConnectionFailed(
                f"{self.target.name}: the connection is lost (no sign of life for {SILENCE:g} s).",
                "Check that the machine is up, then run again.",
            )
        return ConnectionFailed(f"{self.target.name}: the connection is lost ({error}).", "Run again.")

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
        """Runs a command of sh, whatever the login shell is, in `folder` if one is given, with `data` as its input.

        Of each stream, `most` bytes are kept.

        After `timeout` seconds it is ended (if the server supports that), with exit code 124.
        Raises ConnectionFailed if the connection is lost.
        """
        if folder:
            command = f"cd {_in_home(folder)} || exit; {command}"
        try:
            channel = _closable(self._transport.open_session(timeout=timeout))
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(error) from None
        try:
            self._start(channel, command, timeout + LINGER)
            return Running(channel, data, on_output, most).result(timeout)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(error) from None
        finally:
            channel.close()

    def _start(self, channel: paramiko.Channel, command: str, timeout: float) -> None:
        # paramiko waits without limit for the answer to a request: closing the connection ends that wait
        with at_most(timeout, self._transport.close):
            channel.exec_command(for_any_shell(command))

    def run_root(
        self, script: str, *arguments: str, timeout: float, data: bytes = b"", on_output: OnOutput | None = None
    ) -> CommandResult:
        """Runs a shell script as root, with sudo if the user is not root; the arguments are quoted here.

        Raises ConnectionFailed if sudo is missing or asks for a password, which no one could type.
        """
        command = self._as_root(script, arguments)
        done = self.run(command, timeout=timeout, data=data, on_output=on_output, most=OUR_OUTPUT)
        if self.target.user != "root" and done.exit_code and (cause := _sudo_refusal(done.stderr)):
            raise ConnectionFailed(
                f"{self.target.name}: {self.target.user} is not root on it, and {cause}.",
                f"Allow {self.target.user} to use sudo without a password (with the line"
                f" '{self.target.user} ALL=(ALL) NOPASSWD:ALL' in /etc/sudoers.d/cloudscale on it), or log in as root.",
            )
        return done

    def _as_root(self, script: str, arguments: Sequence[str]) -> str:
        words = ["sh", "-c", script, "cloudscale", *arguments]
        return quoted(words if self.target.user == "root" else ["env", "LC_ALL=C", "sudo", "-n", *words])

    @contextlib.contextmanager
    def conversation(self, script: str, *arguments: str, timeout: float) -> Iterator[Conversation]:
        """A shell script that root runs there until this context ends, or the connection; its input ends with it.

        `timeout`: seconds for each line of its answer. Raises ConnectionFailed if the connection is lost.
        """
        with contextlib.ExitStack() as resources:
            try:
                channel = _closable(self._transport.open_session(timeout=timeout))
                resources.callback(channel.close)
                channel.settimeout(timeout)
                self._start(channel, self._as_root(script, arguments), timeout)
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise self._lost(error) from None
            yield Conversation(self.target.name, channel, timeout)


class Conversation:
    """A script that runs on a host, prints lines, and reads what is sent to it. `timeout`: seconds for a line."""

    def __init__(self, name: str, channel: paramiko.Channel, timeout: float) -> None:
        self._name = name
        self._channel = channel
        self._timeout = timeout
        self._output = channel.makefile("rb")

    def line(self) -> str:
        """The next line that it prints; empty once it has ended. Raises ConnectionFailed if none comes in time."""
        begun = time.monotonic()
        try:
            with at_most(self._timeout, self._channel.close):  # one that comes byte by byte must not last longer
                line = self._output.readline(MOST_OF_LINE)
            if time.monotonic() - begun >= self._timeout:
                raise ConnectionFailed(f"{self._name}: no answer in {self._timeout:g} s.", "Run again.")
            return bytes(line).decode(errors="replace").strip()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ConnectionFailed(f"{self._name}: the connection is lost ({error}).", "Run again.") from None

    def send(self, data: bytes) -> bool:
        """Whether the script may still read it."""
        try:
            self._channel.sendall(data)
        except (paramiko.SSHException, OSError, EOFError):
            return False
        return True


def _in_home(folder: str) -> str:
    """The folder, quoted for a shell, which still replaces a `~` or `~user` at its beginning."""
    home, slash, rest = folder.partition("/")
    if not re.fullmatch(r"~[a-z_][a-z0-9_-]*|~", home):
        return shlex.quote(folder)
    return f"{home}{slash}{shlex.quote(rest) if rest else ''}"


def _sudo_refusal(stderr: str) -> str:
    if re.search(r"^sudo: .*(password is required|askpass|tty)", stderr, re.MULTILINE):
        return "sudo asks for a password"
    if re.search(r"not in the sudoers file|may not run sudo|^Sorry, user .* is not allowed to", stderr, re.MULTILINE):
        return "sudo does not allow it"
    if re.search(r"sudo.*: (command not found|not found|No such file)", stderr):
        return "sudo is not installed"
    return ""


class Logins:
    """One login for each host, made when it is first needed, and made again if it was lost."""

    def __init__(self, known: KnownHosts) -> None:
        self._known = known
        self._lock = threading.Lock()
        self._locks: dict[Target, threading.Lock] = {}
        self._open: dict[Target, Connection] = {}
        self._failed: dict[Target, CloudscaleError] = {}

    def __call__(self, target: Target, timeout: float) -> Connection:
        """The connection to a host, with `timeout` seconds for a login.

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
                    connection = self._open[target] = self.fresh(target, timeout)
                except CloudscaleError as error:
                    self._failed[target] = error
                    raise
            return connection

    def fresh(self, target: Target, timeout: float) -> Connection:
        """A connection that nobody else uses. The hosts through which it leads are logged in to once."""
        if not target.via:
            return connect(target, timeout=timeout, known=self._known)
        deadline = time.monotonic() + timeout
        over = self(target.via, timeout)
        left = max(deadline - time.monotonic(), 0.1)
        return connect(target, timeout=left, known=self._known, over=over)

    def keep(self, connection: Connection) -> None:
        """Stores a login that was made elsewhere, for later calls."""
        with self._lock:
            self._open[connection.target] = connection
            self._failed.pop(connection.target, None)
