"""What runs on machines and in seats: files in the folder `scripts` of the package that sends them."""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache  # two hundred machines get the same text: it is in memory once
def script(package: str, name: str) -> str:
    """The text of a file, such as `script("hosts", "facts.sh")`."""
    return resources.files(f"cloudscale.{package}").joinpath("scripts", name).read_text(encoding="utf-8")
