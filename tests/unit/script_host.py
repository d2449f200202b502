"""A folder that stands for a host: the scripts for hosts run in it, with no other programs to call."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloudscale.engines import setup as provision
from cloudscale.engines.certificates import authority
from cloudscale.engines.setup import MARK, Setup
from tests.unit.fake_host import facts
from tests.unit.scripts import script_text

COURSE = str(Path(MARK).parent)
# The programs of this computer that the scripts may call. All others are stand-ins, or missing.
TOOLS = (
    *("awk", "cat", "chmod", "cp", "cut", "echo", "false", "find", "flock", "grep", "head", "ln", "ls", "mkdir"),
    *("mktemp", "mv", "printf", "rm", "rmdir", "sed", "seq", "sh", "tail", "tar", "touch", "tr", "true"),
)
FOLDERS = re.compile(r"(?<![\w}.])/(?=(?:etc|var|run|proc|dev/shm)/|dev/console\b)")

# Each logs its calls. apt-get knows four packages; ca-certificates is installed in an older version.
STANDINS = {
    "systemctl": r"""
case $* in stop*docker.socket*) [ ! -e "$ROOT/socketless" ] || exit 5 ;; esac
case $1 in
is-active)
  state=inactive
  [ ! -e "$ROOT/engine" ] || state=active
  [ "$2" = --quiet ] || echo $state
  [ $state = active ] ;;
start | restart) [ ! -e "$ROOT/broken" ] && : >"$ROOT/engine" ;;
stop) rm -f "$ROOT/engine" ;;
esac""",
    "apt-get": r"""
if [ -e "$ROOT/conflict" ]; then
  case " $* " in
  *" --no-remove "*" install "*) echo "E: Packages need to be removed but remove is disabled." >&2; exit 100 ;;
  *" -s "*" install "*) echo "Remv containerd.io [1.7.22-1]" ;;
  *" install "*) sed -i /^containerd.io\$/d "$ROOT/installed" ;;
  esac
fi
case " $* " in
*" update "*)
  if [ -s "$ROOT/locked" ]; then
    sed -i 1d "$ROOT/locked"
    echo "E: Could not get lock /var/lib/apt/lists/lock." >&2; exit 100
  fi
  [ ! -e "$ROOT/offline" ] || { echo "E: Failed to fetch http://deb.example/InRelease" >&2; exit 100; } ;;
*" -s purge "*) for last; do :; done; echo "Purg $last [1.0]" ;;
*" purge "*) for package; do sed -i "/^$package\$/d" "$ROOT/installed" 2>/dev/null || :; done ;;
*" -s "*) [ -e "$ROOT/none" ] && { echo "E: Unable to locate package docker.io" >&2; exit 100; }
  echo "Reading package lists..."
  for package in containerd runc docker.io; do
    grep -q -x $package "$ROOT/installed" || echo "Inst $package (1.0 Debian:12/stable [amd64])"
  done
  echo "Inst ca-certificates [20230311] (20250419 Debian-Security:12/stable [all])"
  echo "Conf docker.io (1.0 Debian:12/stable [amd64])" ;;
*" install "*)
  [ ! -e "$ROOT/full" ] || { echo "E: You don't have enough free space in /var/cache/apt/archives/." >&2; exit 100; }
  printf '%s\n' containerd runc docker.io ca-certificates | cat "$ROOT/installed" - >"$ROOT/all"
  awk '!seen[$0]++' "$ROOT/all" >"$ROOT/installed"
  mkdir -p "$ROOT/var/lib/docker/volumes" "$ROOT/etc/docker"; : >"$ROOT/engine" ;;
