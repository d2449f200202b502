"""The trainer's folder with the students' work. Nothing in it is written or read through a link.

A file appears in it whole, in one step. What is there already and was not collected is set aside, never overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, BinaryIO

from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.material import work_manifest

INCOMING = ".incoming"  # files that are being received
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PIECE = 1024 * 1024  # bytes that are read at once
LATEST = 2**33 * 10**9  # nanoseconds; a time after it (in the year 2242) is none


class WorkFolder:
    """An open folder of work. Paths are those of the manifest, relative to it. Safe to share between threads."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._root = descriptor

    @classmethod
    @contextlib.contextmanager
    def to_fill(cls, path: Path) -> Iterator[WorkFolder]:
        """A new folder, or one of an earlier collection. Raises RequestError, and CloudscaleError if it is in use."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            _check_own(path, descriptor)
            os.fchmod(descriptor, 0o700)
            _lock(path, descriptor)
            folder = cls(path, descriptor)
            folder._clear_incoming()
            if work_manifest.NAME not in os.listdir(descriptor):  # from now on it is a folder of collected work
                folder.write_manifest(iter([work_manifest.heading()]))
            yield folder
        finally:
            with contextlib.suppress(OSError):  # one that hangs may still write
                os.rmdir(INCOMING, dir_fd=descriptor)
            os.close(descriptor)

    @classmethod
    @contextlib.contextmanager
    def to_read(cls, path: Path) -> Iterator[WorkFolder]:
        """A folder that was collected. Raises RequestError."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            yield cls(path, descriptor)
        finally:
            os.close(descriptor)

    # --- reading -----------------------------------------------------------------------------

    def open(self, path: str) -> BinaryIO:
        """A file for reading. Raises OSError, also where it is a link or no file."""
        with self._parent(path) as parent:
            descriptor = os.open(path.rpartition("/")[2], FILE, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no file")
        return os.fdopen(descriptor, "rb")

    def sums(self, folder: str) -> Iterator[tuple[str, str]]:
        """Path and SHA-256 of every file in a folder and the folders in it."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._parent(f"{folder}/") as opened:
            for name in sorted(os.listdir(opened)):
                path = f"{folder}/{name}"
                mode = os.stat(name, dir_fd=opened, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    yield from self.sums(path)
                elif stat.S_ISREG(mode):
                    with contextlib.suppress(OSError), self.open(path) as file:
                        yield path, _sum(file)

    @contextlib.contextmanager
    def manifest(self) -> Iterator[work_manifest.Manifest]:
        """Raises RequestError if there is none, or it is none."""
        where = self.path / work_manifest.NAME
        try:
            file = os.fdopen(os.open(work_manifest.NAME, FILE, dir_fd=self._root), "rb")
        except OSError as error:
            raise RequestError(
                f"{where} can't be read: {error.strerror}.", "Give the folder that invoke collect made."
            ) from None
        with file:
            yield work_manifest.Manifest(file, where)

    # --- writing -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A file to receive; it is gone afterwards unless it was placed. Raises OSError."""
        name = secrets.token_hex(8)
        with self._parent(f"{INCOMING}/", make=True) as parent:
            descriptor = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
            )
            try:
                with os.fdopen(descriptor, "wb") as file:
                    yield Incoming(self, parent, name, file)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=parent)

    def make(self, folder: str) -> None:
        """A folder, if there is none. Raises OSError."""
        with self._parent(f"{folder}/", make=True):
            pass

    def move(self, old: str, new: str) -> str:
        """Gives a file another name. Returns where to that was set aside which had the name."""
        with self._parent(old) as source, self._parent(new, make=True) as target:
            aside = self.set_aside(new)
            os.rename(old.rpartition("/")[2], new.rpartition("/")[2], src_dir_fd=source, dst_dir_fd=target)
        return aside

    def set_aside(self, path: str) -> str:
        """Renames what is there. Returns its new path; empty if there is nothing. Raises OSError."""
        folder, _, name = path.rpartition("/")
        with self._parent(path, make=True) as parent:
            kept = _kept(parent, name)
        return f"{folder}/{kept}".removeprefix("/") if kept else ""

    def keep_copy(self, path: str) -> None:
        """A file stays under another name, too, when it is replaced. Raises OSError."""
        with self._parent(path) as parent:
            name = path.rpartition("/")[2]
            os.link(name, _free(parent, name), src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)

    def write_manifest(self, lines: Iterator[str]) -> None:
        """Replaces the manifest in one step. Raises OSError."""
        with self.incoming() as incoming:
            for line in lines:
                incoming.file.write(line.encode("utf-8"))
            incoming.place(work_manifest.NAME)

    def _clear_incoming(self) -> None:
        """Removes what a run that was killed had not received in full."""
        with self._parent(f"{INCOMING}/", make=True) as parent:
            for name in os.listdir(parent):
                os.unlink(name, dir_fd=parent)

    @contextlib.contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[int]:
        """The folder that a path is in, open. With `make` it is made, and what is no folder is set aside. OSError."""
        folder = os.dup(self._root)
        try:
            for name in path.split("/")[:-1]:
                inner = _inner(folder, name, make=make)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)


