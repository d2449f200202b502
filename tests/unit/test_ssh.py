from __future__ import annotations

import base64
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH
from pathlib import Path
from typing import Any

import paramiko
import pytest

from cloudscale import ssh
from cloudscale.errors import ConnectionFailed, RequestError
from cloudscale.model import CommandResult
from cloudscale.ssh import Connection, KnownHosts, Logins, Target, connect, parse_target, quoted
from tests.unit.fakes import FakeClock

KEY = paramiko.ECDSAKey.generate()
OTHER_KEY = paramiko.ECDSAKey.generate()


def parse(text: str) -> Target:
    return parse_target(text, port=22, user="root", password=None, key_file=None)


# --- targets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("192.0.2.1", "root", "192.0.2.1", 22),
        ("debian@host.example", "debian", "host.example", 22),
        ("host.example:2222", "root", "host.example", 2222),
        ("debian@host.example:2222", "debian", "host.example", 2222),
        ("2001:db8::1", "root", "2001:db8::1", 22),
        ("[2001:db8::1]", "root", "2001:db8::1", 22),
        ("debian@[2001:db8::1]:2222", "debian", "2001:db8::1", 2222),
        ("user@domain@host", "user@domain", "host", 22),
    ],
)
def test_a_target_is_user_host_and_port(text: str, user: str, host: str, port: int) -> None:
    assert parse(text) == Target(host, port, user)


def test_what_a_target_leaves_out_is_the_flags() -> None:
    target = parse_target("host", port=2200, user="ann", password="secret", key_file=Path("key"))
    assert target == Target("host", 2200, "ann", "secret", Path("key"))


@pytest.mark.parametrize(
    "text", ["", "@host", "user@", ":22", "host:http", "host:-1", "host:0", "host:65536", "host:²", "[::1]x", "[]:22"]
)
def test_what_is_no_host_is_a_wrong_request(text: str) -> None:
    with pytest.raises(RequestError, match="is no host"):
        parse(text)


def test_a_target_is_named_with_its_port_where_that_is_not_the_usual_one() -> None:
    assert (Target("host").name, Target("host").entry) == ("host", "host")
    assert (Target("host", 2222).name, Target("host", 2222).entry) == ("host:2222", "[host]:2222")


def test_a_password_is_in_no_representation() -> None:
    assert "secret" not in repr(Target("host", password="secret"))


# --- logging in ------------------------------------------------------------------------------


class Client(paramiko.SSHClient):
    """A client whose host does as it is told."""

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


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Client]:
    monkeypatch.setenv("HOME", str(tmp_path))  # no known hosts of the user who runs this

    class Own(Client):
        given: dict[str, Any] = {}  # noqa: RUF012 - one client a test

    monkeypatch.setattr(paramiko, "SSHClient", Own)
    return Own


def known_hosts(tmp_path: Path, new_key: Callable[[str], None] = lambda text: None) -> KnownHosts:
    return KnownHosts(tmp_path / "known_hosts", new_key)


def log_in(target: Target, tmp_path: Path, new_key: Callable[[str], None] = lambda text: None) -> None:
    with connect(target, timeout=5, known=known_hosts(tmp_path, new_key)):
        pass


def test_a_password_is_the_only_thing_that_is_tried_where_it_is_given(client: type[Client], tmp_path: Path) -> None:
    log_in(Target("host", 2222, "ann", "secret"), tmp_path)
    assert (client.given["hostname"], client.given["port"], client.given["username"]) == ("host", 2222, "ann")
    assert client.given["password"] == "secret"
    assert not client.given["allow_agent"]
    assert not client.given["look_for_keys"]
    assert client.given["passphrase"] is None


def test_of_a_key_file_the_password_is_the_passphrase(client: type[Client], tmp_path: Path) -> None:
    target = parse_target("host", port=22, user="root", password="secret", key_file=Path("~/key"))
    log_in(target, tmp_path)
    assert client.given["key_filename"] == str(tmp_path / "key")
    assert client.given["passphrase"] == "secret"
    assert client.given["password"] is None  # the host is not shown it
    assert not client.given["allow_agent"]


def test_without_either_the_users_own_keys_are_tried(client: type[Client], tmp_path: Path) -> None:
    log_in(Target("host"), tmp_path)
    assert client.given["allow_agent"]
    assert client.given["look_for_keys"]
    assert client.given["key_filename"] is None


def test_every_step_has_the_deadline(client: type[Client], tmp_path: Path) -> None:
    log_in(Target("host"), tmp_path)
    assert {client.given[step] for step in client.given if step.endswith("timeout")} == {5}
    assert client.given["timeout"] == 5


