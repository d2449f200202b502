from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest

from cloudscale.cli.report import Report
from cloudscale.course.flags import Launch, Remote
from cloudscale.errors import CloudscaleError, SeatError
from cloudscale.images.recipes import recipe_names
from tests.unit.cli.running import PROJECT, Result, Workflow, run


@pytest.mark.parametrize("task", ["themachine", "containers_reset", "driver_reset", "status", "image_list"])
def test_a_report_goes_to_standard_output(called: Workflow, capsys: pytest.CaptureFixture[str], task: str) -> None:
    assert run(task, capsys) == Result(0, "done\n", "")


def test_problems_go_to_standard_error_and_end_in_1(called: Workflow, capsys: pytest.CaptureFixture[str]) -> None:
    called.report = Report("the rest", ("Ann: broken", "Bob: gone"))
    done = run("status", capsys)
    assert (done.code, done.out) == (1, "the rest\n")
    assert "Ann: broken" in done.err
    assert "Bob: gone" in done.err


def test_a_report_without_text_prints_no_empty_line(called: Workflow, capsys: pytest.CaptureFixture[str]) -> None:
    called.report = Report("")
    assert run("status", capsys).out == ""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SeatError("It broke.", "Fix it."), 1, "It broke.\n  Fix it."),
        (CloudscaleError("It broke."), 1, "It broke."),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_ends_in_its_exit_code_and_a_message(
    called: Workflow, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    called.error = error
    done = run("status", capsys)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err


def test_when_the_reader_of_the_output_ends_no_message_is_printed(
    called: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    called.error = BrokenPipeError()
    assert run("status", capsys) == Result(1, "", "")


# --- wrong requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("themachine --unknown", "--unknown"),
        ("nonsense", "nonsense"),
        ("com_node", "command"),
        ("themachine --nodes many", "--nodes"),
        ("themachine --nodes -1", "--nodes"),
        ("status --format yaml", "--format"),
        ("status --timeout soon", "--timeout"),
        ("themachine --env NOVALUE", "--env"),
        ("themachine --end 1", "--end"),
        ("status --course ../etc", "course"),
        ("status --driver aws", "driver"),
        ("themachine --driver local --students missing.csv", "missing.csv"),
        ("themachine --driver local", "students.csv"),
        ("remote_com", "--hosts"),
        ("-f missing.yaml status", "missing.yaml"),
    ],
)
def test_a_wrong_request_ends_in_2_and_names_what_is_wrong(
    here: Path, capsys: pytest.CaptureFixture[str], words: str, named: str
) -> None:
    done = run(words, capsys)
    assert done.code == 2
    assert named in done.err
    assert done.out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "variable",
    [
        "INVOKE_CLOUDSCALE_DRIVR",
        "INVOKE_CLOUDSCALE_SEAT",
        "INVOKE_CLOUDSCALE_SEAT_MEMRY",
        "INVOKE_CLOUDSCALE_",
    ],
)
def test_an_unknown_key_in_the_environment_ends_in_2(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "local")
    done = run("status", capsys)
    assert done.code == 2
    assert variable in done.err


# --- positional arguments --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("image_build spark", ("spark", None, None)),
        ("image_build --name spark", ("spark", None, None)),
        ("image_build --from maps --on ml atlas", ("atlas", "maps", "ml")),
        ("image_build atlas --from maps", ("atlas", "maps", None)),
    ],
)
def test_an_images_name_stands_anywhere_after_the_task(
    called: Workflow, capsys: pytest.CaptureFixture[str], words: str, given: tuple[str | None, ...]
) -> None:
    assert run(words, capsys).code == 0
    assert called.given["args"] == given


@pytest.mark.parametrize("words", ["image_build", "image_build --from maps"])
def test_an_images_name_is_always_given_and_those_that_can_be_built_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    done = run(words, capsys)
    assert (done.code, done.out) == (2, "")
    assert all(name in done.err for name in recipe_names())


# --- flags, environment and files ------------------------------------------------------------


def test_the_projects_own_file_is_read(called: Workflow, capsys: pytest.CaptureFixture[str]) -> None:
    run("status", capsys)
    settings = called.asked.settings
    assert (settings.driver, settings.course, settings.students) == ("openstack", "course", Path("students.csv"))
    assert settings.seat.cpus == 1.0


def test_the_environment_goes_before_the_file_and_a_flag_before_both(
    called: Workflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"DRIVER": "generic", "COURSE": "bio", "SEAT_CPUS": "2.5", "SEAT_MEMORY": "3G"}.items():
        monkeypatch.setenv(f"INVOKE_CLOUDSCALE_{key}", value)
    run("status --driver local", capsys)
    settings = called.asked.settings
    assert (settings.driver, settings.course) == ("local", "bio")
    assert (settings.seat.cpus, settings.seat.memory) == (2.5, 3 * 1024**3)


