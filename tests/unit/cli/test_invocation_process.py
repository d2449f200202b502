"""`invoke …` as the shell sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.running import PROJECT, TASKS, Result


@pytest.fixture
def invoke(processes: None, tmp_path: Path) -> Callable[..., Result]:
    """`invoke …` in an empty folder, with no engine to reach."""
    world = {name: value for name, value in os.environ.items() if name != "HOME"}
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "HOME": str(tmp_path), "COLUMNS": "200"}

    def run(*words: str, **environment: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "invoke", "--search-root", str(PROJECT), *words],
            cwd=tmp_path,
            env={**world, **nowhere, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("Traceback" in done.stderr) == ("--debug" in words)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def test_the_tasks_are_listed_by_their_names_with_underscores(invoke: Callable[..., Result]) -> None:
    done = invoke("--list")
    listed = {line.split()[0] for line in done.out.splitlines() if line.startswith("  ") and line[2] != " "}
    assert done.code == 0
    assert listed >= set(TASKS)
    assert not any("-" in name for name in listed)


def test_every_flag_is_explained(invoke: Callable[..., Result]) -> None:
    done = invoke("--help", "themachine")
    explained = "students nodes image port start end env onlycreate plan prune output"
    shared = "driver course only skip timeout format yes"
    assert all(f"--{flag}" in done.out for flag in f"{explained} {shared}".split())
    assert done.code == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("themachine --unknown", "--unknown"),
        ("themachine --driver local --students missing.csv", "missing.csv"),
        ("-f missing.yaml status", "missing.yaml"),
    ],
)
def test_a_wrong_request_ends_in_2_for_the_shell_too(invoke: Callable[..., Result], words: str, named: str) -> None:
    done = invoke(*words.split())
    assert done.code == 2
    assert named in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cloudscale: {driver: [", "is YAML"),
        ("cloudscale: {drivr: local}", "cloudscale.drivr"),
        ("cloudscale: {seat: {memry: 2G}}", "cloudscale.seat.memry"),
        ("cloudscale: {seat: {cpus: many}}", "cloudscale.seat.cpus"),
        ("cloudscale: {seat: 5}", "cloudscale.seat"),
        ("cloudscale: local", "cloudscale"),
        ("cloudscale: {driver: \x00}", ""),
        ("just words", ""),
        ("[1, 2]", ""),
    ],
)
def test_a_wrong_configuration_ends_in_2_and_names_the_key(
    invoke: Callable[..., Result], tmp_path: Path, text: str, named: str
) -> None:
    (tmp_path / "own.yaml").write_text(text)
    done = invoke("-f", "own.yaml", "status")
    assert done.code == 2
    assert named in done.err
    assert done.out == ""


@pytest.mark.parametrize("name", ["own.toml", "own.json", "folder.yaml"])
def test_a_configuration_that_can_not_be_read_ends_in_2(
    invoke: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    (tmp_path / "own.toml").write_text("[cloudscale]")
    (tmp_path / "own.json").write_text("{no json")
    (tmp_path / "folder.yaml").mkdir()
    assert invoke("-f", name, "status").code == 2


def test_an_empty_section_counts_as_not_given(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("cloudscale:\n  driver: local\n  openstack:\n  seat:\n")
    assert "No Docker Engine answers" in invoke("-f", "own.yaml", "status").err


def test_without_an_engine_the_end_is_1_with_the_remedy(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "students.csv").write_text("1;Ann;Lee\n")
    for task in ("themachine", "com_node ls", "driver_reset --yes"):
        done = invoke(*task.split(), "--driver", "local")
        assert done.code == 1
        assert "No Docker Engine answers" in done.err
        assert "machine_new local" in done.err
        assert done.out == ""


def test_a_run_that_made_nothing_leaves_nothing_behind(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "students.csv").write_text("1;Ann;Lee\n")
    invoke("themachine", "--driver", "local")
    assert [path.name for path in tmp_path.iterdir()] == ["students.csv"]


def test_debug_shows_where_it_happened(invoke: Callable[..., Result]) -> None:
    done = invoke("--debug", "status", "--driver", "local")
    assert "EngineError" in done.err


def test_large_libraries_are_not_imported_for_a_list(processes: None) -> None:
    program = "import sys, tasks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "cloudscale" in loaded
    assert not loaded & {"docker", "openstack", "paramiko", "pydantic", "requests", "rich", "tabulate"}


@pytest.mark.parametrize(
    "words", [["com_node", "true", "--driver", "generic"], ["remote_com", "--hosts", "127.0.0.1:9"]]
)
def test_a_command_on_hosts_loads_nothing_that_speaks_to_engines(
    invoke: Callable[..., Result], words: list[str]
) -> None:
    done = invoke(*words, PYTHONPROFILEIMPORTTIME="1", INVOKE_CLOUDSCALE_GENERIC_HOSTS="root@127.0.0.1:9")
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "nothing listens on port 9" in done.err
    assert "cloudscale.hosts.ssh" in loaded
    assert not loaded & {"docker", "requests", "tabulate", "cloudscale.cluster.state", "cloudscale.gateway.service"}


@pytest.mark.parametrize(("off", "compiled"), [("", True), ("1", False)])
def test_modules_are_compiled_once_although_invoke_would_not(
    invoke: Callable[..., Result], tmp_path: Path, off: str, compiled: bool
) -> None:
    invoke("--list", PYTHONDONTWRITEBYTECODE=off, PYTHONPYCACHEPREFIX=f"{tmp_path}/compiled")
    assert any(tmp_path.rglob("cloudscale/cli/invocation.*.pyc")) == compiled


@pytest.mark.parametrize("words", [["--list"], ["--help", "themachine"], ["remote_com", "--hosts", "127.0.0.1:9"]])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_that_has_ended_changes_nothing_but_the_output(
    processes: None, tmp_path: Path, words: list[str], buffered: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "--search-root", str(PROJECT), *words],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONUNBUFFERED": buffered},
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == (1 if "remote_com" in words else 0)
    assert "Broken" not in done.stderr and "Traceback" not in done.stderr
    assert ("port 9" in done.stderr) == ("remote_com" in words)


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [("own.json", "{no json", "JSON"), ("own.py", "import sys; sys.exit(3)", "Python"), ("own.yml", "a: [", "YAML")],
)
def test_a_configuration_that_can_not_be_read_is_named_with_its_form(
    invoke: Callable[..., Result], tmp_path: Path, name: str, text: str, form: str
) -> None:
    (tmp_path / name).write_text(text)
    done = invoke("-f", name, "status")
    assert done.code == 2
    assert f"{name} can't be read" in done.err and form in done.err


def test_a_key_that_is_given_twice_is_refused(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_text("cloudscale:\n  driver: local\n  driver: openstack\n")
    done = invoke("-f", "own.yml", "status")
    assert (done.code, done.out) == (2, "")
    assert "Error: own.yml, line 3: the key driver is on line 2 already." in done.err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_can_not_be_written_is_reported_as_such(
    processes: None, tmp_path: Path, unbuffered: str
) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "invoke", "--search-root", str(PROJECT), "--list"],
            env={**os.environ, "HOME": str(tmp_path), "PYTHONUNBUFFERED": unbuffered},
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("output can't be written (No space left on device)") == 1


def test_a_tasks_error_is_reported_as_such_where_the_configuration_names_no_executor(
    processes: None, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text((PROJECT / "tasks.py").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "status", "--driver", "local"],
        cwd=tmp_path,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "PYTHONPATH": str(PROJECT),
            "DOCKER_HOST": f"unix://{tmp_path}/docker.sock",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: No Docker Engine answers")
