from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.drivers.vm import console
from cloudscale.drivers.vm.hypervisor import Vm
from tests.unit.drivers.vm.fake_hypervisor import PANIC, one_vm

CRASH = "Kernel panic - not syncing: Fatal exception in interrupt"


@pytest.fixture
def vm(tmp_path: Path) -> Vm:
    vm = one_vm(tmp_path)
    vm.folder.mkdir()
    return vm


def test_a_vm_that_never_started_shows_nothing(vm: Vm) -> None:
    assert console.read(vm) == console.crash(vm) == ""


@pytest.mark.parametrize(
    "text",
    [
        PANIC,
        f"earlier text\r\n{PANIC}",
        PANIC.replace("] Kernel", "][    T1] Kernel"),
        PANIC.replace("---[ end", "Kernel Offset: 0x16200000\n[   25.9] ---[ end"),
        "x" * 200_000 + "\n" + PANIC,
        "\x1b[0m\n" + PANIC + "\n\n",
    ],
)
def test_a_kernel_that_has_ended_is_recognised(vm: Vm, text: str) -> None:
    vm.console.write_text(text)
    assert console.crash(vm) == CRASH


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[    1.0] Linux version 6.12\n",
        f"{PANIC}SeaBIOS (version 1.16.2)\n[    0.000000] Linux version 6.12\n",  # it has started since then
        f"{PANIC}[   26.0] Rebooting in 10 seconds..\n",  # it starts by itself
        f"somebody said: {CRASH}\n",
        f"[    9.1] python3[412]: {CRASH}\n",
        f"bash: line 1: [    9.1] {CRASH}\n",
    ],
)
def test_all_else_is_no_crash(vm: Vm, text: str) -> None:
    vm.console.write_text(text)
    assert console.crash(vm) == ""


def test_a_crash_before_the_last_start_no_longer_counts(vm: Vm) -> None:
    vm.console.write_text(PANIC)
    console.note_start(vm)
    assert console.crash(vm) == ""
    assert console.read(vm).startswith("[    0.000000] Linux version 6.12")  # and nothing is lost
