"""Disk images for the lab's cloud: stock Debian, and Debian with a Docker that somebody has started before.

The kernel and the initial RAM disk are images of their own, so that a disk needs neither partitions nor a boot loader.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.lab import stock
from tests.lab.namespace import run
from tests.lab.stock import ALONE, BUILDING, GATEWAY, LATER, REPOSITORY_PORT, debootstrap, kept

SUITE = "trixie"
PACKAGES = (
    *(package for package in stock.PACKAGES if package != "ifupdown"),
    *("linux-image-cloud-amd64", "cloud-guest-utils", "netplan.io", "systemd-resolved", "curl", "xfsprogs"),
)
DISK = "2500M"  # it grows in a VM to what the flavor gives
# on the last console cloud-init prints the host keys; what else is written there, an emulated machine writes slowly
COMMAND_LINE = "root=/dev/vda console=tty0 console=ttyS0,115200 quiet audit=0 mitigations=off"

# only what finds the root file system: the whole of it takes an emulated machine seconds to unpack
INITRAMFS_HOOK = """#!/bin/sh
[ "$1" = prereqs ] && exit
. /usr/share/initramfs-tools/hook-functions
force_load virtio_pci
force_load virtio_blk
force_load ext4
"""
INITRAMFS = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"; '
    'echo MODULES=list >"$1/etc/initramfs-tools/conf.d/lab"; '
    f"printf %s '{INITRAMFS_HOOK}' >\"$1/etc/initramfs-tools/hooks/lab\"; "
    'chmod +x "$1/etc/initramfs-tools/hooks/lab"'
)

# a clone's first boot takes half a minute in software: what no test looks at is left out
CLOUD_INIT = """manage_etc_hosts: true
locale: false
ssh_genkeytypes: [ecdsa, ed25519]
grub_dpkg: {enabled: false}
"""
UNUSED = ("etc/apparmor.d/*", "etc/systemd/system/default.target.wants/e2scrub_reap.service")

FILES = {
    "etc/apt/sources.list": f"deb [trusted=yes] http://{GATEWAY}:{REPOSITORY_PORT} ./\n",
    "etc/cloud/cloud.cfg.d/90_datasource.cfg": "datasource_list: [ConfigDrive, OpenStack, None]\n",
    "etc/cloud/cloud.cfg.d/91_lab.cfg": CLOUD_INIT,
    "etc/fstab": "/dev/vda / ext4 defaults,errors=remount-ro 0 0\n",
    "etc/machine-id": "",  # each VM makes its own
    "etc/modprobe.d/no-nested-kvm.conf": "blacklist kvm_amd\n",  # it crashes where the processor is emulated
}

INIT = "usr/sbin/lab-init"
# The first program. In a container of libvirt's it makes what a machine has to itself. Its control groups are below
# libvirt's only where libvirt looks for the processes that it ends (cpu). It gets just the hierarchies that the machine
# has: systemd would make more, and with those other engines here find no statistics of their containers.
START = """#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
hierarchies=$(cut -d: -f2 /proc/self/cgroup)
if [ "$container" = lxc-libvirt ] && [ "$1" != again ]; then
  for hierarchy in $hierarchies; do
    case ,$hierarchy, in *,cpu,*) continue ;; esac
    mount -t cgroup -o "$hierarchy" cgroup /mnt
    group=/mnt/$LIBVIRT_LXC_NAME
    mkdir "$group"
    for limit in cpuset.cpus cpuset.mems; do
      [ ! -e "/mnt/$limit" ] || cat "/mnt/$limit" >"$group/$limit"
    done
    echo 1 >"$group/cgroup.procs"
    umount /mnt
  done
  exec unshare --cgroup "$0" again
