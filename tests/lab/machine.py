"""A fresh Debian in a folder: a base system without Docker and without a service manager.

Its packages are fetched while it is made; then it lives in a namespace, with no way out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.lab.engine import clear
from tests.lab.namespace import Namespace, outside, run

SUITE, PYTHON = "trixie", "3.13"
BASE = "python3,ca-certificates,iproute2,procps"
LATER = "docker.io docker-cli iptables"  # what the tool installs: already in the machine's package cache
TIMEOUT = 600  # seconds


class FreshMachine:
    """`home` lies inside: the project is there, and its libraries beside it."""

    def __init__(self, folder: Path, namespace: Namespace, project: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._namespace = namespace
        clear(folder)
        folder.mkdir(parents=True)
        fetch = f'chroot "$1" apt-get install -qq -y --no-install-recommends --download-only {LATER}'
        with outside():
            run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE}", f"--customize-hook={fetch}",
                "--skip=cleanup/apt", SUITE, str(self.root))  # fmt: skip
            run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
                "--only-binary=:all:", f"--python-version={PYTHON}", f"--target={self.root}/opt/libraries",
                "--require-hashes", f"--requirement={project}/requirements/runtime.txt")  # fmt: skip
        for name in ("tasks.py", "invoke.yaml", "cloudscale"):
            run("cp", "-r", str(project / name), f"{self.root}/root/")
        for shared in ("sys", "dev"):
            run("mount", "--rbind", f"/{shared}", str(self.root / shared))
            # load-bearing: else unmounting it here unmounts what is below it on the real machine, too
            run("mount", "--make-rslave", str(self.root / shared))
        run("mount", "-t", "proc", "proc", str(self.root / "proc"))
        run("mount", "-t", "tmpfs", "tmpfs", str(self.root / "run"))

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command inside, as root."""
        environment = ["HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH=/opt/libraries:/root"]
        inside = ["chroot", str(self.root), "env", "--ignore-environment", "--chdir=/root", *environment, *command]
        return subprocess.run(
            self._namespace.wrap(*inside),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def remove(self) -> None:
        self._namespace.remove()  # and every process in it
        clear(self.folder)