class Incoming:
    """A file that is being received."""

    def __init__(self, folder: WorkFolder, parent: int, name: str, file: IO[bytes]) -> None:
        self.file = file
        self._folder = folder
        self._parent = parent
        self._name = name

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()

    def place(self, path: str, *, time: int | None = None, runs: bool = False) -> None:
        """Puts it into its place, over a file that is there. `time`: nanoseconds of its last change. Raises OSError."""
        self.file.flush()
        if runs:
            os.fchmod(self.file.fileno(), 0o700)
        if time is not None and 0 <= time <= LATEST:
            os.utime(self.file.fileno(), ns=(time, time))
        target = path.rpartition("/")[2]
        with self._folder._parent(path, make=True) as parent:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(target, dir_fd=parent, follow_symlinks=False).st_mode):
                    _kept(parent, target)
            os.rename(self._name, target, src_dir_fd=self._parent, dst_dir_fd=parent)


def _inner(folder: int, name: str, *, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
    try:
        return os.open(name, FOLDER, dir_fd=folder)
    except OSError as error:
        # a link is ELOOP on some systems
        if not make or error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
    _kept(folder, name)
    os.mkdir(name, 0o700, dir_fd=folder)
    return os.open(name, FOLDER, dir_fd=folder)


def _free(parent: int, name: str) -> str:
    """NAME.kept-1, or the next of these that nothing has."""
    stem = name[:50] if len(os.fsencode(name)) > 200 else name
    names = {*os.listdir(parent)}
    return next(kept for number in count(1) if (kept := f"{stem}.kept-{number}") not in names)


def _kept(parent: int, name: str) -> str:
    """Renames something to a name that is free. Returns that; empty if there is nothing."""
    kept = _free(parent, name)
    try:
        os.rename(name, kept, src_dir_fd=parent, dst_dir_fd=parent)
    except FileNotFoundError:
        return ""
    return kept


def _sum(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


def _check_own(path: Path, descriptor: int) -> None:
    if os.fstat(descriptor).st_uid != os.getuid():
        raise RequestError(f"The folder {path} belongs to another user.", "Choose another one (--output DIR).")
    names = {*os.listdir(descriptor)} - {INCOMING}
    if names and work_manifest.NAME not in names:
        raise RequestError(
            f"The folder {path} has files in it, and no {work_manifest.NAME} of an earlier collection.",
            "Choose an empty or a new folder (--output DIR).",
        )


def _lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CloudscaleError(
            f"Another run is writing to {path}.", "Wait until that run has ended, then run again."
        ) from None


def _unusable(path: Path, error: OSError) -> RequestError:
    return RequestError(f"The folder {path} can't be used: {error.strerror}.", "Choose another one.")
