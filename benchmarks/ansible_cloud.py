"""Two VMs of a real cloud, from nothing to one swarm with an image on each, against an Ansible playbook that does it.

The playbook, `ansible_cloud.yml`, has the modules of the collections openstack.cloud and community.docker. It makes no
checks, no certificates and no marks. It has what makes Ansible fast: one process for each server, SSH connections that
stay open, pipelining, and no facts gathered. What else is said of `cloud` holds here, too; Ansible is installed into
a folder of the benchmark's own (some hundred megabytes, kept in CLOUDSCALE_TESTS_CACHE).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
import venv
from pathlib import Path

from benchmarks import paired, summary
from benchmarks.cloud import IMAGE, Bench, lab_cloud, unmake
from tests.lab.cloud import LabCloud
from tests.lab.namespace import outside
from tests.lab.stock import kept

PLAYBOOK = Path(__file__).with_suffix(".yml")
# the collection openstack.cloud of this release fails with a later openstacksdk (4.22)
ANSIBLE, SDK, DOCKER = "ansible==12.3.0", "openstacksdk==4.7.1", "docker==7.2.0"
NAME = "playbook"  # of the security group and the key
MACHINES = ("playbook-1", "playbook-2")
GOAL = 1.0
SETTINGS = {
    "ANSIBLE_FORKS": "10",
    "ANSIBLE_HOST_KEY_CHECKING": "false",
    "ANSIBLE_PIPELINING": "true",
    "ANSIBLE_NOCOLOR": "true",
    "ANSIBLE_LOCALHOST_WARNING": "false",
    "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
}


class Playbook:
    def __init__(self, folder: Path, cloud: LabCloud) -> None:
        self._folder = folder
        self._cloud = cloud
        self._peer = kept(f"{ANSIBLE}-{SDK}", folder / "ansible", [], install)
        self._runs = 0
        self.tasks = ""
        (folder / "inventory").write_text("[machines]\n" + "".join(f"{name}\n" for name in MACHINES))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "playbook-key")], check=True)
        with (folder / "image.tar").open("wb") as archive:
            subprocess.run(["docker", "save", IMAGE], stdout=archive, check=True)

    def __call__(self) -> float:
        self._runs += 1
        values = {
            "own": NAME,
            "key": str(self._folder / "playbook-key"),
            "archive": str(self._folder / "image.tar"),
            "library": str(next(self._peer.glob("docker-*.whl"))),
            "ansible_ssh_private_key_file": str(self._folder / "playbook-key"),
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null",
        }
        python = str(self._peer / "venv/bin/python")  # the programs beside it name a folder that has been renamed
        command = [python, "-m", "ansible", "playbook", "-i", str(self._folder / "inventory"), str(PLAYBOOK)]
        start = time.perf_counter()
        done = subprocess.run(
            self._cloud.namespace.wrap(*command, "-e", json.dumps(values)),
            cwd=self._folder,
            env={
                **os.environ,
                **SETTINGS,
                "HOME": str(self._folder / f"home{self._runs}"),  # no connection of the last round
                "OS_CLIENT_CONFIG_FILE": str(self._cloud.clouds_yaml),
                "OS_CLOUD": "course",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        taken = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stdout[-5000:] + done.stderr[-2000:])
        self.tasks = done.stdout.partition("PLAY RECAP")[2]
        self._unmake()
        return taken

    def _unmake(self) -> None:
        with self._cloud.namespace.entered():
            client = self._cloud.connect("course")
            unmake(client, MACHINES, NAME)
            client.compute.delete_keypair(NAME)


def install(folder: Path) -> None:
    with outside():
        venv.create(folder / "venv", with_pip=True)
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", ANSIBLE, SDK], check=True, capture_output=True)
        wheel = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", f"--dest={folder}", DOCKER]
        subprocess.run(wheel, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    with lab_cloud() as (folder, cloud):
        bench, playbook = Bench(folder, cloud), Playbook(folder, cloud)
        ours, theirs = paired(bench.ours, playbook, chosen.rounds)
    print(summary("two VMs to a joined swarm", ours, theirs, GOAL, other="Ansible"))
    for line in bench.phases:
        print(f"  {line}")
    print(playbook.tasks)


if __name__ == "__main__":
    main()
