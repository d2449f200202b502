"""A command that runs on a host, in a channel of an SSH connection."""

from __future__ import annotations

import contextlib
import time

import paramiko

from cloudscale.model import TIMED_OUT, CommandResult, OnOutput, Printed, command_result

CHUNK = 65536  # bytes
LINGER = 1.0  # seconds for the rest of the output, after a command has ended or was ended
PIECES = 64  # chunks that are taken at once; a channel's window (2 MiB) holds less
PAUSE = 0.02  # seconds between two checks of a running command
KILLED = 137  # exit code of a command ended by a signal; paramiko does not report which, so this is SIGKILL's


class Running:
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
