from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from cloudscale.engines.client import Engine
from cloudscale.errors import RequestError
from cloudscale.images import recipes
from cloudscale.images.recipes import (
    find_recipe,
    full_reference,
    is_ours,
    own_recipe,
    recipe_names,
    recipe_on,
    short_name,
)
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

OURS = {"Id": "sha256:55", "Config": {"Labels": {recipes.RECIPE: "abc"}}}


def engine_with(**images: object) -> Engine:
    api = FakeApi(in_swarm=False)
    for name, image in images.items():
        api.images_[f"cloudscale/{name}:latest"] = image  # type: ignore[assignment]
    return fake_engine(api)


@pytest.mark.parametrize("name", ["pydata", "ml", "spark"])
def test_a_recipes_short_name_means_its_image_wherever_that_is(name: str) -> None:
    assert full_reference(name, []) == f"cloudscale/{name}:latest"


@pytest.mark.parametrize(
    "image", ["pydata:1", "jupyter/pydata", "quay.io/jupyter/scipy-notebook:1", "", "../images", "ubuntu", "Not A Name"]
)
def test_every_other_name_stays_as_it_is(image: str) -> None:
    assert full_reference(image, [engine_with(maps=OURS)]) == image


def test_a_short_name_means_an_image_that_cloudscale_built_if_any_engine_has_it() -> None:
    assert full_reference("maps", [engine_with(), engine_with(maps=OURS)]) == "cloudscale/maps:latest"
    assert full_reference("maps", [engine_with(maps={"Id": "sha256:66", "Config": {"Labels": None}})]) == "maps"


def test_an_engine_that_does_not_answer_has_no_image() -> None:
    engine = engine_with(maps=OURS)
    assert recipe_on(engine, "cloudscale/maps:latest") == "abc"
    assert recipe_on(engine, "Not A Name") == ""
    engine.api.is_down = True
    assert recipe_on(engine, "cloudscale/maps:latest") == ""


def test_images_of_cloudscale_are_known_by_their_names() -> None:
    assert is_ours("cloudscale/maps:latest") and not is_ours("cloudscale-tests/tiny:1") and not is_ours("maps")
    assert short_name("cloudscale/maps:latest") == "maps" and short_name("ubuntu:latest") == "ubuntu:latest"


# --- cloudscale's own ------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    pinned = [line.split("==") for line in requirements(name)]
    return {canonicalize_name(package): version.partition(" ")[0] for package, version in pinned}


def requirements(name: str) -> list[str]:
    """The lines of the file as pip reads them: a backslash continues one, and comments are left out."""
    text = (recipes.RECIPES / name / "requirements.txt").read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_pins_every_package(name: str) -> None:
    assert pins(name)
    assert all(re.fullmatch(r"[\w.+!]+", version) for version in pins(name).values())


@pytest.mark.parametrize("name", recipe_names())
def test_every_pin_has_its_hashes(name: str) -> None:
    for line in requirements(name):
        _, *hashes = line.split()
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), line


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_adds_nothing_that_its_base_has(name: str) -> None:
    base = find_recipe(name).base
    assert not base or not pins(name).keys() & pins(base).keys()


def test_each_recipe_has_its_base() -> None:
    assert {name: find_recipe(name).base for name in recipe_names()} == {
        "ml": "pydata",
        "pydata": "",
        "spark": "pydata",
    }


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_ends_as_an_ordinary_user(name: str) -> None:
    recipe = find_recipe(name)
    folder = recipe.folder if recipe.has_dockerfile else recipes.RECIPES
    _, _, last = (folder / "Dockerfile").read_text().rpartition("\nFROM ")
    assert ("USER 1000" in last) == (not recipe.base) and "USER 0" not in last


def test_an_unknown_recipe_is_a_wrong_request_that_names_the_known_ones() -> None:
    with pytest.raises(RequestError, match="Available: ml, pydata, spark"):
        find_recipe("fortran")


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of cloudscale's recipes, for tests that change them."""
    shutil.copytree(recipes.RECIPES, tmp_path / "images")
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "images")
    return tmp_path / "images"


@pytest.mark.parametrize("changed", ["ml/requirements.txt", "Dockerfile", "add.sh"])
def test_a_changed_recipe_is_another_recipe(images: Path, changed: str) -> None:
    before = find_recipe("ml").fingerprint("base")
    assert find_recipe("ml").fingerprint("base") == before != find_recipe("ml").fingerprint("another base")
    (images / changed).write_text((images / changed).read_text() + "# changed\n")
    assert find_recipe("ml").fingerprint("base") != before


# --- a trainer's own -------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "Prüfung Maps"
    made.mkdir()
    (made / "requirements.txt").write_text("folium\n")
    return made


def test_a_trainers_own_has_the_name_that_was_given(folder: Path) -> None:
    recipe = own_recipe(folder, "exam-maps", "ml")
    assert (recipe.name, recipe.base, recipe.reference) == ("exam-maps", "ml", "cloudscale/exam-maps:latest")


@pytest.mark.parametrize("name", ["pydata", "spark", "base", "brought-1", "Maps", "maps:1", "me/maps", "-", ""])
def test_a_reserved_or_invalid_name_is_a_wrong_request(folder: Path, name: str) -> None:
    with pytest.raises(RequestError):
        own_recipe(folder, name, "pydata")


@pytest.mark.parametrize("where", ["", "nowhere"])
def test_a_folder_without_a_recipe_is_a_wrong_request(tmp_path: Path, where: str) -> None:
    with pytest.raises(RequestError, match=r"neither a requirements.txt nor a Dockerfile"):
        own_recipe(tmp_path / where, "maps", "pydata")


def test_of_requirements_nothing_else_in_the_folder_counts_and_of_a_dockerfile_all(folder: Path) -> None:
    recipe = own_recipe(folder, "maps", "ml")
    before = recipe.fingerprint("base")
    (folder / "lesson.ipynb").write_text("{}")
    assert recipe.fingerprint("base") == before
    (folder / "packages.txt").write_text("graphviz")
    assert recipe.fingerprint("base") != before
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    before = recipe.fingerprint("base")
    (folder / "lesson.ipynb").write_text("{ }")
    assert recipe.fingerprint("base") != before
