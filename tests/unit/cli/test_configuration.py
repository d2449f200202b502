"""Where a value comes from, what is refused of Invoke's own, and what an error names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudscale.cli import configuration
from cloudscale.errors import SettingsError
from cloudscale.units import GIB
from tests.unit.cli.running import Workflow, run

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture
def own(here: Path) -> Path:
    return here / "own.yaml"


# --- Invoke's own flags ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("--dry containers_reset --yes", "--plan"),
        ("-R containers_reset --yes", "--plan"),
        ("containers_reset --yes --dry", "--plan"),
        ("containers_reset --yes -R", "--plan"),
        ("-eR driver_reset --yes", "--plan"),
        ("-T 3 status", "--timeout"),
        ("-T3 status", "--timeout"),
        ("-T 0 status", "--timeout"),
        ("--command-timeout 3 status", "--timeout"),
        ("--command-timeout=3 status", "--timeout"),
        ("status --command-timeout 3", "--timeout"),
        ("-w status", "--warn-only"),
        ("-e status", "--echo"),
        ("-p status", "--pty"),
        ("--hide both status", "--hide"),
    ],
)
def test_a_flag_of_invoke_that_would_do_nothing_is_refused(
    called: Workflow, capsys: Capture, words: str, remedy: str
) -> None:
    done = run(words, capsys)
    assert (done.code, done.out, called.session) == (2, "", None)
    assert remedy in done.err


@pytest.mark.parametrize(("text", "remedy"), [("run: {dry: true}", "--plan"), ("timeouts: {command: 3}", "--timeout")])
def test_the_same_keys_of_invokes_configuration_are_refused(
    called: Workflow, capsys: Capture, own: Path, text: str, remedy: str
) -> None:
    own.write_text(text)
    done = run("-f own.yaml status", capsys)
    assert (done.code, called.session) == (2, None)
    assert remedy in done.err


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [("RUN_DRY", "1", 2), ("RUN_DRY", "true", 2), ("RUN_DRY", "0", 0), ("TIMEOUTS_COMMAND", "5", 2)],
)
def test_and_the_same_variables(
    called: Workflow, capsys: Capture, monkeypatch: Patch, variable: str, value: str, code: int
) -> None:
    monkeypatch.setenv(f"INVOKE_{variable}", value)
    done = run("status", capsys)
    assert done.code == code
    assert (variable in done.err) == bool(code)


# --- the environment -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variables", "key", "value"),
    [
        ("vm: {kvm: true}", {"VM_KVM": "false"}, "vm.kvm", False),
        ("vm: {kvm: false}", {"VM_KVM": "yes"}, "vm.kvm", True),
        ("openstack: {config_drive: true}", {"OPENSTACK_CONFIG_DRIVE": "off"}, "openstack.config_drive", False),
        ("seat: {cpus: 1}", {"SEAT_CPUS": "0.5"}, "seat.cpus", 0.5),
        ("seat: {cpus: [1]}", {"SEAT_CPUS": "0.5"}, "seat.cpus", 0.5),
        ("seat: {cpus: {a: 1}}", {"SEAT_CPUS": "0.5"}, "seat.cpus", 0.5),
        ("seat: {pids: 100}", {"SEAT_PIDS": "64"}, "seat.pids", 64),
        ("seat: {memory: 1073741824}", {"SEAT_MEMORY": "3G"}, "seat.memory", 3 * GIB),
        ("seat:", {"SEAT_MEMORY": "3G"}, "seat.memory", 3 * GIB),
        ("generic: {hosts: [root@127.0.0.1:9]}", {"GENERIC_HOSTS": "a, b"}, "generic.hosts", ("a", "b")),
        ("course: 2026", {"COURSE": "bio"}, "course", "bio"),
        ("openstack: {external_network: public}", {"OPENSTACK_EXTERNAL_NETWORK": ""}, "openstack.external_network", ""),
    ],
)
def test_its_text_goes_before_a_value_of_any_type_in_any_file(
    called: Workflow,
    capsys: Capture,
    monkeypatch: Patch,
    own: Path,
    text: str,
    variables: dict[str, str],
    key: str,
    value: object,
) -> None:
    own.write_text(f"cloudscale: {{{text}}}" if not text.endswith(":") else f"cloudscale:\n  {text}")
    for name, given in variables.items():
        monkeypatch.setenv(f"INVOKE_CLOUDSCALE_{name}", given)
    done = run("-f own.yaml status", capsys)
    assert (done.code, done.err) == (0, "")
    found: object = called.asked.settings
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VM_KVM", "maybe"),
        ("VM_KVM", ""),
        ("SEAT_PIDS", "0.5"),
        ("SEAT_CPUS", "two"),
        ("DRIVER", "locl"),
        ("SEAT_MEMORY", "-1"),
        ("GENERIC_KFILE", ""),
    ],
)
def test_its_text_is_validated_and_the_variable_and_the_key_are_named(
    called: Workflow, capsys: Capture, monkeypatch: Patch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"INVOKE_CLOUDSCALE_{variable}", value)
    done = run("status", capsys)
    assert done.code == 2
    assert f"INVOKE_CLOUDSCALE_{variable}, key cloudscale.{variable.lower().replace('_', '.', 1)}" in done.err


def test_a_flag_goes_before_the_environment(called: Workflow, capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setenv("INVOKE_CLOUDSCALE_VM_CPUS", "many")
    monkeypatch.setenv("INVOKE_CLOUDSCALE_COURSE", "bio")
    run("machine_new dev --cpus 3 --course geo", capsys)
    assert (called.asked.settings.vm.cpus, called.asked.settings.course) == (3, "geo")


@pytest.mark.parametrize("variable", ["INVOKE_DRIVER", "INVOKE_SEAT_CPUS"])
def test_a_variable_one_level_too_high_is_refused(
    called: Workflow, capsys: Capture, monkeypatch: Patch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    done = run("status", capsys)
    assert done.code == 2
    assert variable in done.err and variable.replace("INVOKE_", "INVOKE_CLOUDSCALE_") in done.err


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "driver: local\ncourse: field9\nstudents: students.csv\n",
            "driver, course, students: belongs under cloudscale",
        ),
        ("openstack: {flavor: m1.small}\n", "openstack: belongs under cloudscale"),
        ("cloudscale: {driver: local}\nseat: {cpus: 1}\n", "seat: belongs under cloudscale"),
        ("cloudscal: {driver: local}\n", "cloudscal"),
        ("flavor: m1.small\n", "flavor"),
    ],
)
def test_a_key_at_the_top_level_is_refused(called: Workflow, capsys: Capture, own: Path, text: str, named: str) -> None:
    own.write_text(text)
    done = run("-f own.yaml status", capsys)
    assert (done.code, called.session) == (2, None)
    assert named in done.err and "own.yaml" in done.err


@pytest.mark.parametrize(
    "text", ["cloudscale:\n  # driver: local\n", "cloudscale: {seat: , driver: , generic: {hosts: }}\n", "# nothing\n"]
)
def test_a_key_without_a_value_counts_as_not_given_in_every_file(
    called: Workflow, capsys: Capture, own: Path, here: Path, text: str
) -> None:
    (here / ".invoke.yaml").write_text("cloudscale: {seat: {pids: 99}, generic: {hosts: [a]}}\n")
    own.write_text(text)
    assert run("-f own.yaml status", capsys).code == 0
    settings = called.asked.settings
    assert (settings.seat.pids, settings.driver, settings.generic.hosts) == (99, "openstack", ("a",))


def test_no_password_is_in_the_log(
    called: Workflow, caplog: pytest.LogCaptureFixture, capsys: Capture, monkeypatch: Patch, own: Path
) -> None:
    own.write_text("""cloudscale: {generic: {pwd: "Secret'1"}}""")
    monkeypatch.setenv("INVOKE_CLOUDSCALE_GENERIC_PWD", "Secret2")
    caplog.set_level("DEBUG", "invoke")
    for words in ("-f own.yaml status", "remote_com --hosts a --pwd Secret3", "remote_com --hosts a --pwd=Secret4"):
        monkeypatch.setattr("sys.argv", ["invoke", *words.split()])
        run(words, capsys)  # the first run installs the filter
        caplog.clear()
        run(words, capsys)
        assert caplog.messages
        # what Invoke logs before it loads the tasks is not logged with --debug either
        assert not [line for line in caplog.messages if "Secret" in line and "argv given" not in line]


def test_invokes_own_keys_may_stand_beside_ours(called: Workflow, capsys: Capture, own: Path) -> None:
    own.write_text("run: {echo: true}\ntasks: {dedupe: false}\ncloudscale: {driver: local}\n")
    assert run("-f own.yaml status", capsys).code == 0


def test_in_the_file_of_the_user_the_keys_of_other_projects_are_allowed(
    called: Workflow, capsys: Capture, here: Path
) -> None:
    (here / ".invoke.yaml").write_text("docs: {browse: remote}\n")
    assert run("status", capsys).code == 0
    (here / ".invoke.yaml").write_text("driver: local\n")
    done = run("status", capsys)
    assert (done.code, "driver: belongs under cloudscale" in done.err) == (2, True)


# --- paths -----------------------------------------------------------------------------------


def test_a_tilde_is_the_home_in_every_path(called: Workflow, capsys: Capture, own: Path, here: Path) -> None:
    own.write_text("cloudscale: {students: ~/list.csv, generic: {kfile: ~/id}, vm: {base_image: ~/disk.qcow2}}")
    run("-f own.yaml themachine --output=~/x.csv", capsys)
    settings, (launch,) = called.asked.settings, called.given["args"]
    assert (settings.students, settings.generic.kfile) == (here / "list.csv", here / "id")
    assert (settings.vm.base_image, launch.output) == (str(here / "disk.qcow2"), here / "x.csv")
    run("themachine --students=~/class.csv --base-image=~/b.img", capsys)
    assert called.asked.settings.students == here / "class.csv"
    assert called.asked.settings.vm.base_image == str(here / "b.img")
    run("remote_com --hosts a --kfile=~/id", capsys)
    assert called.given["args"][0].kfile == here / "id"


def test_an_address_of_an_image_stays_as_it_is(called: Workflow, capsys: Capture) -> None:
    run("themachine --base-image https://example.org/~ann/b.img", capsys)
    assert called.asked.settings.vm.base_image == "https://example.org/~ann/b.img"


# --- what an error names ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("status --driver locl", "flag --driver"),
        ("status --course ../x", "flag --course"),
        ("machine_new dev --cpus many", "flag --cpus"),
        ("machine_new dev --base-image=", "--base-image"),
        ("themachine --end 1", "flag --end"),
    ],
)
def test_a_wrong_flag_is_named_as_a_flag(called: Workflow, capsys: Capture, words: str, named: str) -> None:
    done = run(words, capsys)
    assert done.code == 2
    assert named in done.err and "key cloudscale" not in done.err


@pytest.mark.parametrize("flag", ["only", "skip", "driver", "course", "timeout", "format"])
@pytest.mark.parametrize("task", ["containers_reset --yes", "status"])
def test_an_empty_value_is_never_taken_for_none(called: Workflow, capsys: Capture, task: str, flag: str) -> None:
    done = run(f"{task} --{flag}=", capsys)
    assert (done.code, called.session) == (2, None)
    assert f"--{flag}" in done.err


@pytest.mark.parametrize("names", [",", ",,"])
@pytest.mark.parametrize("flag", ["status --only", "status --skip", "remote_com --hosts"])
def test_no_name_at_all_is_refused_too(called: Workflow, capsys: Capture, flag: str, names: str) -> None:
    done = run(f"{flag} {names}", capsys)
    assert (done.code, called.session) == (2, None)
    assert flag.split()[1] in done.err


@pytest.mark.parametrize(
    "words", ["image_build pydata --from=", "image_build maps --from maps --on=", "remote_com --hosts a --path="]
)
def test_an_empty_value_of_a_tasks_own_flag_is_refused_too(called: Workflow, capsys: Capture, words: str) -> None:
    assert run(words, capsys).code == 2
    assert called.session is None


@pytest.mark.parametrize(("content", "kind"), [(["cloudscale"], "a list"), ("cloudscale", "a single value")])
def test_a_file_without_keys_is_refused_as_such(content: Any, kind: str) -> None:
    with pytest.raises(ValueError, match=f"must contain keys and values, and this one is {kind}"):
        configuration._merge({}, content)


# --- what YAML reads without a word ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("cloudscale:\n  driver: local\n  driver: openstack\n", "line 3: the key driver is on line 2 already."),
        ("cloudscale:\n  seat: {cpus: 1, cpus: 2}\n", "line 2: the key cpus"),
        ("cloudscale:\n  seat:\n    cpus: 1\n    cpus: 2\n", "line 4: the key cpus is on line 3 already."),
        ("cloudscale:\n  driver: local\ncloudscale:\n  course: bio\n", "line 3: the key cloudscale is on line 1"),
        ("cloudscale:\n  course: 1:30\n", "line 2: course: YAML reads 1:30 as another number."),
        ("cloudscale:\n  seat: {cpus: 1:30}\n", "line 2: cpus: YAML reads 1:30 as another number."),
        ("cloudscale:\n  gateway: {port: 0443}\n", "line 2: port: YAML reads 0443 as another number."),
        ("cloudscale: [driver, local]\n", "line 1: cloudscale must contain keys and values."),
        ("cloudscale: local\n", "line 1: cloudscale must contain keys and values."),
        ("cloudscale: &a\n  seat: *a\n", "line 2: seat refers to what it is a part of."),
    ],
)
def test_what_yaml_reads_otherwise_than_meant_is_refused_with_its_line(own: Path, text: str, cause: str) -> None:
    own.write_text(text)
    with pytest.raises(SettingsError) as raised:
        configuration.check_yaml(str(own))
    assert f"{own}, {cause}" in raised.value.message


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffcloudscale:\r\n  course: bio\r\n",
        "cloudscale:\n  course: bio\n  seat:\n    <<: {cpus: 0.5}\n    memory: 1G\n",
        "cloudscale:\n  course: bio\n  seat: {cpus: 0.5}\n",
        "cloudscale:\n  course: bio\n  students:\n  seat:\n",
        "cloudscale:\n  course: bio\n  generic: {hosts: [&h debian@192.0.2.11]}\n",
        "cloudscale:\n  course: bio\n  openstack: {boot_timeout: 600, image: '010'}\n",
    ],
)
def test_what_yaml_reads_as_it_was_meant_is_read(own: Path, capsys: Capture, called: Workflow, text: str) -> None:
    own.write_text(text)
    configuration.check_yaml(str(own))
    assert run(f"-f {own} status", capsys).code == 0
    assert called.asked.settings.course == "bio"
