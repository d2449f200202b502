"""The driver as a workflow uses it: existing VMs, new ones, their ports, and their deletion."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.drivers.vm.driver import ATTEMPTS
from cloudscale.drivers.vm.hypervisor import PortTaken
from cloudscale.errors import LoginRefused, MachineError, NotSetUp, RequestError
from cloudscale.hosts.facts import usable_memory
from cloudscale.model import Machine, MachineState
from tests.unit.drivers.vm.fake_hypervisor import (
    GIB,
    MIB,
    PANIC,
    VmTestbed,
    boot_several,
    failure,
    names,
    surveyed,
)

# --- existing machines ---


def test_a_course_that_only_looks_leaves_nothing_behind(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    assert driver.machines() == []
    assert driver.resources() == ""
    assert driver.order(2, ()).fits == 5
    assert driver.sweep() == ()
    assert not driver.adopts_swarm
    assert not testbed.course.folder.exists()
    assert testbed.hypervisor.calls == []
    assert testbed.hypervisor.checked == 1


def test_the_vms_are_read_back_in_the_order_of_their_numbers(testbed: VmTestbed) -> None:
    driver = testbed.driver(address="192.0.2.9")
    for name in ("zoe", "bio-2", "ann"):
        driver.machines()
        driver.boot(Machine(name, ""))
    assert testbed.driver().machines() == [Machine(name, "192.0.2.9") for name in ("zoe", "bio-2", "ann")]
    assert [testbed.vm(name).number for name in ("zoe", "bio-2", "ann")] == [1, 2, 3]
    driver.sweep({"bio-2"})
    driver.boot(Machine("bob", ""))
    assert names(testbed.driver().machines()) == ["zoe", "bob", "ann"]  # which gets the free number


def test_a_vm_that_does_not_exist_is_reported(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    driver.machines()
    with pytest.raises(MachineError, match="bio-7: this VM does not exist"):
        driver.run(Machine("bio-7", ""), "ls", 5)


# --- surveys ---


def test_one_that_is_to_be_made_is_as_large_as_the_settings_say(testbed: VmTestbed) -> None:
    driver = testbed.driver(cpus=4, memory=3 * GIB, address="192.0.2.9")
    driver.machines()
    (survey,) = driver.order(1, ()).surveys
    assert survey.machine == Machine("bio-1", "192.0.2.9")
    assert survey.state is MachineState.COMING
    assert (survey.cpus, survey.memory) == (4, usable_memory(3072))
    assert survey.networks == {"198.18.77.0/24"}
    kind = driver.kind()
    assert (kind.name, kind.cpus, kind.memory) == ("VM with 4 cores and 3.0 GiB", 4, usable_memory(3072))


def test_one_that_runs_is_looked_at_over_ssh(testbed: VmTestbed) -> None:
    boot_several(testbed.driver())
    survey = surveyed(testbed.driver())
    assert survey.address == "198.18.77.11"  # at which the VMs reach each other
    assert (survey.cpus, survey.state) == (4, MachineState.BARE)
    assert testbed.logins[-1].port == testbed.vm().ssh_port


@pytest.mark.parametrize(("answered", "state"), [(True, "off"), (False, "off"), (False, "running"), (False, "paused")])
def test_one_that_is_on_its_way_comes(testbed: VmTestbed, answered: bool, state: str) -> None:
    driver = testbed.driver()
    boot_several(driver)
    vm = testbed.vm()
    if not answered:
        text = (vm.folder / "vm.json").read_text()
        (vm.folder / "vm.json").write_text(text.replace('"has_answered": true', '"has_answered": false'))
    testbed.hypervisor.states[vm.id] = state
    logins = len(testbed.logins)
    survey = surveyed(testbed.driver(cpus=9))
    assert (survey.state, survey.cpus) == (MachineState.OFF if answered else MachineState.COMING, 2)
    assert len(testbed.logins) == logins


def test_nobody_logs_in_to_one_before_its_boot_has_read_its_keys_from_the_console(testbed: VmTestbed) -> None:
    boot_several(testbed.driver())
    vm = testbed.vm()
    text = (vm.folder / "vm.json").read_text()
    (vm.folder / "vm.json").write_text(text.replace('"has_answered": true', '"has_answered": false'))
    testbed.logins.clear()
    driver = testbed.driver()
    (machine,) = driver.machines()
    with driver.exclusive("ann at home"):
        pass
    with pytest.raises(MachineError, match="bio-1: the VM is not up yet"):
        driver.run(machine, "true", 5)
    assert testbed.logins == []


@pytest.mark.parametrize("state", ["paused", "io-error", "gurumeditation"])
def test_a_machine_that_has_worked_and_does_not_any_more_is_reported(testbed: VmTestbed, state: str) -> None:
    boot_several(testbed.driver())
    testbed.hypervisor.states[testbed.vm().id] = state
    with pytest.raises(MachineError) as raised:
        surveyed(testbed.driver())
    assert raised.value.message == f"bio-1: the VM is in the state {state}."
    assert "invoke driver_reset --only bio-1" in raised.value.remedy


def test_ports_that_other_programs_have_are_held_and_those_of_our_seats_are_not(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    boot_several(driver, 2)
    driver.open_ports({"bio-1": {4321}})
    testbed.listening = {4321, 8080}
    for survey in (surveyed(testbed.driver(), "bio-2"), *driver.order(1, ()).surveys):
        assert 8080 in survey.held_ports
        assert 4321 not in survey.held_ports


def test_a_vm_with_another_key_is_refused_before_anything_is_done(testbed: VmTestbed) -> None:
    boot_several(testbed.driver())
    folder = testbed.course.folder
    made_with = testbed.vm().fingerprint
    for change in ("other", "gone"):
        (testbed.course.folder / "id_ed25519").unlink()
        if change == "other":
            testbed.driver()._key()
        with pytest.raises(RequestError) as raised:
            surveyed(testbed.driver())
        assert raised.value.exit_code == 2
        assert raised.value.message == f"bio-1 was made with another SSH key ({made_with}) than the one in {folder}."
        assert "invoke driver_reset" in raised.value.remedy


@pytest.mark.parametrize("is_up", [True, False])
def test_an_engine_of_a_vm_that_does_not_run_is_not_set_up(testbed: VmTestbed, is_up: bool) -> None:
    driver = testbed.driver()
    boot_several(driver)
    driver.prepare(Machine("bio-1", "127.0.0.1"))
    if not is_up:
        testbed.hypervisor.die(testbed.vm())
        with pytest.raises(NotSetUp, match="bio-1: the VM is off") as raised:
            driver.connect(Machine("bio-1", "127.0.0.1"))
        assert "Start it: invoke machine_new bio-1 --driver qemu" in raised.value.remedy
    else:
        driver.connect(Machine("bio-1", "127.0.0.1"))
        assert testbed.clients[-1] == {"machine": "bio-1", "host": "127.0.0.1", "port": testbed.vm().engine_port}


# --- new machines ---


def test_vms_get_the_names_of_former_ones_first_and_then_new_ones(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    boot_several(driver)
    surveys = driver.order(4, ("zoe", "bio-1", "bio-3")).surveys
    assert [survey.machine.name for survey in surveys] == ["bio-3", "zoe", "bio-2", "bio-4"]
    assert driver.order(0, ("zoe",)).surveys == ()


def test_a_courses_name_is_made_fit_for_a_host(testbed: VmTestbed) -> None:
    driver = testbed.driver("Bio_2026.a")
    driver.machines()
    assert driver.order(1, ()).surveys[0].machine.name == "bio-2026-a-1"


def test_the_memory_of_this_computer_is_what_limits(testbed: VmTestbed) -> None:
    driver = testbed.driver(memory=4 * GIB)
    driver.machines()
    order = driver.order(3, ())
    vms, memory = order.demands
    assert (vms.need, vms.used, vms.limit) == (3, 0, 240)
    assert (memory.need, memory.used, memory.limit) == (12 * 1024, 6 * 1024, 16 * 1024)
    assert not memory.is_met
    assert order.fits == 2
    testbed.memory.available = 100 * MIB
    assert driver.order(1, ()).fits == 0


def test_vms_that_are_off_will_want_their_memory_too(testbed: VmTestbed) -> None:
    driver = testbed.driver(memory=4 * GIB)
    boot_several(driver)
    running = driver.order(1, ())
    testbed.hypervisor.die(testbed.vm())
    off = driver.order(1, ())
    assert [order.demands[1].need for order in (running, off)] == [4 * 1024, 8 * 1024]
    assert [order.fits for order in (running, off)] == [2, 1]
    assert off.demands[0].used == 1


# --- booting a VM ---


def test_a_vm_is_made_started_and_logged_in_to(testbed: VmTestbed) -> None:
    (survey,) = boot_several(testbed.driver(user="ann", disk=5 * GIB))
    vm = testbed.vm()
    assert testbed.hypervisor.calls == ["make bio-1", "start bio-1"]
    assert (vm.has_answered, vm.number, vm.cpus, vm.memory, vm.disk) == (True, 1, 2, 2 * GIB, 5 * GIB)
    assert vm.ssh_port != vm.engine_port
    assert (testbed.logins[0].user, testbed.logins[0].port) == ("ann", vm.ssh_port)
    assert not survey.state.needs_boot
    assert ("other",) in testbed.hosts[vm.id].calls  # waited for the end of its first boot
    assert testbed.messages == ["bio-1: up"]  # its console showed its host key
    assert vm.id in testbed.course.known_hosts.read_text()
    assert (testbed.course.folder / "id_ed25519").stat().st_mode & 0o777 == 0o600


def test_one_that_is_up_is_not_made_or_started_again(testbed: VmTestbed) -> None:
    boot_several(testbed.driver())
    before = testbed.vm()
    driver = testbed.driver(cpus=9)
    (machine,) = driver.machines()
    assert not driver.boot(machine).state.needs_boot
    assert testbed.hypervisor.calls == ["make bio-1", "start bio-1"]
    assert testbed.vm() == before


def test_one_that_was_written_down_and_not_made_is_made(testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = testbed.driver()
    with monkeypatch.context() as patched:
        patched.setattr(testbed.hypervisor, "make", lambda vm, base: pytest.fail("the power is cut"))
        with pytest.raises(pytest.fail.Exception):
            boot_several(driver)
    before = testbed.vm()
    driver = testbed.driver()
    assert surveyed(driver).state.needs_boot
    driver.boot(Machine("bio-1", ""))
    assert testbed.vm().id == before.id


def test_the_image_is_looked_up_once_for_all_vms(testbed: VmTestbed, tmp_path: Path) -> None:
    driver = testbed.driver()
    driver.machines()
    first, second = driver.order(2, ()).surveys
    driver.boot(first.machine)
    Path(testbed.hypervisor.image).unlink()
    driver.boot(second.machine)
    (base,) = {base for _, base in testbed.hypervisor.made.values()}
    assert (base.path, base.format) == (tmp_path / "base.raw", "raw")


def test_a_missing_image_is_reported_and_the_vm_can_be_removed(testbed: VmTestbed) -> None:
    with pytest.raises(RequestError, match="The disk image /nowhere does not exist"):
        boot_several(testbed.driver(base_image="/nowhere"))
    driver = testbed.driver()
    driver.machines()
    assert driver.remove("bio-1") == "bio-1 was deleted."
    assert not (testbed.course.folder / "vms").exists()


def test_ports_that_others_use_meanwhile_are_replaced(testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch) -> None:
    start, tried = testbed.hypervisor.start, []

    def unlucky(vm: object) -> None:
        tried.append(testbed.vm())
        testbed.hypervisor.taken = {tried[-1].ssh_port} if len(tried) < ATTEMPTS else set()
        start(testbed.vm())

    monkeypatch.setattr(testbed.hypervisor, "start", unlucky)
    boot_several(testbed.driver())
    assert len({vm.ssh_port for vm in tried}) == ATTEMPTS
    assert testbed.vm().ssh_port == testbed.logins[0].port == tried[-1].ssh_port


def test_ports_that_stay_in_use_are_reported(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    boot_several(driver)
    driver.open_ports({"bio-1": {4321}})
    testbed.hypervisor.die(testbed.vm())
    testbed.hypervisor.taken = {4321}
    with pytest.raises(PortTaken, match="4321"):
        testbed.driver().add("bio-1")
    assert testbed.hypervisor.calls.count("start bio-1") == 1 + ATTEMPTS


def test_a_vm_that_ends_while_it_boots_is_reported_with_its_console(testbed: VmTestbed) -> None:
    testbed.mute.add("bio-1")
    testbed.hypervisor.dies_after["bio-1"] = 3
    testbed.hypervisor.console = "Linux version 6.1\n\x1b[31mKernel panic\n"
    with pytest.raises(MachineError) as raised:
        boot_several(testbed.driver())
    assert failure(raised.value) == (
        "bio-1: the VM should boot, but it is off.\nThe end of its console:\n  | Linux version 6.1\n  | Kernel panic",
        "Run again.",
    )
    assert not testbed.vm().has_answered


def test_a_vm_that_ends_at_once_is_reported_and_not_started_again(testbed: VmTestbed) -> None:
    testbed.mute.add("bio-1")
    testbed.hypervisor.dies_after["bio-1"] = 0
    testbed.hypervisor.console = "Kernel panic\n"
    with pytest.raises(MachineError, match="the VM should boot, but it is off") as raised:
        boot_several(testbed.driver())
    assert "  | Kernel panic" in raised.value.message
    assert testbed.hypervisor.calls == ["make bio-1", "start bio-1"]


def test_a_vm_that_does_not_answer_is_reported_with_the_end_of_its_console(testbed: VmTestbed) -> None:
    testbed.mute.add("bio-1")
    testbed.hypervisor.console = "Linux version 6.1\ngrub rescue>\n"
    with pytest.raises(MachineError) as raised:
        boot_several(testbed.driver(boot_timeout=30))
    port = testbed.vm().ssh_port
    assert raised.value.message == (
        f"bio-1: it runs, but nothing answers on 127.0.0.1, port {port}, after 30 s.\n"
        "The end of its console:\n  | Linux version 6.1\n  | grub rescue>"
    )
    assert str(testbed.vm().console) in raised.value.remedy
    testbed.mute.clear()
    driver = testbed.driver()
    assert surveyed(driver).state.needs_boot
    driver.boot(Machine("bio-1", ""))
    assert testbed.hypervisor.calls == ["make bio-1", "start bio-1"]


def test_an_empty_console_is_reported(testbed: VmTestbed) -> None:
    testbed.mute.add("bio-1")
    testbed.hypervisor.console = ""
    with pytest.raises(MachineError, match=r"Its console is empty\."):
        boot_several(testbed.driver(boot_timeout=30))


def test_a_hypervisors_drawback_is_reported_once(testbed: VmTestbed) -> None:
    testbed.hypervisor.slowness = "VMs are slow"
    boot_several(testbed.driver(), 2)
    assert testbed.messages == ["VMs are slow", "bio-1: up", "bio-2: up"]


def test_where_vms_can_not_run_nothing_is_made_or_started_but_what_exists_is_deleted(testbed: VmTestbed) -> None:
    boot_several(testbed.driver())
    testbed.hypervisor.cannot_run = "no kernel module"
    driver = testbed.driver()
    driver.machines()
    assert driver.order(0, ()).fits > 0  # with VMs that run, nothing has to be started
    with pytest.raises(RequestError, match="no kernel module"):
        driver.order(1, ())
    with pytest.raises(RequestError, match="no kernel module"):
        driver.boot(Machine("ann", ""))
    assert not (testbed.course.folder / "vms" / "ann").exists()
    driver.sweep({"bio-1"}).get()
    assert driver.machines() == []


def test_a_vm_that_the_hypervisor_restarts_is_reported_and_awaited(testbed: VmTestbed) -> None:
    testbed.hypervisor.restarts["bio-1"] = "KVM does not work"
    boot_several(testbed.driver())
    assert testbed.messages == ["bio-1: KVM does not work", "bio-1: up"]


def test_a_vm_whose_kernel_crashed_is_started_again_by_the_next_run(testbed: VmTestbed) -> None:
    boot_several(testbed.driver())
    vm = testbed.vm()
    with vm.console.open("a") as file:
        file.write(PANIC)
    driver = testbed.driver()
    assert surveyed(driver).state is MachineState.OFF
    with pytest.raises(NotSetUp, match="bio-1: its kernel has crashed") as raised:
        driver.connect(Machine("bio-1", ""))
    assert "invoke themachine" in raised.value.remedy
    driver.boot(Machine("bio-1", ""))
    assert testbed.hypervisor.calls == ["make bio-1", "start bio-1", "stop bio-1", "start bio-1"]
    assert surveyed(testbed.driver()).state is not MachineState.OFF


def test_a_vm_whose_console_shows_no_host_key_is_trusted_with_a_warning(testbed: VmTestbed) -> None:
    testbed.hypervisor.console = "Linux version 6.1\n"
    boot_several(testbed.driver())
    assert (
        testbed.messages[0]
        == "bio-1: its console does not show its host keys, so the first key that it offers is trusted"
    )


def test_a_refused_login_is_reported_as_one(testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise LoginRefused("bio-1: it does not let us in.")

    monkeypatch.setattr("cloudscale.hosts.first_login.connect", refuse)
    with pytest.raises(LoginRefused):
        boot_several(testbed.driver())


# --- ports for students ---


def test_a_port_moves_from_one_vm_to_another_once_it_is_free(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    boot_several(driver, 3)
    driver.open_ports({"bio-1": {4321, 4322}, "bio-2": {4323}})
    testbed.hypervisor.calls.clear()
    driver.open_ports({"bio-1": {4323}, "bio-2": {4321, 4322}})
    assert sorted(testbed.hypervisor.calls[:2]) == ["forward bio-1 []", "forward bio-2 []"]
    assert sorted(testbed.hypervisor.calls[2:]) == ["forward bio-1 [4323]", "forward bio-2 [4321, 4322]"]
    assert [testbed.vm(f"bio-{number}").seat_ports for number in (1, 2, 3)] == [(4323,), (4321, 4322), ()]
    testbed.hypervisor.calls.clear()
    driver.open_ports({"bio-1": {4323}, "bio-2": [4322, 4321]})
    assert testbed.hypervisor.calls == []
    testbed.driver().machines()
    driver.open_ports({})
    assert not any(testbed.vm(f"bio-{number}").seat_ports for number in (1, 2, 3))


def test_one_that_is_off_gets_its_ports_when_it_starts(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    boot_several(driver)
    testbed.hypervisor.die(testbed.vm())
    driver.open_ports({"bio-1": {4321}})
    assert not any(call.startswith("forward") for call in testbed.hypervisor.calls)
    driver = testbed.driver()
    (machine,) = driver.machines()
    driver.boot(machine)
    assert testbed.hypervisor.forwards[testbed.vm().id]["seat-4321"] == ("127.0.0.1", 4321, 4321)


def test_a_port_in_use_is_reported_and_not_recorded(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    boot_several(driver)
    testbed.hypervisor.taken = {4322}
    with pytest.raises(PortTaken):
        driver.open_ports({"bio-1": {4322}})
    assert testbed.vm().seat_ports == ()


def test_a_port_that_this_user_may_not_have_is_refused_before_anything_is_made(
    testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = testbed.driver()
    with socket.create_server(("127.0.0.1", 0)) as other:
        driver.check_port(other.getsockname()[1])  # held, but by whom?

    class Guarded(socket.socket):
        def bind(self, address: Any) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Guarded)
    with pytest.raises(RequestError, match=r"(?s)no port such as 443.*gateway\.port"):
        driver.check_port(443)


# --- deletion ---


def test_all_that_was_made_goes(testbed: VmTestbed) -> None:
    driver = testbed.driver()
    boot_several(driver, 3)
    assert driver.resources() == "3 VMs"
    assert [(outcome.target, outcome.value) for outcome in driver.sweep({"bio-2", "bio-9"})] == [("bio-2", "deleted")]
    assert names(testbed.driver().machines()) == ["bio-1", "bio-3"]
    assert [outcome.target for outcome in testbed.driver().sweep()] == ["bio-1", "bio-3"]
    assert testbed.hypervisor.made == {}
    assert not (testbed.course.folder / "vms").exists()


def test_a_vm_that_can_not_be_deleted_stays_and_the_others_go(
    testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot_several(testbed.driver(), 2)
    delete = testbed.hypervisor.delete

    def stuck(vm: object) -> None:
        if getattr(vm, "name", "") == "bio-1":
            raise MachineError("bio-1: its process does not end.")
        delete(testbed.vm("bio-2"))

    monkeypatch.setattr(testbed.hypervisor, "delete", stuck)
    first, second = testbed.driver().sweep()
    assert (first.ok, second.ok) == (False, True)
    assert names(testbed.driver().machines()) == ["bio-1"]


def test_a_course_can_be_swept_without_its_key(testbed: VmTestbed) -> None:
    boot_several(testbed.driver())
    (testbed.course.folder / "id_ed25519").unlink()
    assert all(outcome.ok for outcome in testbed.driver().sweep())


# --- single VMs ---


def test_a_vm_is_added_and_the_address_of_its_engine_reported(testbed: VmTestbed) -> None:
    text = testbed.driver().add("ann")
    vm = testbed.vm("ann")
    first, *_, docker, tls = text.splitlines()
    assert first == "ann is up."
    assert docker == f"  export DOCKER_HOST=tcp://127.0.0.1:{vm.engine_port}"
    folder = Path(tls.rpartition("DOCKER_CERT_PATH=")[2])
    assert {"ca.pem", "cert.pem", "key.pem"} <= {path.name for path in folder.iterdir()}
    assert [call[0] for call in testbed.hosts[vm.id].changes] == ["other", "disk-limits", "engine-up"]


@pytest.mark.parametrize("change", ["none", "stopped"])
def test_a_vm_that_exists_is_reported_as_existing_and_runs_afterwards(testbed: VmTestbed, change: str) -> None:
    testbed.driver().add("ann")
    before = testbed.vm("ann")
    if change == "stopped":
        testbed.hypervisor.die(before)
    assert testbed.driver().add("ann").startswith("ann already exists and is running.\n")
    assert testbed.hypervisor.state(before) == "running"
    assert testbed.vm("ann") == before
    assert testbed.hypervisor.calls == ["make ann", "start ann", *(["start ann"] if change == "stopped" else [])]


def test_one_that_has_stopped_working_is_not_added(testbed: VmTestbed) -> None:
    testbed.driver().add("ann")
    testbed.hypervisor.states[testbed.vm("ann").id] = "paused"
    with pytest.raises(MachineError, match="ann: the VM is in the state paused"):
        testbed.driver().add("ann")


@pytest.mark.parametrize("name", ["", "Ann", "-ann", "ann-", "a.b", "../ann", "a b", "a" * 41, "ann\n", "ä"])
def test_what_is_no_name_of_a_host_is_refused(testbed: VmTestbed, name: str) -> None:
    with pytest.raises(RequestError, match="is not a valid name for a VM") as raised:
        testbed.driver().add(name)
    assert "a-z, 0-9 and -" in raised.value.remedy
    assert testbed.hypervisor.calls == []


@pytest.mark.parametrize("name", ["a", "7", "a-b", "a" * 40])
def test_what_is_one_is_taken(testbed: VmTestbed, name: str) -> None:
    assert testbed.driver().add(name).startswith(f"{name} is up.")


def test_a_vm_is_removed_by_name(testbed: VmTestbed) -> None:
    testbed.driver().add("ann")
    testbed.driver().add("bob")
    assert testbed.driver().describe_removal("ann") == "The VM ann, with all data on it,"
    assert testbed.driver().remove("ann") == "ann was deleted."
    assert names(testbed.driver().machines()) == ["bob"]


@pytest.mark.parametrize("what", [lambda driver: driver.remove, lambda driver: driver.describe_removal])
def test_an_unknown_vm_is_refused_with_those_that_exist(
    testbed: VmTestbed, what: Callable[..., Callable[[str], str]]
) -> None:
    with pytest.raises(RequestError) as raised:
        what(testbed.driver())("ann")
    assert failure(raised.value) == ("The course 'bio' has no VM ann.", "Available: none.")
    boot_several(testbed.driver(), 2)
    with pytest.raises(RequestError) as raised:
        what(testbed.driver())("ann")
    assert raised.value.exit_code == 2
    assert raised.value.remedy == "Available: bio-1, bio-2."


# --- what doctor asks for ---


def test_an_image_and_room_for_a_disk_are_all_that_is_needed(testbed: VmTestbed) -> None:
    findings = [*testbed.driver(disk=GIB).examine()]
    assert [(finding.check, finding.state) for finding in findings] == [("disk image", "ok")]
    assert not testbed.course.folder.exists()


def test_what_would_stop_vms_later_is_found(testbed: VmTestbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testbed.hypervisor, "drawback", lambda: "VMs are slow.")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=GIB))
    findings = [*testbed.driver(base_image="/no/such.img", disk=20 * GIB).examine()]
    assert [(finding.check, finding.state) for finding in findings] == [
        ("this computer", "warning"),
        ("disk image", "wrong"),
        ("this computer", "warning"),
    ]
    driver = testbed.driver(base_image="/no/such.img")
    driver.machines()
    with pytest.raises(RequestError) as raised:
        driver.boot(Machine("bio-1", ""))
    assert (raised.value.message, raised.value.remedy) == (findings[1].finding, findings[1].remedy)
    assert "may grow to 20.0 GiB" in findings[2].finding
