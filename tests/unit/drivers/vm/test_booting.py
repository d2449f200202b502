from __future__ import annotations

import pytest

from cloudscale.drivers.vm.booting import CRASHES, start
from cloudscale.errors import MachineError
from tests.unit.drivers.vm.fake_hypervisor import VmTestbed, boot_several, one_vm

CRASH = "Kernel panic - not syncing: Fatal exception in interrupt"


def test_a_kernel_that_crashes_gets_another_try(testbed: VmTestbed) -> None:
    testbed.hypervisor.crashes["bio-1"] = CRASHES
    boot_several(testbed.driver())
    line = f"bio-1: its kernel crashed ({CRASH}), so it is started again"
    assert testbed.messages == [line] * CRASHES + ["bio-1: up"]
    assert testbed.hypervisor.calls == ["make bio-1", "start bio-1", *["stop bio-1", "start bio-1"] * CRASHES]
    assert testbed.vm().has_answered


def test_one_that_always_crashes_is_reported_with_what_may_help(testbed: VmTestbed) -> None:
    testbed.hypervisor.crashes["bio-1"] = CRASHES + 1
    with pytest.raises(MachineError) as raised:
        boot_several(testbed.driver())
    assert raised.value.message == f"bio-1: its kernel crashed in each of {CRASHES + 1} starts ({CRASH})."
    assert str(testbed.vm().console) in raised.value.remedy
    assert "--base-image" in raised.value.remedy
    assert not testbed.vm().has_answered


def test_a_console_that_can_not_be_written_to_is_reported(testbed: VmTestbed) -> None:
    vm = one_vm(testbed.course.folder)
    with pytest.raises(MachineError, match=r"bio-1: could not write to .*console\.log \(No such file or directory\)"):
        start(testbed.hypervisor, vm)
