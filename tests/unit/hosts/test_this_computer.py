from __future__ import annotations

import atexit
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.hosts import this_computer
from cloudscale.hosts.this_computer import as_root, on_terminal, run_program, run_root, run_shell
from cloudscale.model import MOST_OUTPUT, CommandResult
from cloudscale.waiting import poll


def ended(process: int) -> bool:
    """Whether a process has ended, even if its parent has not collected it yet."""
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.usefixtures("processes")
class TestRunShell:
    def test_a_command_gives_exit_code_and_both_streams(self) -> None:
        assert run_shell("echo out; echo wrong >&2; exit 3", 20) == CommandResult(3, "out\n", "wrong\n")

    def test_quotes_and_pipes_are_the_shells(self) -> None:
        assert run_shell("""printf '%s' "it's" | tr t T""", 20).stdout == "iT's"

    def test_a_command_has_no_input(self) -> None:
        assert run_shell("cat", 20) == CommandResult(0, "", "")

    def test_bytes_that_are_no_text_are_replaced(self) -> None:
        assert run_shell(r"printf '\377'", 20).stdout == "�"

    def test_past_its_deadline_a_command_is_ended_with_exit_code_124(self) -> None:
        result = run_shell("echo begun; sleep 600", 0.2)
        assert (result.exit_code, result.stdout) == (124, "begun\n")
        assert "0.2 s" in result.stderr

    def test_past_the_deadline_its_children_are_ended_too(self) -> None:
        result = run_shell("sleep 600 & echo $!; wait", 0.3)
        child = int(result.stdout)
        assert poll(lambda: ended(child), timeout=20)

    def test_a_child_that_left_for_a_session_of_its_own_is_not_waited_for(self, tmp_path: Path) -> None:
        left = tmp_path / "left"
        result = run_shell(f"setsid sh -c 'echo $$ >{left}; exec sleep 30' & sleep 600", 0.3)
        child = int(left.read_text())
        assert result.exit_code == 124
        assert not ended(child)  # it was not waited for
        os.kill(child, signal.SIGKILL)


@pytest.mark.usefixtures("processes")
def test_a_command_that_runs_at_the_interpreters_end_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    left: list[object] = []
    monkeypatch.setattr(atexit, "register", ends.put)
    monkeypatch.setattr(atexit, "unregister", left.append)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_shell, "sleep 600", 600)
        end = ends.get()
        end()
        assert running.result().exit_code == -signal.SIGKILL
    assert left == [end]


def test_of_an_endless_output_the_beginning_is_kept_and_that_is_said(processes: None) -> None:
    done = run_shell("yes & a=$!; yes >&2 & b=$!; sleep 0.6; kill $a $b; wait; exit 3", timeout=20)
    assert (done.exit_code, len(done.stdout)) == (3, MOST_OUTPUT)
    assert done.stderr.startswith("y\ny\n")
    assert done.stderr.endswith("stdout: cut off after 1 MiB\nstderr: cut off after 1 MiB\n")


