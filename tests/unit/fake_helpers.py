"""The programs that run in the helper containers of a fake engine: as processes of this computer, on folders of it."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.unit.api_schema import Json, api_error
from tests.unit.fake_calls import FakeCalls, call
from tests.unit.fake_swarm import FakeNetwork


class FakeHelpers(FakeCalls):
    """`disk`: where volumes that helpers use are folders. A test that runs programs needs the fixture `processes`."""

    def __init__(self, name: str, network: FakeNetwork) -> None:
        super().__init__(name, network)
        self.disk: Path | None = None
        self.programs: list[tuple[list[str], subprocess.Popen[bytes] | None]] = []

    def folder(self, volume: str) -> Path:
        """What is in a volume."""
        assert self.disk, "this test has no disk for volumes"
        folder = self.disk / volume
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @call
    def exec_create(self, container: str, cmd: Sequence[str], stdin: bool) -> Json:
        (helper,) = (known for known in self.containers_ if known["Id"] == container)
        if helper["State"] != "running":
            raise api_error(409, f"container {container} is not running")
        assert stdin and cmd[:3] == ["python3", "-IS", "-c"]
        folders = {mount["Target"]: str(self.folder(mount["Source"])) for mount in helper["Mounts"]}
        self.programs.append(([folders.get(word, word) for word in cmd[1:]], None))
        return {"Id": str(len(self.programs) - 1)}

    @call
    def exec_start(self, exec_id: str, socket: bool) -> socket.socket:
        assert socket
        words, _ = self.programs[int(exec_id)]
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, *words], stdin=pipe, stdout=pipe, stderr=pipe)
        self.programs[int(exec_id)] = words, process
        return _connected(process)

    @call
    def exec_inspect(self, exec_id: str) -> Json:
        _, process = self.programs[int(exec_id)]
        return {"ExitCode": process.wait(timeout=10) if process else None}


def _connected(process: subprocess.Popen[bytes]) -> socket.socket:
    """The client's end of a connection to a process, with the engine's frames."""
    near, far = socket.socketpair()
    sending = threading.Lock()

    def feed(stream: IO[bytes]) -> None:
        with suppress(OSError), stream:
            while data := far.recv(4096):
                stream.write(data)
                stream.flush()

    def show(channel: int, stream: IO[bytes]) -> None:
        with suppress(OSError), stream:
            while data := stream.read1(4096):  # type: ignore[attr-defined]
                with sending:
                    far.sendall(struct.pack(">BxxxL", channel, len(data)) + data)

    def end(shown: Sequence[threading.Thread]) -> None:
        for thread in shown:
            thread.join()
        process.wait()
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)
        far.close()

    assert process.stdin and process.stdout and process.stderr
    threads = [
        threading.Thread(target=show, args=(1, process.stdout), daemon=True),
        threading.Thread(target=show, args=(2, process.stderr), daemon=True),
    ]
    for thread in (*threads, threading.Thread(target=feed, args=(process.stdin,), daemon=True)):
        thread.start()
    threading.Thread(target=end, args=(threads,), daemon=True).start()
    return near
