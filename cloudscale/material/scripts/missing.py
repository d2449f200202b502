"""Prints which of the material's files a machine does not have yet. Runs in a helper container.

`folder`: the volume that keeps them. The stream: the SHA-256 of each file, a line each.
"""

import os
import sys
from collections.abc import Iterable


def main(stream: Iterable[bytes], folder: str) -> None:
    for digest in b"".join(stream).decode().split():
        if not os.path.exists(f"{folder}/{digest}"):
            sys.stdout.write(f"{digest}\n")
