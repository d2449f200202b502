"""What hypervisors print, and the consoles of their VMs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example
from hypothesis import strategies as st

from cloudscale.drivers.vm import console, qemu, virtualbox
from cloudscale.drivers.vm.hypervisor import Vm
from cloudscale.drivers.vm.records import Records
from cloudscale.drivers.vm.virtualbox import VirtualBox
from cloudscale.model import CommandResult
from tests.unit.fuzz.inputs import changed_bytes, changed_json, changed_text, fuzz, reading

INFO = r"""name="course-1"
groups="/cloudscale-bio"
UUID="f4d1"
VMState="running"
"disks-0-0"="/home/ann/disk.vdi"
"disks-1-0"="emptydrive"
Forwarding(0)="ssh,tcp,127.0.0.1,2222,,22"
Forwarding(1)="engine,tcp,127.0.0.1,2376,,2376"
description="a \"quoted\" text
over two lines"
VideoMode="720,400,0"@0,0 1
"""
ERRORS = (
    "VBoxManage: error: Could not find a registered machine named 'x'\nVBoxManage: error: Details: code VBOX_E\n",
    'VBoxManage: error: The object functionality is limited\nVBoxManage: error: Context: "x" at line 1\n',
    "qemu-system-x86_64: warning: host doesn't support x\nqemu-system-x86_64: -drive file=x: Could not open\n",
)
HDDS = "UUID:           f4d1\nParent UUID:    base\nLocation:       /home/ann/base.qcow2\n\n"


@fuzz(text=changed_text(INFO))
@example(text='"' * 20_000)
@example(text='a="' + "\\x" * 20_000)
@example(text="a" * 200_000)
@example(text='"a\\' * 20_000)
def test_any_description_of_a_vm(text: str) -> None:
    with reading():
        virtualbox.facts(text)


@fuzz(out=changed_text(INFO, HDDS), err=changed_text(*ERRORS), code=st.sampled_from([0, 0, 0, 1, 2, 124]))
def test_any_answer_of_vboxmanage(tmp_path: Path, out: str, err: str, code: int) -> None:
    runs: list[list[str]] = []
    vm = a_vm(tmp_path)

    def run(words: list[str], timeout: float, environment: object = None) -> CommandResult:
        runs.append(words)
        return CommandResult(code, out, err)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virtualbox, "run_program", run)
        for ask in (VirtualBox("bio").state, VirtualBox("bio").is_made, VirtualBox("bio")._forwarded):
            with reading():
                ask(vm)
    assert {words[1] for words in runs} == {"showvminfo"}


@fuzz(err=changed_text(*ERRORS), code=st.integers(1, 255))
def test_any_failure_of_a_hypervisor(tmp_path: Path, err: str, code: int) -> None:
    with reading():
        raise virtualbox._error(a_vm(tmp_path), "startvm", CommandResult(code, "", err), 1)
    with reading():
        assert qemu._cause(CommandResult(code, "", err))


CONSOLE = (
    b"\n\x0c[    0.000000] Linux version 6.1.0\r\n[    1.5] Kernel panic - not syncing: VFS: no root fs\r\n"
    b"[    1.6] CPU: 0 PID: 1\r\n[    1.7] ---[ end Kernel panic - not syncing: VFS ]---\r\n"
)


@fuzz(data=changed_bytes(CONSOLE))
@example(data=b"[\n" * 30_000 + b"x")
@example(data=b"[1] Kernel panic - not syncing: a\n" * 2000 + b"x\n")
def test_any_console(tmp_path: Path, data: bytes) -> None:
    vm = a_vm(tmp_path)
    vm.console.write_bytes(data)
    with reading():
        console.crash(vm)
        console.read(vm)


# --- what is kept of a VM ------------------------------------------------------------------------

VM: dict[str, Any] = {
    "id": "0011-2233-4455",
    "name": "course-1",
    "number": 1,
    "cpus": 2,
    "memory": 2**31,
    "disk": 2**34,
    "ssh_port": 2222,
    "engine_port": 2376,
    "fingerprint": "SHA256:x",
    "address": "127.0.0.1",
    "seat_ports": [4321],
    "has_answered": True,
}


def a_vm(folder: Path) -> Vm:
    return Vm(**VM, folder=folder)


@fuzz(data=changed_json(VM))
@example(data=json.dumps({**VM, "id": ["0011"]}).encode())
@example(data=b"[" * 20_000)
def test_any_record_of_a_vm(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "course-1").mkdir(exist_ok=True)
    (tmp_path / "course-1" / "vm.json").write_bytes(data)
    with reading():
        for vm in Records(tmp_path).read().values():
            assert vm.macs and vm.forwards
