"""Which of the images that are built here are where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudscale.engines.client import Engine, engine_errors
from cloudscale.images.recipes import RECIPE, find_recipe, recipe_names, reference, short_name


@dataclass(frozen=True)
class Built:
    """An image on an engine: what it was built from, when (UTC), its bytes, and its layers from the ground up."""

    recipe: str
    made: str
    size: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class ImageRow:
    """An image as `--format json` has it: when it was built here, its size, and the machines that have it.

    `shared`: how many of its bytes are another image's layers.
    """

    image: str
    built: str | None
    size: int | None
    shared: int | None
    machines: Sequence[str]


def built_on(engine: Engine) -> dict[str, Built]:
    """The images of ours that an engine has, by their short names. Raises EngineError."""
    found = {}
    with engine_errors(engine.name):
        for image in engine.api.images(filters={"label": RECIPE}):
            for name in image["RepoTags"] or ():
                short = short_name(name)
                if name == reference(short):
                    held = engine.api.inspect_image(name)
                    made = str(held["Created"])[:16].replace("T", " ")
                    layers = tuple(held["RootFS"]["Layers"])
                    found[short] = Built(held["Config"]["Labels"][RECIPE], made, int(held["Size"]), layers)
    return found


def rows(here: Mapping[str, Built], there: Mapping[str, Mapping[str, Built]]) -> list[ImageRow]:
    """A row for each image: the project's own, then those of trainers. `here`: built on this computer's engine."""
    others = {name for found in (here, *there.values()) for name in found} - set(recipe_names())
    return [_row(name, here, there) for name in (*recipe_names(), *sorted(others))]


def _row(name: str, here: Mapping[str, Built], there: Mapping[str, Mapping[str, Built]]) -> ImageRow:
    machines = [machine for machine, found in there.items() if name in found]
    holders = [here] if name in here else [there[machine] for machine in machines]
    return ImageRow(
        image=name,
        built=here[name].made if name in here else None,
        size=holders[0][name].size if holders else None,
        shared=_shared(name, holders[0]) if holders else None,
        machines=machines,
    )


def _shared(name: str, found: Mapping[str, Built]) -> int:
    """How much of an image is that of another on the same engine, which it stands on."""
    layers = found[name].layers
    below = [
        other.size for other in found.values() if len(other.layers) < len(layers) and _begins(layers, other.layers)
    ]
    return max(below, default=0)


def _begins(layers: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return layers[: len(other)] == other


def differing(here: Mapping[str, Built], there: Mapping[str, Mapping[str, Built]]) -> list[str]:
    """What to say of images that are not what they would be if they were built, or brought, now."""
    said = []
    for name, built in here.items():
        if name in recipe_names() and built.recipe != _current(name):
            said.append(f"{name}: its recipe has changed since it was built; invoke image_build {name} builds it anew")
        others = [machine for machine, found in there.items() if name in found and found[name].layers != built.layers]
        if others:
            said.append(f"{name}: another build of it is on {', '.join(others)}; invoke themachine brings this one")
    return said


def _current(name: str) -> str:
    recipe = find_recipe(name)
    return recipe.fingerprint(_current(recipe.base) if recipe.base else "")
