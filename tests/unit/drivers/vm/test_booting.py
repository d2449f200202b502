from __future__ import annotations

import time
from typing import Any

import pytest

from cloudscale.course.settings import USUAL_SEAT
from cloudscale.drivers import made
from cloudscale.drivers.over_ssh import OverSsh
from cloudscale.drivers.vm import booting
from cloudscale.drivers.vm.booting import CRASHES, start, watched
from cloudscale.engines import disk_limits
from cloudscale.errors import ConnectionFailed, MachineError
from cloudscale.waiting import poll
from tests.unit.drivers.vm.fake_hypervisor import PANIC, VmTestbed, boot_several, one_vm, surveyed

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


# --- after the first login -------------------------------------------------------------------


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(booting, "LOOKING", 0.01)


def test_a_kernel_that_crashes_after_the_first_login_ends_what_waits_for_it(
    testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch, quickly: None
) -> None:
    driver = testbed.driver()
    (survey,) = boot_several(driver)

    def set_up(*_: Any) -> None:  # over a connection that ends with the VM
        with testbed.vm().console.open("a") as console:
            console.write(PANIC)
        assert poll(lambda: testbed.hypervisor.state(testbed.vm()) == "off", timeout=20)

    monkeypatch.setattr(OverSsh, "prepare", set_up)
    driver.prepare(survey.machine, USUAL_SEAT)
    assert testbed.messages[-1] == f"bio-1: its kernel crashed ({CRASH}), so it is switched off"
    assert surveyed(testbed.driver()).state.needs_boot


def test_a_vm_that_runs_is_left_alone(testbed: VmTestbed, quickly: None) -> None:
    boot_several(testbed.driver())
    with watched(testbed.hypervisor, testbed.vm(), testbed.messages.append):
        time.sleep(0.1)
    assert testbed.hypervisor.state(testbed.vm()) == "running"
    assert testbed.messages == ["bio-1: up"]


def test_one_that_crashes_while_the_boot_is_waited_for_is_started_again(
    testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch, quickly: None
) -> None:
    tries: list[int] = []

    def make_room(connection: Any) -> str:
        tries.append(1)
        if len(tries) == 1:
            with testbed.vm().console.open("a") as console:
                console.write(PANIC)
            assert poll(lambda: testbed.hypervisor.state(testbed.vm()) == "off", timeout=20)
            raise ConnectionFailed("bio-1: the connection is lost.", "Run again.")
        return disk_limits.make_room(connection)

    monkeypatch.setattr(made, "make_room", make_room)
    (survey,) = boot_several(testbed.driver())
    assert not survey.state.needs_boot
    assert testbed.hypervisor.calls == ["make bio-1", "start bio-1", "stop bio-1", "start bio-1"]
    assert testbed.messages[1:] == [f"bio-1: its kernel crashed ({CRASH}), so it is switched off", "bio-1: up"]


def test_one_that_runs_but_lost_its_connection_is_not_started_again(
    testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_room(connection: Any) -> str:
        raise ConnectionFailed("bio-1: the connection is lost.", "Run again.")

    monkeypatch.setattr(made, "make_room", make_room)
    with pytest.raises(ConnectionFailed):
        boot_several(testbed.driver())
    assert testbed.hypervisor.calls == ["make bio-1", "start bio-1"]
