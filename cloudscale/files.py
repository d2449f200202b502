"""Private files (mode 0600), written atomically: a reader sees the old or the new content, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file, or replaces it. Raises OSError."""
    with _written_beside(path, data) as temporary:
        os.replace(temporary, path)


def make_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a file. If there is no such file, it is created; of several runs, the first one does so.

    Raises OSError.
    """
    if not path.exists():
        with _written_beside(path, make()) as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    return path.read_bytes()


@contextlib.contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A temporary file with the data, in the same folder, so that it can be renamed or linked in one step."""
    temporary = path.with_name(f".cloudscale-{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
