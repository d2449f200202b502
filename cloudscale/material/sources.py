"""What a trainer distributes: a file, a folder or a git repository, as a checked list of files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cloudscale.errors import RequestError
from cloudscale.material import git
from cloudscale.outside import home_path
from cloudscale.terminal import CONTROL

RECORD = ".cloudscale-material"  # in each work folder: what the student was given
LEFT_OUT = frozenset({".git", ".ipynb_checkpoints", "__pycache__", ".DS_Store", RECORD})
MOST_FILES = 20_000
LONGEST_PATH = 1000  # bytes; a name has at most 255
CLONING = 600.0  # seconds
POINTER = b"version https://git-lfs.github.com/spec/"  # a file that Git LFS has elsewhere (its specification)
POINTER_SIZE = 1024  # bytes, at most


@dataclass(frozen=True)
class MaterialFile:
    """A file: its path in the material with `/`, where it is now, its size in bytes, and its SHA-256."""

    path: str
    source: Path
    size: int
    sha256: str
    is_program: bool = False


@dataclass(frozen=True)
class Material:
    """The files to distribute, sorted by their paths; `folders` are those below the material's own.

    `commit`: of a git repository.
    """

    files: tuple[MaterialFile, ...]
    folders: tuple[str, ...] = ()
    commit: str = ""

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@contextlib.contextmanager
def opened(source: str, *, branch: str = "", path: str = "", timeout: float | None = None) -> Iterator[Material]:
    """The material, as long as its files are needed: a repository's are in a temporary folder.

    `branch`, `path`: for a git repository, of which `path` is a file or folder. `timeout`: seconds to fetch one.
    Raises RequestError.
    """
    location = home_path(source)
    is_git = git.is_address(source) or git.is_bare(location) or ((branch or path) and git.is_repository(location))
    if not is_git:
        if branch or path:
            raise RequestError(
                f"--branch and --path are for a git repository, and {source} is none.",
                "Leave them out, or give the address of a repository.",
            )
        yield scan(location, location)
        return
    with tempfile.TemporaryDirectory(prefix="cloudscale-") as temporary:
        clone = Path(temporary) / "material"
        fetched = source if git.is_address(source) else str(location.absolute())
        commit = git.clone(fetched, branch, clone, timeout or CLONING)
        yield scan(_inside(clone, path, git.shown(source)), clone, commit)


def _inside(clone: Path, path: str, shown: str) -> Path:
    """What --path names; a link in the repository must not lead to files of this computer. Raises RequestError."""
    wanted, root = (clone / path).resolve(), clone.resolve()
    if not wanted.is_relative_to(root) or LEFT_OUT & set(wanted.relative_to(root).parts) or not wanted.exists():
        raise RequestError(f"The repository {shown} has no file or folder {path!r}.", "Check --path.")
    return wanted


def scan(location: Path, root: Path, commit: str = "") -> Material:
    """The files of a folder, or the one file. Links must stay inside of `root`. Raises RequestError."""
    try:
        kind = location.stat().st_mode
        files: list[MaterialFile] = []
        found = Scan(root.resolve(), lambda *file: _take(files, *file))
        if stat.S_ISDIR(kind):
            found.folder(location.resolve(), "", ())
        else:
            found.entry(location, location.name, ())
    except FileNotFoundError:
        raise RequestError(
            f"{location} does not exist.", "Give a file, a folder, or the address of a git repository."
        ) from None
    except OSError as error:
        raise RequestError(f"{error.filename or location} can't be read: {error.strerror}.") from None
    if not files:
        raise RequestError(f"{location} has no files to distribute.", "Check the folder.")
    return Material(tuple(sorted(files, key=lambda file: file.path)), tuple(sorted(found.folders)), commit)


@dataclass(frozen=True)
class Scan:
    """Goes through a folder. `root`: where links must stay; it has no links in it. `take`: gets each file, with its
    path and what the file system says of it. `folders`: what was found so far.
    """

    root: Path
    take: Callable[[Path, str, os.stat_result], None]
    folders: list[str] = field(default_factory=list)

    def folder(self, folder: Path, path: str, above: tuple[Path, ...]) -> None:
        """`above`: the folders that this one is in, to notice a link that leads round in a circle."""
        if path:
            self.folders.append(checked(path))
        for name in sorted(os.listdir(folder)):
            if name not in LEFT_OUT:
                self.entry(folder / name, f"{path}/{name}".lstrip("/"), (*above, folder))

    def entry(self, location: Path, path: str, above: tuple[Path, ...]) -> None:
        if location.is_symlink() and above:  # the one that the trainer names may lead anywhere
            location = self._led_to(location, path, above)
        about = location.stat()
        if stat.S_ISDIR(about.st_mode):
            self.folder(location, path, above)
        elif stat.S_ISREG(about.st_mode):
            self.take(location, checked(path), about)
        else:
            raise RequestError(f"{path} is no file or folder, but a device, pipe or socket.", "Remove it.")

    def _led_to(self, link: Path, path: str, above: tuple[Path, ...]) -> Path:
        """What a link leads to, which the students get in its place."""
        remedy = "Replace it by what it leads to, or remove it."
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            raise RequestError(f"The link {path} leads nowhere.", remedy) from None
        if not target.is_relative_to(self.root) or LEFT_OUT & set(target.relative_to(self.root).parts):
            raise RequestError(f"The link {path} leads out of the material.", remedy)
        if target in above:
            raise RequestError(f"The link {path} leads to a folder that it is in.", remedy)
        return target


def _take(files: list[MaterialFile], location: Path, path: str, about: os.stat_result) -> None:
    with open(location, "rb") as file:
        start = file.read(len(POINTER))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    if start == POINTER and size <= POINTER_SIZE:
        raise RequestError(
            f"{path} is kept in Git LFS, and only the pointer to it is here.",
            "Fetch the files (git clone, then git lfs pull) and distribute that folder.",
        )
    files.append(MaterialFile(path, location, size, digest, bool(about.st_mode & stat.S_IXUSR)))
    if len(files) > MOST_FILES:
        raise RequestError(f"More than {MOST_FILES} files are too many.", "Distribute a part, or pack them.")


def checked(path: str) -> str:
    """The path, if students can have it. Raises RequestError."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise RequestError(f"The name of {path!r} is not in UTF-8.", "Rename it.") from None
    if size > LONGEST_PATH:
        raise RequestError(f"The path {path[:60]}… is too long.", f"It can have {LONGEST_PATH} bytes.")
    if CONTROL.search(path) or re.search(r"[\t\n]", path):
        raise RequestError(f"The name of {path!r} has a control character in it.", "Rename it.")
    return path
