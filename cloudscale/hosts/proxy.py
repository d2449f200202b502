"""A connection that a command makes: ProxyCommand of ssh_config(5)."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile

from cloudscale.errors import ConnectionFailed
from cloudscale.model import last_lines

ENDING = 2.0  # seconds for the command to end
MEANWHILE = 0.3  # seconds for a command whose connection failed to end by itself


class ProxyCommand(contextlib.AbstractContextManager["ProxyCommand"]):
    """Runs the command while it is entered; `socket` is the connection.

    At the end it raises ConnectionFailed if the connection failed because the command had ended.
    """

    def __init__(self, host: str, command: str) -> None:
        self._host = host
        self._command = command

    def __enter__(self) -> ProxyCommand:
        self._errors = tempfile.TemporaryFile()
        self.socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {self._command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
            )
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.socket.close()
        exit_code = self._end(MEANWHILE if error else 0)
        with self._errors as file:
            file.seek(0)
            last = last_lines(file.read().decode(errors="replace"))
        if type(error) is ConnectionFailed and exit_code is not None:  # it is no cause of a refusal
            raise ConnectionFailed(
                f"{self._host}: the ProxyCommand of the SSH configuration ended ({last or f'exit code {exit_code}'}).",
                f"Run it yourself to see more: {self._command}",
            ) from None

    def _end(self, patience: float) -> int | None:
        """Ends the command. Returns its exit code if it ends by itself in that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(patience)
        self._process.terminate()
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return None
