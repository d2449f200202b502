"""Text on its way to the user: nothing in it controls the terminal, and it arrives in any encoding."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
from typing import TextIO

from cloudscale.errors import CloudscaleError

# All control characters (ECMA-48) but tab and newline; separators of lines that are no newline; the characters that
# turn the direction of what follows (Unicode UAX #9); halves of characters, which no encoding has.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ENCODABLE = "cloudscale.encodable"  # the name of the error handler below


def visible(text: str) -> str:
    r"""The text with control characters written out, such as `\x1b`. Lines stay lines."""
    return CONTROL.sub(_written_out, text.replace("\r\n", "\n"))


def _written_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def json_safe(text: str) -> str:
    """JSON with those control characters escaped that JSON itself allows."""
    return CONTROL.sub(lambda match: _units(match[0]), text)


def _units(text: str) -> str:
    r"""A text as `\u738b`, a character outside the basic plane as two of these: so it is valid in JSON too."""
    data = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[at : at + 2].hex()}" for at in range(0, len(data), 2))


def _encodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _units(error.object[error.start : error.end]), error.end


codecs.register_error(ENCODABLE, _encodable)


def write(stream: TextIO, text: str) -> None:
    """Writes a line. If the reader of the stream (such as head) has ended, this and all that follows is dropped.

    What the stream's encoding lacks is written out. Raises CloudscaleError if it can't be written.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, ENCODABLE).decode(encoding) + "\n")
        stream.flush()
    except OSError as error:
        silence(stream)
        if isinstance(error, BrokenPipeError):
            return
        raise CloudscaleError(f"The result could not be written: {error.strerror}.", "Run again.") from None


def silence(stream: TextIO) -> None:
    """Leads a stream to nowhere; else Python would report at its end that it can't be written (docs of SIGPIPE)."""
    with contextlib.suppress(OSError, ValueError):  # a stream in memory
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
