"""The first login on a machine that boots. Its console shows its host keys, so this login is verified too."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

from cloudscale.errors import ConnectionFailed, HostKeyChanged, LoginRefused, NotReached
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import Connection, connect
from cloudscale.hosts.target import Target
from cloudscale.hosts.tunnel import End
from cloudscale.model import Say
from cloudscale.waiting import Clock, poll, retry

PROBE = 3.0  # seconds for a port to answer
STEP = 10.0  # seconds for each step of a login
SHOWING = 90.0  # seconds for the keys to be on the console after SSH answers: cloud-init itself prints them last
SETTLING = 60.0  # seconds in which a machine may refuse the key because it is still being installed
LINES = 12  # of a console, for a message

# cloud-init's own marks (its module keys-to-console)
BEGIN, END = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"
KEY = re.compile(r"(?:ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/]+=*(?=[ \r\n])")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\t\n -\uffff]")


class NoLogin(Exception):
    """A machine runs, but no login on it succeeds."""


class _NoConsole(Exception):
    """A console can't be read, so waiting for its keys is pointless."""


@dataclass(frozen=True)
class Booting:
    """A machine that boots. `console`: reads its output, None if it can't be read; `clock`: measures the waits.

    `check` raises an error if waiting any longer is pointless. `over`: the connection to the host through which it is
    reached (`target.via`).
    """

    console: Callable[[], str | None]
    clock: Clock
    check: Callable[[], None] = lambda: None
    over: Callable[[], Connection | None] = lambda: None

    def console_end(self) -> str:
        """The last lines of the console, for a message."""
        text = self.console()
        if text is None:
            return "Its console can't be read."
        lines = plain(text)
        if not lines:
            return "Its console is empty."
        return "\n".join(["The end of its console:", *(f"  | {line}" for line in lines[-LINES:])])


def plain(console: str) -> list[str]:
    """The lines of a console that are not empty, without control characters."""
    return [line.rstrip() for line in CONTROL.sub("", console).splitlines() if line.strip()]


def host_keys(console: str) -> list[str]:
    """The keys that a console shows, as in .pub files; other messages may be between them."""
    # not a pattern: for that, a megabyte of nothing but beginnings takes two minutes
    blocks = (part.partition(END) for part in console.split(BEGIN)[1:])
    return [key for block, end, _ in blocks if end for key in KEY.findall(block)]


def log_in(booting: Booting, target: Target, known: KnownHosts, timeout: float, say: Say) -> Connection:
    """Waits until a login succeeds, for `timeout` seconds in all.

    Raises NoLogin, or ConnectionFailed if waiting any longer is pointless.
    """
    clock = booting.clock
    begun = clock.now()

    def answers() -> bool:
        booting.check()
        return _answers(target, booting.over())

    def attempt() -> Connection:
        booting.check()
        return connect(target, timeout=STEP, known=known, over=booting.over())

    if not poll(answers, timeout=timeout, interval=1, clock=clock):
        raise NoLogin(f"nothing answers on {target.host}, port {target.port}, after {timeout:g} s")
    _learn_keys(booting, target, known, say)
    left = max(STEP, timeout - (clock.now() - begun))
    try:
        return retry(attempt, when=_Patience(clock), timeout=left, interval=1, clock=clock)
    except (HostKeyChanged, LoginRefused):
        raise
    except ConnectionFailed as error:
        reason = error.message.rstrip(".")
        raise NoLogin(f"no login succeeded within {timeout:g} s ({reason})") from None


class _Patience:
    """Whether it makes sense to try again after a failed login: a refusal may end within SETTLING of the first one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_refusal: float | None = None

    def __call__(self, error: Exception) -> bool:
        if isinstance(error, LoginRefused):
            if self._first_refusal is None:
                self._first_refusal = self._clock.now()
            return self._clock.now() - self._first_refusal <= SETTLING
        return isinstance(error, ConnectionFailed) and not isinstance(error, HostKeyChanged)


def _answers(target: Target, over: Connection | None) -> bool:
    with contextlib.suppress(OSError, NotReached):
        if over:
            probe: End = over.open(target.host, target.port, PROBE)
        else:
            probe = socket.create_connection((target.host, target.port), timeout=PROBE)
        with contextlib.closing(probe):
            probe.settimeout(PROBE)
            return probe.recv(4) == b"SSH-"
    return False


def _learn_keys(booting: Booting, target: Target, known: KnownHosts, say: Say) -> None:
    """Stores the host keys that the console shows. If it shows none, that is reported: the first key is trusted."""
    if known.knows(target.entry):
        return

    def learn() -> bool:
        console = booting.console()
        if console is None:
            raise _NoConsole
        return known.trust(target.entry, host_keys(console))

    with contextlib.suppress(_NoConsole):
        if poll(learn, timeout=SHOWING, interval=5, clock=booting.clock):
            return
    say(f"{target.name}: its console does not show its host keys, so the first key that it offers is trusted")
