"""One run of one task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloudscale.course.folder import CourseFolder
from cloudscale.course.selection import Selection
from cloudscale.course.settings import Common, Settings
from cloudscale.progress import Progress


@dataclass(frozen=True)
class Session:
    """One run of one task: what was asked for, and the way to talk with the user meanwhile.

    `names_driver`: a flag chose the driver; `vm_flags`: those that were given and are for VMs on this computer alone.
    """

    settings: Settings
    common: Common
    progress: Progress
    ask: Callable[[str], None]  # raises RequestError unless the user agrees
    names_driver: bool = False
    vm_flags: tuple[str, ...] = ()

    @property
    def course(self) -> CourseFolder:
        return CourseFolder.named(self.settings.course, self.settings.driver)

    @contextlib.contextmanager
    def locked(self, *, unless: bool = False) -> Iterator[None]:
        """Held while the course is changed, `unless` nothing is. Raises CloudscaleError where another run holds it."""
        with contextlib.nullcontext() if unless else self.course.locked():
            yield

    @property
    def selection(self) -> Selection:
        return Selection(self.common.only, self.common.skip)
