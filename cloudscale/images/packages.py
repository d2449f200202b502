"""Downloads the packages of an image with this computer's pip, apt and mmdebstrap, and with their settings.

So a proxy, a mirror or its password never gets into an image, and a build needs no network.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from cloudscale.errors import ImageError
from cloudscale.hosts.this_computer import run_program
from cloudscale.model import TIMED_OUT

SUITE = "trixie"  # Debian 13, the base of all images
PYTHON = "3.13"  # the version in that Debian
GLIBC = range(5, 42)  # it runs the wheels of manylinux_2_5 to manylinux_2_41 (PEP 600)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TIMEOUT = 1800  # seconds

NO_WHEEL = re.compile(r"No matching distribution found for ([^\s(;]+)")
OF_THE_LIST = re.compile(r"No matching distribution|Invalid requirement|Unable to locate package|no installation cand")
OFFLINE = re.compile(
    r"Failed to establish|Temporary failure|Retrying|Could not resolve|Connection timed out|Max retries"
)
CONFLICT = "The conflict is caused by:"
OTHER_HASH = "DO NOT MATCH THE HASHES"
NO_USER_NAMESPACE = ("newuidmap", "newgidmap", "chroot mode automatically")  # what mmdebstrap says then


class ToolError(ImageError):
    """A program that failed; `output` is the end of what it printed."""

    def __init__(self, message: str, remedy: str, output: str = "") -> None:
        super().__init__(message, remedy)
        self.output = output


def make_debian(tar: Path, packages: Path) -> None:
    """Makes a Debian image, as a tar archive, with the packages that a file lists. Raises ImageError."""
    if not shutil.which("mmdebstrap"):
        raise ImageError(
            "No registry answers. Without one, mmdebstrap makes the base image, but it is not installed.",
            "Install it, then run again: sudo apt-get install mmdebstrap debian-archive-keyring uidmap.",
        )
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(packages.read_text().split())}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        SUITE,
        str(tar),
    ]
    _run(command, "mmdebstrap")


def fetch_debs(packages: Path, *, status: str, sources: str, architecture: str, target: Path) -> None:
    """Downloads the Debian packages that a file lists, and what they need but an image lacks. Raises ImageError.

    `status` and `sources` are files of the image: dpkg's record of what is installed, and apt's sources.
    """
    with tempfile.TemporaryDirectory(prefix="cloudscale-apt-") as folder:
        apt = _apt(Path(folder), status=status, sources=sources, architecture=architecture)
        names = packages.read_text().split()
        _run([*apt, "install", "--download-only", "--no-install-recommends", *names], "apt-get install")
        if debs := sorted(Path(folder, "debs").glob("*.deb")):
            target.mkdir()
            for deb in debs:
                shutil.move(deb, target / deb.name)


def fetch_file(package: str, path: str, *, sources: str, architecture: str) -> bytes:
    """A file of a Debian package, which is not installed. Raises ImageError."""
    with tempfile.TemporaryDirectory(prefix="cloudscale-apt-") as folder:
        apt = _apt(Path(folder), status="", sources=sources, architecture=architecture)
        _run(["env", f"--chdir={folder}", *apt, "download", package], "apt-get download")  # it writes where it runs
        deb, unpacked = next(Path(folder).glob(f"{package}_*.deb")), Path(folder, "unpacked")
        _run(["dpkg-deb", "--extract", str(deb), str(unpacked)], "dpkg-deb")
        return (unpacked / path).read_bytes()


def _apt(state: Path, *, status: str, sources: str, architecture: str) -> list[str]:
    """apt-get with its state in a folder, where it is up to date. `debs` there has what it downloads."""
    for name, text in (("status", status), ("sources.list", sources)):
        (state / name).write_text(text)
    for name in ("lists/partial", "debs/partial"):
        (state / name).mkdir(parents=True)
    settings = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::trusted": KEYRING,
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "debs",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",  # no other user may read the folder
    }
    apt = ["apt-get", "-q", "-y", *(f"-o{key}={value}" for key, value in settings.items())]
    _run([*apt, "update"], "apt-get update")
    return apt


def fetch_locked(requirements: Path, target: Path, architecture: str) -> str:
    """Downloads the wheels that a file pins, and verifies them by the hashes in it. Raises ImageError.

    Returns the same pins for the build, each with the hash of its wheel. (Of a package that has no wheel, the
    file has the hash of the source, and a wheel is built here.)
    """
    target.mkdir()
    _run([*pip_download(target, requirements, architecture), "--no-deps", "--require-hashes"], "pip download")
    for path in list(target.iterdir()):
        if path.suffix != ".whl":
            _build_wheel(str(path), target)
            path.unlink()
    return "".join(sorted(map(_pin, target.iterdir())))


def _pin(wheel: Path) -> str:
    name, version, _, _ = parse_wheel_filename(wheel.name)
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{name}=={version} --hash=sha256:{digest}\n"


def fetch_wheels(requirements: Path, target: Path, architecture: str, installed: Mapping[str, str]) -> dict[str, str]:
    """Downloads wheels of a trainer's packages and of what they need, and returns their versions.

    `installed` (names → versions in the image) is not downloaded, and keeps its versions. Raises ImageError.
    """
    target.mkdir()
    with tempfile.NamedTemporaryFile("w", prefix="cloudscale-", suffix=".txt") as constraints:
        constraints.writelines(f"{name}=={version}\n" for name, version in installed.items())
        constraints.flush()
        command = [*pip_download(target, requirements, architecture), "--only-binary=:all:"]
        _download([*command, "--find-links", str(target), "--constraint", constraints.name], target)
    return _keep_new_wheels(target, installed)


def pip_download(target: Path, requirements: Path, architecture: str) -> list[str]:
    """The command that downloads the packages of a file, for the images' Python and a machine's architecture."""
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in GLIBC]
    platforms += [f"{old}_{architecture}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    command = [*_pip("download"), "--implementation=cp", f"--python-version={PYTHON}"]
    command += [f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    command += [f"--platform={platform}" for platform in (*platforms, "any")]
    return [*command, "--dest", str(target), "--requirement", str(requirements)]


def _keep_new_wheels(folder: Path, installed: Iterable[str]) -> dict[str, str]:
    """Deletes the wheels of installed packages, and returns the versions of the others."""
    names = {canonicalize_name(name) for name in installed}
    versions = {}
    for path in list(folder.iterdir()):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            raise ImageError(
                f"pip downloaded a file that is not a wheel. {error}.",
                "In requirements.txt, use the names of the Python index.",
            ) from None
        if name in names:
            path.unlink()
        else:
            versions[str(name)] = str(version)
    return versions


def _download(command: Sequence[str], target: Path) -> None:
    """Runs pip, and builds a wheel of each package that has none and is pure Python."""
    built: set[str] = set()
    while True:
        try:
            return _run(command, "pip download")
        except ToolError as error:
            missing = NO_WHEEL.search(error.output)
            if not missing or missing[1] in built:
                raise
        built.add(missing[1])
        _build_wheel(missing[1], target)


def _build_wheel(source: str, target: Path) -> None:
    """Builds a wheel of a requirement or of a file with its source. Raises ImageError if it is not pure Python."""
    name, before = Path(source).name, set(target.iterdir())
    try:
        _run([*_pip("wheel"), "--no-deps", "--wheel-dir", str(target), source], "pip wheel")
    except ToolError as error:
        raise ImageError(
            f"{name}: it has no wheel for Python {PYTHON}, and building one failed: {error.output}",
            "Check the name. Try another version; or install it with a Dockerfile, in the image itself.",
        ) from None
    tags = [tag for path in set(target.iterdir()) - before for tag in parse_wheel_filename(path.name)[3]]
    if any((tag.abi, tag.platform) != ("none", "any") for tag in tags):
        raise ImageError(
            f"{name}: it has no wheel for Python {PYTHON} and must be compiled.",
            "Try another version; or install it with a Dockerfile: the images have a compiler.",
        )


def _pip(what: str) -> list[str]:
    return [sys.executable, "-m", "pip", what, "--progress-bar=off", "--disable-pip-version-check"]


def _run(command: Sequence[str], what: str) -> None:
    done = run_program(command, TIMEOUT)
    if done.exit_code == TIMED_OUT:
        raise ImageError(f"{what} took more than {TIMEOUT} s.", "If the network is slow, run again.")
    if done.exit_code:
        output = _last_words(done.stdout, done.stderr)
        remedy = "Check the network, then run again."
        if CONFLICT in done.stdout:
            remedy = "Choose other versions of these packages."
        elif any(sign in done.stderr for sign in NO_USER_NAMESPACE):
            remedy = (
                "Install uidmap (sudo apt-get install uidmap). Log in again, and run this in the shell of that login,"
                " not in one of newgrp or sg; or run it as root."
            )
        elif OF_THE_LIST.search(done.stderr) and not OFFLINE.search(done.stderr):
            remedy = "Check the names and versions in requirements.txt, packages.txt and apt.txt."
        elif OTHER_HASH in done.stderr:
            remedy = "The file is not the expected one. Check which package index pip uses: pip config list."
        raise ToolError(f"{what} failed: {output}", remedy, output)


def _last_words(stdout: str, stderr: str) -> str:
    """The end of a program's output; for a conflict, which packages are in it (pip prints that on standard output)."""
    output, errors = _lines(stdout), _lines(stderr)
    if CONFLICT not in output:
        return " / ".join((errors or output)[-3:])
    causes = output[output.index(CONFLICT) + 1 :]
    end = next((at for at, line in enumerate(causes) if line.startswith("To fix this")), None)
    return " / ".join([*errors[:1], *causes[:end]])


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if "WARNING" not in line]
    return [line for line in lines if line and not line.startswith(("note:", "hint:"))]
