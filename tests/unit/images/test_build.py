from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.engines.client import Engine
from cloudscale.errors import EngineError, ImageError, RequestError
from cloudscale.images import build as building
from cloudscale.images import recipes
from cloudscale.images.build import DEBIAN, WITHOUT_REGISTRY, build
from cloudscale.images.recipes import find_recipe, own_recipe
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

PYDATA, ML, SPARK = (f"cloudscale/{name}:latest" for name in ("pydata", "ml", "spark"))


class Builder:
    """An engine that builds, and a computer whose downloads always succeed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = FakeApi()
        self.built: list[Json] = []
        self.messages: list[str] = []
        self.downloads: list[str] = []
        self.installed = "numpy==2.5.5\npip==25.1\n"
        self.failure: Exception | list[Json] = []  # one that is raised, or what the engine says of a build that fails
        self.pruned = 0
        monkeypatch.setattr(self.api, "build", self._build, raising=False)
        monkeypatch.setattr(self.api, "prune_images", self._prune, raising=False)
        monkeypatch.setattr(self.api, "import_image_from_file", self._import, raising=False)
        monkeypatch.setattr(building, "make_debian", lambda tar, packages: self.downloads.append("a Debian"))
        monkeypatch.setattr(building, "fetch_debs", self._fetch_debs)
        monkeypatch.setattr(building, "fetch_wheels", self._fetch_wheels)
        monkeypatch.setattr(building, "fetch_locked", self._fetch_locked)

    @property
    def engine(self) -> Engine:
        engine = fake_engine(self.api)
        vars(engine.client)["images"] = SimpleNamespace(pull=self._pull)
        vars(engine.client)["containers"] = SimpleNamespace(run=self._run)
        return engine

    def build(self, name: str = "pydata") -> str:
        return build(self.engine, find_recipe(name), self.messages.append)

    def own(self, folder: Path, name: str = "maps", base: str = "pydata") -> str:
        return build(self.engine, own_recipe(folder, name, base), self.messages.append)

    def _pull(self, reference: str) -> None:
        repository, _, tag = reference.partition(":")
        for event in self.api.pull(repository, tag, stream=True, decode=True):
            assert "error" not in event

    def _build(
        self, path: str, tag: str, buildargs: Json, labels: Json, rm: bool, forcerm: bool, decode: bool
    ) -> Iterator[Json]:
        assert decode
        files = {file.name: file.read_text() for file in Path(path).iterdir() if file.is_file()}
        self.built.append({"files": files, "tag": tag, "base": buildargs["BASE"], "rm": rm and forcerm})
        if isinstance(self.failure, Exception):
            raise self.failure
        yield from self.failure
        if self.failure:
            return
        config = {"Labels": {**self._labels(buildargs["BASE"]), **labels}}  # those of the base are inherited
        self.api.images_[tag] = {"Id": f"sha256:{len(self.built)}", "Config": config, "Architecture": "amd64"}

    def _labels(self, image: str) -> Json:
        labels: Json = self.api.images_[image].get("Config", {}).get("Labels") or {}
        return labels

    def _run(self, image: str, entrypoint: list[str], command: list[str], network_mode: str, remove: bool) -> bytes:
        assert network_mode == "none" and remove
        if entrypoint == ["pip"]:
            if not self.installed:
                raise api_error(400, 'exec: "pip": executable file not found in $PATH')
            return self.installed.encode(errors="surrogateescape")
        return f"{command} of {image}".encode()

    def _import(self, filename: str, repository: str, tag: str) -> None:
        self.api.images_[f"{repository}:{tag}"] = {"Id": "sha256:33"}

    def _prune(self, filters: Json) -> None:
        assert filters["dangling"] is True
        assert filters["label"] == ["cloudscale.build=stage"]
        self.pruned += 1

    def _fetch_debs(self, packages: Path, status: str, sources: str, architecture: str, target: Path) -> None:
        assert f"status'] of {PYDATA}" in status and f"sources.list'] of {PYDATA}" in sources
        self.downloads.append(f"{packages.read_text().strip()} for {architecture}")
        target.mkdir()

    def _fetch_wheels(
        self, requirements: Path, target: Path, architecture: str, installed: Mapping[str, str]
    ) -> dict[str, str]:
        assert not target.exists() and architecture == "x86_64"
        self.downloads.append(f"wheels of {requirements.parent.name}, with {installed}")
        return {"folium": "0.20", "branca": "0.8"}

    def _fetch_locked(self, requirements: Path, target: Path, architecture: str) -> str:
        assert "--hash=sha256:" in requirements.read_text()
        assert not target.exists() and architecture == "x86_64"
        return "verified==1 --hash=sha256:aa\n"


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    return Builder(monkeypatch)


def tags(builder: Builder) -> Sequence[str]:
    return [image["tag"] for image in builder.built]


# --- the common base -------------------------------------------------------------------------


def test_a_base_that_the_engine_has_is_used(builder: Builder) -> None:
    builder.api.images_[DEBIAN] = {"Id": "sha256:44"}
    assert builder.build() == PYDATA
    (image,) = builder.built
    assert (image["tag"], image["base"]) == (PYDATA, DEBIAN)
    assert {"Dockerfile", "requirements.txt", "packages.txt"} <= set(image["files"])
    assert image["files"]["requirements.txt"] == "verified==1 --hash=sha256:aa\n"
    assert builder.api.changes == [] and builder.pruned == 1


def test_a_base_that_a_registry_has_is_pulled(builder: Builder) -> None:
    builder.api.registry[DEBIAN] = {"Id": "sha256:44"}
    builder.build()
    assert builder.api.changes == [f"pull {DEBIAN}"]
    assert builder.built[0]["base"] == DEBIAN


def test_without_a_registry_a_base_is_made_once(builder: Builder) -> None:
    for _ in range(2):
        builder.build()
        del builder.api.images_[PYDATA]
    assert [image["base"] for image in builder.built] == [WITHOUT_REGISTRY] * 2
    assert builder.downloads.count("a Debian") == 1


def test_an_image_that_is_up_to_date_is_not_built_again(builder: Builder) -> None:
    for _ in range(2):
        assert builder.build() == PYDATA
    assert len(builder.built) == 1


@pytest.mark.parametrize("labels", [None, {}, {"cloudscale.recipe": "an older one"}])
def test_an_image_of_another_recipe_is_built_again(builder: Builder, labels: Json | None) -> None:
    builder.api.images_[PYDATA] = {"Id": "sha256:55", "Config": {"Labels": labels}}
    builder.build()
    assert len(builder.built) == 1


# --- images on a base ------------------------------------------------------------------------


def test_the_base_is_built_first_if_it_is_missing_or_out_of_date(builder: Builder) -> None:
    builder.build("ml")
    assert tags(builder) == [PYDATA, ML]
    assert builder.built[1]["base"] == PYDATA
    assert {"Dockerfile", "add.sh", "requirements.txt"} <= set(builder.built[1]["files"])
    builder.build("ml")
    assert len(builder.built) == 2
    builder.api.images_[PYDATA]["Config"]["Labels"]["cloudscale.recipe"] = "an older one"
    builder.build("ml")
    assert tags(builder)[2:] == [PYDATA]  # its recipe is the same again, and so is that of ml


def test_an_image_whose_base_has_a_new_recipe_is_built_again(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builder.build("ml")
    shutil.copytree(recipes.RECIPES, tmp_path / "images")
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "images")
    (tmp_path / "images" / "pydata" / "packages.txt").write_text("python3-venv\nnano\n")
    builder.build("ml")
    assert tags(builder) == [PYDATA, ML] * 2


def test_debian_packages_are_downloaded_if_no_registry_answers(builder: Builder) -> None:
    builder.build("spark")
    assert "openjdk-21-jre-headless for amd64" in builder.downloads


def test_debian_packages_are_left_to_the_build_if_the_base_came_from_a_registry(builder: Builder) -> None:
    builder.api.registry[DEBIAN] = {"Id": "sha256:44"}
    builder.build("spark")
    assert not any("openjdk" in what for what in builder.downloads)
    assert "openjdk" in builder.built[1]["files"]["packages.txt"]


# --- a trainer's image -----------------------------------------------------------------------


def test_requirements_are_resolved_against_what_the_base_has_and_pinned(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("folium\n")
    (tmp_path / "lesson.ipynb").write_text("{}")
    assert builder.own(tmp_path) == "cloudscale/maps:latest"
    assert f"wheels of {tmp_path.name}, with {{'numpy': '2.5.5', 'pip': '25.1'}}" in builder.downloads
    files = builder.built[-1]["files"]
    assert files["requirements.txt"] == "branca==0.8\nfolium==0.20\n"
    assert set(files) == {"Dockerfile", "add.sh", "requirements.txt"}
    builder.own(tmp_path)
    assert tags(builder) == [PYDATA, "cloudscale/maps:latest"]


def test_what_a_base_prints_may_be_anything(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("folium\n")
    builder.installed += "\udce9\n"  # no UTF-8
    assert builder.own(tmp_path) == "cloudscale/maps:latest"


def test_the_debian_packages_of_both_lists_get_into_the_image(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("folium\n")
    (tmp_path / "packages.txt").write_text("# for the lesson on files\ntree \n\nfile # magic\n")
    (tmp_path / "apt.txt").write_text("tree\ngraphviz\n")
    builder.own(tmp_path, "maps", "pydata")
    assert builder.built[-1]["files"]["packages.txt"] == "tree\nfile\ngraphviz\n"


def test_its_base_may_be_another_image_of_the_trainer(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("folium\n")
    with pytest.raises(RequestError, match="has no image 'maps'"):
        builder.own(tmp_path, "more", "maps")
    builder.own(tmp_path, "maps", "spark")
    builder.own(tmp_path, "more", "maps")
    assert [image["base"] for image in builder.built[1:]] == [PYDATA, SPARK, "cloudscale/maps:latest"]


def test_a_dockerfile_is_built_where_it_lies(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    (tmp_path / "requirements.txt").write_text("its own matter\n")
    builder.own(tmp_path, base="ml")
    assert builder.built[-1]["base"] == ML
    assert set(builder.built[-1]["files"]) == {"Dockerfile", "requirements.txt"}
    assert not any(tmp_path.name in what for what in builder.downloads)


def test_packages_can_not_be_added_to_an_image_without_pip(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("folium\n")
    builder.installed = ""
    with pytest.raises(ImageError, match="pip does not run"):
        builder.own(tmp_path)


# --- failures --------------------------------------------------------------------------------


def test_a_build_that_fails_is_reported_with_its_last_lines(builder: Builder) -> None:
    builder.api.images_[DEBIAN] = {"Id": "sha256:44"}
    builder.failure = [
        {"stream": "Step 1\n"},
        {"stream": "\x1b[91mE: no package tini\x1b[0m\n"},
        {"error": "code 100"},
    ]
    with pytest.raises(ImageError) as raised:
        builder.build()
    assert "Step 1 / E: no package tini / code 100" in raised.value.message
    assert "pydata/Dockerfile" in raised.value.remedy
    assert builder.pruned == 1


@pytest.mark.parametrize(
    "failure",
    [
        [{"error": "write: no space left on device"}],
        api_error(500, "no space left on device"),
    ],
)
def test_a_full_disk_is_reported_as_such(builder: Builder, failure: Exception | list[Json]) -> None:
    builder.api.images_[DEBIAN] = {"Id": "sha256:44"}
    builder.failure = failure
    with pytest.raises(EngineError, match="is full"):
        builder.build()


def test_nothing_is_built_if_a_download_fails(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any) -> None:
        raise ImageError("pip download failed: no route to host")

    builder.api.images_[DEBIAN] = {"Id": "sha256:44"}
    monkeypatch.setattr(building, "fetch_locked", fails)
    with pytest.raises(ImageError, match="no route to host"):
        builder.build()
    assert builder.built == []
