"""One run of one task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from cloudscale.course.flags import Common
from cloudscale.course.folder import CourseFolder
from cloudscale.course.selection import Selection
from cloudscale.course.settings import Settings
from cloudscale.errors import SettingsError
from cloudscale.progress import Progress


@dataclass(frozen=True)
class Session:
    """One run of one task: the settings and flags, and the connection to the user.

    `names_driver`, `names_course`: whether --driver and --course were given. `vm_flags`: the flags that were given
    and are only for VMs on this computer. `patience`: seconds for each answer of a cloud or an SSH server, if less
    than usual. `only_looks`: nothing is changed, in the course's folder neither. `refused`: why the keys `left_out`
    of the configuration are not used, in a task that goes on without them.
    """

    settings: Settings
    common: Common
    progress: Progress
    ask: Callable[[str], None]  # raises RequestError unless the user agrees
    names_driver: bool = False
    names_course: bool = False
    vm_flags: tuple[str, ...] = ()
    patience: float | None = None
    only_looks: bool = False
    refused: SettingsError | None = None
    left_out: frozenset[str] = frozenset()

    @property
    def course(self) -> CourseFolder:
        """The folder of the course for the driver in use. Raises RequestError if others may write to it."""
        folder = CourseFolder.named(self.settings.course, self.settings.driver, read_only=self.only_looks)
        folder.check()
        return folder

    @property
    def selection(self) -> Selection:
        return Selection(self.common.only, self.common.skip)

    def locked(self, *, unless: bool = False) -> contextlib.AbstractContextManager[None]:
        """Holds the lock of the course, so that no other run changes it. With `unless`, does nothing.

        Raises CloudscaleError if another run has the lock.
        """
        return contextlib.nullcontext() if unless else self.course.locked()
