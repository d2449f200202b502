"""Command lines that every login shell reads alike: POSIX shells, csh and tcsh, fish."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# No shell gives these a meaning inside single quotes, nor printf in its format. In particular csh expands `!` there and
# wants a backslash before a newline, and fish reads `\\` and `\'`.
PLAIN = re.compile(r"[A-Za-z0-9 _./:=,@+]")


def quoted(words: Sequence[str]) -> str:
    """The words, quoted for sh."""
    return shlex.join(words)


def for_any_shell(command: str) -> str:
    """A command for sh, as a line that a user's login shell passes on to sh unchanged, whichever shell it is.

    What could have a meaning is written in octal, as printf reads it (POSIX, printf, "Extended Description").
    """
    written = "".join(
        chr(byte) if PLAIN.match(chr(byte)) else f"\\{byte:03o}" for byte in command.encode(errors="surrogateescape")
    )
    return f"""exec /bin/sh -c 'eval "$(printf "{written}")"'"""
