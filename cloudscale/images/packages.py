"""What an image is made of, fetched by this computer: its pip, apt and mmdebstrap, with their settings.

A proxy, a mirror or its password thus never enters an image, and a build needs no network.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cloudscale.errors import ImageError
from cloudscale.hosts.this_computer import run_program
from cloudscale.model import TIMED_OUT

SUITE = "trixie"  # Debian 13, which all images stand on
PYTHON = "3.13"  # that Debian's
GLIBC = range(5, 42)  # manylinux_2_N wheels that it runs (PEP 600)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TIMEOUT = 1800  # seconds

NO_WHEEL = re.compile(r"No matching distribution found for ([^\s(;]+)")
CONFLICT = "The conflict is caused by:"


class ToolError(ImageError):
    """A program that failed, and what it `said`."""

    def __init__(self, message: str, remedy: str, said: str = "") -> None:
        super().__init__(message, remedy)
        self.said = said


def make_debian(tar: Path, packages: Path) -> None:
    """Makes a Debian with the packages that a file names. Raises ImageError."""
    if not shutil.which("mmdebstrap"):
        raise ImageError(
            "No registry answers, and there is no mmdebstrap here to make a base image with.",
            "Install it, then run again: sudo apt-get install mmdebstrap debian-archive-keyring.",
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
    """Downloads the Debian packages that a file names, with what they need beyond what an image has. Raises ImageError.

    `status` and `sources` are the image's own: what dpkg has installed there, and where apt gets more.
    """
    with tempfile.TemporaryDirectory(prefix="cloudscale-apt-") as folder:
        state = Path(folder)
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
            "APT::Sandbox::User": "root",  # no other may look into the folder
        }
        apt = ["apt-get", "-q", "-y", *(f"-o{key}={value}" for key, value in settings.items())]
        _run([*apt, "update"], "apt-get update")
        names = packages.read_text().split()
        _run([*apt, "install", "--download-only", "--no-install-recommends", *names], "apt-get install")
        if debs := sorted((state / "debs").glob("*.deb")):
            target.mkdir()
            for deb in debs:
                shutil.move(deb, target / deb.name)


def fetch_wheels(
    requirements: Path, target: Path, architecture: str, installed: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Downloads the wheels for the image's Python, and returns the versions: of what stands in a file, and no more.

    With `installed` (names → versions), the file's packages need not be pinned, and what they need comes with them, but
    for what is installed, whose versions stay. Raises ImageError.
    """
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in GLIBC]
    platforms += [f"{old}_{architecture}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    command = [*_pip("download"), "--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    command += [f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    command += [f"--platform={platform}" for platform in (*platforms, "any")]
    command += ["--dest", str(target), "--find-links", str(target), "--requirement", str(requirements)]
    target.mkdir()
    with tempfile.NamedTemporaryFile("w", prefix="cloudscale-", suffix=".txt") as constraints:
        if installed is None:
            command.append("--no-deps")
        else:
            constraints.writelines(f"{name}=={version}\n" for name, version in installed.items())
            constraints.flush()
            command += ["--constraint", constraints.name]
        _download(command, target)
    for path in target.iterdir():
        if path.suffix != ".whl":
            raise ImageError(f"{path.name} is no wheel.", "Name packages by their names on the Python index.")
    versions = wheel_versions(path.name for path in target.iterdir())
    for name in versions.keys() & {canonical(name) for name in installed or ()}:
        del versions[name]
    for path in list(target.iterdir()):
        if not wheel_versions([path.name]).keys() <= versions.keys():
            path.unlink()
    return versions


def _download(command: Sequence[str], target: Path) -> None:
    """Runs pip, and makes a wheel of each package that has none, as far as it is of Python alone."""
    made: set[str] = set()
    while True:
        try:
            return _run(command, "pip download")
        except ToolError as error:
            missing = NO_WHEEL.search(error.said)
            if not missing or missing[1] in made:
                raise
        made.add(missing[1])
        _make_wheel(missing[1], target)


def _make_wheel(requirement: str, target: Path) -> None:
    before = set(target.iterdir())
    try:
        _run([*_pip("wheel"), "--no-deps", "--wheel-dir", str(target), requirement], "pip wheel")
    except ToolError as error:
        raise ImageError(
            f"{requirement}: there is no wheel of it for Python {PYTHON}, and none can be made here: {error.said}",
            "Is the name right? Another version may have one; or install it with a Dockerfile, in the image itself.",
        ) from None
    if any(not path.name.endswith("-none-any.whl") for path in set(target.iterdir()) - before):
        raise ImageError(
            f"{requirement}: there is no wheel of it for Python {PYTHON}, and it has to be compiled.",
            "Another version may have one; or install it with a Dockerfile: the images have a compiler.",
        )


def _pip(what: str) -> list[str]:
    return [sys.executable, "-m", "pip", what, "--progress-bar=off", "--disable-pip-version-check"]


def canonical(name: str) -> str:
    """A Python package's name as all its spellings have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wheel_versions(names: Iterable[str]) -> dict[str, str]:
    """Package → version, as the wheels' names tell."""
    parts = [name.split("-") for name in names]
    return {canonical(name): version for name, version, *_ in parts}


def _run(command: Sequence[str], what: str) -> None:
    done = run_program(command, TIMEOUT)
    if done.exit_code == TIMED_OUT:
        raise ImageError(f"{what} took more than {TIMEOUT} s.", "Is the network slow? Run again.")
    if done.exit_code:
        said = _last_words(done.stdout, done.stderr)
        remedy = (
            "Ask for other versions of these." if CONFLICT in done.stdout else "Is there a network? Then run again."
        )
        raise ToolError(f"{what} failed: {said}", remedy, said)


def _last_words(stdout: str, stderr: str) -> str:
    """What a program said at last; of packages that don't fit together, which (pip tells that on standard output)."""
    output, errors = _lines(stdout), _lines(stderr)
    if CONFLICT not in output:
        return " / ".join((errors or output)[-3:])
    causes = output[output.index(CONFLICT) + 1 :]
    end = next((at for at, line in enumerate(causes) if line.startswith("To fix this")), None)
    return " / ".join([*errors[:1], *causes[:end]])


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if "WARNING" not in line]
    return [line for line in lines if line and not line.startswith(("note:", "hint:"))]
