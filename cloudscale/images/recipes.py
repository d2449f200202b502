"""The recipes of the notebook images: what each is built from, its base, and what its short name means."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import EngineError, RequestError
from cloudscale.images.own import DOCKERFILE, check
from cloudscale.outside import formed

RECIPES = Path(__file__).parent / "builtin"
PACKAGES = "packages.txt"
SHARED_FILES = (DOCKERFILE, "add.sh")  # in RECIPES, for every image with a base; a recipe's own Dockerfile has priority
REPOSITORY = "cloudscale"
RECIPE = "cloudscale.recipe"  # this label of an image has the fingerprint of its recipe
DEFAULT = "pydata"  # the base of a trainer's own image unless --on names another

SHORT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")  # a name without registry, tag or digest
BASE_OF = re.compile(rf"^ARG BASE={REPOSITORY}/(\S+):latest$", re.MULTILINE)
RESERVED = "base"  # the Debian image that is made where no registry answers


@dataclass(frozen=True)
class Recipe:
    """What an image is built from.

    The folder has a Dockerfile, or lists what to add to the image `base`: requirements.txt and packages.txt.
    `is_own`: it is a trainer's own. cloudscale's recipes pin every package.
    """

    name: str
    folder: Path
    base: str  # short name; empty: Debian
    is_own: bool = False

    @property
    def reference(self) -> str:
        return reference(self.name)

    @property
    def has_dockerfile(self) -> bool:
        return (self.folder / DOCKERFILE).is_file()

    def fingerprint(self, base: str) -> str:
        """A digest of the recipe's files, on a base with this fingerprint."""
        digest = hashlib.sha256(f"{base}\0".encode())
        files = {str(path.relative_to(self.folder)): path for path in self._files()}
        if self.base:
            files |= {f"../{name}": RECIPES / name for name in SHARED_FILES}
        for name, path in sorted(files.items()):
            digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]

    def _files(self) -> list[Path]:
        if self.is_own and not self.has_dockerfile:  # nothing else of the folder gets into the image
            return list(self.folder.glob("*.txt"))
        return [path for path in self.folder.rglob("*") if path.is_file()]


def recipe_names() -> list[str]:
    return sorted(path.name for path in RECIPES.iterdir() if path.is_dir())


def find_recipe(name: str) -> Recipe:
    """One of cloudscale's own recipes. Raises RequestError if it has none of this name."""
    if name not in recipe_names():
        raise RequestError(
            f"cloudscale has no recipe for an image {name!r}.",
            f"Available: {', '.join(recipe_names())}. To build your own image, add --from FOLDER.",
        )
    dockerfile = RECIPES / name / DOCKERFILE
    base = BASE_OF.search((dockerfile if dockerfile.is_file() else RECIPES / DOCKERFILE).read_text())
    return Recipe(name, RECIPES / name, base[1] if base else "")


def own_recipe(folder: Path, name: str, base: str) -> Recipe:
    """The recipe of a trainer's own image, which is in a folder. Raises RequestError."""
    check(folder)
    if not SHORT.fullmatch(name):
        raise RequestError(f"{name!r} can't be the name of an image.", "Use lower-case letters, digits and hyphens.")
    if name in (RESERVED, *recipe_names()) or name.startswith("brought-"):  # see naming.delivered_repository
        raise RequestError(f"The image name {name!r} is reserved for cloudscale.", "Choose another name.")
    return Recipe(name, folder, base, is_own=True)


def reference(name: str) -> str:
    return f"{REPOSITORY}/{name}:latest"


def short_name(image: str) -> str:
    """`pydata` for cloudscale/pydata:latest; any other name stays as it is."""
    return image.removeprefix(f"{REPOSITORY}/").removesuffix(":latest") if is_ours(image) else image


def is_ours(image: str) -> bool:
    """Whether cloudscale builds the image, so that no registry has it."""
    return image.startswith(f"{REPOSITORY}/")


def full_reference(image: str, engines: Iterable[Engine]) -> str:
    """The image that a short name means: that of a recipe, or one that cloudscale built on one of the engines.

    Any other name is left to Docker.
    """
    if not SHORT.fullmatch(image):
        return image
    is_built = image in recipe_names() or any(recipe_on(engine, reference(image)) for engine in engines)
    return reference(image) if is_built else image


def recipe_on(engine: Engine, image: str) -> str:
    """The fingerprint of the recipe that an image was built from; empty if it has none, or no engine answers."""
    with contextlib.suppress(EngineError), engine_errors(engine.name):  # 404: no such image, 400: no name of one
        return label_on(engine, image, RECIPE)
    return ""


def label_on(engine: Engine, image: str, label: str) -> str:
    details = formed(engine.api.inspect_image(image), {"Config?": {"Labels?": {"*": str}}})
    config = details.get("Config") or {}
    return str((config.get("Labels") or {}).get(label, ""))
