"""Which images there are to build, what each is made of and stands on, and what their short names mean."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import EngineError, RequestError

RECIPES = Path(__file__).parent / "builtin"
DOCKERFILE, PACKAGES, REQUIREMENTS = "Dockerfile", "packages.txt", "requirements.txt"
ADDING = (DOCKERFILE, "add.sh")  # in RECIPES, for all that lack a Dockerfile of their own; add.sh for every one
REPOSITORY = "cloudscale"
RECIPE = "cloudscale.recipe"  # the label that tells which recipe an image was built from
DEFAULT = "pydata"  # the base of a trainer's own image unless --on names another

SHORT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")  # a name without registry, tag or digest
STANDS_ON = re.compile(rf"^ARG BASE={REPOSITORY}/(\S+):latest$", re.MULTILINE)
RESERVED = "base"  # the Debian that is made where no registry answers


@dataclass(frozen=True)
class Recipe:
    """What an image is built from.

    The folder has a Dockerfile, or what is to be added to the image `base`: requirements.txt and packages.txt.
    `is_own`: a trainer's own; the project's pin every package.
    """

    name: str
    folder: Path
    base: str  # short name; empty: a Debian
    is_own: bool = False

    @property
    def reference(self) -> str:
        return reference(self.name)

    @property
    def has_dockerfile(self) -> bool:
        return (self.folder / DOCKERFILE).is_file()

    def fingerprint(self, base: str) -> str:
        """What the recipe's files say, in short, on a base of this fingerprint."""
        digest = hashlib.sha256(f"{base}\0".encode())
        files = {str(path.relative_to(self.folder)): path for path in self._files()}
        if self.base:
            files |= {f"../{name}": RECIPES / name for name in ADDING}
        for name, path in sorted(files.items()):
            digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]

    def _files(self) -> list[Path]:
        if self.is_own and not self.has_dockerfile:  # what else lies there is not in the image
            return list(self.folder.glob("*.txt"))
        return [path for path in self.folder.rglob("*") if path.is_file()]


def recipe_names() -> list[str]:
    return sorted(path.name for path in RECIPES.iterdir() if path.is_dir())


def find_recipe(name: str) -> Recipe:
    """One of the project's own. Raises RequestError where there is none of the name."""
    if name not in recipe_names():
        raise RequestError(
            f"There is no image {name!r} to build.",
            f"There is: {', '.join(recipe_names())}. One of your own is built with --from FOLDER.",
        )
    dockerfile = RECIPES / name / DOCKERFILE
    stands_on = STANDS_ON.search((dockerfile if dockerfile.is_file() else RECIPES / DOCKERFILE).read_text())
    return Recipe(name, RECIPES / name, stands_on[1] if stands_on else "")


def own_recipe(folder: Path, name: str, base: str) -> Recipe:
    """The recipe of a trainer's own image, which is in a folder. Raises RequestError."""
    if not any((folder / file).is_file() for file in (DOCKERFILE, REQUIREMENTS)):
        raise RequestError(
            f"{folder} has neither a {REQUIREMENTS} nor a {DOCKERFILE}.",
            f"--from wants a folder with a {REQUIREMENTS} (Python packages, with versions or not; Debian's may stand"
            f" in a {PACKAGES} beside it), or with a {DOCKERFILE} that begins with ARG BASE and FROM ${{BASE}}.",
        )
    if not SHORT.fullmatch(name):
        raise RequestError(
            f"{name!r} can't be an image's name.", "Give it one of lower-case letters, digits and hyphens."
        )
    if name in (RESERVED, *recipe_names()) or name.startswith("brought-"):  # as what the course brought is marked
        raise RequestError(f"{name!r} is an image of the project's own.", f"Choose another name than {name}.")
    return Recipe(name, folder, base, is_own=True)


def reference(name: str) -> str:
    return f"{REPOSITORY}/{name}:latest"


def short_name(image: str) -> str:
    """`pydata` of cloudscale/pydata:latest; any other name stays as it is."""
    return image.removeprefix(f"{REPOSITORY}/").removesuffix(":latest") if is_ours(image) else image


def is_ours(image: str) -> bool:
    """Whether an image is built here, and so is in no registry."""
    return image.startswith(f"{REPOSITORY}/")


def full_reference(image: str, engines: Iterable[Engine]) -> str:
    """The image that a short name means: a recipe's, or one that was built here and that one of the engines has.

    Any other name is Docker's own.
    """
    if not SHORT.fullmatch(image):
        return image
    is_built = image in recipe_names() or any(recipe_on(engine, reference(image)) for engine in engines)
    return reference(image) if is_built else image


def recipe_on(engine: Engine, image: str) -> str:
    """The fingerprint of the recipe that an engine's image was built from; empty where it has none, or no answer."""
    with contextlib.suppress(EngineError), engine_errors(engine.name):  # 404: no such image, 400: no name of one
        return label_on(engine, image, RECIPE)
    return ""


def label_on(engine: Engine, image: str, label: str) -> str:
    config = engine.api.inspect_image(image).get("Config") or {}
    return str((config.get("Labels") or {}).get(label, ""))
