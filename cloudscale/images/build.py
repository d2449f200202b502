"""Builds an image on an engine, with what it stands on, with or without a registry."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from docker.errors import APIError, BuildError, ContainerError, ImageNotFound

from cloudscale.engines.client import Engine, engine_errors, explain_text
from cloudscale.errors import ImageError
from cloudscale.images.packages import fetch_debs, fetch_wheels, make_debian
from cloudscale.images.recipes import (
    ADDING,
    DOCKERFILE,
    PACKAGES,
    RECIPE,
    RECIPES,
    REQUIREMENTS,
    Recipe,
    find_recipe,
    label_on,
    recipe_names,
    recipe_on,
    reference,
)
from cloudscale.model import last_lines

DEBIAN = "debian:13-slim"
WITHOUT_REGISTRY = "cloudscale/base:13"
GROUND = "cloudscale.base"  # the label that tells on which of the two an image stands; those on top of it have it, too

TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")  # the engine colours what a build writes to standard error

Say = Callable[[str], None]


def build(engine: Engine, recipe: Recipe, say: Say) -> str:
    """Builds an image on the engine, unless it is there, and returns its name. Raises RequestError, ImageError."""
    with tempfile.TemporaryDirectory(prefix="cloudscale-build-") as folder, engine_errors(engine.name):
        base = _standing(engine, recipe.base, say) if recipe.base else ""
        fingerprint = recipe.fingerprint(recipe_on(engine, base) if base else "")
        if recipe_on(engine, recipe.reference) == fingerprint:
            say(f"Image: {recipe.reference} is there already, of this very recipe")
            return recipe.reference
        context = Path(folder) / "context"
        labels = {RECIPE: fingerprint}
        if recipe.is_own and recipe.has_dockerfile:
            context = recipe.folder
        elif base:
            _add(engine, recipe, base, context, say)
        else:
            shutil.copytree(recipe.folder, context)
            labels[GROUND] = base = _debian(engine, context / PACKAGES, say)
            _wheels(engine, recipe, context, say)
        say(f"Image: building {recipe.reference}")
        _docker_build(engine, context, recipe, base, labels)
    return recipe.reference


def _standing(engine: Engine, name: str, say: Say) -> str:
    """The image that another is to stand on; one of the project's own is built where it is missing or old."""
    if name in recipe_names():
        return build(engine, find_recipe(name), say)
    if not recipe_on(engine, reference(name)):
        raise ImageError(
            f"There is no image {name!r} on {engine.name} to stand on.",
            f"There is: {', '.join(recipe_names())}; or build it first with --from.",
        )
    return reference(name)


def _add(engine: Engine, recipe: Recipe, base: str, context: Path, say: Say) -> None:
    """What is added to the base, in a folder to build from."""
    context.mkdir()
    for name in ADDING:
        shutil.copy(RECIPES / name, context)
    if recipe.is_own:
        for name in (PACKAGES, REQUIREMENTS):
            if (recipe.folder / name).is_file():
                shutil.copy(recipe.folder / name, context)
    else:
        shutil.copytree(recipe.folder, context, dirs_exist_ok=True)
    _wheels(engine, recipe, context, say, base)
    if (context / PACKAGES).is_file() and label_on(engine, base, GROUND) == WITHOUT_REGISTRY:
        say(f"Packages: fetching those of Debian for {recipe.name}")
        fetch_debs(
            context / PACKAGES,
            status=_inside(engine, base, "cat", "/var/lib/dpkg/status"),
            sources=_inside(engine, base, "cat", "/etc/apt/sources.list"),
            architecture=engine.api.inspect_image(base)["Architecture"],
            target=context / "debs",
        )


def _wheels(engine: Engine, recipe: Recipe, context: Path, say: Say, base: str = "") -> None:
    """The wheels of requirements.txt; a trainer's own file gets the versions that were chosen for it."""
    requirements, architecture = context / REQUIREMENTS, engine.api.info()["Architecture"]
    if not recipe.is_own:
        count = sum("==" in line for line in requirements.read_text().splitlines())
        say(f"Packages: fetching the {count} of {recipe.name}")
        fetch_wheels(requirements, context / "wheels", architecture)
        return
    say(f"Packages: finding versions for {recipe.name} that go with {recipe.base}")
    pins = _inside(engine, base, "pip", "list", "--format=freeze", "--disable-pip-version-check")
    installed = dict(line.split("==", 1) for line in pins.splitlines() if "==" in line)
    # from where it lies: it may refer to other files there
    chosen = fetch_wheels(recipe.folder / REQUIREMENTS, context / "wheels", architecture, installed)
    requirements.write_text("".join(f"{name}=={version}\n" for name, version in sorted(chosen.items())))
    say(f"Packages: {', '.join(f'{name} {version}' for name, version in sorted(chosen.items())) or 'all are there'}")


def _inside(engine: Engine, image: str, program: str, *words: str) -> str:
    """What a program in an image prints."""
    try:
        printed: bytes = engine.client.containers.run(
            image, entrypoint=[program], command=list(words), network_mode="none", remove=True
        )
    except (ContainerError, APIError) as error:
        if isinstance(error, APIError) and error.status_code not in (400, 404):  # no such program
            raise
        raise ImageError(
            f"{image} can't be added to: {program} does not run there.",
            "Add to it with a Dockerfile; or stand on one of the project's own images.",
        ) from None
    return printed.decode()


def _debian(engine: Engine, packages: Path, say: Say) -> str:
    """A Debian on the engine: the registry's, or where none answers, one made here."""
    for image in (DEBIAN, WITHOUT_REGISTRY):
        try:
            engine.api.inspect_image(image)
            say(f"Base: {image} is there")
            return image
        except ImageNotFound:
            continue
    try:
        engine.client.images.pull(DEBIAN)
        say(f"Base: {DEBIAN} was pulled")
        return DEBIAN
    except APIError as error:
        if "no space left" in str(error.explanation):
            raise
        say(f"Base: {DEBIAN} can't be pulled ({str(error.explanation).strip()})")
    say("Base: making one with mmdebstrap")
    tar = packages.with_name("base.tar")
    try:
        make_debian(tar, packages)
        repository, _, tag = WITHOUT_REGISTRY.partition(":")
        engine.api.import_image_from_file(str(tar), repository=repository, tag=tag)
    finally:
        tar.unlink(missing_ok=True)
    return WITHOUT_REGISTRY


def _docker_build(engine: Engine, context: Path, recipe: Recipe, base: str, labels: dict[str, str]) -> None:
    try:
        engine.client.images.build(
            path=str(context),
            tag=recipe.reference,
            buildargs={"BASE": base},
            labels=labels,
            rm=True,
            forcerm=True,
        )
    except BuildError as error:
        log = "\n".join(line.get("stream") or line.get("error") or "" for line in error.build_log)
        text = last_lines(TERMINAL_CODES.sub("", log), 3)
        if "no space left" in text:
            raise explain_text(text, engine.name) from None
        where = recipe.folder / DOCKERFILE if recipe.has_dockerfile else RECIPES / DOCKERFILE
        raise ImageError(f"{recipe.reference} could not be built: {text}", f"Look at {where}.") from None
    finally:
        # the stage with what was fetched is of no use any more
        engine.api.prune_images(filters={"dangling": True, "label": ["cloudscale.build=stage"]})
