"""Debian's or Ubuntu's own Docker Engine on this computer: installs, starts, and removes it.

Only what was installed here is removed: a record, written before the first change, lists it.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudscale.engines.client import from_environment
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.hosts.this_computer import as_root, run_program, run_root
from cloudscale.waiting import poll

RECORD = Path("/var/lib/cloudscale/engine.json")
SOCKET = Path("/run/docker.sock")
PID_FILE = Path("/run/docker.pid")
PROCESSES = Path("/proc")
PROGRAMS = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"  # an ordinary user's PATH may lack some
PACKAGES = ("docker.io", "iptables")
COMMAND_LINE = "docker-cli"  # a separate package since Debian 13
DATA = ("/var/lib/docker", "/var/lib/containerd", "/etc/docker")
LOG = "/var/log/dockerd.log"
STARTING = 90  # seconds for a new engine to answer
LEAVING = 60  # seconds for a step of the removal that may fail
APT = ("apt-get", "-y", "-qq", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends")


def engine_closed() -> bool:
    """Whether this computer has an engine's socket that this user may not use."""
    return SOCKET.exists() and not os.access(SOCKET, os.W_OK)


def _installed() -> bool:
    return shutil.which("dockerd", path=PROGRAMS) is not None


def install_engine() -> None:
    """Installs and starts the distribution's engine, with or without systemd. Raises CloudscaleError."""
    if not shutil.which("apt-get"):
        raise RequestError(
            "This computer has no apt-get: this task installs only the engine of Debian and Ubuntu.",
            "Install Docker Engine yourself (docs.docker.com/engine/install), then run again.",
        )
    as_root([])
    earlier = _record() if RECORD.exists() else None  # perhaps of a run that was interrupted
    if earlier or not _installed():
        run_root(["apt-get", "-qq", "update"], "Reading the package lists")
        command_line = run_root(["apt-cache", "--names-only", "search", f"^{COMMAND_LINE}$"], "Searching for packages")
        selected = [*PACKAGES, *([COMMAND_LINE] if command_line.strip() else [])]
        planned = run_root([*APT, "--no-remove", "--simulate", "install", *selected], "Planning the installation")
        # an upgrade has the old version, in square brackets, before the new one
        packages = [match[1] for match in re.finditer(r"^Inst (\S+) \(", planned, re.MULTILINE)]
        _write_record(
            packages=sorted({*packages, *(earlier.packages if earlier else ())}),
            data=list(earlier.data) if earlier else [path for path in DATA if not os.path.exists(path)],
        )
        run_root(["dpkg", "--configure", "-a"], "Finishing an earlier installation")
        run_root([*APT, "--no-remove", "install", *selected], "Installing the engine")
    if os.geteuid() != 0:
        run_root(["usermod", "-aG", "docker", getpass.getuser()], "Adding you to the group docker")
    _start()


def _start() -> None:
    if _has_systemd():
        remedy = "Read its log: sudo journalctl -u docker -n 20."
        run_root(["systemctl", "enable", "--now", "docker"], "Starting the engine", remedy=remedy)
    elif not _answers():
        # no service manager: a daemon in its own session, which outlives this one
        command = as_root(["sh", "-c", f"exec setsid dockerd >>{LOG} 2>&1 </dev/null"])
        subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    if not poll(_answers, timeout=STARTING, interval=0.5):
        raise EngineError(
            f"The Docker Engine was installed, but does not answer after {STARTING} s.",
            f"Read its log: {'journalctl -u docker' if _has_systemd() else LOG}.",
        )


@dataclass(frozen=True)
class Record:
    """What install_engine added: packages, and folders that did not exist before."""

    packages: tuple[str, ...]
    data: tuple[str, ...]


def installed_packages() -> list[str]:
    """The packages that install_engine installed. Raises RequestError if it did not install the engine."""
    return list(_record().packages)


def _record() -> Record:
    try:
        record = json.loads(RECORD.read_text())
        return Record(*(tuple(str(item) for item in record[key]) for key in ("packages", "data")))
    except FileNotFoundError:
        raise RequestError(
            "The Docker Engine of this computer was not installed by machine_new, so it is not removed.",
            "To remove it, use your package manager.",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"The record of the installation, {RECORD}, can't be read ({error}).",
            "Remove the engine with your package manager, and then that file.",
        ) from None


def remove_engine() -> list[str]:
    """Stops the engine and removes the packages and data that install_engine added.

    Returns the removed packages. A package that other packages need by now is kept.
    """
    record = _record()
    packages = _purgeable(record.packages)
    if _has_systemd():
        # a missing unit is no failure
        run_root(["sh", "-c", "systemctl stop docker.socket docker containerd || true"], "Stopping the engine")
    else:
        _stop_daemon()
    if packages:
        run_root([*APT, "purge", *packages], "Removing the packages")
    # systemd leaves the socket, and whoever finds one takes it for an engine that refuses access
    socket = [] if _installed() else [str(SOCKET)]
    run_root(["rm", "-rf", *record.data, LOG, *socket], "Removing the engine's data")
    # these two may fail: without the membership, and without the bridge
    if os.geteuid() != 0:
        run_program(as_root(["gpasswd", "-d", getpass.getuser(), "docker"]), LEAVING)
    run_program(as_root(["ip", "link", "delete", "docker0"]), LEAVING)
    run_root(["rm", "-rf", str(RECORD.parent)], "Removing the record")
    return packages


def _purgeable(packages: Sequence[str]) -> list[str]:
    """Those of our packages that no other package needs."""
    if not _removed_as_well(packages, packages):
        return list(packages)
    return [package for package in packages if not _removed_as_well([package], packages)]


def _removed_as_well(purged: Sequence[str], ours: Sequence[str]) -> set[str]:
    planned = run_root([*APT, "--simulate", "purge", *purged], "Planning the removal") if purged else ""
    gone = {line.split()[1] for line in planned.splitlines() if line.startswith(("Purg ", "Remv "))}
    return gone - set(ours)


def _stop_daemon() -> None:
    try:
        pid = PID_FILE.read_text().strip()
        running = (PROCESSES / pid / "comm").read_text().strip() == "dockerd"
    except OSError:
        return
    if not running:  # another process has this id by now
        return
    # the shell's own: a small Debian has no program of that name
    run_root(["sh", "-c", f"kill {int(pid)}"], "Stopping the engine")
    if not poll(lambda: not (PROCESSES / pid).exists(), timeout=60):
        raise CloudscaleError(
            f"The Docker Engine (process {pid}) does not stop.",
            "Stop its containers first (docker stop), then run again.",
        )


def _write_record(*, packages: list[str], data: list[str]) -> None:
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    script = 'mkdir -p "$(dirname "$1")" && printf "%s\\n" "$2" >"$1"'
    record = json.dumps({"packages": packages, "data": data, "made": made})
    run_root(["sh", "-c", script, "-", str(RECORD), record], "Writing the record of the installation")


def _answers() -> bool:
    try:
        from_environment(timeout=5).close()
    except EngineError as error:
        return "permission denied" in str(error)  # it runs; the new group takes effect at the next login
    return True


def _has_systemd() -> bool:
    return os.path.isdir("/run/systemd/system")
