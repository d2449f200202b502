"""A host that one run has to itself: other runs, on whatever computer, are refused until it ends.

A program on the host holds a lock for as long as the connection that started it gives signs of life. So nothing has to
be taken back: a run that is killed, or whose computer is switched off, lets go by itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from cloudscale.errors import CloudscaleError
from cloudscale.hosts.ssh import Connection
from cloudscale.model import Say
from cloudscale.scripts import script

WAITING = 5  # seconds: a run that was killed just now lets go within one
BEAT = 10.0  # seconds between two signs of life
SILENCE = 45  # seconds without one, after which the host lets go
ANSWERING = 15.0  # seconds for the program to start there


class Busy(CloudscaleError):
    """Another run has the host."""


@contextlib.contextmanager
def held(connection: Connection, who: str, say: Say) -> Iterator[bool]:
    """Keeps other runs away from a host; false if that can't be done there. Raises Busy, ConnectionFailed.

    `who`: what the others read about this run.
    """
    with connection.conversation(
        script("hosts", "hold.sh"), who, str(WAITING), str(SILENCE), timeout=WAITING + ANSWERING
    ) as channel:
        answer, _, other = channel.line().partition(" ")
        if answer == "waiting":
            say(f"Another run is changing the course{f' ({other})' if other else ''}: waiting {WAITING} s for its end")
            answer, _, other = channel.line().partition(" ")
        if answer == "busy":
            raise Busy(
                f"Another run is changing the course{f': {other}' if other else ''}.",
                "Wait until that run has ended, then run again. One that was cut off without a word, such as by a"
                f" lost network, lets go after {SILENCE} s.",
            )
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT) and channel.send(b"."):
                pass

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield answer == "held"
        finally:
            over.set()
