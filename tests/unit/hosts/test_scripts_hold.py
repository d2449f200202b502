"""The lock on a host, in a folder that stands for it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.script_host import Host

pytestmark = pytest.mark.usefixtures("processes")

RECORD = "run/cloudscale.run"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path / "host")
    program = shutil.which("timeout")
    assert program
    (made.root / "bin" / "timeout").symlink_to(program)
    return made


@contextlib.contextmanager
def asking(host: Host, who: str, wait: str = "0", silence: str = "60") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A run that wants the host, with the answer."""
    with host.start("hold", who, wait, silence) as run:
        assert run.stdout and run.stdin
        said = run.stdout.readline().decode().strip()
        if said.startswith("waiting"):  # for nobody by name, where that run is about to end
            whom, said = said.removeprefix("waiting"), run.stdout.readline().decode().strip()
            assert said in ("held", f"busy{whom}")
        yield said, run
        with contextlib.suppress(BrokenPipeError):
            run.stdin.close()


def answer(host: Host, wait: str = "0") -> str:
    with asking(host, "cid at desk", wait) as (said, _):
        return said


def test_one_run_has_the_host_and_another_reads_who_that_is(host: Host) -> None:
    with asking(host, "ann at laptop") as (said, _):
        assert said == "held"
        assert answer(host) == "busy ann at laptop"
    assert answer(host) == "held"


def test_nothing_is_left_of_it(host: Host) -> None:
    before = host.tree
    with asking(host, "ann at laptop"):
        assert (host.root / RECORD).stat().st_mode & 0o777 == 0o600
        answer(host)
    assert host.tree == before


def test_what_others_read_can_not_control_their_terminal(host: Host) -> None:
    with asking(host, "ann\x1b[2J at\x07 laptop"):
        assert answer(host) == "busy ann[2J at laptop"


def test_a_run_that_was_killed_lets_go_at_once(host: Host) -> None:
    """Its connection ends, and with it the input of the script."""
    with asking(host, "ann at laptop") as (_, run):
        assert run.stdin
        run.stdin.close()
        assert answer(host, wait="5") == "held"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_script_may_be_killed_too(host: Host, number: signal.Signals) -> None:
    with asking(host, "ann at laptop") as (_, run):
        run.send_signal(number)
        assert run.stdin
        run.stdin.close()
        assert answer(host, wait="5") == "held"


def test_who_gives_no_sign_of_life_is_gone(host: Host) -> None:
    with asking(host, "ann at laptop", silence="0.3"):
        assert answer(host, wait="5") == "held"


def test_who_gives_signs_of_life_keeps_it(host: Host) -> None:
    with asking(host, "ann at laptop", silence="1") as (_, run):
        assert run.stdin
        for _ in range(5):
            run.stdin.write(b".")
            run.stdin.flush()
            time.sleep(0.3)
        assert answer(host) == "busy ann at laptop"
