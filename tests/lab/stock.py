"""The root file system of a stock Debian server, and apt repositories with the Docker that it lacks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.lab.engine import clear
from tests.lab.namespace import outside, run

PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "openssh-server", "sudo", "cloud-init", "python3", "ca-certificates", "procps"),
    *("ifupdown", "iproute2", "netbase", "iptables", "kmod", "apparmor"),
)
# what the tool installs; the command line is a package of its own since Debian 13
LATER = "docker.io $(apt-cache pkgnames docker-cli | grep -x docker-cli || true)"
GATEWAY = "192.0.2.1"  # where the hosts find the repository and a name server
REPOSITORY_PORT = 8000
PASSWORD = "pass word's"
CACHE = "CLOUDSCALE_TESTS_CACHE"  # names a folder that keeps the stock between runs
BUILDING = 900  # seconds

# it dies with this process, and all its processes with it, so that nobody writes here any more in the next run
ALONE = ("setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--mount-proc", "--fork", "--kill-child")

# with an empty status file apt finds nothing installed, and so fetches all that is needed, down to libc
FETCH = f"""chroot "$1" sh -ec 'mkdir -p /repository/partial; : >/repository/status
apt-get install -qq -y --no-install-recommends --download-only -o Dir::State::status=/repository/status \
-o Dir::Cache::archives=/repository -o APT::Sandbox::User=root {LATER}
rm -r /repository/partial /repository/status /repository/lock'"""

# The engine of the release after Debian 13: all that it needs is in Debian 13. By this machine's clock the release
# files of a moving release may have expired.
NEWER = "forky"
NEWER_PACKAGES = "docker.io docker-cli containerd runc tini-static"
FETCH_NEWER = f"""chroot "$1" sh -ec 'cd /etc/apt
echo "deb http://deb.debian.org/debian {NEWER} main" >sources.list.d/newer.list
printf "Package: %s\nPin: release n={NEWER}\nPin-Priority: %s\n\n" "{NEWER_PACKAGES}" 990 "*" 1 >preferences.d/newer
apt-get -qq -o Acquire::Check-Valid-Until=false update'
{FETCH}
mv "$1/repository" "$1/newer"
rm "$1/etc/apt/sources.list.d/newer.list" "$1/etc/apt/preferences.d/newer" "$1"/var/lib/apt/lists/*_{NEWER}_*"""

# xz takes an emulated machine half a minute to unpack
REPACK = """for package in "$1"/docker.io_*.deb "$1"/docker-cli_*.deb "$1"/containerd_*.deb "$1"/runc_*.deb; do
  [ -e "$package" ] || continue
  dpkg-deb --raw-extract "$package" "$1/unpacked"
  dpkg-deb --root-owner-group -Zzstd -z3 --build "$1/unpacked" "$package"
  rm -r "$1/unpacked"
done"""

# nspawn mounts the cgroup v1 controllers read-only; an engine inside needs them writable
CGROUP_UNIT = """[Unit]
DefaultDependencies=no
Before=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c "mount -o remount,rw /sys/fs/cgroup; \
for c in cpu cpuacct cpuset memory devices freezer blkio pids; \
do umount /sys/fs/cgroup/$$c && mount -t cgroup -o $$c cgroup /sys/fs/cgroup/$$c; done; true"
[Install]
WantedBy=basic.target
"""

FILES = {
    "etc/apt/sources.list": f"deb [trusted=yes] http://{GATEWAY}:{REPOSITORY_PORT} ./\n",
    "etc/cloud/cloud-init.disabled": "",
    "etc/fstab": "",
    "etc/machine-id": "",  # each host makes its own
    "etc/resolv.conf": f"nameserver {GATEWAY}\n",
    "etc/sudoers.d/debian": "debian ALL=(ALL) NOPASSWD:ALL\n",
    "etc/systemd/system/cgroup-rw.service": CGROUP_UNIT,
}


@dataclass(frozen=True)
class Stock:
    """A folder with the root file system, whose users are root, debian and trainer, and the repositories."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def newer(self) -> Path:
        """A repository with the engine of a later release."""
        return self.folder / "newer"


def stock_root(folder: Path, suite: str, *, newer: bool = False) -> Stock:
    """A release's stock, on request with the repository `newer`.

    It lies in a folder of its own, or, where the environment names a cache, in that: built there once.
    """
    name = f"stock-{suite}{'-newer' if newer else ''}"
    return Stock(kept(name, folder, [Path(__file__)], lambda unfinished: _build(Stock(unfinished), suite, newer)))


def kept(name: str, folder: Path, recipes: Sequence[Path], build: Callable[[Path], None]) -> Path:
    """A folder that `build` fills. Where the environment names a cache, it is kept there until a recipe changes.

    Rings that run side by side with one cache build it once.
    """
    if not (cache := os.environ.get(CACHE)):
        return _built(folder, build)
    recipe = hashlib.sha256(b"".join(path.read_bytes() for path in recipes)).hexdigest()
    folder = Path(cache) / f"{name}-{recipe[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock"), timeout=BUILDING):
        return folder if folder.exists() else _built(folder, build)


def _built(folder: Path, build: Callable[[Path], None]) -> Path:
    unfinished = folder.with_name(f"{folder.name}.new")
    for path in (unfinished, folder):
        clear(path)
    unfinished.mkdir(parents=True)
    build(unfinished)
    unfinished.rename(folder)
    return folder


def debootstrap(root: Path, suite: str, packages: Sequence[str], *options: str) -> None:
    """A release of Debian with these packages, and beside it, in `repository`, all that docker.io needs."""
    with outside():
        run(*ALONE, "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", *options,
            f"--customize-hook={FETCH}", suite, str(root), timeout=BUILDING)  # fmt: skip
    for repository in filter(Path.exists, (root / "repository", root / "newer")):
        _index(repository, root.with_name(repository.name))
    for left in (*root.glob("etc/ssh/ssh_host_*"), *root.glob("etc/apt/sources.list.d/*"), root / "etc/resolv.conf"):
        left.unlink(missing_ok=True)


def _index(fetched: Path, repository: Path) -> None:
    """Makes a repository of packages that lie in a root file system."""
    run("mv", str(fetched), str(repository))
    run("sh", "-ec", REPACK, "repack", str(repository))
    for index in ("packages", "release"):
        made = run("env", f"--chdir={repository}", "apt-ftparchive", index, ".")
        (repository / index.capitalize()).write_text(made)


def _build(stock: Stock, suite: str, newer: bool) -> None:
    root = stock.root
    debootstrap(root, suite, PACKAGES, *([f"--customize-hook={FETCH_NEWER}"] if newer else []))
    for name, text in FILES.items():
        (root / name).write_text(text)
    run("chroot", str(root), "systemctl", "--quiet", "enable", "cgroup-rw.service")
    hashed = run("openssl", "passwd", "-6", PASSWORD).strip()
    run("chroot", str(root), "useradd", "--create-home", "--shell=/bin/bash", "debian")
    run("chroot", str(root), "useradd", "--create-home", "--shell=/bin/bash", "--groups=sudo", f"--password={hashed}",
        "trainer")  # fmt: skip
