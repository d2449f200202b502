"""A run that changes a course, while no other one does: on this computer, and on those of other trainers."""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import Iterator

from cloudscale.cluster.driver import driver_of
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver, KeepsOthersAway


@contextlib.contextmanager
def alone(session: Session, driver: Driver | None = None, *, unless: bool = False) -> Iterator[Driver]:
    """The driver, with the course's locks held: that of its folder here, and one at its machines.

    With `unless`, neither is held. Raises CloudscaleError if another run has one of them, RequestError.
    """
    with session.locked(unless=unless):
        driver = driver or driver_of(session)
        if unless or not isinstance(driver, KeepsOthersAway):
            yield driver
            return
        with driver.exclusive(_who()):
            yield driver


def _who() -> str:
    """What the others read: who runs it, and where."""
    with contextlib.suppress(OSError, KeyError):  # a container may have a user without a name
        return f"{getpass.getuser()} at {socket.gethostname()}"
    return socket.gethostname()
