"""Builds a notebook image on an engine, and its base first, with or without a registry."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from docker.errors import APIError, ContainerError, ImageNotFound

from cloudscale.engines.client import FAILURE, Engine, engine_errors, explain_text, failure
from cloudscale.errors import CloudscaleError, ImageError, RequestError
from cloudscale.images.own import DOCKERFILE, REQUIREMENTS, debian_packages
from cloudscale.images.packages import fetch_debs, fetch_locked, fetch_wheels, make_debian
from cloudscale.images.recipes import (
    PACKAGES,
    RECIPE,
    RECIPES,
    SHARED_FILES,
    Recipe,
    find_recipe,
    label_on,
    recipe_names,
    recipe_on,
    reference,
)
from cloudscale.model import last_lines
from cloudscale.outside import formed

DEBIAN = "debian:13-slim"
WITHOUT_REGISTRY = "cloudscale/base:13"
DEBIAN_LABEL = "cloudscale.base"  # which of the two an image is based on; images on top of it inherit the label

BUILT = {**FAILURE, "stream?": str}  # what is needed of an event of a build
LAST = 20  # events of a build that are kept, for a message
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")  # the engine colours the standard error of a build

Say = Callable[[str], None]


def build(engine: Engine, recipe: Recipe, say: Say) -> str:
    """Builds an image on the engine, unless it is up to date, and returns its name. Raises RequestError, ImageError."""
    with tempfile.TemporaryDirectory(prefix="cloudscale-build-") as folder, engine_errors(engine.name):
        base = _ensure_base(engine, recipe.base, say) if recipe.base else ""
        fingerprint = recipe.fingerprint(recipe_on(engine, base) if base else "")
        if recipe_on(engine, recipe.reference) == fingerprint:
            say(f"Image: {recipe.reference} is up to date")
            return recipe.reference
        context = Path(folder) / "context"
        labels = {RECIPE: fingerprint}
        if recipe.is_own and recipe.has_dockerfile:
            context = recipe.folder
        elif base:
            _add(engine, recipe, base, context, say)
        else:
            shutil.copytree(recipe.folder, context)
            labels[DEBIAN_LABEL] = base = _debian(engine, context / PACKAGES, say)
            _wheels(engine, recipe, context, say)
        say(f"Image: building {recipe.reference}")
        _docker_build(engine, context, recipe, base, labels)
    return recipe.reference


def _ensure_base(engine: Engine, name: str, say: Say) -> str:
    """The base of another image; one of cloudscale's own is built first if it is missing or out of date."""
    if name in recipe_names():
        return build(engine, find_recipe(name), say)
    if not recipe_on(engine, reference(name)):
        raise RequestError(
            f"{engine.name} has no image {name!r} to use as a base.",
            f"Available: {', '.join(recipe_names())}. To use your own image as a base, build it first with --from.",
        )
    return reference(name)


def _add(engine: Engine, recipe: Recipe, base: str, context: Path, say: Say) -> None:
    """Fills a build context with what is added to the base."""
    context.mkdir()
    for name in SHARED_FILES:
        shutil.copy(RECIPES / name, context)
    if recipe.is_own:
        shutil.copy(recipe.folder / REQUIREMENTS, context)
        if packages := debian_packages(recipe.folder):
            (context / PACKAGES).write_text("".join(f"{package}\n" for package in packages))
    else:
        shutil.copytree(recipe.folder, context, dirs_exist_ok=True)
    _wheels(engine, recipe, context, say, base)
    if (context / PACKAGES).is_file() and label_on(engine, base, DEBIAN_LABEL) == WITHOUT_REGISTRY:
        say(f"Packages: downloading Debian packages for {recipe.name}")
        fetch_debs(
            context / PACKAGES,
            status=_run_inside(engine, base, "cat", "/var/lib/dpkg/status"),
            sources=_run_inside(engine, base, "cat", "/etc/apt/sources.list"),
            architecture=engine.api.inspect_image(base)["Architecture"],
            target=context / "debs",
        )


