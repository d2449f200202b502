"""`com_node true` on many SSH hosts, against a bare paramiko loop, pssh, clush and ansible, in turns in one run.

One sshd on as many loopback addresses, in a network namespace (root). Each is a whole command, start of
the interpreter included. Debian's packages have the peers: pssh, clustershell, ansible-core.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cpu_seconds, environment
from tests.lab.namespace import Namespace
from tests.lab.sshd import LabSshd

PROJECT = Path(__file__).parents[1]
PORT = 22
GOAL = 1.1
WIDTH = "16"  # hosts at once, as ours; the bare loop is best with 8

BARE = """
import sys
from concurrent.futures import ThreadPoolExecutor
import paramiko

key, *hosts = sys.argv[1:]

def run(host):
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(host, username="root", key_filename=key, allow_agent=False, look_for_keys=False)
    _, out, _ = client.exec_command("true")
    code = out.channel.recv_exit_status()
    client.close()
    return code

with ThreadPoolExecutor(8) as pool:
    assert not any(pool.map(run, hosts))
"""


def contestants(folder: Path, sshd: LabSshd, hosts: Sequence[str]) -> dict[str, list[str]]:
    """The command lines, those of peers that are not installed left out. All but the bare loop check the host's key."""
    known_hosts = folder / "known_hosts"
    host_key = (sshd.folder / "host_key.pub").read_text().split(maxsplit=1)[1]
    known_hosts.write_text("".join(f"{host} ssh-ed25519 {host_key}" for host in hosts))
    course = folder / "home" / "course" / "generic"
    course.mkdir(parents=True, mode=0o700)
    shutil.copy(known_hosts, course)
    configuration = folder / "cloudscale.yaml"
    configuration.write_text(f"cloudscale: {{generic: {{hosts: [{', '.join(hosts)}], kfile: {sshd.key}}}}}\n")
    options = f"-i {sshd.key} -o UserKnownHostsFile={known_hosts} -o BatchMode=yes -o IdentitiesOnly=yes"
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    (folder / "bare.py").write_text(BARE)
    peers = {
        "pssh": ["parallel-ssh", "-h", f"{folder}/hosts", "-l", "root", "-p", WIDTH, "-x", options, "true"],
        "clush": ["clush", "-l", "root", "-f", WIDTH, "-w", ",".join(hosts), "-o", options, "true"],
        "ansible": ["ansible", "all", "-i", f"{folder}/hosts", "-u", "root", "-f", WIDTH, "-m", "raw", "-a", "true",
                    f"--ssh-common-args={options}"],
    }  # fmt: skip
    return {
        "cloudscale": [
            sys.executable,
            "-m",
            "invoke",
            "-f",
            str(configuration),
            "com_node",
            "true",
            "--driver",
            "generic",
        ],
        "bare paramiko": [sys.executable, f"{folder}/bare.py", str(sshd.key), *hosts],
        **{name: command for name, command in peers.items() if shutil.which(command[0])},
    }


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of CPU time, without the SSH server's."""

    wall: float
    cpu: float


def cost(command: Sequence[str], folder: Path) -> Cost:
    start, before = time.perf_counter(), cpu_seconds()
    done = subprocess.run(
        command,
        cwd=PROJECT,
        # ansible would keep its connections for the next round
        env={
            **environment(folder / "compiled"),
            "CLOUDSCALE_HOME": str(folder / "home"),
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr[-2000:]}{done.stdout[-500:]}")
    return Cost(time.perf_counter() - start, cpu_seconds() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    hosts = [f"127.0.1.{number}" for number in range(1, chosen.hosts + 1)]
    namespace = Namespace("benchmark")
    with tempfile.TemporaryDirectory() as place, namespace.entered():
        folder = Path(place)
        folder.chmod(0o755)
        sshd = LabSshd(folder / "sshd", PORT, address="0.0.0.0")
        try:
            commands = contestants(folder, sshd, hosts)
            costs: dict[str, list[Cost]] = {name: [] for name in commands}
            for at in range(chosen.rounds + 1):
                order = list(commands)[:: -1 if at % 2 else 1]
                for name in order:
                    taken = cost(commands[name], folder)
                    if at:  # the first round warms up
                        costs[name].append(taken)
        finally:
            sshd.stop()
            namespace.remove()
    print(f"com_node true on {len(hosts)} hosts, median of {chosen.rounds} rounds (goal: {GOAL} of the bare loop)")
    for name, results in costs.items():
        ratios = [mine.wall / bare.wall for mine, bare in zip(results, costs["bare paramiko"], strict=True)]
        print(
            f"  {name:14} {statistics.median(each.wall for each in results):6.2f} s"
            f"   ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            f"   CPU {statistics.median(each.cpu for each in results):5.2f} s"
        )


if __name__ == "__main__":
    main()
