"""Commands on this computer."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO

from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.model import MOST_OUTPUT, NOT_STARTED, TIMED_OUT, CommandResult, Printed, command_result

CUTTING = 0.1  # seconds between two looks at how much a command has printed


def run_shell(command: str, timeout: float, *, environment: Mapping[str, str] | None = None) -> CommandResult:
    """Runs a shell command. After `timeout` seconds it and its children are ended, with exit code 124.

    `environment` is added to that of this process.
    """
    # files rather than pipes: a child in the background may keep a pipe open without limit
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        late = ""
        end = functools.partial(_kill_group, process.pid)
        atexit.register(end)  # Ctrl-C does not reach the new session
        try:
            deadline = time.monotonic() + timeout
            while not _ended(process, min(CUTTING, deadline - time.monotonic())):
                if time.monotonic() >= deadline:
                    end()
                    process.wait()
                    late = f"ended after {timeout:g} s (--timeout)"
                    break
                _cut(out, err)
        finally:
            atexit.unregister(end)
        return command_result(TIMED_OUT if late else process.returncode, _read(out), _read(err), late)


def _ended(process: subprocess.Popen[bytes], patience: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(patience, 0))
        return True
    return False


def _cut(*files: IO[bytes]) -> None:
    """Frees the disk of what is not kept. The command writes on behind it, in a file with a hole."""
    for file in files:
        if os.fstat(file.fileno()).st_size > MOST_OUTPUT:
            os.ftruncate(file.fileno(), MOST_OUTPUT + 1)


def _read(file: IO[bytes]) -> Printed:
    printed = Printed()
    file.seek(0)
    printed.add(file.read(MOST_OUTPUT + 1))
    return printed


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def on_terminal() -> bool:
    """Whether the user can be asked: standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def run_program(
    command: Sequence[str],
    timeout: float,
    *,
    environment: Mapping[str, str] | None = None,
    interactive: bool = False,
) -> CommandResult:
    """Runs a program to its end. Its input is the terminal, if any, for an `interactive` program, else nothing.

    `environment` is added to that of this process. After `timeout` seconds the program is ended, with exit code 124;
    one that can't be started has exit code 127.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=None if interactive and on_terminal() else subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return CommandResult(TIMED_OUT, "", f"it did not end within {timeout:g} s")
    except OSError as error:
        return CommandResult(NOT_STARTED, "", str(error))
    return CommandResult(done.returncode, done.stdout, done.stderr)


def as_root(command: Sequence[str]) -> list[str]:
    """The command to run something as root: unchanged for root, else with sudo. Raises RequestError without sudo."""
    if os.geteuid() == 0:
        return list(command)
    if not shutil.which("sudo"):
        raise RequestError("This needs root, and sudo is not installed.", "Run it as root: su -c 'invoke …'.")
    # -n: without a terminal, sudo fails at once instead of waiting for a password
    return ["sudo", *([] if on_terminal() else ["-n"]), *command]


def run_root(command: Sequence[str], what: str, timeout: float = 900, *, remedy: str = "") -> str:
    """Runs a command as root and returns its output. Raises CloudscaleError with `what` failed, and why."""
    full = as_root(command)
    # interactive: sudo may ask for a password
    done = run_program(full, timeout, environment={"DEBIAN_FRONTEND": "noninteractive"}, interactive=True)
    if done.exit_code:
        remedy = remedy or f"Run this command yourself to see more: {shlex.join(full)}"
        raise CloudscaleError(f"{what} failed: {done.last_words(3)}", remedy)
    return done.stdout
