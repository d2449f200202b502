"""Disks and disc images: «VBoxManage createmedium» and related commands of the manual, and which files they accept.

The file of a disk has the header of its format, followed by the unchanged bytes that it was made from.
"""

from __future__ import annotations

import os
import struct
import uuid
from pathlib import Path
from typing import BinaryIO

from tests.lab.vboxmanage.box import LIVE, Box
from tests.lab.vboxmanage.errors import Misused, Refused
from tests.lab.vboxmanage.options import Given
from tests.lab.vboxmanage.store import Json

MB = 2**20
HEADER = 512
VDI_TEXT = b"<<< Oracle VM VirtualBox Disk Image >>>\n"
MAGIC = {"VDI": VDI_TEXT, "VMDK": b"KDMV", "VHD": b"conectix", "QCOW": b"QFI\xfb", "RAW": b""}
DISC_SECTOR = 2048
NO_DISC = 32768  # bytes; a file up to this size is not accepted as a disc
DEVICES = {"disk": "disk", "hdd": "disk", "dvd": "dvd", "dvddrive": "dvd"}


def openable(box: Box, name: str, device: str) -> Json:
    """A medium by its UUID or file; the file of an unknown medium is read."""
    path = str(Path(name).absolute())
    for medium in box.media:
        if medium["device"] == device and name.strip("{}").lower() in (medium["uuid"], medium["path"].lower()):
            return medium
        if medium["device"] == device and medium["path"] == path:
            return medium
    call = "OpenMedium(Bstr(pszFilenameOrUuid).raw(), enmDevType, enmAccessMode, fForceNewUuidOnOpen, pMedium)"
    if not Path(path).is_file():
        line = f"Could not find file for the medium '{path}' (VERR_FILE_NOT_FOUND)"
        raise Refused(line, code="VBOX_E_FILE_ERROR", interface="IMedium", call=call)
    opened = read_disk(path) if device == "disk" else read_disc(path)
    if not opened:
        line = f"Could not get the storage format of the medium '{path}' (VERR_NOT_SUPPORTED)"
        raise Refused(line, code="VBOX_E_IPRT_ERROR", interface="IMedium", call=call)
    return register(box, opened, call)


def register(box: Box, medium: Json, call: str, *before: str) -> Json:
    for other in box.media:
        if other["uuid"] == medium["uuid"] or other["path"] == medium["path"]:
            kind = "hard disk" if medium["device"] == "disk" else "DVD image"
            line = (
                f"Cannot register the {kind} '{medium['path']}' {{{medium['uuid']}}} because a {kind}"
                f" '{other['path']}' with UUID {{{other['uuid']}}} already exists"
            )
            raise Refused(*before, line, code="NS_ERROR_INVALID_ARG", interface="IVirtualBox", call=call)
    box.media.append(medium)
    return medium


def read_disk(path: str) -> Json | None:
    with Path(path).open("rb") as file:
        header = file.read(HEADER)
    kind = next((name for name, magic in MAGIC.items() if magic and header.startswith(magic)), None)
    if kind is None:
        return None
    size, name = Path(path).stat().st_size, uuid.uuid4()
    if kind == "QCOW":
        (size,) = struct.unpack_from(">Q", header, 24)
    elif len(header) == HEADER:
        (size,) = struct.unpack_from("<Q", header, 0x170)
        name = uuid.UUID(bytes=header[0x188:0x198])
    return medium_of(path, "disk", kind, size, str(name))


def read_disc(path: str) -> Json | None:
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        file.seek(NO_DISC + 1)
        iso = file.read(5) == b"CD001"
    if size % DISC_SECTOR or size <= NO_DISC or not (iso or path.lower().endswith((".iso", ".cdr"))):
        return None
    return medium_of(path, "dvd", "RAW", size, str(uuid.uuid4()))


def medium_of(path: str, device: str, kind: str, size: int, name: str = "") -> Json:
    return {"path": path, "device": device, "format": kind, "size": size, "uuid": name or str(uuid.uuid4())}


def write(medium: Json, source: Path | None = None) -> None:
    header = bytearray(HEADER)
    header[: len(MAGIC[medium["format"]])] = MAGIC[medium["format"]]
    struct.pack_into("<Q", header, 0x170, medium["size"])
    header[0x188:0x198] = uuid.UUID(medium["uuid"]).bytes
    with Path(medium["path"]).open("wb") as file:
        if medium["format"] != "RAW":
            file.write(header)
        if source:
            _copy(source, file)


def _copy(source: Path, target: BinaryIO) -> None:
    """Copies without holes, so that a large and mostly empty disk takes no time."""
    start, at = target.tell(), 0
    with source.open("rb") as file:
        while at < (end := source.stat().st_size):
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # the rest is a hole
                break
            hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            file.seek(at)
            target.seek(start + at)
            target.write(file.read(hole - at))
            at = hole
        target.truncate(start + end)


