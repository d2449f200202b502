"""Commands over SSH, as the user who logs in and as root."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import paramiko
import pytest

from cloudscale.errors import ConnectionFailed
from cloudscale.hosts import ssh
from cloudscale.hosts.shells import for_any_shell
from cloudscale.hosts.ssh import Connection
from cloudscale.hosts.target import Target
from cloudscale.model import MOST_OUTPUT, CommandResult
from tests.unit.hosts.fake_ssh import Channel, Transport

# --- commands --------------------------------------------------------------------------------


def on(channel: Channel, user: str = "root") -> Connection:
    transport: Any = channel.transport
    return Connection(Target("host", user=user), transport)


def run(channel: Channel, timeout: float = 5, **settings: Any) -> CommandResult:
    return on(channel).run("ls | wc -l", timeout=timeout, **settings)


def test_a_command_gives_exit_code_and_both_streams() -> None:
    channel = Channel(3, b"out\n", "fällt\n".encode())
    result = run(channel)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "fällt\n")
    assert channel.command == for_any_shell("ls | wc -l")
    assert channel.closed
    assert not channel.transport.is_closed


def test_of_an_endless_output_the_beginning_is_kept_and_that_is_said() -> None:
    result = run(Channel(0, b"x" * 3_000_000, b"y" * (MOST_OUTPUT + 1)))
    assert (result.exit_code, len(result.stdout)) == (0, MOST_OUTPUT)
    assert result.stderr == "y" * MOST_OUTPUT + "\nstdout: cut off after 1 MiB\nstderr: cut off after 1 MiB\n"


def test_an_output_that_never_pauses_does_not_outlive_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    channel, start = Channel(None), time.monotonic()
    monkeypatch.setattr(channel, "recv_ready", lambda: time.monotonic() < start + 5)
    monkeypatch.setattr(channel, "recv", lambda size: b"y\n" * 100)
    monkeypatch.setattr(ssh, "LINGER", 0)
    result = run(channel, timeout=0.1)
    assert result.exit_code == 124
    assert "--timeout" in result.stderr
    assert time.monotonic() < start + 4


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


def test_a_command_that_ends_without_reading_its_input_is_reported_with_its_own_message() -> None:
    # such as sudo, which refuses before it reads anything
    result = run(Channel(1, err=b"sudo: a password is required\n", looks=3, deaf=True), data=b"x" * 10)
    assert (result.exit_code, result.stderr) == (1, "sudo: a password is required\n")


def test_the_output_of_a_command_is_passed_on_as_it_arrives() -> None:
    pieces: list[bytes] = []
    result = run(Channel(0, b"out\n", b"err\n"), on_output=pieces.append)
    assert sorted(pieces) == [b"err\n", b"out\n"]
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_a_command_that_leaves_a_child_with_its_streams_has_ended_all_the_same() -> None:
    channel = Channel(0, b"out\n")
    channel.eof_received = False
    result = run(channel, timeout=0.05)
    assert (result.exit_code, result.stdout) == (0, "out\n")


def test_a_folder_is_quoted() -> None:
    channel = Channel(0)
    run(channel, folder="Ann's work; rm -rf /")
    assert channel.command == for_any_shell("""cd 'Ann'"'"'s work; rm -rf /' || exit; ls | wc -l""")


@pytest.mark.parametrize(
    ("folder", "word"),
    [
        ("~", "~"),
        ("~/", "~/"),
        ("~/my work", "~/'my work'"),
        ("~ann/x;id", "~ann/'x;id'"),
        ("~$(id)/x", "'~$(id)/x'"),
        ("a~/x", "'a~/x'"),
    ],
)
def test_a_tilde_is_the_home_on_the_host(folder: str, word: str) -> None:
    channel = Channel(0)
    run(channel, folder=folder)
    assert channel.command == for_any_shell(f"cd {word} || exit; ls | wc -l")


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
    assert not channel.transport.is_closed  # it may have other commands


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


@pytest.mark.parametrize("error", [EOFError(), OSError(), paramiko.SSHException()])
def test_a_connection_that_ends_with_the_command_was_there_for_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def close() -> None:
        raise error

    channel = Channel(0, b"out")
    monkeypatch.setattr(channel, "close", close)
    assert run(channel).stdout == "out"


def test_a_command_that_a_signal_ended_is_no_lost_connection() -> None:
    # for example by the kernel, when memory is short: the server reports that, and ends the streams
    result = run(Channel(-1, b"out\n"))
    assert result.exit_code
    assert result.stdout == "out\n"


def test_the_address_that_a_host_was_reached_by_is_known() -> None:
    assert on(Channel(0)).peer == "2001:db8::1"


def test_a_host_that_was_lost_has_an_address_or_is_reported() -> None:
    channel = Channel(0)
    connection = on(channel)
    channel.transport.close()
    try:
        assert connection.peer == "2001:db8::1"
    except ConnectionFailed as error:
        assert "connection is lost" in error.message


@pytest.mark.parametrize("cause", [paramiko.SSHException("SSH session not active"), OSError(), EOFError()])
def test_a_lost_connection_is_reported(cause: Exception) -> None:
    transport: Any = Transport(cause)
    with pytest.raises(ConnectionFailed, match="host: the connection is lost"):
        Connection(Target("host"), transport).run("ls", timeout=5)


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


def test_root_needs_no_sudo() -> None:
    channel = Channel(0)
    on(channel).run_root("id", timeout=5)
    assert channel.command == for_any_shell("sh -c id cloudscale")


def test_other_users_run_sudo_without_a_password() -> None:
    channel = Channel(0, looks=3)
    on(channel, "debian").run_root("id -u", "a b", timeout=5, data=b"in")
    # its refusals are known in English
    assert channel.command == for_any_shell("env LC_ALL=C sudo -n sh -c 'id -u' cloudscale 'a b'")
    assert channel.taken == b"in"


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("sudo: a password is required\n", "asks for a password"),
        (
            "Hello!\nsudo: a terminal is required to read the password; either use -S\nsudo: a password is required\n",
            "asks for",
        ),
        ("sudo: sorry, you must have a tty to run sudo\n", "asks for a password"),
        ("debian is not in the sudoers file.\n", "does not allow it"),
        ("debian is not in the sudoers file.  This incident will be reported.\n", "does not allow it"),
        ("Sorry, user debian may not run sudo on m1.\n", "does not allow it"),
        ("Sorry, user debian is not allowed to execute '/usr/bin/sh -c id' as root on m1.\n", "does not allow it"),
        ("bash: line 1: sudo: command not found\n", "sudo is not installed"),
        ("sh: 1: sudo: not found\n", "sudo is not installed"),
    ],
)
def test_a_refusal_of_sudo_is_reported_with_its_remedy(output: str, cause: str) -> None:
    with pytest.raises(ConnectionFailed, match=cause) as raised:
        on(Channel(1, err=output.encode()), "debian").run_root("id", timeout=5)
    assert raised.value.message.startswith("host: debian is not root on it")
    assert "debian ALL=(ALL) NOPASSWD:ALL" in raised.value.remedy


@pytest.mark.parametrize(
    "output",
    [
        "cloudscale: the engine does not start\n",
        "E: 'ann' is the user's name; a password is required by the proxy\n",
        "sudo: unable to resolve host m1\nE: Unable to locate package sudo\n",
        "E: Repository is not allowed to change its origin\n",
    ],
)
def test_output_of_the_script_is_not_mistaken_for_sudos(output: str) -> None:
    assert on(Channel(1, err=output.encode()), "debian").run_root("id", timeout=5) == CommandResult(1, "", output)


def test_a_success_is_no_refusal_whatever_its_output() -> None:
    output = "sudo: a password is required\n"
    assert on(Channel(0, err=output.encode()), "debian").run_root("id", timeout=5).stderr == output
    assert on(Channel(1, err=output.encode()), "root").run_root("id", timeout=5).exit_code == 1