fi
if [ "$1" = again ]; then
  awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts | xargs umount
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  for hierarchy in $hierarchies; do
    place=/sys/fs/cgroup/${hierarchy#name=}
    mkdir "$place"
    mount -t cgroup -o "$hierarchy" cgroup "$place"
  done
  mount -o remount,ro /sys/fs/cgroup
  mount -o remount,rw,bind /proc/sys
  # a swarm's log is written often, and durability is for those who stay. (In a VM the disk would break at a power cut.)
  mount -o remount,barrier=0 /
  # netplan looks for a card by the address that it was made with, which a virtual one has not
  echo 'system_info: {network: {renderers: [networkd]}}' >/etc/cloud/cloud.cfg.d/92_card.cfg
  SYSTEMD_OFFLINE=1 systemctl --quiet enable systemd-networkd
  mkdir -p /etc/systemd/network/10-cloud-init-eth0.network.d
  printf '[DHCPv4]\nUseMTU=true\n' >/etc/systemd/network/10-cloud-init-eth0.network.d/mtu.conf
fi
exec /lib/systemd/systemd
"""

INSTALL = f"""mkdir "$1/repository" && mount --bind "$2" "$1/repository" && mount -t proc proc "$1/proc"
mv "$1/etc/apt/sources.list" "$1/etc/apt/sources.list.kept"
echo 'deb [trusted=yes] file:/repository ./' >"$1/etc/apt/sources.list"
printf '#!/bin/sh\\nexit 101\\n' >"$1/usr/sbin/policy-rc.d" && chmod +x "$1/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive
chroot "$1" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends {LATER} && apt-get clean'
rm -r "$1/usr/sbin/policy-rc.d" "$1"/var/lib/apt/lists/*
mv "$1/etc/apt/sources.list.kept" "$1/etc/apt/sources.list"
umount "$1/proc" "$1/repository" && rmdir "$1/repository"
"""

ENGINE_KEY = "etc/docker/key.json"  # what an engine is known by
SWARM_MARK = "var/lib/docker/swarm/cloned"  # of a swarm that the image's maker was in


@dataclass(frozen=True)
class VmImages:
    """A folder with two disks, what boots them, and the repository with the Docker that the stock one lacks."""

    folder: Path

    @property
    def stock(self) -> Path:
        return self.folder / "stock.qcow2"

    @property
    def docker(self) -> Path:
        return self.folder / "docker.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def ramdisk(self) -> Path:
        return self.folder / "ramdisk"

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def engine_key(self) -> Path:
        """The identity of the engine that the docker image was cloned with."""
        return self.folder / "key.json"


def vm_images(folder: Path) -> VmImages:
    """The images in a folder of their own, or, where the environment names a cache, in that."""
    return VmImages(kept("vm", folder, [Path(__file__), Path(stock.__file__)], _build))


def _build(folder: Path) -> None:
    images = VmImages(folder)
    root = folder / "root"
    debootstrap(root, SUITE, PACKAGES, f"--essential-hook={INITRAMFS}")
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / INIT).write_text(START)
    (root / INIT).chmod(0o755)
    (root / "sbin/init").unlink()
    (root / "sbin/init").symlink_to(f"/{INIT}")
    for unused in UNUSED:
        for path in root.glob(unused):
            if not path.is_dir():
                path.unlink()
    for file, name in ((images.kernel, "vmlinuz"), (images.ramdisk, "initrd.img")):
        run("cp", "--dereference", str(root / name), str(file))
    _disk(root, images.stock)

    run(*ALONE, "sh", "-ec", INSTALL, "install", str(root), str(images.repository), timeout=BUILDING)
    images.engine_key.write_text(_engine_key())
    for clone, text in ((ENGINE_KEY, images.engine_key.read_text()), (SWARM_MARK, "of another swarm\n")):
        (root / clone).parent.mkdir(parents=True, exist_ok=True)
        (root / clone).write_text(text)
    _disk(root, images.docker)
    subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)


def _disk(root: Path, image: Path) -> None:
    raw = image.with_suffix(".raw")
    run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(raw), DISK)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image))
    raw.unlink()


def _engine_key() -> str:
    """As libtrust writes it: an engine does not start with one that it can't read, or whose name is not the key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    digest = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    text = base64.b32encode(digest[:30]).decode()
    numbers = key.private_numbers()
    point = numbers.public_numbers
    parts = {"d": _encoded(numbers.private_value), "x": _encoded(point.x), "y": _encoded(point.y)}
    name = ":".join(text[start : start + 4] for start in range(0, len(text), 4))
    return json.dumps({"crv": "P-256", "kid": name, "kty": "EC", **parts})


def _encoded(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=")