def test_every_key_can_come_from_the_environment(
    called: Workflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVOKE_CLOUDSCALE_OPENSTACK_EXTERNAL_NETWORK", "outside")
    monkeypatch.setenv("INVOKE_CLOUDSCALE_LOCAL_ADDRESS", "192.0.2.1")
    monkeypatch.setenv("INVOKE_CLOUDSCALE_GENERIC_HOSTS", "a,root@b")
    done = run("status", capsys)
    assert (done.code, done.err) == (0, "")
    settings = called.asked.settings
    assert settings.openstack.external_network == "outside"
    assert settings.local.address == "192.0.2.1"
    assert settings.generic.hosts == ("a", "root@b")


def test_a_file_given_with_f_goes_before_the_projects(
    called: Workflow, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text("cloudscale: {course: geo, generic: {hosts: [a, b]}}")
    run("-f own.yaml status", capsys)
    assert called.asked.settings.course == "geo"
    assert called.asked.settings.generic.hosts == ("a", "b")
    assert called.asked.settings.seat.pids == 512


def test_the_flags_of_every_task_are_read(called: Workflow, capsys: pytest.CaptureFixture[str]) -> None:
    run("status --course bio --only a,b --skip c --timeout 2.5 --format json --yes", capsys)
    common = called.asked.common
    assert (common.only, common.skip, common.timeout) == (("a", "b"), ("c",), 2.5)
    assert (common.format, common.yes) == ("json", True)


def test_the_flags_of_themachine_are_read(called: Workflow, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        "themachine --students class.csv --image pydata --nodes 2 --port 80 --start 5000 --end 5010"
        " --env A=1 --env B=x=y --onlycreate --plan --prune --output out.csv",
        capsys,
    )
    (launch,) = called.given["args"]
    assert launch == Launch(
        nodes=2,
        port=80,
        start=5000,
        end=5010,
        env={"A": "1", "B": "x=y"},
        onlycreate=True,
        plan=True,
        prune=True,
        output=Path("out.csv"),
    )
    assert called.asked.settings.students == Path("class.csv")
    assert called.asked.settings.image == "pydata"


@pytest.mark.parametrize("task", ["themachine", "machine_new dev"])
def test_the_flags_for_vms_go_before_the_configuration(
    called: Workflow, capsys: pytest.CaptureFixture[str], tmp_path: Path, task: str
) -> None:
    (tmp_path / "own.yaml").write_text("cloudscale: {vm: {cpus: 8, user: ann}}")
    run(f"-f own.yaml {task} --cpus 4 --base-image disk.qcow2", capsys)
    vm = called.asked.settings.vm
    assert (vm.cpus, vm.base_image, vm.user) == (4, "disk.qcow2", "ann")
    assert called.asked.vm_flags == ("--cpus", "--base-image")


def test_without_flags_themachine_has_its_defaults(called: Workflow, capsys: pytest.CaptureFixture[str]) -> None:
    run("themachine", capsys)
    assert called.given["args"] == (Launch(),)


def test_reap_gets_its_folder_and_knows_whether_a_course_was_named(
    called: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    run("reap --output work --yes", capsys)
    assert called.given == {"args": ("work",)}
    assert not called.asked.names_course
    run("reap --course bio", capsys)
    assert called.given == {"args": (None,)}
    assert called.asked.names_course


def test_what_is_in_a_tasks_signature_is_read_in_its_body() -> None:
    for task in ast.parse((PROJECT / "tasks.py").read_text()).body:
        if isinstance(task, ast.FunctionDef):
            read = {node.id for part in task.body for node in ast.walk(part) if isinstance(node, ast.Name)}
            assert {argument.arg for argument in task.args.args} <= read, task.name


@pytest.mark.parametrize("task", ["com_node", "com_containers", "machine_new", "machine_rm"])
def test_a_word_after_a_task_is_its_argument(called: Workflow, capsys: pytest.CaptureFixture[str], task: str) -> None:
    run(f"{task} word", capsys)
    assert called.given["args"] == ("word",)


def test_the_flags_of_remote_com_are_read(called: Workflow, capsys: pytest.CaptureFixture[str]) -> None:
    run("remote_com --hosts a,b --com id --port 2222 --user ann --pwd x --kfile k --path /srv --timeout 5", capsys)
    (remote,) = called.given["args"]
    assert remote == Remote(hosts=("a", "b"), com="id", port=2222, user="ann", pwd="x", kfile=Path("k"), path="/srv")
    assert called.asked.common.timeout == 5


def test_volumes_go_only_where_they_are_named(called: Workflow, capsys: pytest.CaptureFixture[str]) -> None:
    run("containers_reset", capsys)
    assert called.given["with_volumes"] is False
    run("containers_reset --volumes", capsys)
    assert called.given["with_volumes"] is True


# --- questions -------------------------------------------------------------------------------


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


def ask(called: Workflow, capsys: pytest.CaptureFixture[str], words: str) -> Result:
    """Runs a task whose workflow asks for confirmation."""
    called.report, called.question = Report("removed"), "Remove 30 seats?"
    return run(words, capsys)


@pytest.mark.parametrize("task", ["containers_reset", "driver_reset", "machine_rm m1"])
def test_without_a_terminal_nothing_is_removed(
    called: Workflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal: its content does not count
    done = ask(called, capsys, task)
    assert (done.code, done.out) == (2, "")
    assert "Remove 30 seats? This needs confirmation, and there is no terminal." in done.err
    assert "--yes" in done.err


def test_yes_is_agreement_beforehand(
    called: Workflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert ask(called, capsys, "driver_reset --yes") == Result(0, "removed\n", "")


@pytest.mark.parametrize(
    ("typed", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 2), ("\n", 2), ("", 2), ("yesterday\n", 2)]
)
def test_on_a_terminal_the_answer_counts(
    called: Workflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Keyboard(typed))
    done = ask(called, capsys, "driver_reset")
    assert done.code == code
    assert "Remove 30 seats?" in done.err
    assert done.out == ("" if code else "removed\n")
    assert "Error" not in done.err
    assert ("Nothing was removed." in done.err) == bool(code)


def test_doctor_runs_without_what_is_wrong_in_the_configuration(
    called: Workflow, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "class.yaml"
    file.write_text("cloudscale: {driver: local, openstack: {flavr: big}}\n")
    assert run(f"-f {file} doctor", capsys).code == 0
    assert called.asked.settings.driver == "local"
    assert called.asked.left_out == {"openstack"}
    assert called.asked.refused and "openstack.flavr" in called.asked.refused.message
    assert run(f"-f {file} status", capsys).code == 2
    assert run(f"-f {file} doctor --driver lokal", capsys).code == 2
