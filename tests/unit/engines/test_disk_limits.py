"""The engine's data on a file system with quotas: the script in a folder that stands for a machine, and its caller."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cloudscale.engines.disk_limits import make_room
from cloudscale.errors import MachineError
from cloudscale.model import CommandResult
from tests.unit.fake_host import FakeHost
from tests.unit.script_host import Host, succeeded

DATA, FILE = "/var/lib/docker", "/var/lib/cloudscale/engine.xfs"
ELSEWHERE = f"its engine keeps its data in another folder than {DATA}"
PROGRAMS = {
    # what is mounted is a link from the folder to another one
    "mkfs.xfs": '[ ! -e "$ROOT/no-xfs" ] || { echo "mkfs.xfs: cannot" >&2; exit 1; }',
    "truncate": 'for last; do :; done; : >"$last"',
    "cp": "",
    "df": 'echo "Filesystem 1024-blocks Used Available Capacity Mounted"; echo "/dev/vda $(cat "$ROOT/size") 70% /"',
    "mountpoint": 'for last; do :; done; grep -q -x -F "$last" "$ROOT/mounted" 2>/dev/null',
    "mount": """
[ ! -e "$ROOT/no-kernel" ] || { echo "mount: unknown filesystem type 'xfs'." >&2; exit 32; }
for last; do :; done; echo "$last" >>"$ROOT/mounted" """,
    "umount": 'grep -v -x -F "$1" "$ROOT/mounted" >"$ROOT/rest"; mv "$ROOT/rest" "$ROOT/mounted"',
    "findmnt": """
for last; do :; done
grep -q -x -F "$last" "$ROOT/mounted" 2>/dev/null || exit 1
if [ -e "$ROOT/no-quotas" ]; then echo rw,relatime; else echo rw,relatime,prjquota; fi""",
    "systemd-escape": "echo var-lib-docker.mount",
    "systemctl": r"""
case $* in
"start "*.mount) [ -e "$ROOT/unmountable" ] || echo "$ROOT/var/lib/docker" >>"$ROOT/mounted" ;;
"show docker.service"*) cat "$ROOT/command" 2>/dev/null ;;
"is-active --quiet docker."*) [ -e "$ROOT/engine" ] ;;
"stop docker.service") rm "$ROOT/engine" ;;
esac""",
}


@pytest.fixture
def host(tmp_path: Path, processes: None) -> Host:
    """A machine that has just booted, with 20 GiB of disk and an engine that has an image."""
    host = Host(tmp_path / "host")
    for name, script in PROGRAMS.items():
        path = host.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"$ROOT/calls"\n{script}\n')
        path.chmod(0o755)
    host.write("/size", f"{20 << 20} {4 << 20} {15 << 20}")
    host.write("/etc/fstab", "/dev/vda / ext4 defaults 0 0\n")
    host.write(f"{DATA}/image/layer", "x")
    host.write("/engine")
    return host


def run(host: Host) -> subprocess.CompletedProcess[bytes]:
    return host.run("disk-limits")


def said(host: Host) -> str:
    done = run(host)
    assert succeeded(done)
    return done.stdout.decode().strip().replace(str(host.root), "")


def test_the_engines_data_moves_to_a_file_system_with_quotas(host: Host) -> None:
    assert said(host) == "limited"
    # of 15 GiB that are free, all but one and a tenth of the disk
    assert f"truncate -s {12 << 10}M {host.root}{FILE}" in host.calls
    calls = host.calls
    (copy,) = (at for at, call in enumerate(calls) if call.startswith("cp -a"))
    assert calls.index("systemctl stop docker.service") < copy < calls.index("systemctl start var-lib-docker.mount")
    assert not host.has(f"{DATA}/image")  # it would take its room twice
    assert host.read("/etc/fstab").splitlines()[1] == (
        f"{host.root}{FILE} {host.root}{DATA} xfs loop,prjquota,nofail 0 0"
    )
    unit = host.read("/etc/systemd/system/docker.service.d/cloudscale-disk.conf")
    assert unit == f"[Unit]\nRequiresMountsFor={host.root}{DATA}\n"


def test_a_second_run_changes_nothing(host: Host) -> None:
    assert said(host) == "limited"
    before, calls = host.tree, len(host.calls)
    assert said(host) == "limited"
    assert host.tree == before
    assert [call.split()[0] for call in host.calls[calls:]] == ["findmnt"]


def test_a_machine_that_serves_the_course_stays_as_it_is(host: Host) -> None:
    host.write("/var/lib/cloudscale/course/mark.json", "{}")
    assert said(host) == "used"
    assert host.has("/engine") and host.has(f"{DATA}/image/layer")


@pytest.mark.parametrize(
    ("what", "text", "reason"),
    [
        ("/no-kernel", "", "its kernel mounts no XFS with quotas (mount: unknown filesystem type 'xfs'.)"),
        ("/no-quotas", "", "its kernel has no quotas of XFS"),
        ("/no-xfs", "", "no XFS can be made (mkfs.xfs: cannot)"),
        ("/size", f"{20 << 20} {16 << 20} {4 << 20}", "its disk has too little room"),
        (
            "/etc/docker/daemon.json",
            '{"data-root": "/data"}',
            ELSEWHERE,
        ),
        ("/command", "ExecStart=dockerd --data-root /x", ELSEWHERE),
    ],
)
def test_where_it_is_not_possible_nothing_is_changed(host: Host, what: str, text: str, reason: str) -> None:
    host.write(what, text)
    before = host.tree
    assert said(host) == reason
    assert {
        name: text for name, text in host.tree.items() if name not in ("mounted", "var/lib/cloudscale/course/lock")
    } == (before)
    assert host.has("/engine")


def test_volumes_on_a_disk_of_their_own_are_not_hidden(host: Host) -> None:
    host.write("/mounted", f"{host.root}{DATA}/volumes\n")
    assert said(host) == f"{DATA}/volumes is on a disk of its own"
    assert host.has(f"{DATA}/image/layer")


def test_a_missing_package_is_installed(host: Host) -> None:
    program = host.root / "bin/mkfs.xfs"
    shutil.move(program, host.root / "bin/kept")
    host.write("/installed", "")
    assert said(host) == "the package xfsprogs can't be installed"
    assert any("install xfsprogs" in call for call in host.calls if call.startswith("apt-get"))


def test_data_that_can_not_be_mounted_in_the_end_is_an_error(host: Host) -> None:
    host.write("/unmountable")
    done = run(host)
    assert done.returncode == 1
    assert b"can't be mounted" in done.stderr


# --- who calls it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "reason"), [("limited\n", ""), ("used\n", ""), ("its kernel has none\n", "its kernel has none")]
)
def test_the_caller_gets_the_reason(printed: str, reason: str) -> None:
    host = FakeHost(failures={"disk-limits": CommandResult(0, printed, "")})
    assert make_room(host) == reason  # type: ignore[arg-type]


def test_a_failure_is_reported_with_the_machine() -> None:
    host = FakeHost(failures={"disk-limits": CommandResult(1, "", "cloudscale: it is broken\n")})
    with pytest.raises(MachineError, match="it is broken"):
        make_room(host)  # type: ignore[arg-type]
