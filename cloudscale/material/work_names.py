"""The names of students' files on the trainer's computer. Pure.

A name may have any bytes but `/` and zero. What is no name here, or could deceive who reads it, is coded: `%` and two
hexadecimal digits for each byte, so that it can be read back. All other names stay as they are.
"""

from __future__ import annotations

import re
import unicodedata

from cloudscale.errors import CloudscaleError
from cloudscale.terminal import CONTROL

LONGEST_NAME = 255  # bytes (limits.h, NAME_MAX)
LONGEST_PATH = 2048  # bytes of a path below the student's folder
CODE = re.compile(rb"%([0-9A-F]{2})")
HARMFUL = re.compile(rf"{CONTROL.pattern}|[\t\n]|%(?=[0-9A-F]{{2}})")


class BadName(CloudscaleError):
    """It can't be the name of a file."""


def local_name(name: bytes) -> str:
    """What a name of a student is here."""
    return _harmless(name.decode("utf-8", "surrogateescape"))


def _harmless(text: str) -> str:
    return HARMFUL.sub(lambda match: _coded(match[0]), text)


def _coded(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))


def own_name(name: str) -> bytes:
    """What the name was, as the student gave it. Raises BadName."""
    own = CODE.sub(lambda match: bytes([int(match[1], 16)]), name.encode("utf-8", "surrogateescape"))
    return _checked(own)


def own_path(path: str) -> bytes:
    """The same for a path. Raises BadName."""
    return b"/".join(own_name(name) for name in path.split("/"))


def _checked(name: bytes) -> bytes:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > LONGEST_NAME:
        raise BadName("without a name that a file can have")
    return name


class Names:
    """The paths of one student here. No two differ by case or accents alone: some disks can't keep them apart."""

    def __init__(self) -> None:
        self._folders: dict[tuple[str, bytes], str] = {}
        self._taken: set[tuple[str, str]] = set()

    def path(self, path: bytes) -> str:
        """Where a student's file is here, below the student's folder. Raises BadName."""
        if len(path) > LONGEST_PATH:
            raise BadName("with a path that is too long")
        *folders, name = map(_checked, path.split(b"/"))
        local = ""
        for folder in folders:
            if (local, folder) not in self._folders:
                self._folders[local, folder] = f"{local}{self._free(local, folder)}/"
            local = self._folders[local, folder]
        return local + self._free(local, name)

    def _free(self, folder: str, name: bytes) -> str:
        """The name. If another one in the folder is like it, more and more of it is coded."""
        text = name.decode("utf-8", "surrogateescape")
        for coded in range(len(text) + 1):
            local = _coded(text[:coded]) + _harmless(text[coded:])
            if (folder, _folded(local)) not in self._taken:
                break
        if len(local.encode()) > LONGEST_NAME:
            raise BadName("with a name that is too long here")
        self._taken.add((folder, _folded(local)))
        return local


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
