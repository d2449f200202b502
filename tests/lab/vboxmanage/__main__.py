"""The stand-in as a command: its arguments are a folder and the arguments of VBoxManage."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from tests.lab.vboxmanage.commands import answer
from tests.lab.vboxmanage.store import Json, Store


def notify(port: int, change: Json) -> str:
    if not port:
        return ""
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as stream:
        stream.write(f"{json.dumps(change)}\n")
        stream.flush()
        return stream.readline().strip()


def main(folder: str, *arguments: str) -> int:
    result = answer(Store(Path(folder)), list(arguments), notify)
    sys.stdout.write(result.out)
    sys.stderr.write(result.err)
    return result.code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
