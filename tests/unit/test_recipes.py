from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import BuildError

from cloudscale import recipes
from cloudscale.engine import Engine
from cloudscale.errors import EngineError, ImageError, RequestError
from cloudscale.recipes import build, full_reference, recipe_names
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine


def test_a_recipes_short_name_means_its_image() -> None:
    assert full_reference("pydata") == "cloudscale/pydata:latest"


@pytest.mark.parametrize("image", ["pydata:1", "jupyter/pydata", "quay.io/jupyter/scipy-notebook:1", "", "../images"])
def test_every_other_name_stays_as_it_is(image: str) -> None:
    assert full_reference(image) == image


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_pins_every_package_and_takes_its_base(name: str) -> None:
    folder = recipes.RECIPES / name
    lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.+!]+", line) for line in lines)
    assert any(line.lower().startswith("jupyterlab==") for line in lines)
    dockerfile = (folder / "Dockerfile").read_text()
    assert "ARG BASE" in dockerfile
    assert "USER" in dockerfile


class Builder:
    """An engine that builds, on a computer whose programs are these."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = FakeApi()
        self.built: list[Json] = []
        self.said: list[str] = []
        self.commands: list[list[str]] = []
        self.failure: Exception | None = None
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(self.api, "prune_images", self._prune, raising=False)
        monkeypatch.setattr(self.api, "import_image_from_file", self._import, raising=False)
        monkeypatch.setattr(subprocess, "run", self._run)
        self.programs("mmdebstrap")

    def programs(self, *names: str) -> None:
        self.monkeypatch.setattr(shutil, "which", lambda name: name if name in names else None)

    @property
    def engine(self) -> Engine:
        engine = fake_engine(self.api)
        vars(engine.client)["images"] = SimpleNamespace(pull=self._pull, build=self._build)
        return engine

    def build(self, name: str = "pydata") -> str:
        return build(self.engine, name, self.said.append)

    def _pull(self, reference: str) -> None:
        repository, _, tag = reference.partition(":")
        for event in self.api.pull(repository, tag, stream=True, decode=True):
            assert "error" not in event

    def _build(self, path: str, tag: str, buildargs: Json, labels: Json, rm: bool, forcerm: bool) -> None:
        files = sorted(file.name for file in Path(path).iterdir())
        self.built.append({"files": files, "tag": tag, "base": buildargs["BASE"], "rm": rm and forcerm})
        if self.failure:
            raise self.failure
        self.api.images_[tag] = {"Id": "sha256:55", "Config": {"Labels": labels}}

    def _import(self, filename: str, repository: str, tag: str) -> None:
        self.api.images_[f"{repository}:{tag}"] = {"Id": "sha256:33"}

    def _prune(self, filters: Json) -> None:
        assert filters["dangling"] is True
        assert filters["label"] == ["cloudscale.build=stage"]

    def _run(self, command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        assert settings["timeout"] > 0
        self.commands.append(command)
        if "--dest" in command:
            Path(command[command.index("--dest") + 1]).mkdir()
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    return Builder(monkeypatch)


def test_an_unknown_recipe_is_a_wrong_request_that_names_those_there_are(builder: Builder) -> None:
    with pytest.raises(RequestError, match=r"There is: .*pydata"):
        builder.build("fortran")
    assert builder.commands == []


def test_a_base_that_is_there_is_used(builder: Builder) -> None:
    builder.api.images_[recipes.BASE] = {"Id": "sha256:44"}
    assert builder.build() == "cloudscale/pydata:latest"
    (image,) = builder.built
    assert (image["tag"], image["base"]) == ("cloudscale/pydata:latest", recipes.BASE)
    assert {"Dockerfile", "requirements.txt", "packages.txt", "wheels"} <= set(image["files"])
    assert builder.api.changes == []


def test_a_base_that_a_registry_has_is_pulled(builder: Builder) -> None:
    builder.api.registry[recipes.BASE] = {"Id": "sha256:44"}
    builder.build()
    assert builder.api.changes == [f"pull {recipes.BASE}"]
    assert builder.built[0]["base"] == recipes.BASE


def test_an_image_of_this_very_recipe_is_not_built_again(builder: Builder) -> None:
    for _ in range(2):
        assert builder.build() == "cloudscale/pydata:latest"
    assert len(builder.built) == 1


@pytest.mark.parametrize("labels", [None, {}, {"cloudscale.recipe": "an older one"}])
def test_an_image_of_another_recipe_is_built_anew(builder: Builder, labels: Json | None) -> None:
    builder.api.images_["cloudscale/pydata:latest"] = {"Id": "sha256:55", "Config": {"Labels": labels}}
    builder.build()
    assert len(builder.built) == 1


def test_a_changed_recipe_is_another_recipe(builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(recipes.RECIPES, tmp_path / "images")
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "images")
    builder.build()
    (tmp_path / "images" / "pydata" / "packages.txt").write_text("python3-venv\nnano\n")
    builder.build()
    assert len(builder.built) == 2


def test_without_a_registry_a_base_is_made_here_once(builder: Builder) -> None:
    for _ in range(2):
        builder.build()
        del builder.api.images_["cloudscale/pydata:latest"]
    assert [image["base"] for image in builder.built] == [recipes.WITHOUT_REGISTRY] * 2
    assert [command[0] for command in builder.commands].count("mmdebstrap") == 1


def test_without_a_registry_and_mmdebstrap_it_is_told_what_to_install(builder: Builder) -> None:
    builder.programs()
    with pytest.raises(ImageError, match="apt-get install mmdebstrap"):
        builder.build()


def test_the_wheels_are_those_of_the_images_python_not_of_this_one(builder: Builder) -> None:
    builder.api.images_[recipes.BASE] = {"Id": "sha256:44"}
    builder.build()
    (command,) = builder.commands
    assert f"--python-version={recipes.PYTHON}" in command
    assert "--only-binary=:all:" in command
    assert "--platform=manylinux2014_x86_64" in command
    assert not any("index" in word or "proxy" in word for word in command)


def test_a_build_that_fails_is_told_with_its_last_lines(builder: Builder) -> None:
    builder.api.images_[recipes.BASE] = {"Id": "sha256:44"}
    log = [
        {"stream": "Step 1\n"},
        {"stream": "\x1b[91mE: no package tini\x1b[0m\n"},
        {"error": "code 100"},
    ]
    builder.failure = BuildError("failed", iter(log))
    with pytest.raises(ImageError) as raised:
        builder.build()
    assert "Step 1 / E: no package tini / code 100" in raised.value.message


@pytest.mark.parametrize(
    "failure",
    [
        BuildError("failed", iter([{"error": "write: no space left on device"}])),
        api_error(500, "no space left on device"),
    ],
)
def test_a_full_disk_is_told_as_such(builder: Builder, failure: Exception) -> None:
    builder.api.images_[recipes.BASE] = {"Id": "sha256:44"}
    builder.failure = failure
    with pytest.raises(EngineError, match="is full"):
        builder.build()


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (
            subprocess.CompletedProcess([], 1, "", "WARNING: old pip\nERROR: no route to host\n"),
            "no route to host",
        ),
        (subprocess.TimeoutExpired([], 1800), "took more than 1800 s"),
        (FileNotFoundError(2, "No such file"), "can't be run"),
    ],
    ids=["failed", "too long", "not there"],
)
def test_a_download_that_fails_is_told(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, outcome: object, message: str
) -> None:
    def run(command: list[str], **settings: Any) -> object:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    builder.api.images_[recipes.BASE] = {"Id": "sha256:44"}
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ImageError, match=message) as raised:
        builder.build()
    assert "old pip" not in raised.value.message
    assert builder.built == []
