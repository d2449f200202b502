from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.engines.client import Engine
from cloudscale.errors import RequestError
from cloudscale.images import build as building
from cloudscale.images.recipes import Recipe
from cloudscale.model import Machine
from cloudscale.workflow import images, single_machine
from tests.unit.api_schema import Json
from tests.unit.classroom import Class
from tests.unit.fake_api import FakeApi

# --- machines and images ---------------------------------------------------------------------


def test_machines_are_added_and_removed_by_the_driver(bio: Class) -> None:
    assert single_machine.machine_new(bio.session(), "m2").text == "added m2"
    assert single_machine.machine_rm(bio.session(), "m2").text == "removed m2"
    assert bio.questions == ["The machine m2 will be removed. Go on?"]


@pytest.fixture
def built(bio: Class, monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that were built, on an engine whose images have Jupyter."""
    recipes: list[Recipe] = []

    def build(engine: Engine, recipe: Recipe, say: object) -> str:
        recipes.append(recipe)
        return f"{recipe.reference} by {engine.name}"

    bio.trainer = FakeApi(in_swarm=False)
    monkeypatch.setattr(building, "build", build)
    return recipes


@pytest.mark.parametrize("name", ["pydata", "spark"])
def test_an_image_is_built_on_this_computers_engine(bio: Class, built: list[Recipe], name: str) -> None:
    report = images.image_build(bio.session(), name, None, None)
    assert report.text == f"cloudscale/{name}:latest by this computer"


def test_a_trainers_own_image_is_built_and_looked_into(bio: Class, built: list[Recipe], tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("folium")
    images.image_build(bio.session(), "maps", str(tmp_path), "ml")
    images.image_build(bio.session(), "atlas", str(tmp_path), None)
    made = [(recipe.name, recipe.base, recipe.is_own) for recipe in built]
    assert made == [("maps", "ml", True), ("atlas", "pydata", True)]


def test_the_home_is_found_in_the_name_of_the_folder(
    bio: Class, built: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "requirements.txt").write_text("folium")
    images.image_build(bio.session(), "maps", "~/maps", None)
    assert [recipe.folder for recipe in built] == [tmp_path / "maps"]


def test_what_an_image_of_the_projects_own_stands_on_is_no_choice(bio: Class, built: list[Recipe]) -> None:
    with pytest.raises(RequestError, match="--from"):
        images.image_build(bio.session(), "spark", None, "ml")
    assert built == []


ML: Json = {
    "Id": "sha256:77",
    "Created": "2026-01-02T03:04:05.6Z",
    "Size": 300 << 20,
    "RootFS": {"Layers": ["a", "b"]},
    "Config": {"Labels": {"cloudscale.recipe": "of another time"}},
}


def test_images_are_listed_with_where_they_are(lab: Class) -> None:
    lab.trainer = FakeApi(in_swarm=False)
    lab.trainer.images_["cloudscale/ml:latest"] = ML
    lab.launch()
    lab.apis[1].images_["cloudscale/ml:latest"] = {**ML, "RootFS": {"Layers": ["a", "c"]}}
    report = images.image_list(lab.session())
    assert report.problems == ()
    ml, pydata, spark = lab.rows(report)
    assert ml == {"image": "ml", "built": "2026-01-02 03:04", "size": 300 << 20, "shared": 0, "machines": ["m2"]}
    assert pydata == {"image": "pydata", "built": None, "size": None, "shared": None, "machines": []}
    assert spark["image"] == "spark"
    said = "\n".join(lab.said.lines)
    assert "ml: its recipe has changed" in said and "another build of it is on m2" in said


def test_a_machine_out_of_reach_and_no_engine_here_are_reported_with_the_list(lab: Class) -> None:
    lab.launch()
    lab.apis[1].images_["cloudscale/ml:latest"] = ML
    lab.driver.lose("m3")
    report = images.image_list(lab.session(format="csv"))
    assert "ml,no,300 MiB,,m2" in report.text
    assert any("m3" in problem for problem in report.problems)
    assert any("No Docker Engine answers on this computer" in line for line in lab.said.lines)


def test_images_are_listed_where_there_are_no_machines(bio: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    bio.trainer = FakeApi(in_swarm=False)
    monkeypatch.setattr(bio.driver, "machines", list)
    report = images.image_list(bio.session())
    assert ([row["machines"] for row in bio.rows(report)], report.problems) == ([[]] * 3, ())

    def unknown() -> list[Machine]:
        raise RequestError("No cloud account is known.")

    monkeypatch.setattr(bio.driver, "machines", unknown)
    report = images.image_list(bio.session())
    assert len(bio.rows(report)) == 3 and "No cloud account is known" in report.problems[0]
