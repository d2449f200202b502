from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tasks
from cloudscale.cli import interrupt

PROJECT = Path(__file__).parents[3]
SOON = 2.0  # seconds
GUARDED = """
import ctypes, signal, threading, time
from cloudscale.cli import interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)  # which the tests may ignore
c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(256)
c.pthread_mutex_lock(lock)
with interrupt.guarded():
    interrupt.begin("driver_reset")
    print("begun", flush=True)
"""
HANGS = {
    "in a clean-up": "    try: time.sleep(60)\n    finally: time.sleep(60)\n",
    # nothing interrupts that, as nothing does the look-up of a name
    "in a call": "    c.pthread_mutex_lock(lock)\n",
    "at its end": "    threading.Thread(target=time.sleep, args=(60,)).start()\n    time.sleep(60)\n",
}


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_process_that_hangs_ends_soon_and_says_once_what_stands(hang: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GUARDED + hang], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout and run.stderr and run.stdout.readline()
        time.sleep(0.2)
        begun = time.monotonic()
        for _ in range(3):  # whoever waits presses it again
            run.send_signal(signal.SIGINT)
            time.sleep(0.1)
        run.wait(20)
        assert time.monotonic() - begun < SOON
        said = run.stderr.read()
    assert run.returncode == interrupt.INTERRUPTED
    assert said.count("Interrupted. What was removed so far is gone") == 1


@pytest.mark.usefixtures("processes")
def test_the_exit_code_is_the_same_while_python_runs_a_string(tmp_path: Path) -> None:
    """As it does for each dataclass: a module that met KeyboardInterrupt in one ends by a signal, even if handled."""
    code = (
        "import atexit, signal, sys\nfrom cloudscale.cli import interrupt\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\natexit.register(interrupt.end_plainly)\n"
        "try:\n    with interrupt.guarded(): exec('import signal; signal.raise_signal(signal.SIGINT)')\n"
        "except KeyboardInterrupt: sys.exit(print('said') or 130)\n"
    )
    (tmp_path / "interrupted.py").write_text(f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n{code}")
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (130, b"said\n")


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    "ending", ["    try: time.sleep(60)\n    except KeyboardInterrupt: interrupt.end_plainly()\n", HANGS["in a call"]]
)
def test_where_ctrl_c_is_the_end_it_is_a_good_one_and_nothing_is_said(ending: str) -> None:
    code = GUARDED.replace('    print("begun"', '    interrupt.is_the_end()\n    print("begun"') + ending
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout and run.stderr and run.stdout.readline()
        time.sleep(0.2)
        run.send_signal(signal.SIGINT)
        assert (run.wait(20), run.stderr.read()) == (0, "")


@pytest.mark.usefixtures("processes")
def test_ctrl_c_while_python_ends_prints_nothing() -> None:
    code = (
        "import atexit, signal, time\nfrom cloudscale.cli import interrupt\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "atexit.register(lambda: (print('ends', flush=True), time.sleep(60)))\natexit.register(interrupt.end_plainly)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout and run.stderr and run.stdout.readline()
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == -signal.SIGINT  # for a shell, 130 too
        assert run.stderr.read() == ""


def test_what_runs_without_an_interrupt_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threads = threading.active_count()
    try:
        with interrupt.guarded():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_each_task_says_what_stands_and_names_tasks_that_exist() -> None:
    for task, text in interrupt.STANDS.items():
        assert hasattr(tasks, task)
        assert all(hasattr(tasks, name) for name in re.findall(r"invoke (\w+)", text))
    for task in ("themachine", "collect", "status", "com_containers", "driver_reset"):
        with interrupt.guarded():
            interrupt.begin(task)
            assert "again" in interrupt.message()
            assert interrupt.message() == ""


def test_before_a_task_has_begun_nothing_was_changed() -> None:
    with interrupt.guarded():
        assert interrupt.message() == f"Interrupted. {interrupt.UNCHANGED}"
