"""Real Docker Engines for the tests, each in a namespace and a folder of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
from pathlib import Path

import docker

from tests.lab.namespace import Namespace, run

STARTING = 60  # seconds
ENDING = 30


class LabEngine:
    """`dockerd` in a namespace. `disk`: the size of a disk of its own for its data, such as 64m."""

    def __init__(self, folder: Path, namespace: Namespace, disk: str = "") -> None:
        self.folder = folder
        self.namespace = namespace
        clear(folder)
        data = folder / "data"
        data.mkdir(parents=True)
        if disk:
            run("mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", str(data))
        self.socket = folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._log = folder / "log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [
            *("dockerd", "--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")),
            *("--pidfile", str(self.folder / "pid"), "--host", self.url),
        ]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self.namespace.wrap(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline:
            with contextlib.suppress(docker.errors.DockerException):
                docker.DockerClient(self.url, version="auto").close()
                return process
            if process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"dockerd does not start: {self._log.read_text()[-2000:]}")

    @functools.cached_property
    def client(self) -> docker.DockerClient:
        """Closed when the engine stops."""
        return docker.DockerClient(self.url, version="auto", timeout=120)

    def restart(self) -> None:
        self._stop()
        self.process = self._start()

    def stop(self) -> None:
        self._stop()
        clear(self.folder)

    def _stop(self) -> None:
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(ENDING)


def clear(folder: Path) -> None:
    """Ends the engine that an earlier run left in a folder, and removes the folder."""
    pid = folder / "pid"
    if pid.exists():
        number = int(pid.read_text())
        if b"dockerd" in _command_line(number):
            os.kill(number, signal.SIGTERM)
            deadline = time.monotonic() + ENDING
            while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
    for mount in sorted(_mounts(folder), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    if left := _mounts(folder):  # to remove what is mounted there would remove it for everybody
        raise RuntimeError(f"These can't be unmounted: {' '.join(left)}")
    # many times faster than shutil on the layers of an image
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


def _mounts(folder: Path) -> list[str]:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [mount for mount in mounts if mount.startswith(f"{folder}/")]


def _command_line(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""
