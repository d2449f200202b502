"""Sizes in powers of 1024, as in Docker."""

from __future__ import annotations

import math
import re

MIB = 1024**2
GIB = 1024**3


def parse_size(text: str) -> int:
    """Converts `2G`, `512M`, `1.5GiB` or a plain number to bytes. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise ValueError("should be a size such as 2G or 512M")
    size = float(match[1]) * 1024 ** " kmgt".index(match[2] or " ")
    if math.isinf(size):
        raise ValueError("should be a size that a machine can have")
    return int(size)


def mib(size: float) -> str:
    """Bytes as text, such as `437 MiB`."""
    return f"{size / MIB:.0f} MiB"


def gib(size: float, digits: int = 1) -> str:
    """Bytes as text, such as `1.5 GiB`."""
    return f"{size / GIB:.{digits}f} GiB"


def amount(size: int) -> str:
    """Bytes as text in the unit that suits them, such as `3 KiB`."""
    if size < 1024:
        return f"{size} bytes"
    if size < MIB:
        return f"{size / 1024:.0f} KiB"
    return mib(size) if size < GIB else gib(size)
