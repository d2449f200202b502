"""From a running server to a login on it. Its console tells its host keys, so that the first login is verified."""

from __future__ import annotations

import contextlib
import re
import socket

from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.errors import CloudError, ConnectionFailed, HostKeyChanged, LoginRefused
from cloudscale.known_hosts import KnownHosts
from cloudscale.model import Say
from cloudscale.ssh import Connection, Target, connect
from cloudscale.waiting import poll

PROBE = 3.0  # seconds for a port to answer
STEP = 10.0  # seconds for each step of a login
TELLING = 90.0  # seconds for the keys to be on the console after SSH answers: cloud-init's own way prints them last
CONSOLE = 20.0  # seconds for the console, with all attempts
SETTLING = 60.0  # seconds in which a machine that refuses the key may yet be at setting it up
LINES = 12  # of a console

# cloud-init's own marks (its module keys-to-console)
KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
KEY = re.compile(r"(?:ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/]+=*(?=[ \r\n])")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\t\n -\uffff]")


class Silent(Exception):
    """A server that runs, and that nobody gets into."""


def host_keys(console: str) -> list[str]:
    """The keys that a console shows, as in .pub files; other messages may stand between them."""
    return [key for block in KEYS.findall(console) for key in KEY.findall(block)]


def read_console(cloud: Cloud, server_id: str) -> str | None:
    """What the server has printed; None where the cloud does not tell."""
    with contextlib.suppress(CloudError):
        answer = cloud.attempt(
            "Reading the console", lambda: cloud.api.compute.get_server_console_output(server_id), patience=CONSOLE
        )
        return str(answer.get("output") or "")
    return None


def console_end(cloud: Cloud, server_id: str) -> str:
    """The last lines of a console, for a message."""
    text = read_console(cloud, server_id)
    if text is None:
        return "The cloud does not show its console."
    lines = [line.rstrip() for line in CONTROL.sub("", text).splitlines() if line.strip()]
    if not lines:
        return "Its console is empty."
    return "\n".join(["The end of its console:", *(f"  | {line}" for line in lines[-LINES:])])


def log_in(cloud: Cloud, server_id: str, target: Target, known: KnownHosts, timeout: float, say: Say) -> Connection:
    """Waits until the server lets us in. Raises Silent, and ConnectionFailed where waiting is of no use."""
    begun = cloud.clock.now()
    if not poll(lambda: _answers(target), timeout=timeout, interval=1, clock=cloud.clock):
        raise Silent(f"nothing answers on {target.host}, port {target.port}, after {timeout:g} s")
    _learn_keys(cloud, server_id, target, known, say)
    logins: list[Connection] = []
    failures: list[ConnectionFailed] = []
    refusals: list[float] = []

    def step() -> bool:
        try:
            logins.append(connect(target, timeout=STEP, known=known))
            return True
        except HostKeyChanged:
            raise
        except LoginRefused as error:
            failures.append(error)
            refusals.append(cloud.clock.now())
            if refusals[-1] - refusals[0] > SETTLING:
                raise
        except ConnectionFailed as error:
            failures.append(error)
        return False

    left = max(STEP, timeout - (cloud.clock.now() - begun))
    if not poll(step, timeout=left, interval=1, clock=cloud.clock):
        if isinstance(failures[-1], LoginRefused):
            raise failures[-1]
        raise Silent(f"{failures[-1].message} That was for {timeout:g} s")
    return logins[0]


def _answers(target: Target) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((target.host, target.port), timeout=PROBE) as probe:
        return probe.recv(4) == b"SSH-"
    return False


def _learn_keys(cloud: Cloud, server_id: str, target: Target, known: KnownHosts, say: Say) -> None:
    """The host keys of the console into `known`; where it shows none, that is said, and the first key is trusted."""
    consoles: list[str | None] = []

    def step() -> bool:
        consoles.append(read_console(cloud, server_id))
        return consoles[-1] is None or known.trust(target.entry, host_keys(consoles[-1]))

    if not poll(step, timeout=TELLING, interval=5, clock=cloud.clock) or consoles[-1] is None:
        say(f"{target.name}: its console does not tell its host keys, so the first one that it shows is trusted")
