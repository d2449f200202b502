"""The files and folders that flags name, to be written to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cloudscale.errors import RequestError

LONGEST_NAME = 255  # bytes; the limit of all common file systems


def check_writable(path: Path) -> None:
    """Raises RequestError if the result can't be written there. Called before anything else is done."""
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise RequestError(f"--output: the file name {path.name[:20]}… is too long.", "Choose a shorter name.")
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG
    except OSError as error:
        raise RequestError(f"--output {path} can't be written: {error.strerror}.") from None
    if stat.S_ISDIR(kind):
        raise RequestError(f"--output {path} is a folder.", "Give the name of a file.")
    if not stat.S_ISREG(kind):
        raise RequestError(
            f"--output {path} is not a regular file, and it would be replaced.", "Give the name of a file."
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RequestError(
            f"--output {path} can't be written: its folder does not exist, or you may not write to it.",
            f"Create the folder first (mkdir -p {path.parent}), or choose another one.",
        )


def check_folder(path: Path, flag: str) -> None:
    """Raises RequestError if files can't be written into a folder, or if it can't be made."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise RequestError(
                f"{flag} {path} can't be made: the folder around it does not exist, or you may not write to it.",
                f"Create that first (mkdir -p {path.parent}), or choose another one.",
            ) from None
        return
    except OSError as error:
        raise RequestError(f"{flag} {path} can't be used: {error.strerror}.") from None
    if not is_folder:
        raise RequestError(f"{flag} {path} is not a folder.", "Give the name of a folder.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise RequestError(f"{flag} {path}: you may not write to it.", "Choose another folder.")
