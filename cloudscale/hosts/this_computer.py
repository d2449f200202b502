"""Commands on this computer."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.model import NOT_STARTED, TIMED_OUT, CommandResult


def run_shell(command: str, timeout: float) -> CommandResult:
    """Runs a shell command; past `timeout` seconds it and its children are ended, with exit code 124."""
    # files rather than pipes: a child left in the background may keep them open for as long as it likes
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        late = b""
        end = functools.partial(_kill_group, process.pid)
        atexit.register(end)  # Ctrl-C reaches this process alone
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            end()
            process.wait()
            late = f"ended after {timeout:g} s (--timeout)\n".encode()
        finally:
            atexit.unregister(end)
        for file in (out, err):
            file.seek(0)
        stdout, stderr = out.read(), err.read() + late
    exit_code = TIMED_OUT if late else process.returncode
    return CommandResult(exit_code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def on_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def run_program(
    command: Sequence[str], timeout: float, *, environment: Mapping[str, str] | None = None
) -> CommandResult:
    """Runs a program to its end, with the terminal as its input where there is one.

    Past `timeout` seconds it is ended, with exit code 124; one that can't be started has exit code 127.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=None if on_terminal() else subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return CommandResult(TIMED_OUT, "", f"it did not end within {timeout:.0f} s")
    except OSError as error:
        return CommandResult(NOT_STARTED, "", str(error))
    return CommandResult(done.returncode, done.stdout, done.stderr)


def as_root(command: Sequence[str]) -> list[str]:
    """The command as root runs it: itself, or with sudo. Raises RequestError where there is neither."""
    if os.geteuid() == 0:
        return list(command)
    if not shutil.which("sudo"):
        raise RequestError("This needs root, and there is no sudo here.", "Run it as root: su -c 'invoke …'.")
    # where nobody can type a password, sudo says so at once
    return ["sudo", *([] if on_terminal() else ["-n"]), *command]


def run_root(command: Sequence[str], what: str, timeout: float = 900) -> str:
    """Runs a command as root and returns its output. Raises CloudscaleError, saying what failed and how."""
    full = as_root(command)
    done = run_program(full, timeout, environment={"DEBIAN_FRONTEND": "noninteractive"})
    if done.exit_code:
        raise CloudscaleError(f"{what} failed: {done.last_words(3)}", f"Try by hand: {' '.join(full)}")
    return done.stdout
