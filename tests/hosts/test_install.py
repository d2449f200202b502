"""machine_new and machine_rm on a fresh machine, which has no engine and no service manager."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.conftest import STATE
from tests.lab.machine import FreshMachine
from tests.lab.namespace import Namespace
from tests.lab.tool import PROJECT

INVOKE = ("python3", "-m", "invoke")


@pytest.fixture(scope="module")
def machine(namespace: Namespace) -> Iterator[FreshMachine]:
    made = FreshMachine(STATE / "machine", Namespace("hosts-machine"), PROJECT)
    yield made
    made.remove()


def packages(machine: FreshMachine) -> set[str]:
    return set(machine("dpkg-query", "--show", "--showformat=${Package}\\n").stdout.split())


def test_an_engine_is_installed_used_and_taken_away_again(machine: FreshMachine) -> None:
    before = packages(machine)
    absent = machine(*INVOKE, "status", "--driver", "local")
    assert absent.returncode == 1 and "machine_new local" in absent.stderr
    not_ours = machine(*INVOKE, "machine_rm", "local", "--driver", "local", "--yes")
    assert not_ours.returncode == 2 and "not installed by machine_new" in not_ours.stderr

    made = machine(*INVOKE, "machine_new", "local", "--driver", "local")
    assert made.returncode == 0 and "installed and started" in made.stdout, made.stderr
    assert machine("docker", "run", "--help").returncode == 0 and "docker.io" in packages(machine)
    status = machine(*INVOKE, "status", "--driver", "local")
    assert status.returncode == 0 and "in no swarm" in status.stdout, status.stderr
    again = machine(*INVOKE, "machine_new", "local", "--driver", "local")
    assert again.returncode == 0 and "already" in again.stdout

    assert machine(*INVOKE, "machine_rm", "local", "--driver", "local").returncode == 2, (
        "there is no terminal to ask on"
    )
    gone = machine(*INVOKE, "machine_rm", "local", "--driver", "local", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert packages(machine) == before
    assert not any((machine.root / path).exists() for path in ("var/lib/docker", "etc/docker", "var/lib/cloudscale"))
    assert machine("pgrep", "dockerd").returncode != 0 or not (machine.root / "run/docker.pid").exists()