esac""",
    "apt-cache": "case $* in *ca-certificates*) echo ca-certificates - Common CA certificates ;; esac",
    "dpkg": "",
    "getent": 'grep -q docker "$ROOT/groups"',
    "groupdel": ': >"$ROOT/groups"',
    "iptables": 'case $1 in -S) echo "-P FORWARD ACCEPT" ;; esac',
    "ip6tables": 'case $1 in -S) echo "-P FORWARD DROP" ;; esac',
    "ip": "",
    "umount": "",
    "sync": "",
    "sleep": "",
    "systemd-run": "",
    "journalctl": 'echo "docker.service: Failed"; echo "failed to load listeners: no sockets found"',
}


class Host:
    """A folder with the files of a host, and our scripts on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("bin", "etc/systemd/system", "proc/sys/net/ipv4", "var/lib", "run", "tmp"):
            (root / folder).mkdir(parents=True)
        (root / "proc/sys/net/ipv4/ip_forward").write_text("0\n")
        (root / "installed").write_text("ca-certificates\niptables\n")
        (root / "groups").write_text("")
        for tool in TOOLS:
            program = shutil.which(tool)
            assert program, tool
            (root / "bin" / tool).symlink_to(program)
        for name, script in STANDINS.items():
            path = root / "bin" / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >>"$ROOT/calls"\n{script}\n')
            path.chmod(0o755)

    def run(
        self, script: str, *arguments: str, data: bytes = b"", patience: int = 900
    ) -> subprocess.CompletedProcess[bytes]:
        return self._run(["-c", self.moved(script, patience), "cloudscale", *arguments], data)

    def run_text(self, text: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Runs what `moved` has given."""
        return self._run(["-c", text, "cloudscale", *arguments])

    def boot(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """As cloud-init runs it: a file, which calls itself."""
        path = self.root / "part-001"
        path.write_text(self.moved("boot"))
        path.chmod(0o700)
        return self._run([str(path), *arguments])

    def moved(self, script: str, patience: int = 900) -> str:
        """The script, changed so that the folder is its host."""
        text = FOLDERS.sub(f"{self.root}/", script_text(script)).replace(" -C / ", f" -C {self.root} ")
        text = text.replace('"${COURSE#/}/mark.json"', f'"{COURSE[1:]}/mark.json"')
        text = text.replace("flock -w 900 ", f"flock -w {patience} ")
        # load-bearing: everything that this script removes is below the test's own folder
        elsewhere = re.findall(
            r"(?<![\w}.])/(?:etc|var|run|proc|usr|boot|home|root|lib)\b", text.replace(str(self.root), "ROOT")
        )
        assert not elsewhere
        return text

    def start(self, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a script that reads what it is sent while it runs."""
        words = [str(self.root / "bin/sh"), "-c", self.moved(script), "cloudscale", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": str(self.root / "bin"), "ROOT": str(self.root), "TMPDIR": str(self.root / "tmp")}

    def _run(self, arguments: Sequence[str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(self.root / "bin/sh"), *arguments],
            input=data,
            capture_output=True,
            env=self._environment,
            check=False,
        )

    def up(self, setup: Setup) -> subprocess.CompletedProcess[bytes]:
        what = "install" if setup.install else "keep" if setup.restarts else "firewall"
        return self.run("engine-up", what, data=provision.tar(setup.files))

    def down(self, settings: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self.run("engine-down", data=settings)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def has(self, path: str) -> bool:
        return (self.root / path.lstrip("/")).exists()

    def write(self, path: str, text: str = "") -> None:
        (self.root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path.lstrip("/")).write_text(text)

    @property
    def calls(self) -> list[str]:
        """The calls of the stand-ins, in order."""
        return self.read("calls").splitlines() if self.has("calls") else []

    @property
    def installed(self) -> set[str]:
        return {*self.read("installed").split()}

    @property
    def tree(self) -> dict[str, str]:
        """All files, except for those of the stand-ins."""
        files = (path for path in self.root.rglob("*") if path.is_file() and path.parent.name != "bin")
        return {
            str(path.relative_to(self.root)): path.read_text() for path in files if path.name not in ("calls", "all")
        }


def setup(tmp_path: Path, name: str = "192.0.2.11", **changes: Any) -> Setup:
    signer = authority(tmp_path / "bio", "bio")
    assert signer
    needed = provision.wanted_setup(facts(**changes), name, name, "bio", signer)
    assert needed
    return needed


def succeeded(done: subprocess.CompletedProcess[bytes]) -> bool:
    assert done.returncode == 0, done.stderr.decode()
    return True
