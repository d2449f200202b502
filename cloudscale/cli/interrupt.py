"""Ctrl-C: the process ends within two seconds, whatever it waits for, and says what stands and what to run next."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

INTERRUPTED = 130  # the exit code that a shell gives to it
GRACE = 1.2  # seconds to end in order: to close connections, and to remove what is only for a moment
SHOW_CURSOR = "\x1b[?25h"  # which a bar hides

UNCHANGED = "Nothing was changed. Run the same command again when you need it."
DONE_SO_FAR = "What was done so far stays. Run the same command again to continue: it does the rest."
REMOVED_SO_FAR = (
    "What was removed so far is gone, and the rest stays as it is (invoke status shows it)."
    " Run the same command again: it removes the rest. Or invoke themachine: it makes again what is missing."
)
STARTED = (
    "The command was started on some or all of the targets, and may go on there."
    " Run the same command again to see its output, if a second time does no harm."
)
STANDS = {
    "themachine": "What was made so far stays (invoke status shows it). Run the same command again to continue: it"
    " makes the rest, and no address or password changes. invoke driver_reset removes all of it.",
    "containers_reset": REMOVED_SO_FAR,
    "driver_reset": REMOVED_SO_FAR,
    "com_node": STARTED,
    "com_containers": STARTED,
    "remote_com": STARTED,
    "check": "What a visit had begun in a seat may be left there: the next check removes it."
    " Run the same command again.",
    **dict.fromkeys(("status", "cards", "doctor", "image_list"), UNCHANGED),
}

_task = ""
_is_said = False
_is_pressed = False
_code = INTERRUPTED


def begin(task: str) -> None:
    """From now on this task runs."""
    global _task
    _task = task


def is_the_end() -> None:
    """Ctrl-C is how this task ends, well and without a word."""
    global _is_said, _code
    _is_said, _code = True, 0


def message() -> str:
    """What the user reads, once: what stands, and what to run next."""
    global _is_said
    if _is_said:
        return ""
    _is_said = True
    stands = STANDS.get(_task, DONE_SO_FAR) if _task else UNCHANGED
    return f"Interrupted. {stands}"


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Makes sure of the end, for what runs inside. For the main thread, where SIGINT is not ignored.

    The first Ctrl-C raises KeyboardInterrupt there, as always; further ones would only disturb the end. If it has not
    come after GRACE seconds, another thread ends the process: the main one may be in a call that nothing interrupts,
    such as the look-up of a name, or wait for a host that hangs.
    """
    global _task, _is_said, _code
    _task, _is_said, _code = "", False, INTERRUPTED
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    waking, woken = socket.socketpair()
    waking.setblocking(False)
    interrupted = threading.Event()
    threading.Thread(target=_end_soon, args=(woken,), daemon=True).start()

    def interrupt(number: int, frame: Any) -> NoReturn:
        global _is_pressed
        _is_pressed = True
        interrupted.set()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    before = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        if not interrupted.is_set():  # else the process ends
            signal.set_wakeup_fd(before)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            waking.close()


def end_plainly() -> None:
    """When all is done and Python ends: from then on, Ctrl-C would print a traceback about it.

    Of an interrupt that came while it ran a string, as dataclasses do, Python would make an exit code of its own.
    """
    if _is_pressed:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(_code)
    with contextlib.suppress(ValueError):  # in another thread than the main one
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_soon(woken: socket.socket) -> None:
    """Ends the process after an interrupt; ends itself where there is none."""
    with woken:
        while signals := woken.recv(1):
            if signal.SIGINT in signals:
                break
        else:
            return
        time.sleep(GRACE)
    if text := message():
        cursor = SHOW_CURSOR if os.isatty(2) else ""
        # past Python's own streams: the main thread may hold their locks
        os.write(2, f"{cursor}{text}\n".encode())
    os._exit(_code)
