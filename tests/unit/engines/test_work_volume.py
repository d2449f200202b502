"""The engine's volumes on a disk of the cloud: the script in a folder that stands for the machine, and who calls it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cloudscale.engines.work_volume import KEPT, MOUNTING, mount
from cloudscale.errors import MachineError
from cloudscale.model import TIMED_OUT, CommandResult
from tests.unit.fake_host import FakeHost
from tests.unit.script_host import Host, succeeded

ID = "d229737c-c7aa-44b8-9eca-2c75cc594cf3"
SERIAL = ID[:20]
UUID = "5f0f8bd5-0d4e-4d2c-8a4b-6a5c1f0a7e55"
PROGRAMS = {
    "blkid": f"""
case $* in
*UUID*) echo {UUID} ;;
*) [ ! -e "$ROOT/unclear" ] || exit 8; [ -s "$ROOT/signature" ] || exit 2; cat "$ROOT/signature" ;;
esac""",
    "mkfs.ext4": 'echo TYPE=ext4 >"$ROOT/signature"',
    "findmnt": 'cat "$ROOT/mounted" 2>/dev/null',
    "systemd-escape": "echo var-lib-docker-volumes.mount",
    "umount": 'rm "$ROOT/mounted"',
    "systemctl": r"""
case $* in
"start "*.mount) [ ! -e "$ROOT/unmountable" ] && echo "$ROOT"/dev/vd? >"$ROOT/mounted" ;;
"show docker.service"*) cat "$ROOT/command" 2>/dev/null ;;
"is-active --quiet docker."*) [ -e "$ROOT/engine" ] ;;
"stop docker.service") rm "$ROOT/engine" ;;
esac""",
}


@pytest.fixture
def host(tmp_path: Path, processes: None) -> Host:
    """A machine that has just booted, with an empty disk for the work."""
    host = Host(tmp_path / "host")
    for name, script in PROGRAMS.items():
        path = host.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"$ROOT/calls"\n{script}\n')
        path.chmod(0o755)
    for tool in ("cmp", "dirname", "readlink"):
        program = shutil.which(tool)
        assert program
        (host.root / "bin" / tool).symlink_to(program)
    host.write("/etc/fstab", "/dev/vda / ext4 defaults 0 0\n")
    plug(host, "vdb")
    return host


def plug(host: Host, device: str, link: str = f"virtio-{SERIAL}") -> None:
    """The disk appears, under a name that the kernel chooses."""
    for old in (host.root / "dev").glob("vd?"):
        old.unlink()
    shutil.rmtree(host.root / "dev/disk", ignore_errors=True)
    host.write(f"/dev/{device}", "\0" * 1024)
    host.write("/dev/disk/by-id/virtio-of-another-disk")
    (host.root / "dev/disk/by-id" / link).symlink_to(f"../../{device}")


def run(host: Host, what: str = "new") -> subprocess.CompletedProcess[bytes]:
    text = host.moved("work-volume").replace(" /dev/disk/", f" {host.root}/dev/disk/")
    text = text.replace("in /dev/disk/by-id/", f"in {host.root}/dev/disk/by-id/").replace("[ -b ", "[ -e ")
    return host.run_text(text, ID, what)


def failed(host: Host, what: str = "new") -> str:
    done = run(host, what)
    assert done.returncode == 1
    return done.stderr.decode().strip()


def fstab(host: Host) -> list[str]:
    return host.read("/etc/fstab").splitlines()


def entry(host: Host, folder: str = "/var/lib/docker/volumes") -> str:
    return f"UUID={UUID} {host.root}{folder} ext4 defaults,nofail,x-systemd.device-timeout=300s 0 2"


# --- the script ------------------------------------------------------------------------------


def test_an_empty_disk_is_formatted_and_mounted_for_good(host: Host) -> None:
    done = run(host)
    assert succeeded(done)
    assert done.stdout == b"mounted\n"
    assert f"mkfs.ext4 -q -m 0 {host.root}/dev/vdb" in host.calls
    assert fstab(host) == ["/dev/vda / ext4 defaults 0 0", entry(host)]
    unit = host.read("/etc/systemd/system/docker.service.d/cloudscale-work.conf")
    assert unit == f"[Unit]\nRequiresMountsFor={host.root}/var/lib/docker/volumes\n"
    calls = [call for call in host.calls if call.startswith("systemctl")]
    assert calls[-2:] == ["systemctl daemon-reload", "systemctl start var-lib-docker-volumes.mount"]


def test_a_second_run_changes_nothing(host: Host) -> None:
    assert succeeded(run(host))
    host.write("/engine")
    before = host.tree
    assert succeeded(run(host))
    assert host.tree == before
    assert sum(call.startswith("mkfs") for call in host.calls) == 1
    assert host.has("/engine")


def test_the_disk_of_another_machine_is_mounted_as_it_is(host: Host) -> None:
    host.write("/signature", "TYPE=ext4\nUSAGE=filesystem\n")
    assert succeeded(run(host))
    assert not any(call.startswith("mkfs") for call in host.calls)


@pytest.mark.parametrize("content", ["TYPE=xfs", "TYPE=LVM2_member", "TYPE=crypto_LUKS", "PTTYPE=gpt", "PTTYPE=dos"])
def test_a_disk_with_anything_else_is_not_touched(host: Host, content: str) -> None:
    host.write("/signature", f"{content}\n")
    assert failed(host).endswith(f"/dev/vdb is something else than ext4: {content}")
    assert not any(call.startswith(("mkfs", "systemctl start")) for call in host.calls)
    assert fstab(host) == ["/dev/vda / ext4 defaults 0 0"]


def test_a_disk_that_had_work_is_not_formatted_even_if_it_looks_empty(host: Host) -> None:
    assert "there is no file system on its disk" in failed(host, "used")
    assert not any(call.startswith("mkfs") for call in host.calls)
    host.write("/signature", "TYPE=ext4\n")
    assert succeeded(run(host, "used"))


def test_a_disk_of_which_nobody_knows_what_it_has_is_not_touched(host: Host) -> None:
    host.write("/unclear")
    assert "it is not known what is on its disk" in failed(host)
    assert not any(call.startswith("mkfs") for call in host.calls)


@pytest.mark.parametrize(
    "link",
    [
        f"virtio-{SERIAL}",
        f"scsi-0QEMU_QEMU_HARDDISK_{ID}",
        f"scsi-0QEMU_QEMU_HARDDISK_{SERIAL}",
        f"wwn-0x{ID.replace('-', '')}",
    ],
)
def test_the_disk_is_found_by_its_serial_whatever_its_name(host: Host, link: str) -> None:
    plug(host, "vdf", link)
    assert succeeded(run(host))
    assert f"mkfs.ext4 -q -m 0 {host.root}/dev/vdf" in host.calls


def test_a_partition_is_not_the_disk(host: Host) -> None:
    plug(host, "vdb", f"virtio-{SERIAL}-part1")
    assert f"its disk does not appear (/dev/disk/by-id/*{SERIAL}*)" in failed(host).replace(str(host.root), "")


def test_volumes_on_the_machines_own_disk_stay_there(host: Host) -> None:
    host.write("/var/lib/docker/volumes/mine/_data/file", "x")
    host.write("/engine")
    done = run(host)
    assert succeeded(done)
    assert done.stdout == b"kept\n"
    assert host.has("/engine")
    assert fstab(host) == ["/dev/vda / ext4 defaults 0 0"]
    assert not any(call.startswith(("mkfs", "systemctl start", "systemctl stop")) for call in host.calls)


def test_an_engine_that_has_no_volumes_is_stopped_and_gives_way(host: Host) -> None:
    host.write("/var/lib/docker/volumes/metadata.db", "x")
    host.write("/engine")
    assert succeeded(run(host))
    assert not host.has("/engine")


def test_a_disk_that_comes_back_under_another_name_takes_the_place_of_the_dead_one(host: Host) -> None:
    assert succeeded(run(host))
    host.write("/engine")
    plug(host, "vdc")
    assert succeeded(run(host))
    calls = host.calls
    assert calls.index("systemctl stop docker.service") < calls.index(f"umount {host.root}/var/lib/docker/volumes")
    assert host.read("/mounted").strip() == f"{host.root}/dev/vdc"
    assert fstab(host) == ["/dev/vda / ext4 defaults 0 0", entry(host)]


def test_an_engine_that_keeps_its_data_elsewhere_has_its_volumes_there(host: Host) -> None:
    host.write("/etc/docker/daemon.json", f'{{\n\t"data-root":\n "{host.root}/data/docker"}}')
    assert succeeded(run(host))
    assert fstab(host)[1] == entry(host, "/data/docker/volumes")


def test_so_does_one_whose_command_says_so(host: Host) -> None:
    argv = f"dockerd -H fd:// --data-root={host.root}/data/flag"
    host.write("/command", f"ExecStart={{ argv[]={argv} ; ignore_errors=no }}")
    assert succeeded(run(host))
    assert fstab(host)[1] == entry(host, "/data/flag/volumes")


def test_a_disk_that_can_not_be_mounted_is_reported(host: Host) -> None:
    host.write("/unmountable")
    assert "can't be mounted at" in failed(host)


def test_nothing_is_taken_for_a_volume_that_is_none(host: Host) -> None:
    host.write("/var/lib/docker/volumes/lost+found/.keep")
    (host.root / "var/lib/docker/volumes/lost+found/.keep").unlink()
    assert succeeded(run(host))
    assert not host.has("/var/lib/docker/volumes/lost+found")


# --- who calls it ----------------------------------------------------------------------------


def test_the_disk_is_named_to_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = FakeHost()
    assert mount(remote, ID, is_used=False) == ""  # type: ignore[arg-type]
    assert mount(remote, ID, is_used=True) == ""  # type: ignore[arg-type]
    assert remote.calls == [("work-volume", ID, "new"), ("work-volume", ID, "used")]
    remote.failures["work-volume"] = CommandResult(0, "kept\n", "")
    assert mount(remote, ID, is_used=True) == KEPT  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (CommandResult(1, "", "cloudscale: its disk /dev/vdb can't be read\n"), "its disk /dev/vdb can't be read."),
        (CommandResult(TIMED_OUT, "", ""), f"was not mounted within {MOUNTING} s."),
    ],
)
def test_a_failure_names_the_machine_and_the_cause(result: CommandResult, message: str) -> None:
    remote = FakeHost(failures={"work-volume": result})
    with pytest.raises(MachineError) as raised:
        mount(remote, ID, is_used=True)  # type: ignore[arg-type]
    assert raised.value.message.startswith("192.0.2.11: its work volume")
    assert raised.value.message.endswith(message)