def made(box: Box, medium: Json, failure: str, storage: str, source: Path | None = None) -> Json:
    """Writes the file of a new disk, and creates its folder if necessary."""
    box.progress += "0%..."
    call = f"RTEXITCODE handle{failure.split()[2].capitalize()}Medium(HandlerArg*)"
    path = Path(medium["path"])
    if path.exists():
        line = f"VDI: cannot create image '{path}' (VERR_ALREADY_EXISTS)"
        lines = (failure, f"Could not create the {storage} '{path}'.", line)
        raise Refused(*lines, code="VBOX_E_FILE_ERROR", interface="IMedium", call=call)
    register(box, medium, call, failure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(medium, source)
    box.progress = ""
    box.progressed()
    return medium


def createmedium(box: Box, given: Given) -> str:
    path, size = given.get("--filename"), given.get("--sizebyte", given.get("--size", 0) * MB)
    if not path:
        raise Misused("Parameter --filename is required")
    if not size:
        raise Misused("Parameter --size is required")
    kind = given.get("--format", "VDI")
    if not Path(path).suffix:
        path += {"VMDK": ".vmdk", "VHD": ".vhd"}.get(kind, ".vdi")
    medium = medium_of(str(Path(path).absolute()), device_of(given), kind, size)
    made(box, medium, "Failed to create medium", "medium storage unit")
    return f"Medium created. UUID: {medium['uuid']}\n"


def clonemedium(box: Box, given: Given) -> str:
    source = given.word(0, "Mandatory UUID or input file parameter missing")
    target = given.word(1, "Mandatory output file parameter missing")
    before = len(box.media)
    original = openable(box, source, device_of(given))
    kind = given.get("--format", original["format"])
    size = given.get("--resize", 0) * MB or original["size"]
    path = Path(target).absolute()
    medium = medium_of(str(path), original["device"], "VDI" if kind == "QCOW" else kind, size)
    made(box, medium, "Failed to clone medium", "clone medium", Path(original["path"]))
    if len(box.media) > before + 1:
        box.media.remove(original)  # it was open only for this
    return f"Clone medium created in format '{medium['format']}'. UUID: {medium['uuid']}\n"


def modifymedium(box: Box, given: Given) -> str:
    medium = openable(box, given.word(0, "Medium name or UUID required"), device_of(given))
    if not given.options:
        raise Misused("No operation specified")
    size = given.get("--resizebyte", given.get("--resize", 0) * MB)
    if given.get("--resize") and size > medium["size"] * 1000:
        line = f"Error: Attempt to resize the medium from {medium['size'] // MB}.0 MB to {size // MB}.0 MB."
        raise Refused(f"{line} Use --resizebyte if this is intended!")
    failed: Json = {"code": "VBOX_E_NOT_SUPPORTED", "interface": "IMedium", "call": "handleModifyMedium"}
    if any(user["state"] in LIVE for user in box.users(medium)):
        line = f"Medium '{medium['path']}' is locked for reading by another task"
        raise Refused("Failed to resize medium", line, code="VBOX_E_INVALID_OBJECT_STATE", interface="IMedium")
    if medium["format"] not in ("VDI", "VHD") or size < medium["size"]:
        why = "VERR_VD_SHRINK_NOT_SUPPORTED" if size < medium["size"] else "VERR_NOT_SUPPORTED"
        raise Refused("Failed to resize medium", f"Could not resize medium '{medium['path']}' ({why})", **failed)
    medium["size"] = size
    with Path(medium["path"]).open("r+b") as file:
        file.seek(0x170)
        file.write(struct.pack("<Q", size))
    box.progressed()
    return ""


def closemedium(box: Box, given: Given) -> str:
    medium = openable(box, given.word(0, "Medium name or UUID required"), device_of(given))
    users = box.users(medium)
    in_use: Json = {"code": "VBOX_E_OBJECT_IN_USE", "interface": "IMedium"}
    if users and given.get("--delete"):
        names = ", ".join(user["name"] for user in users)
        line = f"Cannot delete storage: medium '{medium['path']}' is still attached to the following"
        raise Refused(f"{line} {len(users)} virtual machine(s): {names}", call="DeleteStorage(pProgress)", **in_use)
    if users:
        line = (
            f"Medium '{medium['path']}' cannot be closed because it is still attached to {len(users)} virtual machines"
        )
        raise Refused(line, call="Close()", **in_use)
    if given.get("--delete"):
        Path(medium["path"]).unlink(missing_ok=True)
        box.progressed()
    box.media.remove(medium)
    return ""


def convertfromraw(box: Box, given: Given) -> str:
    """Accepts any bytes, even a disk in another format. The disk is not registered."""
    if len(given.words) != 2:
        raise Misused("Incorrect number of parameters")
    source, target = Path(given.words[0]), Path(given.words[1])
    box.progress = f'Converting from raw image file="{source}" to file="{target}"...\n'
    if not source.is_file():
        raise Refused(f'Cannot open file "{source}": VERR_FILE_NOT_FOUND')
    if target.exists():
        raise Refused(f'Cannot create the disk image "{target}": VERR_ALREADY_EXISTS')
    size = source.stat().st_size
    box.progress += f"Creating dynamic image with size {size} bytes ({-(-size // MB)}MB)...\n"
    write(medium_of(str(target), "disk", given.get("--format", "VDI"), size, given.get("--uuid", "")), source)
    return ""


def device_of(given: Given) -> str:
    return DEVICES[given.kinds[0]] if given.kinds else "disk"


def hdds(box: Box) -> str:
    return "\n".join(_described(box, medium) for medium in box.media if medium["device"] == "disk")


def _described(box: Box, medium: Json) -> str:
    live = any(user["state"] in LIVE for user in box.users(medium))
    state = "locked write" if live else "created" if Path(medium["path"]).is_file() else "inaccessible"
    lines = {
        "UUID": medium["uuid"],
        "Parent UUID": "base",
        "State": state,
        "Type": "normal (base)",
        "Location": medium["path"],
        "Storage format": medium["format"],
        "Capacity": f"{medium['size'] // MB} MBytes",
        "Encryption": "disabled",
    }
    return "".join(f"{f'{name}:':<16}{value}\n" for name, value in lines.items())
