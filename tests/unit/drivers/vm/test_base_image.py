"""The disk image that VMs are made from: its format, its boot loader or kernel, and its download."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cloudscale.drivers.vm.base_image import base_image, describe_source
from cloudscale.errors import MachineError, RequestError
from tests.unit.drivers.vm.fake_hypervisor import GIB, MIB, QemuPrograms, qcow2_image, raw_image


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Without the programs of QEMU, and with an empty cache. Returns the messages."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


# --- files ---


def test_a_disk_with_a_boot_loader_needs_nothing_else(messages: list[str], folder: Path) -> None:
    path = raw_image(folder / "disk.img", 3 * GIB)
    (folder / "vmlinuz").write_text("kernel")
    image = base_image(str(path), messages.append)
    assert (image.path, image.format, image.size) == (path, "raw", 3 * GIB)
    assert (image.kernel, image.ramdisk) == (None, None)
    assert messages == []


@pytest.mark.parametrize(
    ("kernel", "ramdisk", "others"),
    [
        ("vmlinuz", "initrd.img", ""),
        ("vmlinuz-6.1.0-22", "initrd.img-6.1.0-22", "vmlinuz-6.1.0-21 initrd.img-6.1.0-21 initramfs.img a.vmlinuz"),
        ("kernel", "initramfs-linux.img", "debian.vmlinuz ramdisk"),
        ("debian.vmlinuz", "debian.initrd", "debian.kernel"),
        ("debian.kernel", "ramdisk", "SHA256SUMS"),
        ("vmlinuz", "", ""),
    ],
)
def test_one_without_takes_the_kernel_beside_it(
    messages: list[str], folder: Path, kernel: str, ramdisk: str, others: str
) -> None:
    path = raw_image(folder / "disk.img", boots=False)
    (folder / "initrd.d").mkdir()
    for name in (kernel, *ramdisk.split(), *others.split()):
        (folder / name).touch()
        os.utime(folder / name, (1, 1))
    image = base_image(str(path), messages.append)
    assert image.kernel == folder / kernel
    assert image.ramdisk == (folder / ramdisk if ramdisk else None)


def test_of_several_kernels_the_newest_is_taken(messages: list[str], folder: Path) -> None:
    path = raw_image(folder / "disk.img", boots=False)
    for age, version in enumerate(("6.1.0-10", "6.1.0-9")):
        for name in ("vmlinuz", "initrd.img"):
            file = folder / f"{name}-{version}"
            file.touch()
            os.utime(file, (1000 - age, 1000 - age))
    image = base_image(str(path), messages.append)
    assert (image.kernel, image.ramdisk) == (folder / "vmlinuz-6.1.0-10", folder / "initrd.img-6.1.0-10")


def test_the_ramdisk_is_that_of_the_kernel(messages: list[str], folder: Path) -> None:
    path = raw_image(folder / "disk.img", boots=False)
    for age, name in enumerate(("initrd.img-6.1.0-9", "vmlinuz-6.1.0-10", "initrd.img-6.1.0-10")):
        (folder / name).touch()
        os.utime(folder / name, (1000 - age, 1000 - age))
    assert base_image(str(path), messages.append).ramdisk == folder / "initrd.img-6.1.0-10"


def test_one_without_and_with_no_kernel_is_refused(messages: list[str], folder: Path) -> None:
    path = raw_image(folder / "kernel.img", boots=False)  # its name looks like a kernel, but it is the disk itself
    with pytest.raises(RequestError, match=f"{path} has no boot loader") as raised:
        base_image(str(path), messages.append)
    assert "vmlinuz" in raised.value.remedy


def test_a_link_is_followed_to_where_the_kernel_is(messages: list[str], folder: Path, tmp_path: Path) -> None:
    path = raw_image(folder / "disk.img", boots=False)
    (folder / "vmlinuz").touch()
    (tmp_path / "link.img").symlink_to(path)
    assert base_image(str(tmp_path / "link.img"), messages.append).kernel == folder / "vmlinuz"


def test_a_home_folder_is_written_short(
    messages: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = raw_image(folder / "disk.img")
    assert base_image("~/images/disk.img", messages.append).path == path


@pytest.mark.parametrize("size", [0, 512, MIB])
def test_a_file_that_is_empty_is_no_disk(messages: list[str], folder: Path, size: int) -> None:
    path = folder / "disk.img"
    path.write_bytes(bytes(size))
    with pytest.raises(RequestError, match="is not a disk image"):
        base_image(str(path), messages.append)


@pytest.mark.parametrize("name", ["nothing.img", "", "ftp://127.0.0.1/disk.img", "."])
def test_a_missing_image_is_refused(messages: list[str], folder: Path, name: str) -> None:
    with pytest.raises(RequestError, match=r"The disk image .* does not exist") as raised:
        base_image(name if ":" in name else str(folder / name), messages.append)
    assert raised.value.exit_code == 2


# --- formats ---


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"KDMV", "vmdk"),
        (b"# Disk DescriptorFile\nversion=1\n", "vmdk"),
        (b"<<< Oracle VM VirtualBox Disk Image >>>\n", "vdi"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vpc"),
    ],
)
def test_other_forms_are_known_by_their_first_bytes_and_believed_to_boot(
    messages: list[str], folder: Path, head: bytes, format: str
) -> None:
    path = folder / "disk"
    path.write_bytes(head.ljust(2048, b"\0"))
    image = base_image(str(path), messages.append)
    assert (image.format, image.kernel) == (format, None)


def test_a_qcow2_tells_the_size_of_its_disk(messages: list[str], folder: Path) -> None:
    image = base_image(str(qcow2_image(folder / "disk.qcow2", 3 * GIB, boots=False)), messages.append)
    assert (image.format, image.size, image.kernel) == ("qcow2", 3 * GIB, None)  # no program to look inside


@pytest.mark.parametrize(
    "head",
    [
        b"KDMV" + struct.pack("<IIQ", 1, 3, 40 * GIB // 512),
        b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(0x170, b"\0") + struct.pack("<Q", 40 * GIB),
    ],
    ids=["vmdk", "vdi"],
)
def test_a_vmdk_and_a_vdi_tell_the_size_of_their_disks_too(messages: list[str], folder: Path, head: bytes) -> None:
    path = folder / "disk"
    path.write_bytes(head.ljust(2048, b"\0"))
    assert base_image(str(path), messages.append).size == 40 * GIB


def test_qemu_looks_whether_a_qcow2_has_a_boot_loader(
    messages: list[str], folder: Path, qemu_programs: QemuPrograms
) -> None:
    with_loader, without = qcow2_image(folder / "with"), qcow2_image(folder / "without", boots=False)
    assert base_image(str(with_loader), messages.append).kernel is None
    with pytest.raises(RequestError, match="has no boot loader"):
        base_image(str(without), messages.append)
    (folder / "vmlinuz").touch()
    assert base_image(str(with_loader), messages.append).kernel is None
    assert base_image(str(without), messages.append).kernel == folder / "vmlinuz"


def test_a_damaged_qcow2_is_reported_with_qemus_message(
    messages: list[str], folder: Path, qemu_programs: QemuPrograms
) -> None:
    path = folder / "disk.qcow2"
    path.write_bytes(b"QFI\xfb\0\0\0\x09".ljust(100, b"\0"))
    with pytest.raises(
        RequestError, match=r"Could not read the disk image .*: qemu-img: Could not open .*not in qcow2 format"
    ):
        base_image(str(path), messages.append)


# --- archives ---


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:xz", preset=0) as made:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return path


def test_an_archive_is_unpacked_once_and_what_is_empty_takes_no_room(messages: list[str], folder: Path) -> None:
    data = bytes(510) + b"\x55\xaa" + bytes(40 * MIB) + b"end" + bytes(9 * MIB)
    path = archive(folder / "disk.tar.xz", ("disk.raw", data))
    image = base_image(str(path), messages.append)
    assert (image.path, image.format, image.size) == (folder / "disk.raw", "raw", len(data))
    assert image.path.read_bytes() == data
    assert image.path.stat().st_blocks * 512 < 10 * MIB
    before = image.path.stat()
    assert base_image(str(path), messages.append) == image
    assert image.path.stat().st_mtime_ns == before.st_mtime_ns
    assert {path.name for path in folder.iterdir()} == {"disk.tar.xz", "disk.raw", "disk.raw.lock"}


@pytest.mark.parametrize("kind", ["empty", "cut", "other"])
def test_an_archive_without_a_disk_is_refused_and_leaves_nothing(messages: list[str], folder: Path, kind: str) -> None:
    path = archive(folder / "disk.tar.xz", *([] if kind == "empty" else [("disk.raw", bytes(range(256)) * 9000)]))
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-400])
    if kind == "other":
        path.write_bytes(b"something else")
    with pytest.raises(RequestError, match=r"contains no disk|Could not unpack"):
        base_image(str(path), messages.append)
    assert {path.name for path in folder.iterdir()} == {"disk.tar.xz", "disk.raw.lock"}


def test_an_archive_that_is_newer_than_what_was_unpacked_is_unpacked_again(messages: list[str], folder: Path) -> None:
    path = archive(folder / "disk.tar.xz", ("disk.raw", b"first" + bytes(2 * MIB) + b"\x55\xaa"))
    (folder / "vmlinuz").touch()
    unpacked = base_image(str(path), messages.append).path
    os.utime(unpacked, (1, 1))
    archive(path, ("disk.raw", b"second" + bytes(2 * MIB)))
    assert base_image(str(path), messages.append).path.read_bytes().startswith(b"second")


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)


def test_an_archive_that_does_not_fit_on_the_disk_is_reported(
    messages: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(folder / "disk.tar.xz", ("disk.raw", b"x" * 1000))
    fill_the_disk(monkeypatch)
    with pytest.raises(MachineError, match=r"Could not write .*disk\.raw.* \(No space left on device\)") as raised:
        base_image(str(path), messages.append)
    assert "Check that the disk is not full" in raised.value.remedy
    assert {path.name for path in folder.iterdir()} == {"disk.tar.xz", "disk.raw.lock"}


# --- downloads ---


class Site:
    """Serves files by path; the connection breaks in the middle of those in `cut`. `asked`: the requested paths."""

    def __init__(self, address: str) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                data = site.files.get(self.path.partition("?")[0])
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                data = data or b""
                self.wfile.write(data[: len(data) // 2] if self.path in site.cut else data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.address = f"http://{address}:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


DISK = b"\xeb" + bytes(509) + b"\x55\xaa" + bytes(range(256)) * 9000


@pytest.fixture
def site(loopback: str, monkeypatch: pytest.MonkeyPatch, messages: list[str]) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", loopback)
    monkeypatch.setenv("NO_PROXY", loopback)
    site = Site(loopback)
    site.files["/latest/disk.raw"] = DISK
    yield site
    site.close()


def kept(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "cloudscale" / "images"
    return sorted(path.name.partition("-")[2] for path in folder.iterdir() if path.suffix != ".lock")


def fetch(site: Site, messages: list[str]) -> bytes:
    return base_image(f"{site.address}/latest/disk.raw", messages.append).path.read_bytes()


def test_checksums_without_an_end_are_not_read(site: Site, messages: list[str], tmp_path: Path) -> None:
    site.files["/latest/SHA512SUMS"] = bytes(2 * MIB)
    with pytest.raises(MachineError, match=r"Could not download the disk image .* \(ConnectionError\)"):
        fetch(site, messages)
    assert kept(tmp_path) == []


def sums(kind: str, data: bytes = DISK, name: str = "disk.raw") -> bytes:
    other = hashlib.new(kind, b"other").hexdigest()
    return f"{other}  disk.raw.sig\n\n{hashlib.new(kind, data).hexdigest()}  {name}\n".encode()


@pytest.mark.parametrize(("file", "kind"), [("SHA512SUMS", "sha512"), ("SHA256SUMS", "sha256")])
def test_an_image_is_fetched_once_and_compared_with_its_checksum(
    site: Site, messages: list[str], tmp_path: Path, file: str, kind: str
) -> None:
    site.files[f"/latest/{file}"] = sums(kind)
    assert fetch(site, messages) == DISK
    assert messages == [f"Disk image: downloading {site.address}/latest/disk.raw (2 MiB)"]
    asked = list(site.asked)
    assert fetch(site, messages) == DISK
    assert site.asked == asked
    assert kept(tmp_path) == ["disk.raw"]


def test_a_checksum_of_another_form_is_read_too(site: Site, messages: list[str]) -> None:
    site.files["/latest/SHA256SUMS"] = sums("sha256", name="*disk.raw")
    fetch(site, messages)
    assert len(messages) == 1


def test_two_images_of_one_name_are_two(site: Site, messages: list[str], tmp_path: Path) -> None:
    site.files["/daily/disk.raw"] = other = DISK + b"other"
    fetch(site, messages)
    assert base_image(f"{site.address}/daily/disk.raw", messages.append).path.read_bytes() == other
    assert kept(tmp_path) == ["disk.raw", "disk.raw"]


def test_an_image_that_is_not_what_its_checksum_says_is_not_kept(
    site: Site, messages: list[str], tmp_path: Path
) -> None:
    site.files["/latest/SHA512SUMS"] = sums("sha512", b"other")
    with pytest.raises(MachineError, match=r"does not match its checksum in http://.*/latest/SHA512SUMS") as raised:
        fetch(site, messages)
    assert raised.value.remedy == "Run again to download it again."
    assert kept(tmp_path) == []
    site.files["/latest/SHA512SUMS"] = sums("sha512")
    assert fetch(site, messages) == DISK


@pytest.mark.parametrize("text", [None, b"", sums("sha512", name="other.raw")])
def test_an_image_without_a_checksum_is_used_with_a_warning(
    site: Site, messages: list[str], text: bytes | None
) -> None:
    if text is not None:
        site.files["/latest/SHA512SUMS"] = text
    assert fetch(site, messages) == DISK
    assert messages[1:] == [
        f"Disk image: {site.address}/latest/disk.raw is not verified, because no checksums are published beside it"
    ]


def test_an_image_that_does_not_exist_is_reported(site: Site, messages: list[str], tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"Could not download the disk image .*/latest/other \(HTTP 404\)") as raised:
        base_image(f"{site.address}/latest/other", messages.append)
    assert "--base-image FILE" in raised.value.remedy
    assert kept(tmp_path) == []


def test_a_line_that_breaks_leaves_no_part_of_it(site: Site, messages: list[str], tmp_path: Path) -> None:
    site.cut.add("/latest/disk.raw")
    with pytest.raises(MachineError, match=r"Could not download .* \(\w+\)"):
        fetch(site, messages)
    assert kept(tmp_path) == []
    site.cut.clear()
    assert fetch(site, messages) == DISK


def test_an_image_that_does_not_fit_on_the_disk_is_reported_and_not_kept(
    site: Site, messages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_the_disk(monkeypatch)
    with pytest.raises(MachineError, match=r"Could not write .*disk\.raw.* \(No space left on device\)") as raised:
        fetch(site, messages)
    assert "Check that the disk is not full" in raised.value.remedy
    assert kept(tmp_path) == []


def test_a_folder_that_can_not_be_written_is_reported(site: Site, messages: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(MachineError, match=r"Could not write .*/cache/.* \(Not a directory\)") as raised:
        fetch(site, messages)
    assert "that the folder is yours" in raised.value.remedy
    assert site.asked == []


def test_an_address_that_does_not_answer_is_reported(site: Site, messages: list[str], tmp_path: Path) -> None:
    site.close()
    with pytest.raises(MachineError, match=r"Could not download .* \(ConnectionError\)") as raised:
        fetch(site, messages)
    assert "Check the network" in raised.value.remedy
    assert kept(tmp_path) == []


def test_several_runs_fetch_an_image_once(site: Site, messages: list[str], tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=(site, messages)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.asked.count("/latest/disk.raw") == 1
    assert kept(tmp_path) == ["disk.raw"]


def test_an_archive_of_the_web_is_unpacked_in_the_cache(
    site: Site, messages: list[str], tmp_path: Path, folder: Path
) -> None:
    site.files["/latest/disk.tar.xz"] = archive(folder / "made", ("disk.raw", DISK)).read_bytes()
    image = base_image(f"{site.address}/latest/disk.tar.xz?x=1", messages.append)
    assert image.path.read_bytes() == DISK
    assert kept(tmp_path) == ["disk.raw", "disk.tar.xz"]


# --- looking at the source only ---


def test_a_file_is_looked_at_and_an_archive_stays_packed(messages: list[str], folder: Path) -> None:
    path = raw_image(folder / "disk.img")
    assert describe_source(str(path)) == str(path)
    archive = folder / "debian.tar.xz"
    archive.write_bytes(b"packed")
    assert describe_source(str(archive)) == str(archive)
    assert sorted(folder.iterdir()) == [archive, path]


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_a_file_that_is_no_image_is_refused_as_it_would_be_later(
    messages: list[str], folder: Path, content: bytes | None
) -> None:
    path = folder / "disk.img"
    if content is not None:
        path.write_bytes(content + bytes(512))
    with pytest.raises(RequestError) as later:
        base_image(str(path), messages.append)
    if content != b"text":
        with pytest.raises(RequestError) as now:
            describe_source(str(path))
        assert str(now.value) == str(later.value)


def test_an_address_is_asked_for_its_size_and_nothing_is_downloaded(
    messages: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = requests.Response()
    answer.status_code, answer.headers["Content-Length"] = 200, str(300 * MIB)
    monkeypatch.setattr(requests, "head", lambda url, **more: answer)
    assert (
        describe_source("https://example.org/disk.img") == "https://example.org/disk.img is downloaded once (300 MiB)"
    )
    assert not (tmp_path / "cache").exists()
    for none in ("", "many", "-1", "9" * 5000, "1e3"):
        answer.headers["Content-Length"] = none
        assert describe_source("https://example.org/disk.img") == "https://example.org/disk.img is downloaded once"
    answer.status_code = 404
    with pytest.raises(MachineError, match=r"Could not download .* \(HTTP 404\)"):
        describe_source("https://example.org/disk.img")
