"""The disk image that VMs are made from: a file of the user's, or one that is downloaded once and kept."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
from platformdirs import user_cache_path

from cloudscale.drivers.vm.hypervisor import BaseImage
from cloudscale.errors import MachineError, RequestError
from cloudscale.hosts.this_computer import run_program
from cloudscale.model import Say

CONNECTING = 20  # seconds for a server to answer
READING = 60  # seconds for the first sector of a disk
CHUNK = 1024**2
SUMS = {"SHA512SUMS": "sha512", "SHA256SUMS": "sha256"}  # as Debian and Ubuntu publish them beside their images
KERNELS = ("vmlinuz*", "kernel*", "*.vmlinuz", "*.kernel")
RAMDISKS = ("initrd*", "initramfs*", "ramdisk*", "*.initrd")
BOOT_SIGNATURE = b"\x55\xaa"  # ends the first sector of a disk that a BIOS can boot
SECTOR = 512
EMPTY = 1024**2  # bytes; less than that, with nothing in the first sector, is no disk
MAGIC = {b"KDMV": "vmdk", b"# Disk DescriptorFile": "vmdk", b"<<< ": "vdi", b"vhdxfile": "vhdx", b"conectix": "vpc"}


def base_image(wanted: str, say: Say) -> BaseImage:
    """The image of a path or an https:// address. Raises RequestError, MachineError."""
    path = _downloaded(wanted, say) if urlsplit(wanted).scheme in ("http", "https") else Path(wanted).expanduser()
    if not path.is_file():
        raise RequestError(f"There is no disk image {wanted} (--base-image).", "Name a file, or an https:// address.")
    path = path.resolve()
    if path.name.endswith(".tar.xz"):
        path = _unpacked(path)
    format, size = _inspected(path)
    if _can_boot(path, format):
        return BaseImage(path, format, size)
    kernel = _beside(path, KERNELS)
    if kernel is None:
        raise RequestError(
            f"The disk image {path} has no boot loader, and there is no kernel beside it.",
            "Put its vmlinuz and initrd.img into the same folder, or use a distribution's cloud image.",
        )
    version = kernel.name.partition("-")[2]
    return BaseImage(path, format, size, kernel, _beside(path, RAMDISKS, version))


def _inspected(path: Path) -> tuple[str, int]:
    """The image's format, by its first bytes, and the size of the disk in it, in bytes (0 where that is not known)."""
    with path.open("rb") as file:
        head = file.read(SECTOR)
    if head.startswith(b"QFI\xfb"):
        return "qcow2", int.from_bytes(head[24:32], "big")  # QEMU's docs/interop/qcow2.txt, "Header"
    if head.startswith(b"KDMV"):
        return "vmdk", int.from_bytes(head[12:20], "little") * SECTOR  # SparseExtentHeader.capacity
    if head.startswith(b"<<< "):
        return "vdi", int.from_bytes(head[368:376], "little")  # VirtualBox's VDICore.h, VDIHEADER1.cbDisk
    for magic, format in MAGIC.items():
        if head.startswith(magic):
            return format, 0
    if not any(head) and not path.stat().st_size > EMPTY:
        raise RequestError(f"{path} is no disk image.")
    return "raw", path.stat().st_size


def _can_boot(path: Path, format: str) -> bool:
    """Whether it has a boot loader, or at least partitions. One that is not easily read is believed to."""
    if format == "raw":
        with path.open("rb") as file:
            return file.read(SECTOR).endswith(BOOT_SIGNATURE)
    if format != "qcow2" or not shutil.which("qemu-img"):
        return True
    with tempfile.TemporaryDirectory(prefix="cloudscale-") as folder:
        first = Path(folder) / "first"
        command = ["qemu-img", "dd", "-f", format, "-O", "raw", f"bs={SECTOR}", "count=1", f"if={path}", f"of={first}"]
        done = run_program(command, READING)
        if done.exit_code:
            raise RequestError(f"The disk image {path} can't be read: {done.last_words()}")
        return first.read_bytes().endswith(BOOT_SIGNATURE)


def _beside(path: Path, patterns: tuple[str, ...], version: str = "") -> Path | None:
    """A file of one of these names in the same folder: of several, that of the version, or the newest."""
    for pattern in patterns:
        if found := [other for other in path.parent.glob(pattern) if other.is_file() and other != path]:
            return max(found, key=lambda other: (version in other.name, other.stat().st_mtime, other.name))
    return None


def _unpacked(archive: Path) -> Path:
    """The one disk in an archive, as Debian publishes them, unpacked once beside it."""
    path = archive.with_name(archive.name.removesuffix(".tar.xz") + ".raw")
    with _alone(path.with_name(f"{path.name}.lock")):
        if not path.exists() or path.stat().st_mtime < archive.stat().st_mtime:
            part = path.with_name(f"{path.name}.part")
            try:
                with tarfile.open(archive) as opened, part.open("wb") as file:
                    disk = next((member for member in opened if member.isfile()), None)
                    source = disk and opened.extractfile(disk)
                    if not disk or not source:
                        raise RequestError(f"There is no disk in {archive}.")
                    while chunk := source.read(CHUNK):
                        # what is empty stays so
                        file.write(chunk) if any(chunk) else file.seek(len(chunk), os.SEEK_CUR)
                    file.truncate(disk.size)
                os.replace(part, path)
            except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
                raise RequestError(f"{archive} can't be unpacked ({error}).") from None
            except OSError as error:
                raise _not_written(part, error) from None
            finally:
                part.unlink(missing_ok=True)
    return path


def _downloaded(url: str, say: Say) -> Path:
    """The file of an address, fetched once. Raises RequestError, MachineError."""
    folder = user_cache_path("cloudscale") / "images"
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{Path(urlsplit(url).path).name}"
    with _alone(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            part = path.with_name(f"{path.name}.part")
            try:
                _fetch(url, part, say)
                _verify(url, part, say)
                os.replace(part, path)
            except requests.RequestException as error:
                raise MachineError(
                    f"The disk image {url} can't be fetched ({_cause(error)}).",
                    "Is there a network? Or fetch it yourself, and name the file: --base-image FILE.",
                ) from None
            except OSError as error:  # a RequestException is one, too
                raise _not_written(part, error) from None
            finally:
                part.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise _not_written(lock, error) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two runs fetch it once
        yield


def _not_written(path: Path, error: OSError) -> MachineError:
    return MachineError(f"{path} can't be written ({error.strerror}).", "Is the disk full, or the folder not yours?")


def _fetch(url: str, path: Path, say: Say) -> None:
    with requests.get(url, stream=True, timeout=CONNECTING) as answer, path.open("wb") as file:
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length") or 0)
        say(f"Disk image: fetching {url}" + (f" ({size // CHUNK} MiB)" if size else ""))
        for chunk in answer.iter_content(CHUNK):
            file.write(chunk)


def _verify(url: str, path: Path, say: Say) -> None:
    """Compares it with the checksums that lie beside it, where there are some."""
    base, _, name = url.partition("?")[0].rpartition("/")
    for sums, kind in SUMS.items():
        answer = requests.get(f"{base}/{sums}", timeout=CONNECTING)
        lines = [line.split() for line in answer.text.splitlines()] if answer.ok else []
        wanted = next((line[0] for line in lines if len(line) == 2 and line[1].lstrip("*") == name), None)
        if wanted is None:
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, kind).hexdigest() != wanted:
                raise MachineError(f"The disk image {url} is not what {base}/{sums} says.", "Run again.")
        return
    say(f"Disk image: there are no checksums beside {url}, so it is not verified")


def _cause(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code}"
    return type(error).__name__
