"""A course's folder: its secrets, and nothing else.

`$CLOUDSCALE_HOME/COURSE/DRIVER`, mode 0700. It is all that another trainer needs to take the
course over, and all that is kept on the trainer's computer. (VMs that are on it lie there, too.)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_dir

from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.files import make_once

KEY_BYTES = 32
ATTEMPTS = 100  # to lock a folder that other runs remove when they are done


@dataclass(frozen=True)
class CourseFolder:
    """The namespace of everything made for one class by one driver."""

    name: str
    folder: Path

    @classmethod
    def named(cls, name: str, driver: str) -> CourseFolder:
        home = os.environ.get("CLOUDSCALE_HOME") or user_state_dir("cloudscale")
        return cls(name, Path(home).expanduser() / name / driver)

    @property
    def known_hosts(self) -> Path:
        """The keys of the driver's hosts, in OpenSSH's form."""
        return self.folder / "known_hosts"

    @property
    def remote_known_hosts(self) -> Path:
        """The keys of hosts that remote_com saw; they are of no driver."""
        return self.folder.parent / "known_hosts"

    def key(self, *, create: bool = True) -> bytes | None:
        """The secret that passwords are derived from, made on first use (`create`), else None where there is none.

        Raises RequestError where the folder can't be used.
        """
        path = self.folder / "key"
        try:
            if not path.exists():
                if not create:
                    return None
                self.make_folder()
            key = bytes.fromhex(make_once(path, lambda: f"{secrets.token_hex(KEY_BYTES)}\n".encode()).decode().strip())
        except OSError as error:
            raise self._unusable(error) from None
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise RequestError(
                f"{path} does not hold the course's key: {2 * KEY_BYTES} hexadecimal digits.",
                "Put back the file that the course was made with; every password comes from it.",
            )
        return key

    def make_folder(self) -> None:
        """The driver's part and the course's, closed to others. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.folder.parent, self.folder):
            folder.chmod(0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Held while a run changes the course. Raises CloudscaleError where another run holds it."""
        descriptor = self._lock()
        try:
            yield
        finally:
            self._remove_empty()
            os.close(descriptor)

    def _lock(self) -> int:
        for _ in range(ATTEMPTS):
            try:
                self.make_folder()
                descriptor = os.open(self.folder, os.O_RDONLY)
            except FileNotFoundError:  # another run has just removed it, being done
                continue
            except OSError as error:
                raise self._unusable(error) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # a folder that was removed meanwhile locks nobody out
                if self.folder.exists() and os.path.samestat(os.fstat(descriptor), self.folder.stat()):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise CloudscaleError(
                    f"Another run is changing the course {self.name!r} just now.",
                    "Wait until it has ended, then run again.",
                ) from None
            os.close(descriptor)
        raise self._unusable(OSError(errno.ENOENT, "it vanishes again and again"))

    def _unusable(self, error: OSError) -> RequestError:
        return RequestError(
            f"The course's folder {self.folder} can't be used: {error.strerror}.",
            "Set CLOUDSCALE_HOME to a folder that you may write to.",
        )

    def forget(self) -> None:
        """Removes the driver's part of the folder, and the course's where nothing else is left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._remove_empty()

    def _remove_empty(self) -> None:
        for folder in (self.folder, self.folder.parent):
            with contextlib.suppress(OSError):  # rmdir removes empty folders only
                folder.rmdir()
