"""Whether a host still answers. One that hangs, or whose power is off, closes no connection: without these signs, a
command would wait for it until TCP gives up, which takes a quarter of an hour."""

from __future__ import annotations

import contextlib
import threading

import paramiko

from cloudscale.waiting import at_most

INTERVAL = 15.0  # seconds between two signs that are asked for; firewalls drop idle connections
SILENCE = 180.0  # seconds without a sign after which a connection is lost; a network that is cut for a minute is not


class SignsOfLife:
    """Asks a host again and again whether it is there, and ends its connection when no answer comes.

    `are_missing`: it was ended so. `end`: stops asking.
    """

    def __init__(self, transport: paramiko.Transport) -> None:
        self.are_missing = False
        self._transport = transport
        self._over = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    def end(self) -> None:
        self._over.set()

    def _ask(self) -> None:
        while not self._over.wait(INTERVAL):
            # a server answers also what it does not know (RFC 4254, 4); ssh(1) asks this for ServerAliveInterval
            with at_most(SILENCE, self._lose), contextlib.suppress(paramiko.SSHException, OSError, EOFError):
                self._transport.global_request("keepalive@openssh.com", wait=True)
            if not self._transport.is_active():
                return

    def _lose(self) -> None:
        self.are_missing = True
        self._transport.close()