def no_way(errors: dict[str, int]) -> Exception:
    """What paramiko says where none of a host's addresses takes the connection."""
    causes: Any = {
        (host, 22): OSError(number, os.strerror(number)) if number else OSError() for host, number in errors.items()
    }
    return paramiko.ssh_exception.NoValidConnectionsError(causes)


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (paramiko.AuthenticationException("Authentication failed."), "does not let root in"),
        (paramiko.PasswordRequiredException(), "has a passphrase"),
        (paramiko.BadHostKeyException("host", KEY, OTHER_KEY), "host key is not the one that is known"),
        (TimeoutError(), "no answer in 5 s"),
        (no_way({"::1": ENETUNREACH, "192.0.2.1": ECONNREFUSED}), "nothing listens on port 22"),
        (no_way({"192.0.2.1": EHOSTUNREACH}), "no route to host"),
        (no_way({"192.0.2.1": 0}), "no answer"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (paramiko.SSHException("Error reading SSH protocol banner"), "protocol banner"),
        (EOFError(), "EOFError"),
        (FileNotFoundError(2, "No such file or directory", "/key"), "/key"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_host_that_does_not_let_us_in_is_named_with_the_cause(
    client: type[Client], tmp_path: Path, cause: Exception, message: str
) -> None:
    client.outcome = cause
    with pytest.raises(ConnectionFailed, match=message) as raised:
        log_in(Target("host", password="secret"), tmp_path)
    assert raised.value.message.startswith("host: ")
    assert "secret" not in str(raised.value)
    assert client.closed


@pytest.mark.parametrize("seconds", [4.9, 5, 60])
def test_whatever_is_said_once_the_deadline_has_passed_the_host_did_not_answer(
    client: type[Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    client.outcome = paramiko.SSHException("Error reading SSH protocol banner")
    clock = FakeClock()
    monkeypatch.setattr("cloudscale.ssh.time.monotonic", clock.now)
    log = client.connect

    def slow(self: Client, hostname: str, **settings: Any) -> None:
        clock.sleep(seconds)
        log(self, hostname, **settings)

    monkeypatch.setattr(client, "connect", slow)
    with pytest.raises(ConnectionFailed, match="protocol banner" if seconds < 5 else "host: no answer in 5 s"):
        log_in(Target("host"), tmp_path)


def test_a_client_is_closed_whatever_happens_in_between(client: type[Client], tmp_path: Path) -> None:
    with pytest.raises(KeyError), connect(Target("host"), timeout=5, known=known_hosts(tmp_path)):
        raise KeyError
    assert client.closed


def test_a_connection_gives_signs_of_life(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    transport = Transport(None)
    monkeypatch.setattr(client, "get_transport", lambda self: transport)
    with connect(Target("host"), timeout=5, known=known_hosts(tmp_path)) as connection:
        assert 0 < transport.keep_alive <= 60
        assert connection.is_alive


# --- host keys -------------------------------------------------------------------------------


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


@pytest.mark.parametrize("target", [Target("host"), Target("host", 2222)], ids=lambda target: target.name)
def test_a_new_host_key_is_told_once_and_remembered(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: Target
) -> None:
    meet(client, monkeypatch, KEY)
    told: list[str] = []
    for _ in range(2):
        log_in(target, tmp_path, told.append)
    assert len(told) == 1
    assert "SHA256:" in told[0]
    entry, kind, encoded = (tmp_path / "known_hosts").read_text().split()
    assert (entry, kind) == (target.entry, KEY.get_name())
    assert base64.b64decode(encoded) == KEY.asbytes()


def test_a_host_key_that_changed_is_refused(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    log_in(Target("host"), tmp_path)
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(ConnectionFailed, match="ssh-keygen -R"):
        log_in(Target("host"), tmp_path)


@pytest.mark.usefixtures("client")
def test_a_line_of_the_users_known_hosts_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text("host ssh-rsa not-base64\n")
    with pytest.raises(ConnectionFailed, match=r"\.ssh/known_hosts can't be read"):
        log_in(Target("host"), tmp_path)


# --- commands --------------------------------------------------------------------------------


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


def on(channel: Channel, user: str = "root") -> Connection:
    client: Any = paramiko.SSHClient()
    transport: Any = channel.transport
    return Connection(Target("host", user=user), client, transport)


def run(channel: Channel, timeout: float = 5, **settings: Any) -> CommandResult:
    return on(channel).run("ls | wc -l", timeout=timeout, **settings)


def test_a_command_gives_exit_code_and_both_streams() -> None:
    channel = Channel(3, b"out\n", "fällt\n".encode())
    result = run(channel)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "fällt\n")
    assert channel.command == "ls | wc -l"
    assert channel.closed
    assert not channel.transport.is_closed


def test_a_command_is_waited_for_to_its_end() -> None:
    assert run(Channel(0, b"out\n", looks=3)).exit_code == 0


def test_a_command_has_nothing_to_read_from() -> None:
    channel = Channel(0)
    run(channel)
    assert (channel.taken, channel.writable) == (b"", False)


@pytest.mark.parametrize("window", [1000, 2**21])
def test_a_command_gets_its_input_whole_and_to_its_end(window: int) -> None:
    data = bytes(range(256)) * 400
    channel = Channel(0, b"out\n", looks=10**9, window=window)

    def end() -> None:
        channel._looks = 0
        channel.writable = False

    channel.shutdown_write = end  # type: ignore[method-assign]
    assert run(channel, data=data).stdout == "out\n"
    assert channel.taken == data
    assert not channel.writable


def test_a_command_that_ends_without_reading_its_input_is_told_by_its_own_words() -> None:
    # such as sudo, which refuses before it reads anything
    result = run(Channel(1, err=b"sudo: a password is required\n", looks=3, deaf=True), data=b"x" * 10)
    assert (result.exit_code, result.stderr) == (1, "sudo: a password is required\n")


def test_what_a_command_says_is_heard_as_it_comes() -> None:
    heard: list[bytes] = []
    result = run(Channel(0, b"out\n", b"err\n"), heard=heard.append)
    assert sorted(heard) == [b"err\n", b"out\n"]
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_a_command_that_leaves_a_child_with_its_streams_has_ended_all_the_same() -> None:
    channel = Channel(0, b"out\n")
    channel.eof_received = False
    result = run(channel, timeout=0.05)
    assert (result.exit_code, result.stdout) == (0, "out\n")


def test_a_folder_is_quoted() -> None:
    channel = Channel(0)
    run(channel, folder="Ann's work; rm -rf /")
    assert channel.command == """cd 'Ann'"'"'s work; rm -rf /' || exit; ls | wc -l"""


@pytest.mark.usefixtures("processes")
def test_nothing_runs_where_the_folder_is_missing() -> None:
    channel = Channel(0)
    on(channel).run("echo one; echo two", folder="/nowhere/at/all", timeout=5)
    done = subprocess.run(["sh", "-c", channel.command], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode


def test_a_command_past_its_deadline_is_ended_with_exit_code_124() -> None:
    channel = Channel(None, b"begun\n")
    result = run(channel, timeout=0.05)
    assert (result.exit_code, result.stdout) == (124, "begun\n")
    assert "ended after 0.05 s" in result.stderr
    assert "--timeout" in result.stderr
    assert channel.closed
    assert not channel.transport.is_closed  # others may run by it


def test_the_server_is_asked_to_end_a_command_past_its_deadline() -> None:
    # closing the channel alone would leave it running
    channel = Channel(None)
    run(channel, timeout=0.05)
    requests = [paramiko.Message(message) for message in channel.transport.messages]
    for request, signal in zip(requests, ("TERM", "KILL"), strict=True):
        assert request.get_byte() == paramiko.common.cMSG_CHANNEL_REQUEST
        assert request.get_int() == channel.remote_chanid
        assert (request.get_text(), request.get_boolean(), request.get_text()) == ("signal", False, signal)


def test_a_host_that_does_not_answer_a_request_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LINGER", 0.05)
    channel = Channel(None)

    def never(command: str) -> None:
        assert channel.status_event.wait(10)
        raise paramiko.SSHException("Channel closed.")

    channel.exec_command = never  # type: ignore[method-assign]
    with pytest.raises(ConnectionFailed, match="host: the connection is lost"):
        run(channel, timeout=0.05)
    assert channel.transport.is_closed


def test_a_host_that_is_slow_to_answer_a_request_leaves_the_command_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LINGER", 0.05)
    channel = Channel(None)
    # so long that the time for answer and command is up while the command may still run
    channel.exec_command = lambda command: channel.status_event.wait(0.2)  # type: ignore[method-assign,assignment]
    assert run(channel, timeout=0.2).exit_code == 124
    assert not channel.transport.is_closed


def test_a_connection_that_ends_before_the_command_is_lost() -> None:
    channel = Channel(None, b"out\n")
    channel.eof_received = False
    channel.close()
    with pytest.raises(ConnectionFailed, match="host: the connection is lost") as raised:
        run(channel)
    assert "Run again" in raised.value.remedy


def test_a_command_that_a_signal_ended_is_no_lost_connection() -> None:
    # such as one that the kernel ended for want of memory: the server says so, and ends the streams
    result = run(Channel(-1, b"out\n"))
    assert result.exit_code
    assert result.stdout == "out\n"


def test_the_address_that_a_host_was_reached_by_is_known() -> None:
    assert on(Channel(0)).peer == "2001:db8::1"


def test_a_host_that_was_lost_has_an_address_all_the_same_or_is_told() -> None:
    channel = Channel(0)
    connection = on(channel)
    channel.transport.close()
    try:
        assert connection.peer == "2001:db8::1"
    except ConnectionFailed as error:
        assert "connection is lost" in error.message


@pytest.mark.parametrize("cause", [paramiko.SSHException("SSH session not active"), OSError(), EOFError()])
def test_a_lost_connection_is_told(cause: Exception) -> None:
    client: Any = paramiko.SSHClient()
    transport: Any = Transport(cause)
    with pytest.raises(ConnectionFailed, match="host: the connection is lost"):
        Connection(Target("host"), client, transport).run("ls", timeout=5)


# --- as root ---------------------------------------------------------------------------------

SCRIPT = """# it's a "script"
printf '%s\\n' "$1" "$2"; echo $# \\
"""


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("arguments", [("a", "b"), ("it's", 'a "b" $HOME `id`'), ("", "-x"), ("a\nb", "\\")])
def test_a_scripts_arguments_arrive_as_they_are(arguments: tuple[str, str]) -> None:
    channel = Channel(0)
    on(channel).run_root(SCRIPT, *arguments, timeout=5)
    done = subprocess.run(["sh", "-c", channel.command], capture_output=True, text=True, check=True)
    assert done.stdout == f"{arguments[0]}\n{arguments[1]}\n2\n"


def test_whoever_is_root_needs_no_sudo() -> None:
    channel = Channel(0)
    on(channel).run_root("id", timeout=5)
    assert channel.command == "sh -c id cloudscale"


def test_whoever_is_not_uses_it_without_a_password() -> None:
    channel = Channel(0, looks=3)
    on(channel, "debian").run_root("id -u", "a b", timeout=5, data=b"in")
    # its refusals are known in English
    assert channel.command == "env LC_ALL=C sudo -n sh -c 'id -u' cloudscale 'a b'"
    assert channel.taken == b"in"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("sudo: a password is required\n", "wants a password"),
        (
            "Hello!\nsudo: a terminal is required to read the password; either use -S\nsudo: a password is required\n",
            "wants",
        ),
        ("sudo: sorry, you must have a tty to run sudo\n", "wants a password"),
        ("debian is not in the sudoers file.\n", "does not allow it"),
        ("debian is not in the sudoers file.  This incident will be reported.\n", "does not allow it"),
        ("Sorry, user debian may not run sudo on m1.\n", "does not allow it"),
        ("Sorry, user debian is not allowed to execute '/usr/bin/sh -c id' as root on m1.\n", "does not allow it"),
        ("bash: line 1: sudo: command not found\n", "there is no sudo"),
        ("sh: 1: sudo: not found\n", "there is no sudo"),
    ],
)
def test_what_sudo_refuses_is_told_with_its_remedy(said: str, cause: str) -> None:
    with pytest.raises(ConnectionFailed, match=cause) as raised:
        on(Channel(1, err=said.encode()), "debian").run_root("id", timeout=5)
    assert raised.value.message.startswith("host: debian is not root there")
    assert "debian ALL=(ALL) NOPASSWD:ALL" in raised.value.remedy


@pytest.mark.parametrize(
    "said",
    [
        "cloudscale: the engine does not start\n",
        "E: 'ann' is the user's name; a password is required by the proxy\n",
        "sudo: unable to resolve host m1\nE: Unable to locate package sudo\n",
        "E: Repository is not allowed to change its origin\n",
    ],
)
def test_what_the_script_says_is_not_taken_for_sudos(said: str) -> None:
    assert on(Channel(1, err=said.encode()), "debian").run_root("id", timeout=5) == CommandResult(1, "", said)


def test_what_went_well_is_no_refusal_whatever_it_says() -> None:
    said = "sudo: a password is required\n"
    assert on(Channel(0, err=said.encode()), "debian").run_root("id", timeout=5).stderr == said
    assert on(Channel(1, err=said.encode()), "root").run_root("id", timeout=5).exit_code == 1


def test_words_are_quoted_where_they_need_it() -> None:
    assert quoted(["echo", "a b", "it's"]) == """echo 'a b' 'it'"'"'s'"""


# --- logins ----------------------------------------------------------------------------------


class Doors:
    """In the place of connect: who came, and whether they were let in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came: list[Target] = []
        self.failure: Exception | None = None
        self.transports: list[Transport] = []
        self.together = threading.Barrier(1)
        monkeypatch.setattr(ssh, "connect", self)

    def __call__(self, target: Target, *, timeout: float, known: KnownHosts) -> Connection:
        assert timeout == 5
        self.came.append(target)
        self.together.wait(10)
        if self.failure:
            raise self.failure
        client: Any = None
        transport: Any = Transport(None)
        self.transports.append(transport)
        return Connection(target, client, transport)


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> Doors:
    return Doors(monkeypatch)


@pytest.fixture
def logins(doors: Doors, tmp_path: Path) -> Logins:
    return Logins(known_hosts(tmp_path))


def test_a_host_is_logged_in_to_once(doors: Doors, logins: Logins) -> None:
    first = logins(Target("a"), 5)
    assert logins(Target("a"), 5) is first
    assert logins(Target("b"), 5) is not first
    assert doors.came == [Target("a"), Target("b")]


def test_a_login_that_was_lost_is_made_again(doors: Doors, logins: Logins) -> None:
    first = logins(Target("a"), 5)
    doors.transports[0].close()
    assert logins(Target("a"), 5) is not first
    assert len(doors.came) == 2


def test_a_host_that_did_not_answer_is_not_asked_twice(doors: Doors, logins: Logins) -> None:
    doors.failure = ConnectionFailed("a: no answer in 5 s.")
    for _ in range(3):
        with pytest.raises(ConnectionFailed, match="no answer"):
            logins(Target("a"), 5)
    assert len(doors.came) == 1
    doors.failure = None
    assert logins(Target("b"), 5)


def together(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_several_who_want_one_host_share_a_login(doors: Doors, logins: Logins) -> None:
    found: list[Connection] = []

    def log_in() -> None:
        found.append(logins(Target("a"), 5))

    together(*[log_in] * 8)
    assert len({*map(id, found)}) == len(doors.came) == 1


def test_several_hosts_are_logged_in_to_side_by_side(doors: Doors, logins: Logins) -> None:
    doors.together = threading.Barrier(4)  # nobody is let in before all are at the door
    together(*(lambda at=at: logins(Target(f"m{at}"), 5) for at in range(4)))
    assert len(doors.came) == 4


# --- remembering hosts -----------------------------------------------------------------------


def test_the_file_of_host_keys_is_made_with_a_folder_for_its_owner_only(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    log_in(Target("host"), tmp_path / "bio")
    assert os.stat(tmp_path / "bio").st_mode & 0o777 == 0o700


def test_the_files_of_host_keys_are_read_once_for_all_hosts(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    reads: list[str] = []
    load = paramiko.HostKeys.load

    def counted(self: paramiko.HostKeys, path: str) -> None:
        reads.append(path)
        load(self, path)

    monkeypatch.setattr(paramiko.HostKeys, "load", counted)
    told: list[str] = []
    known = known_hosts(tmp_path, told.append)
    for host in ("a", "b", "a"):
        connect(Target(host), timeout=5, known=known).close()
    assert len(reads) == len({*reads}) == 2
    assert [text.partition(":")[0] for text in told] == ["a", "b"]


def test_a_key_that_the_user_knows_already_is_trusted(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".ssh").mkdir()
    hashed = paramiko.HostKeys.hash_host("[host]:2222")
    (tmp_path / ".ssh/known_hosts").write_text(f"{hashed} {KEY.get_name()} {KEY.get_base64()}\n")
    meet(client, monkeypatch, KEY)
    log_in(Target("host", 2222), tmp_path, pytest.fail)
    assert not (tmp_path / "known_hosts").exists()
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(ConnectionFailed, match="host key is not the one that is known"):
        log_in(Target("host", 2222), tmp_path)


def test_a_key_of_one_host_says_nothing_of_another(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    told: list[str] = []
    for target in (Target("host"), Target("host", 2222), Target("host.example")):
        log_in(target, tmp_path, told.append)
    assert len(told) == 3


def test_hosts_that_are_met_at_once_are_all_remembered(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    known = known_hosts(tmp_path / "bio")
    threads = [
        threading.Thread(target=lambda at=at: connect(Target(f"m{at}"), timeout=5, known=known).close())
        for at in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "bio/known_hosts").read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(f"m{at}" for at in range(12))
    for at in range(12):
        log_in(Target(f"m{at}"), tmp_path / "bio", pytest.fail)
