"""The folder of a course on the trainer's computer: the course's secrets, and nothing else.

`$CLOUDSCALE_HOME/COURSE/DRIVER`, mode 0700. Another trainer who has this folder can take over the course. Nothing else
is kept on the trainer's computer, except for VMs on this computer, whose disks are in this folder too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_dir

from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.files import make_once, replace_file
from cloudscale.outside import UNEXPECTED, home_path, parse_object

KEY_BYTES = 32
CHANGES = "passwords.json"  # how often students' passwords were changed
NAMES = "gateway-names"  # the secret of the seats' host names
STORE_COPY = "gateway-store.tar"  # the gateway's account at an authority on the internet, and its certificates
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
ATTEMPTS = 100  # to lock a folder that other runs remove at their end


@dataclass(frozen=True)
class CourseFolder:
    """The folder for one course and one driver. `name` is the course's name.

    `read_only`: whoever has it changes nothing in it.
    """

    name: str
    folder: Path
    read_only: bool = False

    @classmethod
    def named(cls, name: str, driver: str, *, read_only: bool = False) -> CourseFolder:
        return cls(name, _home() / name / driver, read_only)

    @staticmethod
    def courses(driver: str) -> list[str]:
        """The names of the courses that have a folder for the driver."""
        return sorted(path.parent.name for path in _home().glob(f"*/{driver}") if path.is_dir())

    @property
    def known_hosts(self) -> Path:
        """The file with the SSH host keys of the driver's machines, in OpenSSH's format."""
        return self.folder / "known_hosts"

    @property
    def remote_known_hosts(self) -> Path:
        """The same for hosts that remote_com connected to, which belong to no driver."""
        return self.folder.parent / "known_hosts"

    def key(self, *, create: bool = True) -> bytes | None:
        """The secret that passwords are derived from. Without one, it is made (`create`), or None is returned.

        Raises RequestError if the folder or its key can't be used.
        """
        return self._secret("key", "All passwords depend on it.", create=create)

    def names_key(self, *, create: bool = True) -> bytes | None:
        """The same for the host names of the seats, in a file of its own: it stays with their certificates."""
        return self._secret(NAMES, "The addresses of all seats depend on it.", create=create)

    def make_secrets(self) -> None:
        """Makes both, unless they are there: before anything stands, so that every copy of the folder has them.

        Raises RequestError.
        """
        self.key()
        self.names_key()

    def _secret(self, name: str, why: str, *, create: bool) -> bytes | None:
        path = self.folder / name
        self.check()
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
                f"{path} does not contain the course's key: {2 * KEY_BYTES} hexadecimal digits.",
                f"Restore the file from which this course was started. {why}",
            )
        return key

    def password_changes(self) -> dict[str, int]:
        """How often students' passwords were changed, by id, as far as this computer knows. The swarm may know more.

        Raises RequestError if the file can't be used.
        """
        path = self.folder / CHANGES
        try:
            changes = parse_object(path.read_bytes())
            return {str(id): int(count) for id, count in changes.items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise self._unusable(error) from None
        except UNEXPECTED:
            raise RequestError(f"{path} is damaged.", "Remove it: the swarm has its own copy.") from None

    def note_password_changes(self, changes: Mapping[str, int]) -> None:
        """Keeps these numbers for a swarm that has to be created again. Raises RequestError."""
        if changes == self.password_changes():
            return
        try:
            self.make_folder()
            replace_file(self.folder / CHANGES, json.dumps(changes, indent=1).encode())
        except OSError as error:
            raise self._unusable(error) from None

    def make_folder(self) -> None:
        """Creates the folder, so that only its owner can ever enter it. Raises OSError, RequestError."""
        assert not self.read_only
        self.check()
        # one by one: of `parents`, those above get the mode of the umask
        for folder in (self.folder.parent.parent, self.folder.parent, self.folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check()
        for folder in (self.folder.parent, self.folder):
            folder.chmod(0o700)

    def check(self) -> None:
        """Raises RequestError if somebody else could have put a secret into the folder, or could read what gets there.

        The same is checked as by sshd with StrictModes (sshd_config(5)).
        """
        for path in (self.folder.parent, self.folder, *self._secrets()):
            try:
                status = path.lstat()
            except OSError:  # there is none; or whoever uses it reports why it can't be used
                continue
            if problem := _problem(path, status):
                raise RequestError(
                    f"{path} {problem}: somebody else may know the secrets of the course, or have made them.",
                    f"If you are sure of what is in it: make it a file or folder of your own (no link), and chmod go-w"
                    f" {path}. Else choose another folder with CLOUDSCALE_HOME.",
                )

    def check_writable(self) -> None:
        """Raises RequestError if a launch could not make the folder, or write to it."""
        try:
            above = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        except OSError as error:
            raise self._unusable(error) from None
        number = 0
        if not above.is_dir():
            number = errno.EEXIST if above in (self.folder, *self.folder.parents[:2]) else errno.ENOTDIR
        elif not os.access(above, os.W_OK | os.X_OK):
            number = errno.EACCES
        if number:
            raise self._unusable(OSError(number, os.strerror(number)))

    def _secrets(self) -> list[Path]:
        """The files in the folder, without the public keys of hosts, and without what is not a file."""
        try:
            return [path for path in self.folder.iterdir() if path.name != self.known_hosts.name and _is_file(path)]
        except OSError:
            return []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock that a run needs to change the course. Raises CloudscaleError if another run has it."""
        descriptor = self._lock()
        try:
            yield
        finally:
            self._remove_empty()
            os.close(descriptor)

    def _lock(self) -> int:
        """The descriptor of the locked folder.

        The folder itself is locked, which flock allows, so that it stays empty and can be removed by a run that made
        nothing. The package filelock can't do that: it needs a file to lock.
        """
        for _ in range(ATTEMPTS):
            try:
                self.make_folder()
                descriptor = os.open(self.folder, os.O_RDONLY)
            except FileNotFoundError:  # another run has just ended and removed it
                continue
            except OSError as error:
                raise self._unusable(error) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # the lock of a folder that was removed in the meantime excludes nobody
                if self.folder.exists() and os.path.samestat(os.fstat(descriptor), self.folder.stat()):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise CloudscaleError(
                    f"Another run is changing the course {self.name!r}.",
                    "Wait until that run has ended, then run again.",
                ) from None
            os.close(descriptor)
        raise self._unusable(OSError(errno.ENOENT, "something removes it again and again"))

    def _unusable(self, error: OSError) -> RequestError:
        return RequestError(
            f"The course's folder {self.folder} can't be used: {error.strerror}.",
            "Set CLOUDSCALE_HOME to a folder in which you may write.",
        )

    def forget(self) -> None:
        """Removes the folder. Also removes the folder above if no other driver has one there.

        Certificates that an authority on the internet has signed stay: it signs only a few in a week for one address.
        """
        if self.keeps_certificates:
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name not in (STORE_COPY, NAMES):
                    path.unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._remove_empty()

    @property
    def keeps_certificates(self) -> bool:
        return (self.folder / STORE_COPY).exists()

    def _remove_empty(self) -> None:
        for folder in (self.folder, self.folder.parent):
            with contextlib.suppress(OSError):  # rmdir removes empty folders only
                folder.rmdir()


def _home() -> Path:
    home = os.environ.get("CLOUDSCALE_HOME") or user_state_dir("cloudscale")
    # VirtualBox takes a relative path as one of its own folder
    return home_path(home).absolute()


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _problem(path: Path, status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    if stat.S_ISLNK(status.st_mode):
        # Docker's names of a certificate are links to a file beside them
        return "" if "/" not in os.readlink(path) and (path.parent / os.readlink(path)).is_file() else "is a link"
    return "can be written by other users" if status.st_mode & OTHERS_WRITE else ""
