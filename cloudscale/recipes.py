"""The project's own notebook images: built from cloudscale/images/NAME, with or without a registry."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from docker.errors import APIError, BuildError, ImageNotFound

from cloudscale.engine import Engine, engine_errors, explain_text
from cloudscale.errors import ImageError, RequestError

RECIPES = Path(__file__).parent / "images"
REPOSITORY = "cloudscale"
BASE = "debian:13-slim"
RECIPE = "cloudscale.recipe"  # the label that tells which recipe an image was built from
SUITE = "trixie"  # the same Debian, for mmdebstrap
PYTHON = "3.13"  # that Debian's
WITHOUT_REGISTRY = "cloudscale/base:13"
GLIBC = range(5, 42)  # manylinux_2_N wheels that Debian 13 runs (PEP 600)
DOWNLOAD_TIMEOUT = 1800  # seconds

TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")  # the engine colours what a build writes to standard error

Say = Callable[[str], None]


def recipe_names() -> list[str]:
    return sorted(path.name for path in RECIPES.iterdir() if (path / "Dockerfile").is_file())


def full_reference(image: str) -> str:
    """The image that a short name such as `pydata` means; any other name stays as it is."""
    return f"{REPOSITORY}/{image}:latest" if image in recipe_names() else image


def build(engine: Engine, name: str, say: Say) -> str:
    """Builds an image on the engine, unless it is there, and returns its name. Raises RequestError, ImageError."""
    if name not in recipe_names():
        raise RequestError(f"There is no image {name!r} to build.", f"There is: {', '.join(recipe_names())}.")
    reference, recipe = full_reference(name), _fingerprint(RECIPES / name)
    with tempfile.TemporaryDirectory(prefix="cloudscale-build-") as folder, engine_errors(engine.name):
        if _recipe_of(engine, reference) == recipe:
            say(f"Image: {reference} is there already, of this very recipe")
            return reference
        context = Path(folder)
        shutil.copytree(RECIPES / name, context, dirs_exist_ok=True)
        base = _base(engine, context, say)
        say(f"Packages: fetching the {_count(context / 'requirements.txt')} of {name}")
        _fetch_wheels(context, engine.api.info()["Architecture"])
        say(f"Image: building {reference}")
        _docker_build(engine, context, reference, base, recipe)
    return reference


def _fingerprint(folder: Path) -> str:
    """What the recipe's files say, in short."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _recipe_of(engine: Engine, reference: str) -> str:
    try:
        return str((engine.api.inspect_image(reference)["Config"].get("Labels") or {}).get(RECIPE, ""))
    except ImageNotFound:
        return ""


def _base(engine: Engine, context: Path, say: Say) -> str:
    """A Debian on the engine: the registry's, or where none answers, one made here."""
    for reference in (BASE, WITHOUT_REGISTRY):
        try:
            engine.api.inspect_image(reference)
            say(f"Base: {reference} is there")
            return reference
        except ImageNotFound:
            continue
    try:
        engine.client.images.pull(BASE)
        say(f"Base: {BASE} was pulled")
        return BASE
    except APIError as error:
        if "no space left" in str(error.explanation):
            raise
        say(f"Base: {BASE} can't be pulled ({str(error.explanation).strip()})")
    say("Base: making one with mmdebstrap")
    if not shutil.which("mmdebstrap"):
        raise ImageError(
            "No registry answers, and there is no mmdebstrap here to make a base image with.",
            "Install it, then run again: sudo apt-get install mmdebstrap debian-archive-keyring.",
        )
    tar = context.with_suffix(".base.tar")
    packages = ",".join((context / "packages.txt").read_text().split())
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={packages}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        SUITE,
        str(tar),
    ]
    try:
        _run(command, "mmdebstrap")
        repository, _, tag = WITHOUT_REGISTRY.partition(":")
        engine.api.import_image_from_file(str(tar), repository=repository, tag=tag)
    finally:
        tar.unlink(missing_ok=True)
    return WITHOUT_REGISTRY


def _fetch_wheels(context: Path, architecture: str) -> None:
    """Downloads the wheels for the image's Python, with this computer's pip and its settings.

    A proxy, a mirror or its password thus never enters the image, and the build needs no network.
    """
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in GLIBC]
    platforms += [f"{old}_{architecture}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--implementation=cp", f"--python-version={PYTHON}"]
    command += [f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    command += [f"--platform={platform}" for platform in (*platforms, "any")]
    _run([*command, "--dest", str(context / "wheels"), "-r", str(context / "requirements.txt")], "pip download")


def _docker_build(engine: Engine, context: Path, reference: str, base: str, recipe: str) -> None:
    try:
        engine.client.images.build(
            path=str(context),
            tag=reference,
            buildargs={"BASE": base},
            labels={RECIPE: recipe},
            rm=True,
            forcerm=True,
        )
    except BuildError as error:
        said = [TERMINAL_CODES.sub("", line.get("stream") or line.get("error") or "") for line in error.build_log]
        text = " / ".join([line.strip() for line in said if line.strip()][-3:])
        if "no space left" in text:
            raise explain_text(text, engine.name) from None
        raise ImageError(
            f"{reference} could not be built: {text}", "Look at its Dockerfile in cloudscale/images."
        ) from None
    finally:
        # the stage with the wheels is of no use any more
        engine.api.prune_images(filters={"dangling": True, "label": ["cloudscale.build=stage"]})


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise ImageError(f"{what} took more than {DOWNLOAD_TIMEOUT} s.", "Is the network slow? Run again.") from None
    except OSError as error:
        raise ImageError(f"{what} can't be run: {error}.") from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if "WARNING" not in line]
        raise ImageError(f"{what} failed: {' / '.join(lines[-3:])}", "Is there a network? Then run again.")


def _count(requirements: Path) -> int:
    return sum("==" in line for line in requirements.read_text().splitlines())
