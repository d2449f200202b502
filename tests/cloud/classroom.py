"""A trainer with a cloud: the tool, the project as it is without the tool, and runs that are cut off."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openstack.connection import Connection

from tests.lab.cloud import LabCloud
from tests.lab.cloud_seed import STOCK
from tests.lab.engine import LabEngine
from tests.lab.tool import PROJECT, Result, Tool

PATIENCE = 1500  # seconds for a run of the tool, or for a moment in it to come: machines may be emulated


def cloud_tool(
    cloud: LabCloud, engine: LabEngine | None, home: Path, clouds_yaml: Path, settings: Mapping[str, str]
) -> Tool:
    """`invoke …` inside the cloud's network, as a trainer of the project course."""
    openstack = {"CLOUD": "course", "IMAGE": STOCK, "FLAVOR": "m1.small", **settings}
    environment = {
        "INVOKE_CLOUDSCALE_DRIVER": "openstack",
        "OS_CLIENT_CONFIG_FILE": str(clouds_yaml),
        "HOME": str(home),  # no keys and known hosts of the machine's user
        **{f"INVOKE_CLOUDSCALE_OPENSTACK_{key}": value for key, value in openstack.items()},
    }
    tool = Tool(engine, home, environment, cloud.namespace)
    tool.timeout = PATIENCE
    return tool


class Trainer:
    """One course on the cloud. `flags` go with each launch."""

    def __init__(self, tool: Tool, cloud: LabCloud, folder: Path, course: str, *flags: str) -> None:
        self.tool = tool
        self.cloud = cloud
        self.course = course
        self.mark = f"cloudscale:{course}"
        self.roster = folder / f"{course}.csv"
        self._flags = ("--course", course)
        self.launch_flags = ("--students", str(self.roster), *flags)

    def write(self, *lines: str) -> None:
        self.roster.write_text("\n".join(lines) + "\n")

    def do(self, task: str, *words: str) -> Result:
        return self.tool(task, *words, *self._flags)

    def launch(self, *flags: str, code: int = 0) -> Result:
        result = self.do("themachine", *self.launch_flags, "--format", "json", *flags)
        assert result.code == code, result.err
        return result

    def cut_off(self, when: Callable[[str], object], what: str) -> None:
        """Launches, and kills the tool in the moment that `when`, given what it has said so far, is true."""
        with tempfile.TemporaryFile("w+") as said:
            running = subprocess.Popen(
                self.tool.command("themachine", *self.launch_flags, *self._flags),
                cwd=PROJECT,
                env=self.tool.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
            deadline = time.monotonic() + PATIENCE
            while True:
                said.seek(0)
                text = said.read()
                if when(text):
                    break
                assert running.poll() is None, f"it ended before {what}: {text}"
                assert time.monotonic() < deadline, f"{what} does not come: {text}"
                time.sleep(0.1)
            running.send_signal(signal.SIGKILL)
            running.wait()

    def reset(self, *flags: str, code: int = 0) -> Result:
        result = self.do("driver_reset", "--yes", *flags)
        assert result.code == code, result.err
        return result


class Project:
    """What a project has, asked past the tool."""

    def __init__(self, cloud: LabCloud, name: str = "course") -> None:
        self._cloud = cloud
        self._name = name

    def look(self) -> dict[str, dict[str, Any]]:
        """Kind → id → the thing itself, of all kinds that a course has something of."""
        with self._cloud.namespace.entered():
            client = self.client()
            network, compute = client.network, client.compute
            own = {"project_id": client.current_project_id}
            found = {
                "servers": compute.servers(details=True),
                "server groups": compute.server_groups(),
                "key pairs": compute.keypairs(),
                "ports": [port for port in network.ports(**own) if not port.device_owner.startswith("network:")],
                "floating IPs": network.ips(**own),
                "security groups": network.security_groups(**own),
            }
            return {kind: {str(thing.id): thing for thing in things} for kind, things in found.items()}

    def client(self) -> Connection:
        return self._cloud.connect(self._name)

    def marked(self, mark: str) -> dict[str, list[Any]]:
        """Kind → what carries a mark, as the contract has it: by tag, or by name where there are no tags."""
        found = {
            kind: [
                thing for thing in things.values() if thing.name == mark or mark in (getattr(thing, "tags", None) or ())
            ]
            for kind, things in self.look().items()
        }
        return {kind: sorted(things, key=lambda thing: str(thing.name)) for kind, things in found.items() if things}
