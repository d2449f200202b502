"""From a machine that boots to a login on it. Its console tells its host keys: the first login is verified."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

from cloudscale.errors import ConnectionFailed, HostKeyChanged, LoginRefused
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.ssh import Connection, Target, connect
from cloudscale.model import Say
from cloudscale.waiting import Clock, poll

PROBE = 3.0  # seconds for a port to answer
STEP = 10.0  # seconds for each step of a login
TELLING = 90.0  # seconds for the keys to be on the console after SSH answers: cloud-init's own way prints them last
SETTLING = 60.0  # seconds in which a machine that refuses the key may yet be at setting it up
LINES = 12  # of a console

# cloud-init's own marks (its module keys-to-console)
KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
KEY = re.compile(r"(?:ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/]+=*(?=[ \r\n])")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\t\n -\uffff]")


class NoLogin(Exception):
    """A machine that runs, and that nobody gets into."""


@dataclass(frozen=True)
class Booting:
    """A machine that boots. `console`: reads what it has printed, None where nobody tells; `clock`: passes the time.

    `check` raises where it is of no use to wait any longer.
    """

    console: Callable[[], str | None]
    clock: Clock
    check: Callable[[], None] = lambda: None

    def console_end(self) -> str:
        """The last lines of the console, for a message."""
        text = self.console()
        if text is None:
            return "Its console is not shown."
        lines = [line.rstrip() for line in CONTROL.sub("", text).splitlines() if line.strip()]
        if not lines:
            return "Its console is empty."
        return "\n".join(["The end of its console:", *(f"  | {line}" for line in lines[-LINES:])])


def host_keys(console: str) -> list[str]:
    """The keys that a console shows, as in .pub files; other messages may stand between them."""
    return [key for block in KEYS.findall(console) for key in KEY.findall(block)]


def log_in(booting: Booting, target: Target, known: KnownHosts, timeout: float, say: Say) -> Connection:
    """Waits until the machine lets us in. Raises Silent, and ConnectionFailed where waiting is of no use."""
    clock = booting.clock
    begun = clock.now()

    def answers() -> bool:
        booting.check()
        return _answers(target)

    if not poll(answers, timeout=timeout, interval=1, clock=clock):
        raise NoLogin(f"nothing answers on {target.host}, port {target.port}, after {timeout:g} s")
    _learn_keys(booting, target, known, say)
    logins: list[Connection] = []
    failures: list[ConnectionFailed] = []
    refusals: list[float] = []

    def step() -> bool:
        booting.check()
        try:
            logins.append(connect(target, timeout=STEP, known=known))
            return True
        except HostKeyChanged:
            raise
        except LoginRefused as error:
            failures.append(error)
            refusals.append(clock.now())
            if refusals[-1] - refusals[0] > SETTLING:
                raise
        except ConnectionFailed as error:
            failures.append(error)
        return False

    left = max(STEP, timeout - (clock.now() - begun))
    if not poll(step, timeout=left, interval=1, clock=clock):
        if isinstance(failures[-1], LoginRefused):
            raise failures[-1]
        raise NoLogin(f"{failures[-1].message} That was for {timeout:g} s")
    return logins[0]


def _answers(target: Target) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((target.host, target.port), timeout=PROBE) as probe:
        return probe.recv(4) == b"SSH-"
    return False


def _learn_keys(booting: Booting, target: Target, known: KnownHosts, say: Say) -> None:
    """The host keys of the console into `known`; where it shows none, that is said, and the first key is trusted."""
    if known.knows(target.entry):
        return
    consoles: list[str | None] = []

    def step() -> bool:
        consoles.append(booting.console())
        return consoles[-1] is None or known.trust(target.entry, host_keys(consoles[-1]))

    if not poll(step, timeout=TELLING, interval=5, clock=booting.clock) or consoles[-1] is None:
        say(f"{target.name}: its console does not tell its host keys, so the first one that it shows is trusted")
