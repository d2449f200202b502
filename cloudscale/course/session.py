"""One run of one task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from cloudscale.course.folder import CourseFolder
from cloudscale.course.selection import Selection
from cloudscale.course.settings import Common, Settings
from cloudscale.progress import Progress


@dataclass(frozen=True)
class Session:
    """One run of one task: the settings and flags, and the connection to the user.

    `names_driver`: whether --driver was given. `vm_flags`: the flags that were given and are only for VMs on this
    computer.
    """

    settings: Settings
    common: Common
    progress: Progress
    ask: Callable[[str], None]  # raises RequestError unless the user agrees
    names_driver: bool = False
    vm_flags: tuple[str, ...] = ()

    @property
    def course(self) -> CourseFolder:
        """The folder of the course for the driver in use. Raises RequestError if others may write to it."""
        folder = CourseFolder.named(self.settings.course, self.settings.driver)
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