def test_an_endless_output_fills_no_disk(processes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = []
    cut = this_computer._cut

    def watched(*files: IO[bytes]) -> None:
        cut(*files)
        blocks.append(os.fstat(files[0].fileno()).st_blocks)

    monkeypatch.setattr(this_computer, "_cut", watched)
    assert run_shell("yes", timeout=1.5).exit_code == 124
    assert len(blocks) > 1 and max(blocks) * 512 < 100 * MOST_OUTPUT


def test_an_output_of_just_that_size_is_whole(processes: None) -> None:
    done = run_shell(f"head -c {MOST_OUTPUT} /dev/zero | tr '\\0' x", timeout=20)
    assert (len(done.stdout), done.stderr) == (MOST_OUTPUT, "")


def test_only_a_terminal_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not on_terminal()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert on_terminal()
    monkeypatch.setattr(sys, "stdin", None)  # as under some service managers
    assert not on_terminal()


# --- programs --------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A terminal as standard input."""
    controller, own = os.openpty()
    before = os.dup(0)
    os.dup2(own, 0)
    monkeypatch.setattr(sys, "stdin", os.fdopen(own))
    yield
    os.dup2(before, 0)
    sys.stdin.close()
    os.close(before)
    os.close(controller)


@pytest.mark.usefixtures("processes")
class TestRunProgram:
    def test_a_program_gives_exit_code_and_both_streams(self) -> None:
        result = run_program(["sh", "-c", "echo out; echo wrong >&2; exit 3"], 20)
        assert result == CommandResult(3, "out\n", "wrong\n")

    def test_its_arguments_arrive_as_they_are(self) -> None:
        assert run_program(["printf", "%s", "it's $HOME *"], 20).stdout == "it's $HOME *"

    def test_bytes_that_are_no_text_are_replaced(self) -> None:
        assert run_program(["printf", r"\377"], 20).stdout == "�"

    def test_after_its_timeout_it_is_ended_with_exit_code_124(self) -> None:
        begun = time.monotonic()
        result = run_program(["sh", "-c", "exec sleep 600"], 0.2)
        assert time.monotonic() - begun < 20
        assert (result.exit_code, result.stdout) == (124, "")
        assert "did not end within 0.2 s" in result.stderr

    @pytest.mark.parametrize("name", ["no-such-program", "./folder"])
    def test_a_program_that_can_not_be_started_has_exit_code_127(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "folder").mkdir()
        monkeypatch.chdir(tmp_path)
        result = run_program([name], 20)
        assert (result.exit_code, result.stdout) == (127, "")
        assert name in result.stderr

    def test_its_environment_is_ours_with_additions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEPT", "kept")
        monkeypatch.setenv("CHANGED", "before")
        show = ["sh", "-c", 'echo "$KEPT $CHANGED $ADDED"']
        assert run_program(show, 20).stdout == "kept before \n"
        assert run_program(show, 20, environment={"CHANGED": "after", "ADDED": "new"}).stdout == "kept after new\n"
        assert "ADDED" not in os.environ

    @pytest.mark.parametrize("interactive", [False, True])
    def test_without_a_terminal_it_has_no_input(self, interactive: bool) -> None:
        assert run_program(["cat"], 20, interactive=interactive) == CommandResult(0, "", "")

    @pytest.mark.usefixtures("terminal")
    def test_only_an_interactive_program_gets_the_terminal(self) -> None:
        # one that is not would wait for input, or take what the user types for the next question
        assert run_program(["test", "-t", "0"], 20).exit_code == 1
        assert run_program(["test", "-t", "0"], 20, interactive=True).exit_code == 0

    @pytest.mark.usefixtures("terminal")
    def test_what_runs_as_root_is_interactive_for_sudos_sake(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert run_root(["sh", "-c", "test -t 0 && echo $DEBIAN_FRONTEND"], "Asking") == "noninteractive\n"


# --- as root ---------------------------------------------------------------------------------


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user with sudo and without a terminal."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


def test_root_runs_a_command_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert as_root(["ls", "-l"]) == ["ls", "-l"]


@pytest.mark.usefixtures("user")
def test_others_run_it_with_sudo_which_does_not_ask_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_root(["ls", "-l"]) == ["sudo", "-n", "ls", "-l"]
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert as_root(["ls", "-l"]) == ["sudo", "ls", "-l"]


@pytest.mark.usefixtures("user")
def test_a_missing_sudo_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RequestError, match="needs root"):
        as_root(["ls"])


def answers(monkeypatch: pytest.MonkeyPatch, outcome: object) -> list[list[str]]:
    """Makes every command end like this; returns the commands."""
    commands: list[list[str]] = []

    def run(command: list[str], **settings: object) -> object:
        commands.append(command)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.usefixtures("user")
def test_the_output_of_a_command_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = answers(monkeypatch, subprocess.CompletedProcess([], 0, "out\n", ""))
    assert run_root(["id", "-u"], "Asking") == "out\n"
    assert commands == [["sudo", "-n", "id", "-u"]]


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (subprocess.CompletedProcess([], 1, "", "a\nb\nc\nsudo: a password is required\n"), "c / sudo: a password"),
        (subprocess.CompletedProcess([], 1, "E: broken\n", ""), "E: broken"),
        (subprocess.TimeoutExpired([], 900), "did not end within 900 s"),
        (FileNotFoundError(2, "No such file"), "No such file"),
    ],
    ids=["failed", "message on standard output", "too long", "not started"],
)
def test_a_failure_is_reported_with_its_cause(monkeypatch: pytest.MonkeyPatch, outcome: object, message: str) -> None:
    answers(monkeypatch, outcome)
    with pytest.raises(CloudscaleError) as raised:
        run_root(["apt-get", "update"], "Reading the lists")
    assert raised.value.message.startswith("Reading the lists")
    assert message in raised.value.message
