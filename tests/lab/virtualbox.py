"""The real VirtualBox, of Debian unstable, unpacked into a folder: all but the running of a VM, which wants its kernel
module.

Each VBoxManage has lists of VMs and disks, settings and a server process of its own. They and the file system that they
see live in namespaces, and end with them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from cloudscale.hosts.this_computer import run_program
from tests.lab.enclosure import FIRST
from tests.lab.namespace import outside, run
from tests.lab.stock import kept

FETCHING = 300  # seconds
ANSWERING = 60.0  # seconds: a few answers in a thousand take 10
SOURCES = (
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main contrib\n"
)
# an apt that knows no other settings, for which nothing is installed
APT = """Dir::Etc "{folder}"; Dir::Etc::SourceList "{folder}/sources"; Dir::State "{folder}"; Dir::Cache "{folder}";
Dir::State::status "{folder}/status"; APT::Sandbox::User "root"; APT::Install-Recommends "false";
Acquire::Check-Valid-Until "false"; Acquire::Languages "none";
"""
# of what it needs: the libraries of its command and its server, and the locale C.UTF-8
FETCH = """cd "$1" && mkdir -p apt.conf.d preferences.d lists/partial archives/partial packages root && : >status
apt-get -qq update
needed=$(apt-get --simulate install virtualbox | sed -nE 's/^Inst ((lib|zlib)[^ ]+) .*/\\1/p' |
  grep -vE 'llvm|mesa|perl|python|binutils|libz3')
cd packages && apt-get -qq download virtualbox libc-bin $needed && cd ..
for package in packages/*; do dpkg-deb --extract "$package" root; done
ln -s usr/lib usr/lib64 root
mkdir root/dev root/proc root/tmp
find . -mindepth 1 -maxdepth 1 ! -name root -exec rm -r {} +
"""
ENCLOSE = """set -e
mount -t tmpfs tmp "$1/tmp"
mkdir -p "$1$2"
mount --bind "$2" "$1$2"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
exec /usr/bin/python3 -c "$3"
"""
COMMAND = """#!/bin/sh
exec nsenter --mount=/proc/{pid}/ns/mnt --pid=/proc/{pid}/ns/pid_for_children --wd=/ \\
  env --ignore-environment HOME={home} USER=root PATH=/usr/bin LC_ALL="$LC_ALL" VBOX_USER_HOME={home} \\
  VBOX_IPC_SOCKETID={name} /usr/sbin/chroot {root} /usr/lib/virtualbox/VBoxManage "$@"
"""


class VirtualBoxes:
    """`shared`: the folder, and its files, that every VirtualBox sees under their own path."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self._root = kept("virtualbox", folder, [Path(__file__)], _fetch) / "root"
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._first = subprocess.Popen(
            [*command, "sh", "-c", ENCLOSE, "enclose", str(self._root), str(shared), FIRST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._first.stdout
        assert self._first.stdout.readline() == b"ready\n"

    def new(self, folder: Path) -> VBoxManage:
        """A VirtualBox that knows no VM; `folder` is for it alone."""
        home, program = folder / "home", folder / "bin" / "VBoxManage"
        for path in (home, program.parent):
            path.mkdir(parents=True)
        name = f"{folder.name}-{os.urandom(4).hex()}"
        program.write_text(COMMAND.format(pid=self._first.pid, home=home, name=name, root=self._root))
        program.chmod(0o755)
        return VBoxManage(program)

    def close(self) -> None:
        """Ends all processes, and returns when they have."""
        self._first.communicate()


class VBoxManage:
    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output and errors of a command."""
        result = run_program([str(self.program), *words], ANSWERING, environment={"LC_ALL": "C.UTF-8"})
        return result.exit_code, result.stdout, result.stderr

    def end_server(self) -> None:
        """Ends the server, which has read all settings; the next command starts another one."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if f"={self.program.parent.parent}/home" in (process / "environ").read_text(errors="replace"):
                    os.kill(int(process.name), signal.SIGKILL)


def _fetch(folder: Path) -> None:
    (folder / "sources").write_text(SOURCES)
    (folder / "apt.conf").write_text(APT.format(folder=folder))
    with outside():
        run("env", f"APT_CONFIG={folder}/apt.conf", "sh", "-ec", FETCH, "fetch", str(folder), timeout=FETCHING)
