"""Renames what students have in the place of the shared folder, which would hide it. Runs in a helper container.

`name`: that of the shared folder; `folders`: the students' volumes. An empty folder of that name is in nobody's way.
Prints the numbers of the students whose entry was renamed.
"""

import os
import stat
import sys
from collections.abc import Iterable
from itertools import count


def is_free(folder: int, name: str) -> bool:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return True
    if not stat.S_ISDIR(mode):
        return False
    try:
        os.rmdir(name, dir_fd=folder)  # it comes back as the place of the mount
    except OSError:
        return False
    return True


def main(pieces: Iterable[bytes], name: str, *folders: str) -> None:
    for number, path in enumerate(folders):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if not is_free(folder, name):
            names = {*os.listdir(folder)}
            own = next(own for at in count(1) if (own := f"{name} (own{f' {at}' if at > 1 else ''})") not in names)
            os.rename(name, own, src_dir_fd=folder, dst_dir_fd=folder)
            sys.stdout.write(f"{number}\n")
        os.close(folder)