def _wheels(engine: Engine, recipe: Recipe, context: Path, say: Say, base: str = "") -> None:
    """Downloads the wheels for requirements.txt, and writes their hashes, or the chosen versions, into it."""
    requirements, architecture = context / REQUIREMENTS, engine.api.info()["Architecture"]
    if not recipe.is_own:
        count = sum("==" in line for line in requirements.read_text().splitlines())
        say(f"Packages: downloading {count} Python packages for {recipe.name}")
        requirements.write_text(fetch_locked(requirements, context / "wheels", architecture))
        return
    say(f"Packages: choosing versions for {recipe.name} that work with {recipe.base}")
    pins = _run_inside(engine, base, "pip", "list", "--format=freeze", "--disable-pip-version-check")
    installed = dict(line.split("==", 1) for line in pins.splitlines() if "==" in line)
    # not the copy: the file may refer to others in its folder
    chosen = fetch_wheels(recipe.folder / REQUIREMENTS, context / "wheels", architecture, installed)
    requirements.write_text("".join(f"{name}=={version}\n" for name, version in sorted(chosen.items())))
    added = ", ".join(f"{name} {version}" for name, version in sorted(chosen.items()))
    say(f"Packages: {added or f'{recipe.base} has all of them already'}")


def _run_inside(engine: Engine, image: str, program: str, *words: str) -> str:
    """The output of a program that runs in an image. Raises ImageError if the image does not have it."""
    try:
        printed: bytes = engine.client.containers.run(
            image, entrypoint=[program], command=list(words), network_mode="none", remove=True
        )
    except (ContainerError, APIError) as error:
        if isinstance(error, APIError) and error.status_code not in (400, 404):  # no such program
            raise
        raise ImageError(
            f"Packages can't be added to {image}: {program} does not run in it.",
            "Use a Dockerfile of your own, or one of cloudscale's images as the base.",
        ) from None
    return printed.decode(errors="replace")


def _debian(engine: Engine, packages: Path, say: Say) -> str:
    """A Debian image on the engine: from the registry or, if none answers, made on this computer."""
    for image in (DEBIAN, WITHOUT_REGISTRY):
        try:
            engine.api.inspect_image(image)
            say(f"Base: using {image}")
            return image
        except ImageNotFound:
            continue
    try:
        engine.client.images.pull(DEBIAN)
        say(f"Base: pulled {DEBIAN}")
        return DEBIAN
    except APIError as error:
        if "no space left" in str(error.explanation):
            raise
        say(f"Base: {DEBIAN} can't be pulled ({str(error.explanation).strip()})")
    say("Base: making a Debian image with mmdebstrap instead")
    tar = packages.with_name("base.tar")
    try:
        make_debian(tar, packages)
        repository, _, tag = WITHOUT_REGISTRY.partition(":")
        engine.api.import_image_from_file(str(tar), repository=repository, tag=tag)
    finally:
        tar.unlink(missing_ok=True)
    return WITHOUT_REGISTRY


def _docker_build(engine: Engine, context: Path, recipe: Recipe, base: str, labels: dict[str, str]) -> None:
    log: deque[str] = deque(maxlen=LAST)
    try:
        for event in engine.api.build(
            path=str(context),
            tag=recipe.reference,
            buildargs={"BASE": base},
            labels=labels,
            rm=True,
            forcerm=True,
            decode=True,
        ):
            error = failure(formed(event, BUILT))
            log.append(event.get("stream") or error)
            if error:
                raise _failed(engine, recipe, last_lines(TERMINAL_CODES.sub("", "\n".join(log)), 3))
    finally:
        # the stage with the downloaded packages is of no more use
        engine.api.prune_images(filters={"dangling": True, "label": ["cloudscale.build=stage"]})


def _failed(engine: Engine, recipe: Recipe, text: str) -> CloudscaleError:
    if "no space left" in text:
        return explain_text(text, engine.name)
    where = recipe.folder / DOCKERFILE if recipe.has_dockerfile else RECIPES / DOCKERFILE
    return ImageError(f"The build of {recipe.reference} failed: {text}", f"Check {where}, then run again.")
