"""A result in a file, for its owner's eyes only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cloudscale.errors import RequestError

LONGEST_NAME = 255  # bytes, on every common file system


def check_writable(path: Path) -> None:
    """Raises RequestError where no file can be written there, before anything else is done."""
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise RequestError(f"--output: the name {path.name[:20]}… is too long for a file.")
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG
    except OSError as error:
        raise RequestError(f"--output {path} can't be written: {error.strerror}.") from None
    if stat.S_ISDIR(kind):
        raise RequestError(f"--output {path} is a folder; a file is wanted.")
    if not stat.S_ISREG(kind):
        raise RequestError(f"--output {path} is no ordinary file: it would be replaced.", "Name a file.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RequestError(
            f"--output {path} can't be written: its folder is not there, or closed to you.",
            f"Make it first: mkdir -p {path.parent}",
        )
