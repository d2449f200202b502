"""Sizes: powers of 1024, as Docker has them."""

from __future__ import annotations

import re

MIB = 1024**2
GIB = 1024**3


def parse_size(text: str) -> int:
    """Bytes of `2G`, `512M`, `1.5GiB` or a plain number. Raises ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise ValueError("should be a size such as 2G or 512M")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))


def mib(size: float) -> str:
    """Bytes in words: `437 MiB`."""
    return f"{size / MIB:.0f} MiB"


def gib(size: float, digits: int = 1) -> str:
    """Bytes in words: `1.5 GiB`."""
    return f"{size / GIB:.{digits}f} GiB"
