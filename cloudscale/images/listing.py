"""The notebook images that cloudscale built: those on this computer's engine, and those on the machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloudscale.engines.client import Engine, engine_errors
from cloudscale.images.recipes import RECIPE, find_recipe, recipe_names, reference, short_name
from cloudscale.outside import formed

IMAGE = {  # what is needed of an engine's answer
    "Created": str,
    "Size": int,
    "RootFS": {"Layers": [str]},
    "Config": {"Labels": {RECIPE: str}},
}


@dataclass(frozen=True)
class Built:
    """An image on an engine: its recipe's fingerprint, build time (UTC), bytes, and layers from the base up."""

    recipe: str
    created: str
    size: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class ImageRow:
    """An image as `image_list --format json` shows it: its build on this computer, and the machines that have it.

    `size` in bytes; `shared`: how many of them are layers of the image that it is based on.
    """

    image: str
    built: str | None
    size: int | None
    shared: int | None
    machines: Sequence[str]


Images = Mapping[str, Built]  # of one engine, by their short names


def built_on(engine: Engine) -> dict[str, Built]:
    """The images on an engine that cloudscale built, by their short names. Raises EngineError."""
    built = {}
    with engine_errors(engine.name):
        for image in formed(engine.api.images(filters={"label": RECIPE}), [{"RepoTags?": [str]}]):
            for name in image.get("RepoTags") or ():
                short = short_name(name)
                if name == reference(short):
                    details = formed(engine.api.inspect_image(name), IMAGE)
                    created = details["Created"][:16].replace("T", " ")
                    layers = tuple(details["RootFS"]["Layers"])
                    built[short] = Built(details["Config"]["Labels"][RECIPE], created, details["Size"], layers)
    return built


def rows(local: Images, remote: Mapping[str, Images]) -> list[ImageRow]:
    """A row for each image: cloudscale's own, then those of trainers.

    `local`: the images on this computer's engine; `remote`: those of each machine.
    """
    others = {name for images in (local, *remote.values()) for name in images} - set(recipe_names())
    return [_row(name, local, remote) for name in (*recipe_names(), *sorted(others))]


def _row(name: str, local: Images, remote: Mapping[str, Images]) -> ImageRow:
    machines = [machine for machine, images in remote.items() if name in images]
    holders = [local] if name in local else [remote[machine] for machine in machines]
    return ImageRow(
        image=name,
        built=local[name].created if name in local else None,
        size=holders[0][name].size if holders else None,
        shared=_shared(name, holders[0]) if holders else None,
        machines=machines,
    )


def _shared(name: str, images: Images) -> int:
    """The bytes of an image that belong to the largest other image on the same engine that it is based on."""
    layers = images[name].layers
    bases = [other.size for other in images.values() if len(other.layers) < len(layers) and _is_base(other, layers)]
    return max(bases, default=0)


def _is_base(other: Built, layers: tuple[str, ...]) -> bool:
    return layers[: len(other.layers)] == other.layers


def differing(local: Images, remote: Mapping[str, Images]) -> list[str]:
    """A hint for each image that is out of date: its recipe has changed, or a machine has another build of it."""
    hints = []
    for name, built in local.items():
        if name in recipe_names() and built.recipe != _current_fingerprint(name):
            hints.append(
                f"{name}: its recipe has changed since it was built. Build it again: invoke image_build {name}"
            )
        others = [machine for machine, images in remote.items() if name in images]
        others = [machine for machine in others if remote[machine][name].layers != built.layers]
        if others:
            hints.append(
                f"{name}: another build of it is on {', '.join(others)}. Replace it: invoke themachine --image {name}"
            )
    return hints


def _current_fingerprint(name: str) -> str:
    recipe = find_recipe(name)
    return recipe.fingerprint(_current_fingerprint(recipe.base) if recipe.base else "")
