"""The driver as a workflow sees it: VMs that are there, that come up, that lead students in, and that go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudscale.drivers.vm.driver import ATTEMPTS
from cloudscale.drivers.vm.hypervisor import PortTaken
from cloudscale.errors import LoginRefused, MachineError, NotSetUp, RequestError
from cloudscale.hosts.facts import usable_memory
from cloudscale.model import Machine, MachineState
from tests.unit.drivers.vm.fake_hypervisor import GIB, MIB, VmLab, brought, failure, names, surveyed, vm_lab_fixture  # noqa: F401 - fixtures

# --- what is there ---


def test_a_course_that_only_looks_leaves_nothing_behind(lab: VmLab) -> None:
    driver = lab.driver()
    assert driver.machines() == []
    assert driver.resources() == ""
    assert driver.order(2, ()).fits == 5
    assert driver.sweep() == ()
    assert not driver.adopts_swarm
    assert not lab.course.folder.exists()
    assert lab.hypervisor.calls == []
    assert lab.hypervisor.checked == 1


def test_the_vms_are_read_back_in_the_order_of_their_numbers(lab: VmLab) -> None:
    driver = lab.driver(address="192.0.2.9")
    for name in ("zoe", "bio-2", "ann"):
        driver.machines()
        driver.boot(Machine(name, ""))
    assert lab.driver().machines() == [Machine(name, "192.0.2.9") for name in ("zoe", "bio-2", "ann")]
    assert [lab.vm(name).number for name in ("zoe", "bio-2", "ann")] == [1, 2, 3]
    driver.sweep({"bio-2"})
    driver.boot(Machine("bob", ""))
    assert names(lab.driver().machines()) == ["zoe", "bob", "ann"]  # whose number is free again


def test_a_vm_that_never_was_is_told(lab: VmLab) -> None:
    driver = lab.driver()
    driver.machines()
    with pytest.raises(MachineError, match="bio-7: there is no such VM"):
        driver.run(Machine("bio-7", ""), "ls", 5)


# --- what a VM is ---


def test_one_that_is_to_be_made_is_as_large_as_the_settings_say(lab: VmLab) -> None:
    driver = lab.driver(cpus=4, memory=3 * GIB, address="192.0.2.9")
    driver.machines()
    (survey,) = driver.order(1, ()).surveys
    assert survey.machine == Machine("bio-1", "192.0.2.9")
    assert survey.state is MachineState.COMING
    assert (survey.cpus, survey.memory) == (4, usable_memory(3072))
    assert survey.networks == {"198.18.77.0/24"}
    kind = driver.kind()
    assert (kind.name, kind.cpus, kind.memory) == ("VM of 4 cores and 3 GiB", 4, usable_memory(3072))


def test_one_that_runs_is_looked_at_over_ssh(lab: VmLab) -> None:
    brought(lab.driver())
    survey = surveyed(lab.driver())
    assert survey.address == "198.18.77.11"  # by which the VMs reach each other
    assert (survey.cpus, survey.state) == (4, MachineState.BARE)
    assert lab.logins[-1].port == lab.vm().ssh_port


@pytest.mark.parametrize(("answered", "state"), [(True, "off"), (False, "off"), (False, "running"), (False, "paused")])
def test_one_that_is_on_its_way_comes(lab: VmLab, answered: bool, state: str) -> None:
    driver = lab.driver()
    brought(driver)
    vm = lab.vm()
    if not answered:
        text = (vm.folder / "vm.json").read_text()
        (vm.folder / "vm.json").write_text(text.replace('"has_answered": true', '"has_answered": false'))
    lab.hypervisor.states[vm.id] = state
    logins = len(lab.logins)
    survey = surveyed(lab.driver(cpus=9))
    assert (survey.state, survey.cpus) == (MachineState.OFF if answered else MachineState.COMING, 2)
    assert len(lab.logins) == logins


@pytest.mark.parametrize("state", ["paused", "io-error", "gurumeditation"])
def test_one_that_has_worked_and_does_not_any_more_is_told(lab: VmLab, state: str) -> None:
    brought(lab.driver())
    lab.hypervisor.states[lab.vm().id] = state
    with pytest.raises(MachineError) as raised:
        surveyed(lab.driver())
    assert raised.value.message == f"bio-1: the VM is in the state {state}."
    assert "invoke driver_reset --only bio-1" in raised.value.remedy


def test_ports_that_other_programs_have_are_held_and_those_of_our_seats_are_not(lab: VmLab) -> None:
    driver = lab.driver()
    brought(driver, 2)
    driver.open_ports({"bio-1": {4321}})
    lab.listening = {4321, 8080}
    for survey in (surveyed(lab.driver(), "bio-2"), *driver.order(1, ()).surveys):
        assert 8080 in survey.held_ports
        assert 4321 not in survey.held_ports


def test_a_vm_that_lets_in_another_key_is_told_before_anything_is_done(lab: VmLab) -> None:
    brought(lab.driver())
    for change in ("other", "gone"):
        (lab.course.folder / "id_ed25519").unlink()
        if change == "other":
            lab.driver()._key(create=True)
        with pytest.raises(RequestError) as raised:
            surveyed(lab.driver())
        assert raised.value.exit_code == 2
        assert raised.value.message == f"bio-1 lets in another SSH key than that in {lab.course.folder}."
        assert "invoke driver_reset" in raised.value.remedy


@pytest.mark.parametrize("is_up", [True, False])
def test_an_engine_of_a_vm_that_does_not_run_is_not_set_up(lab: VmLab, is_up: bool) -> None:
    driver = lab.driver()
    brought(driver)
    driver.prepare(Machine("bio-1", "127.0.0.1"))
    if not is_up:
        lab.hypervisor.stop(lab.vm())
        with pytest.raises(NotSetUp, match="bio-1: the VM is off") as raised:
            driver.connect(Machine("bio-1", "127.0.0.1"))
        assert "invoke machine_new bio-1 --driver qemu starts it" in raised.value.remedy
    else:
        driver.connect(Machine("bio-1", "127.0.0.1"))
        assert lab.clients[-1] == {"machine": "bio-1", "host": "127.0.0.1", "port": lab.vm().engine_port}


# --- what is to come ---


def test_vms_get_the_names_of_former_ones_first_and_then_new_ones(lab: VmLab) -> None:
    driver = lab.driver()
    brought(driver)
    found = driver.order(4, ("zoe", "bio-1", "bio-3")).surveys
    assert [survey.machine.name for survey in found] == ["bio-3", "zoe", "bio-2", "bio-4"]
    assert driver.order(0, ("zoe",)).surveys == ()


def test_a_courses_name_is_made_fit_for_a_host(lab: VmLab) -> None:
    driver = lab.driver("Bio_2026.a")
    driver.machines()
    assert driver.order(1, ()).surveys[0].machine.name == "bio-2026-a-1"


def test_the_memory_of_this_computer_is_what_limits(lab: VmLab) -> None:
    driver = lab.driver(memory=4 * GIB)
    driver.machines()
    order = driver.order(3, ())
    vms, memory = order.demands
    assert (vms.need, vms.used, vms.limit) == (3, 0, 240)
    assert (memory.need, memory.used, memory.limit) == (12 * 1024, 6 * 1024, 16 * 1024)
    assert not memory.is_met
    assert order.fits == 2
    lab.memory.available = 100 * MIB
    assert driver.order(1, ()).fits == 0


def test_vms_that_are_off_will_want_their_memory_too(lab: VmLab) -> None:
    driver = lab.driver(memory=4 * GIB)
    brought(driver)
    running = driver.order(1, ())
    lab.hypervisor.stop(lab.vm())
    off = driver.order(1, ())
    assert [order.demands[1].need for order in (running, off)] == [4 * 1024, 8 * 1024]
    assert [order.fits for order in (running, off)] == [2, 1]
    assert off.demands[0].used == 1


# --- a VM comes up ---


def test_a_vm_is_made_started_and_logged_in_to(lab: VmLab) -> None:
    (survey,) = brought(lab.driver(user="ann", disk=5 * GIB))
    vm = lab.vm()
    assert lab.hypervisor.calls == ["make bio-1", "start bio-1"]
    assert (vm.has_answered, vm.number, vm.cpus, vm.memory, vm.disk) == (True, 1, 2, 2 * GIB, 5 * GIB)
    assert vm.ssh_port != vm.engine_port
    assert (lab.logins[0].user, lab.logins[0].port) == ("ann", vm.ssh_port)
    assert not survey.state.needs_boot
    assert ("other",) in lab.hosts[vm.id].calls  # its first boot has ended
    assert lab.said == ["bio-1: up"]  # its console told its host key
    assert vm.id in lab.course.known_hosts.read_text()
    assert (lab.course.folder / "id_ed25519").stat().st_mode & 0o777 == 0o600


def test_one_that_is_up_is_not_made_or_started_again(lab: VmLab) -> None:
    brought(lab.driver())
    before = lab.vm()
    driver = lab.driver(cpus=9)
    (machine,) = driver.machines()
    assert not driver.boot(machine).state.needs_boot
    assert lab.hypervisor.calls == ["make bio-1", "start bio-1"]
    assert lab.vm() == before


def test_one_that_was_written_down_and_not_made_is_made(lab: VmLab, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = lab.driver()
    with monkeypatch.context() as patched:
        patched.setattr(lab.hypervisor, "make", lambda vm, base: pytest.fail("the power is cut"))
        with pytest.raises(pytest.fail.Exception):
            brought(driver)
    before = lab.vm()
    driver = lab.driver()
    assert surveyed(driver).state.needs_boot
    driver.boot(Machine("bio-1", ""))
    assert lab.vm().id == before.id


def test_the_image_is_found_once_for_all_vms(lab: VmLab, tmp_path: Path) -> None:
    driver = lab.driver()
    driver.machines()
    first, second = driver.order(2, ()).surveys
    driver.boot(first.machine)
    lab.hypervisor.image.unlink()
    driver.boot(second.machine)
    (base,) = {base for _, base in lab.hypervisor.made.values()}
    assert (base.path, base.format) == (tmp_path / "base.raw", "raw")


def test_an_image_that_is_not_there_is_told_and_the_vm_can_be_removed(lab: VmLab) -> None:
    with pytest.raises(RequestError, match="There is no disk image /nowhere"):
        brought(lab.driver(base_image="/nowhere"))
    driver = lab.driver()
    driver.machines()
    assert driver.remove("bio-1") == "bio-1 is deleted."
    assert not (lab.course.folder / "vms").exists()


def test_ports_that_others_took_are_chosen_anew(lab: VmLab, monkeypatch: pytest.MonkeyPatch) -> None:
    start, tried = lab.hypervisor.start, []

    def unlucky(vm: object) -> None:
        tried.append(lab.vm())
        lab.hypervisor.taken = {tried[-1].ssh_port} if len(tried) < ATTEMPTS else set()
        start(lab.vm())

    monkeypatch.setattr(lab.hypervisor, "start", unlucky)
    brought(lab.driver())
    assert len({vm.ssh_port for vm in tried}) == ATTEMPTS
    assert lab.vm().ssh_port == lab.logins[0].port == tried[-1].ssh_port


def test_ports_that_are_taken_again_and_again_are_told(lab: VmLab) -> None:
    driver = lab.driver()
    brought(driver)
    driver.open_ports({"bio-1": {4321}})
    lab.hypervisor.stop(lab.vm())
    lab.hypervisor.taken = {4321}
    with pytest.raises(PortTaken, match="4321"):
        lab.driver().add("bio-1")
    assert lab.hypervisor.calls.count("start bio-1") == 1 + ATTEMPTS


def test_a_vm_that_dies_while_it_boots_is_told_with_its_last_words(lab: VmLab) -> None:
    lab.mute.add("bio-1")
    lab.hypervisor.dies_after["bio-1"] = 3
    lab.hypervisor.console = "Linux version 6.1\n\x1b[31mKernel panic\n"
    with pytest.raises(MachineError) as raised:
        brought(lab.driver())
    assert failure(raised.value) == (
        "bio-1: the VM is off while it should boot.\nThe end of its console:\n  | Linux version 6.1\n  | Kernel panic",
        "Run again.",
    )
    assert not lab.vm().has_answered


def test_one_that_dies_at_once_is_told_and_not_started_again(lab: VmLab) -> None:
    lab.mute.add("bio-1")
    lab.hypervisor.dies_after["bio-1"] = 0
    lab.hypervisor.console = "Kernel panic\n"
    with pytest.raises(MachineError, match="the VM is off while it should boot") as raised:
        brought(lab.driver())
    assert "  | Kernel panic" in raised.value.message
    assert lab.hypervisor.calls == ["make bio-1", "start bio-1"]


def test_one_that_says_nothing_is_told_with_its_consoles_end(lab: VmLab) -> None:
    lab.mute.add("bio-1")
    lab.hypervisor.console = "Linux version 6.1\ngrub rescue>\n"
    with pytest.raises(MachineError) as raised:
        brought(lab.driver(boot_timeout=30))
    port = lab.vm().ssh_port
    assert raised.value.message == (
        f"bio-1: the VM runs, but nothing answers on 127.0.0.1, port {port}, after 30 s.\n"
        "The end of its console:\n  | Linux version 6.1\n  | grub rescue>"
    )
    assert str(lab.vm().console) in raised.value.remedy
    lab.mute.clear()
    driver = lab.driver()
    assert surveyed(driver).state.needs_boot
    driver.boot(Machine("bio-1", ""))
    assert lab.hypervisor.calls == ["make bio-1", "start bio-1"]


def test_one_without_a_console_is_told(lab: VmLab) -> None:
    lab.mute.add("bio-1")
    lab.hypervisor.console = ""
    with pytest.raises(MachineError, match=r"Its console is empty\."):
        brought(lab.driver(boot_timeout=30))


def test_a_hypervisors_drawback_is_said_once(lab: VmLab) -> None:
    lab.hypervisor.slowness = "VMs are slow"
    brought(lab.driver(), 2)
    assert lab.said == ["VMs are slow", "bio-1: up", "bio-2: up"]


def test_what_a_hypervisor_mends_is_said_and_waited_for(lab: VmLab) -> None:
    lab.hypervisor.mendings["bio-1"] = "KVM does not work"
    brought(lab.driver())
    assert lab.said == ["bio-1: KVM does not work", "bio-1: up"]


def test_a_vm_whose_console_tells_no_key_is_trusted_aloud(lab: VmLab) -> None:
    lab.hypervisor.console = "Linux version 6.1\n"
    brought(lab.driver())
    assert lab.said[0] == "bio-1: its console does not show its host keys, so the first key that it offers is trusted"


def test_a_login_that_is_refused_is_told_as_one(lab: VmLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise LoginRefused("bio-1: it does not let us in.")

    monkeypatch.setattr("cloudscale.hosts.first_login.connect", refuse)
    with pytest.raises(LoginRefused):
        brought(lab.driver())


# --- the students' ports ---


def test_a_port_moves_from_one_vm_to_another_once_it_is_free(lab: VmLab) -> None:
    driver = lab.driver()
    brought(driver, 3)
    driver.open_ports({"bio-1": {4321, 4322}, "bio-2": {4323}})
    lab.hypervisor.calls.clear()
    driver.open_ports({"bio-1": {4323}, "bio-2": {4321, 4322}})
    assert sorted(lab.hypervisor.calls[:2]) == ["forward bio-1 []", "forward bio-2 []"]
    assert sorted(lab.hypervisor.calls[2:]) == ["forward bio-1 [4323]", "forward bio-2 [4321, 4322]"]
    assert [lab.vm(f"bio-{number}").seat_ports for number in (1, 2, 3)] == [(4323,), (4321, 4322), ()]
    lab.hypervisor.calls.clear()
    driver.open_ports({"bio-1": {4323}, "bio-2": [4322, 4321]})
    assert lab.hypervisor.calls == []
    lab.driver().machines()
    driver.open_ports({})
    assert not any(lab.vm(f"bio-{number}").seat_ports for number in (1, 2, 3))


def test_one_that_is_off_gets_its_ports_when_it_starts(lab: VmLab) -> None:
    driver = lab.driver()
    brought(driver)
    lab.hypervisor.stop(lab.vm())
    driver.open_ports({"bio-1": {4321}})
    assert not any(call.startswith("forward") for call in lab.hypervisor.calls)
    driver = lab.driver()
    (machine,) = driver.machines()
    driver.boot(machine)
    assert lab.hypervisor.forwards[lab.vm().id]["seat-4321"] == ("127.0.0.1", 4321, 4321)


def test_a_port_that_somebody_else_has_is_told_and_not_written_down(lab: VmLab) -> None:
    driver = lab.driver()
    brought(driver)
    lab.hypervisor.taken = {4322}
    with pytest.raises(PortTaken):
        driver.open_ports({"bio-1": {4322}})
    assert lab.vm().seat_ports == ()


# --- the end ---


def test_all_that_was_made_goes(lab: VmLab) -> None:
    driver = lab.driver()
    brought(driver, 3)
    assert driver.resources() == "3 VMs"
    assert [(outcome.target, outcome.value) for outcome in driver.sweep({"bio-2", "bio-9"})] == [("bio-2", "deleted")]
    assert names(lab.driver().machines()) == ["bio-1", "bio-3"]
    assert [outcome.target for outcome in lab.driver().sweep()] == ["bio-1", "bio-3"]
    assert lab.hypervisor.made == {}
    assert not (lab.course.folder / "vms").exists()


def test_a_vm_that_can_not_be_deleted_stays_and_the_others_go(lab: VmLab, monkeypatch: pytest.MonkeyPatch) -> None:
    brought(lab.driver(), 2)
    delete = lab.hypervisor.delete

    def stuck(vm: object) -> None:
        if getattr(vm, "name", "") == "bio-1":
            raise MachineError("bio-1: its process does not end.")
        delete(lab.vm("bio-2"))

    monkeypatch.setattr(lab.hypervisor, "delete", stuck)
    first, second = lab.driver().sweep()
    assert (first.ok, second.ok) == (False, True)
    assert names(lab.driver().machines()) == ["bio-1"]


def test_a_course_can_be_swept_without_its_key(lab: VmLab) -> None:
    brought(lab.driver())
    (lab.course.folder / "id_ed25519").unlink()
    assert all(outcome.ok for outcome in lab.driver().sweep())


# --- single VMs ---


def test_a_vm_is_added_and_its_engine_told(lab: VmLab) -> None:
    text = lab.driver().add("ann")
    vm = lab.vm("ann")
    first, *_, docker, tls = text.splitlines()
    assert first == "ann is up."
    assert docker == f"  export DOCKER_HOST=tcp://127.0.0.1:{vm.engine_port}"
    folder = Path(tls.rpartition("DOCKER_CERT_PATH=")[2])
    assert {"ca.pem", "cert.pem", "key.pem"} <= {path.name for path in folder.iterdir()}
    assert [call[0] for call in lab.hosts[vm.id].changes] == ["other", "engine-up"]


@pytest.mark.parametrize("change", ["none", "stopped"])
def test_one_that_exists_is_told_as_that_and_runs_afterwards(lab: VmLab, change: str) -> None:
    lab.driver().add("ann")
    before = lab.vm("ann")
    if change == "stopped":
        lab.hypervisor.stop(before)
    assert lab.driver().add("ann").startswith("ann exists already, and runs.\n")
    assert lab.hypervisor.state(before) == "running"
    assert lab.vm("ann") == before
    assert lab.hypervisor.calls == ["make ann", "start ann", *(["start ann"] if change == "stopped" else [])]


def test_one_that_has_stopped_working_is_not_added(lab: VmLab) -> None:
    lab.driver().add("ann")
    lab.hypervisor.states[lab.vm("ann").id] = "paused"
    with pytest.raises(MachineError, match="ann: the VM is in the state paused"):
        lab.driver().add("ann")


@pytest.mark.parametrize("name", ["", "Ann", "-ann", "ann-", "a.b", "../ann", "a b", "a" * 41, "ann\n", "ä"])
def test_what_is_no_name_of_a_host_is_refused(lab: VmLab, name: str) -> None:
    with pytest.raises(RequestError, match="A VM can't be called") as raised:
        lab.driver().add(name)
    assert "a-z, 0-9 and -" in raised.value.remedy
    assert lab.hypervisor.calls == []


@pytest.mark.parametrize("name", ["a", "7", "a-b", "a" * 40])
def test_what_is_one_is_taken(lab: VmLab, name: str) -> None:
    assert lab.driver().add(name).startswith(f"{name} is up.")


def test_a_vm_is_removed_by_name(lab: VmLab) -> None:
    lab.driver().add("ann")
    lab.driver().add("bob")
    assert lab.driver().describe_removal("ann") == "The VM ann, with all that is on it,"
    assert lab.driver().remove("ann") == "ann is deleted."
    assert names(lab.driver().machines()) == ["bob"]


@pytest.mark.parametrize("what", [lambda driver: driver.remove, lambda driver: driver.describe_removal])
def test_one_that_is_not_there_is_told_with_those_that_are(
    lab: VmLab, what: Callable[..., Callable[[str], str]]
) -> None:
    with pytest.raises(RequestError) as raised:
        what(lab.driver())("ann")
    assert failure(raised.value) == ("There is no VM ann in the course 'bio'.", "There are: none.")
    brought(lab.driver(), 2)
    with pytest.raises(RequestError) as raised:
        what(lab.driver())("ann")
    assert raised.value.exit_code == 2
    assert raised.value.remedy == "There are: bio-1, bio-2."
