"""The cloud's services: what their databases need before the first start, and how each is started."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cloud_config import (
    ADMIN_PASSWORD,
    BROKER_PORT,
    DATABASE_PORT,
    DATABASES,
    PORTS,
    REGION,
    URLS,
    configuration,
    database,
)
from tests.lab.enclosure import STARTING, Enclosure
from tests.lab.stock import GATEWAY, REPOSITORY_PORT

# a server of one process keeps no connection open: the next one may be another's
UWSGI = ("uwsgi", "--plugin", "python3", "--lazy-apps", "--need-app", "--buffer-size", "65535", "--threads", "4",
         "--add-header", "Connection: close")  # fmt: skip


# To libvirt the enclosure's control groups are the roots of all, else it looks for those of a container in vain. What
# starts a container is wrapped: see cloud_config.CONTAINER.
LIBVIRT = """for group in /sys/fs/cgroup/*; do echo 0 >"$group/cgroup.procs"; done
program=/usr/lib/libvirt/libvirt_lxc
[ -e "$1/program" ] || cp $program "$1/program"
chmod +x "$1/container"
mount --bind "$1/container" $program
exec unshare --cgroup libvirtd
"""


@dataclass(frozen=True)
class Service:
    """One program. It is up when something listens on its port."""

    command: tuple[str, ...]
    port: int = 0
    user: str = ""


def services(folder: Path) -> dict[str, Service]:
    etc = folder / "etc"
    keystone, glance, nova, neutron = (
        f"--config-file={etc}/{name}.conf" for name in ("keystone", "glance-api", "nova", "neutron")
    )
    ml2, dhcp, l3, metadata = (f"--config-file={etc}/{name}.ini" for name in ("ml2", "dhcp", "l3", "metadata"))
    rabbit = folder / "rabbit"
    return {
        # it refuses every name at once, so that nobody waits for an answer
        "dns": Service(("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--no-resolv",
                        "--no-hosts", f"--listen-address={GATEWAY}", "--bind-interfaces", "--address=/#/")),
        # durability is for those who start again
        "mysql": Service(("mariadbd", "--no-defaults", "--user=mysql", f"--datadir={folder}/mysql",
                          f"--socket={_socket(folder)}", f"--port={DATABASE_PORT}", "--bind-address=127.0.0.1",
                          "--max-connections=500", "--innodb-flush-log-at-trx-commit=0",
                          "--innodb-flush-method=nosync", "--skip-innodb-doublewrite"), DATABASE_PORT),
        "rabbit": Service(("env", f"HOME={rabbit}", "RABBITMQ_NODENAME=lab@localhost",
                           f"RABBITMQ_MNESIA_BASE={rabbit}", f"RABBITMQ_LOG_BASE={rabbit}",
                           "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "rabbitmq-server"), BROKER_PORT, "rabbitmq"),
        "keystone": Service((*UWSGI, "--http-socket", f"127.0.0.1:{PORTS['identity']}", "--processes", "2",
                             "--wsgi-file", "/usr/bin/keystone-wsgi-public", "--pyargv", keystone), PORTS["identity"]),
        "placement": Service(("env", f"OS_PLACEMENT_CONFIG_DIR={etc}", *UWSGI, "--http-socket",
                              f"127.0.0.1:{PORTS['placement']}", "--wsgi-file", "/usr/bin/placement-api"),
                             PORTS["placement"]),
        "glance": Service(("glance-api", glance), PORTS["image"]),
        "nova-api": Service(("nova-api", nova), PORTS["compute"]),
        "nova-conductor": Service(("nova-conductor", nova)),
        "nova-scheduler": Service(("nova-scheduler", nova)),
        "libvirt": Service(("sh", "-ec", LIBVIRT, "start", f"{folder}/libvirt")),
        "nova-compute": Service(("nova-compute", nova)),
        "neutron": Service(("neutron-server", neutron, ml2), PORTS["network"]),
        "linuxbridge-agent": Service(("neutron-linuxbridge-agent", neutron, ml2)),
        "dhcp-agent": Service(("neutron-dhcp-agent", neutron, dhcp)),
        "l3-agent": Service(("neutron-l3-agent", neutron, l3)),
        "metadata-agent": Service(("neutron-metadata-agent", neutron, metadata)),
    }  # fmt: skip


class CloudServices:
    """All of them, in an enclosure. Each starts as soon as its own database is there."""

    def __init__(self, enclosure: Enclosure) -> None:
        self._enclosure = enclosure
        self._folder = enclosure.folder
        self._services = services(enclosure.folder)

    def serve(self, repository: Path) -> None:
        """The apt repository that the VMs reach."""
        self._enclosure.start("apt", "/usr/bin/python3", "-m", "http.server", "--directory", str(repository),
                              "--bind", GATEWAY, str(REPOSITORY_PORT))  # fmt: skip

    def start(self, name: str) -> None:
        service = self._services[name]
        self._enclosure.start(name, *service.command, user=service.user, port=service.port)

    def stop(self, name: str) -> None:
        self._enclosure.stop(name)

    def start_all(self, catalogue: Callable[[], None]) -> None:
        """`catalogue` makes the services known to each other, as soon as there is where to write that."""
        for name in ("etc", "lock", "nova/instances", "neutron", "mysql", "rabbit"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        for name, text in configuration(self._folder).items():
            (self._folder / name).write_text(text)
        self.start("dns")
        with ThreadPoolExecutor() as pool:
            rabbit = pool.submit(self._broker)
            self._databases()
            parts = [pool.submit(self._identity, catalogue)]
            rabbit.result()
            parts += [pool.submit(part) for part in (self._compute, self._network, self._image, self._placement)]
            for part in parts:
                part.result()

    def _run(self, log: str, *command: str) -> None:
        said = self._enclosure.run(*command)
        with (self._folder / "log" / log).open("a") as file:
            file.write(said)

    def _broker(self) -> None:
        self._enclosure.run("chown", "rabbitmq:", str(self._folder / "rabbit"))
        self.start("rabbit")

    def _databases(self) -> None:
        data = self._folder / "mysql"
        self._enclosure.run("chown", "mysql:", str(data))
        self._run("mysql-install", "mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}",
                  "--auth-root-authentication-method=normal", "--skip-test-db")  # fmt: skip
        self.start("mysql")
        statements = ["create user 'os'@'%' identified by 'os'", "grant all on *.* to 'os'@'%'"]
        statements += [f"create database {name}" for name in DATABASES]
        self._enclosure.run("mariadb", "--no-defaults", f"--socket={_socket(self._folder)}", "-e", ";".join(statements))

    def _identity(self, catalogue: Callable[[], None]) -> None:
        for name in ("tokens", "credentials"):
            folder = self._folder / "keystone" / name
            folder.mkdir(parents=True)
            for number in "01":  # one to come, and one that is used
                (folder / number).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
        manage = ("keystone-manage", f"--config-file={self._folder}/etc/keystone.conf")
        self._run("keystone", *manage, "db_sync")
        urls = [f"--bootstrap-{interface}-url={URLS['identity']}" for interface in ("public", "internal", "admin")]
        self._run("keystone", *manage, "bootstrap", f"--bootstrap-password={ADMIN_PASSWORD}",
                  f"--bootstrap-region-id={REGION}", *urls)  # fmt: skip
        self.start("keystone")
        catalogue()

    def _image(self) -> None:
        self._run("glance", "glance-manage", f"--config-file={self._folder}/etc/glance-api.conf", "db_sync")
        self.start("glance")

    def _placement(self) -> None:
        self._run("placement", "placement-manage", f"--config-file={self._folder}/etc/placement.conf", "db", "sync")
        self.start("placement")

    def _compute(self) -> None:
        self.start("libvirt")
        manage = ("nova-manage", f"--config-file={self._folder}/etc/nova.conf")
        self._run("nova-manage", *manage, "api_db", "sync")
        self._run("nova-manage", *manage, "cell_v2", "map_cell0", "--database_connection", database("nova_cell0"))
        self._run("nova-manage", *manage, "cell_v2", "create_cell", "--name=cell1")
        self._run("nova-manage", *manage, "db", "sync")
        for name in ("nova-conductor", "nova-scheduler", "nova-compute", "nova-api"):
            self.start(name)

    def _network(self) -> None:
        etc = self._folder / "etc"
        self._run("neutron", "neutron-db-manage", f"--config-file={etc}/neutron.conf", f"--config-file={etc}/ml2.ini",
                  "upgrade", "heads")  # fmt: skip
        for name in ("neutron", "linuxbridge-agent", "dhcp-agent", "l3-agent", "metadata-agent"):
            self.start(name)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = STARTING) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"In vain waited {seconds:.0f} s for {what}.")
        time.sleep(0.5)


def _socket(folder: Path) -> Path:
    return folder / "mysql" / "socket"
