"""The disk image that VMs are made from: a file of the user, or one that is downloaded once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import FileLock
from platformdirs import user_cache_path
from urllib3.exceptions import HTTPError

from cloudscale.drivers.vm.hypervisor import BaseImage
from cloudscale.errors import MachineError, RequestError
from cloudscale.hosts.this_computer import run_program
from cloudscale.model import Say
from cloudscale.outside import OtherForm, home_path, read_body
from cloudscale.units import MIB, mib

OTHER = "Use another image: --base-image FILE, or an https:// address."
CONNECTING = 20  # seconds for a server to answer
LOOKING = 4  # the same where nothing is downloaded
READING = 60  # seconds to read the first sector of a disk
CHUNK = MIB
LARGEST_SUMS = MIB  # bytes of a file of checksums
SUMS = {"SHA512SUMS": "sha512", "SHA256SUMS": "sha256"}  # Debian and Ubuntu publish them beside their images
KERNELS = ("vmlinuz*", "kernel*", "*.vmlinuz", "*.kernel")
RAMDISKS = ("initrd*", "initramfs*", "ramdisk*", "*.initrd")
BOOT_SIGNATURE = b"\x55\xaa"  # at the end of the first sector of a disk that a BIOS can boot
SECTOR = 512
EMPTY = MIB  # a file up to this size whose first sector is all zeros is not a disk
MAGIC = {b"KDMV": "vmdk", b"# Disk DescriptorFile": "vmdk", b"<<< ": "vdi", b"vhdxfile": "vhdx", b"conectix": "vpc"}


def base_image(source: str, say: Say) -> BaseImage:
    """The image at a path or an https:// address. Raises RequestError, MachineError."""
    path = _download(source, say).resolve() if _is_address(source) else _file(source)
    if path.name.endswith(".tar.xz"):
        path = _unpack(path)
    format, size = _inspect(path)
    if _can_boot(path, format):
        return BaseImage(path, format, size)
    kernel = _beside(path, KERNELS)
    if kernel is None:
        raise RequestError(
            f"The disk image {path} has no boot loader, and its folder contains no kernel.",
            "Put its vmlinuz and initrd.img into the same folder, or use a distribution's cloud image.",
        )
    version = kernel.name.partition("-")[2]
    return BaseImage(path, format, size, kernel, _beside(path, RAMDISKS, version))


def describe_source(source: str) -> str:
    """Where the image is, without a download. Raises RequestError, MachineError where `base_image` would."""
    if not _is_address(source):
        path = _file(source)
        if not path.name.endswith(".tar.xz"):
            _inspect(path)
        return str(path)
    if _kept(source).exists():
        return f"{source}, downloaded already"
    try:
        answer = requests.head(source, timeout=LOOKING, allow_redirects=True)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise _not_downloaded(source, error) from None
    size = _size(answer)
    return f"{source} is downloaded once" + (f" ({mib(size)})" if size else "")


def _is_address(source: str) -> bool:
    """Raises RequestError for what looks like one and is none."""
    try:
        return urlsplit(source).scheme in ("http", "https")
    except ValueError as error:
        raise RequestError(f"The disk image {source!r} has no such address ({error}).", OTHER) from None


def _file(source: str) -> Path:
    path = home_path(source)
    if not os.path.isfile(path):  # not Path.is_file, which raises an error for a name that is too long
        raise RequestError(
            f"The disk image {source} does not exist (--base-image).", "Use an existing file, or an https:// address."
        )
    return path.resolve()


def _kept(url: str) -> Path:
    """Where the image of an address is, once it was downloaded."""
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{Path(urlsplit(url).path).name[-100:]}"
    return user_cache_path("cloudscale") / "images" / name


def _inspect(path: Path) -> tuple[str, int]:
    """The format of the image, from its first bytes, and the size of the disk in bytes (0 if unknown)."""
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
        raise RequestError(f"{path} is not a disk image.", OTHER)
    return "raw", path.stat().st_size


def _can_boot(path: Path, format: str) -> bool:
    """Whether it has a boot loader, or at least partitions. If the format is hard to read, the answer is yes."""
    if format == "raw":
        with path.open("rb") as file:
            return file.read(SECTOR).endswith(BOOT_SIGNATURE)
    if format != "qcow2" or not shutil.which("qemu-img"):
        return True
    with tempfile.TemporaryDirectory(prefix="cloudscale-") as folder:
        first = Path(folder) / "first"
        command = ["qemu-img", "dd", "-f", format, "-O", "raw", f"bs={SECTOR}", "count=1", f"if={path}", f"of={first}"]
        result = run_program(command, READING)
        if result.exit_code:
            raise RequestError(f"Could not read the disk image {path}: {result.last_words()}", OTHER)
        return first.read_bytes().endswith(BOOT_SIGNATURE)


def _beside(path: Path, patterns: tuple[str, ...], version: str = "") -> Path | None:
    """A file in the same folder with one of these names: if there are several, that of the version, or the newest."""
    for pattern in patterns:
        if files := [other for other in path.parent.glob(pattern) if other.is_file() and other != path]:
            return max(files, key=lambda other: (version in other.name, other.stat().st_mtime, other.name))
    return None


def _unpack(archive: Path) -> Path:
    """Unpacks the disk in an archive, as Debian publishes them, once; returns its path beside the archive."""
    path = archive.with_name(archive.name.removesuffix(".tar.xz") + ".raw")
    with _locked(path.with_name(f"{path.name}.lock")):
        if not path.exists() or path.stat().st_mtime < archive.stat().st_mtime:
            part = path.with_name(f"{path.name}.part")
            try:
                with tarfile.open(archive) as opened, part.open("wb") as file:
                    disk = next((member for member in opened if member.isfile()), None)
                    source = disk and opened.extractfile(disk)
                    if not disk or not source:
                        raise RequestError(f"The archive {archive} contains no disk.", OTHER)
                    while chunk := source.read(CHUNK):
                        # leave holes where the disk is empty
                        file.write(chunk) if any(chunk) else file.seek(len(chunk), os.SEEK_CUR)
                    file.truncate(disk.size)
                os.replace(part, path)
            except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
                raise RequestError(f"Could not unpack {archive} ({error}).", OTHER) from None
            except OSError as error:
                raise _write_error(part, error) from None
            finally:
                part.unlink(missing_ok=True)
    return path


def _download(url: str, say: Say) -> Path:
    """Downloads the file once, and returns its path. Raises RequestError, MachineError."""
    path = _kept(url)
    with _locked(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            part = path.with_name(f"{path.name}.part")
            try:
                _fetch(url, part, say)
                _verify(url, part, say)
                os.replace(part, path)
            except requests.RequestException as error:
                raise _not_downloaded(url, error) from None
            except OSError as error:  # after RequestException, which is a kind of OSError
                raise _write_error(part, error) from None
            finally:
                part.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Lets one run at a time download or unpack an image."""
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(lock))
        except OSError as error:
            raise _write_error(lock, error) from None
        yield


def _write_error(path: Path, error: OSError) -> MachineError:
    return MachineError(
        f"Could not write {path} ({error.strerror}).", "Check that the disk is not full and that the folder is yours."
    )


def _fetch(url: str, path: Path, say: Say) -> None:
    with requests.get(url, stream=True, timeout=CONNECTING) as answer, path.open("wb") as file:
        answer.raise_for_status()
        size = _size(answer)
        say(f"Disk image: downloading {url}" + (f" ({mib(size)})" if size else ""))
        for chunk in answer.iter_content(CHUNK):
            file.write(chunk)


def _size(answer: requests.Response) -> int:
    """The bytes that it is going to have; 0 if it does not say."""
    said = answer.headers.get("Content-Length", "")
    return int(said) if re.fullmatch(r"[0-9]{1,18}", said) else 0


def _text(url: str) -> str:
    """What a server has there; empty if it has nothing."""
    with requests.get(url, timeout=CONNECTING, stream=True) as answer:
        try:
            return read_body(answer, LARGEST_SUMS, CONNECTING).decode(errors="replace") if answer.ok else ""
        except (OtherForm, TimeoutError, HTTPError) as error:
            raise requests.ConnectionError(str(error)) from None


def _verify(url: str, path: Path, say: Say) -> None:
    """Compares the file with the checksums that are published beside it, if there are any."""
    base, _, name = url.partition("?")[0].rpartition("/")
    for sums, kind in SUMS.items():
        lines = [line.split() for line in _text(f"{base}/{sums}").splitlines()]
        expected = next((line[0] for line in lines if len(line) == 2 and line[1].lstrip("*") == name), None)
        if expected is None:
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, kind).hexdigest() != expected:
                raise MachineError(
                    f"The disk image {url} does not match its checksum in {base}/{sums}.",
                    "Run again to download it again.",
                )
        return
    say(f"Disk image: {url} is not verified, because no checksums are published beside it")


def _not_downloaded(url: str, error: requests.RequestException) -> MachineError:
    return MachineError(
        f"Could not download the disk image {url} ({_cause(error)}).",
        "Check the network. Or download it yourself, and use the file: --base-image FILE.",
    )


def _cause(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code}"
    return type(error).__name__
