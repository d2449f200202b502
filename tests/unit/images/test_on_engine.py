from __future__ import annotations

import pytest

from cloudscale.errors import CloudscaleError, EngineError, ImageError, RequestError
from cloudscale.images.on_engine import EngineImage, NotebookImage, find_image, look_inside, pull_image
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeContainers, fake_engine

LAB = "quay.io/jupyter/lab:1"
PULLED = {"Id": "sha256:11", "RepoDigests": ["mirror/lab@sha256:bb", "quay.io/jupyter/lab@sha256:aa"]}


# --- finding ---------------------------------------------------------------------------------


def held(api: FakeApi, reference: str = LAB) -> EngineImage:
    found = find_image(fake_engine(api), reference)
    assert found
    return found


def test_an_image_that_is_not_there_is_not_found() -> None:
    assert find_image(fake_engine(FakeApi()), LAB) is None


@pytest.mark.parametrize("reference", [LAB, "quay.io/jupyter/lab@sha256:aa"])
def test_an_image_of_a_registry_is_named_by_its_digest_there(reference: str) -> None:
    api = FakeApi()
    api.images_[LAB] = PULLED
    assert held(api, reference).pinned == "quay.io/jupyter/lab@sha256:aa"
    assert held(api, reference).from_registry
    assert api.changes == []


def test_an_image_of_no_registry_is_named_by_its_id() -> None:
    api = FakeApi()
    api.images_["cloudscale/pydata:latest"] = {"Id": "sha256:22", "RepoDigests": None}
    assert held(api, "cloudscale/pydata:latest").pinned == "sha256:22"
    assert held(api, "cloudscale/pydata").pinned == "sha256:22"
    assert not held(api, "cloudscale/pydata").from_registry


def test_a_digest_of_another_repository_is_not_its_name() -> None:
    api = FakeApi()
    api.images_["own/lab:1"] = PULLED
    assert held(api, "own/lab:1").pinned == "sha256:11"


def test_an_image_tells_what_is_the_same_on_every_engine() -> None:
    here, there, other = FakeApi(), FakeApi(), FakeApi()
    image: Json = {"Created": "2025-03-14T00:00:00Z", "RootFS": {"Layers": ["sha256:01"]}, "Size": 5}
    here.images_[LAB] = {**PULLED, **image, "Architecture": "arm64"}
    there.images_[LAB] = {"Id": "sha256:99", **image}
    other.images_[LAB] = {**PULLED, **image, "Created": "2025-03-15T00:00:00Z"}
    assert held(here).is_same(held(there))
    assert not held(here).is_same(held(other))
    assert (held(here).size, held(here).architecture) == (5, "arm64")


# --- fetching --------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [LAB, "quay.io/jupyter/lab@sha256:aa"])
def test_an_image_is_pulled(reference: str) -> None:
    api = FakeApi()
    api.registry[reference] = PULLED
    pull_image(fake_engine(api), reference)
    assert held(api, reference).pinned == "quay.io/jupyter/lab@sha256:aa"
    assert api.changes == [f"pull {reference}"]


def test_without_a_tag_the_latest_is_pulled() -> None:
    api = FakeApi()
    api.registry["jupyter/lab:latest"] = {"Id": "sha256:11"}
    pull_image(fake_engine(api), "jupyter/lab")
    assert api.changes == ["pull jupyter/lab:latest"]


def test_the_bytes_of_all_layers_are_counted() -> None:
    api, told = FakeApi(), []
    api.registry[LAB] = PULLED
    pull_image(fake_engine(api), LAB, lambda have, of: told.append((have, of)))
    assert told == [(50, 100), (100, 100), (110, 120)]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("toomanyrequests: rate limit", ImageError, "rate limit"),
        (
            "write /var/lib/docker/tmp/x: no space left on device",
            EngineError,
            "Docker Engine of m1 is full",
        ),
    ],
)
def test_a_pull_that_breaks_off_is_told(error: str, kind: type[CloudscaleError], message: str) -> None:
    api = FakeApi()
    api.registry[LAB] = {"error": error}
    with pytest.raises(kind, match=message):
        pull_image(fake_engine(api), LAB)


def test_an_image_that_no_registry_has_is_told_with_what_else_there_is() -> None:
    with pytest.raises(ImageError) as raised:
        pull_image(fake_engine(FakeApi()), LAB)
    assert LAB in raised.value.message
    assert "m1" in raised.value.message
    assert "invoke image_build pydata" in raised.value.remedy


def test_a_registry_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()

    def no_answer(repository: str, tag: str, stream: bool, decode: bool) -> None:
        raise api_error(500, "Get https://quay.io/v2/: dial tcp: connection refused")

    monkeypatch.setattr(api, "pull", no_answer)
    with pytest.raises(ImageError, match="connection refused"):
        pull_image(fake_engine(api), LAB)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [(400, RequestError, "is no name of an image"), (500, EngineError, "input/output error")],
)
def test_an_engine_that_does_not_look_is_told(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[CloudscaleError], message: str
) -> None:
    api = FakeApi()

    def refuse(image: str) -> None:
        raise api_error(status, "input/output error")

    monkeypatch.setattr(api, "inspect_image", refuse)
    with pytest.raises(kind, match=message):
        find_image(fake_engine(api), LAB)


def test_a_name_that_only_the_pull_refuses_is_a_wrong_request_too(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()

    def refuse(repository: str, tag: str, stream: bool, decode: bool) -> None:
        raise api_error(400, "invalid tag format")

    monkeypatch.setattr(api, "pull", refuse)
    with pytest.raises(RequestError, match="invalid tag format"):
        pull_image(fake_engine(api), LAB)


def test_what_is_no_name_of_an_image_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="'Jupyter/Lab' is no name of an image"):
        find_image(fake_engine(FakeApi()), "Jupyter/Lab")


# --- looking inside --------------------------------------------------------------------------


def test_an_image_tells_who_runs_jupyter_and_where() -> None:
    containers = FakeContainers(b"lab\n1000\n100\n/home/jovyan/work\n")
    image = look_inside(fake_engine(FakeApi(), containers), LAB, "lab@sha256:aa", "bio")
    assert image == NotebookImage(LAB, "lab", 1000, 100, "/home/jovyan/work")


def test_the_look_is_without_a_network_and_leaves_nothing() -> None:
    containers = FakeContainers()
    look_inside(fake_engine(FakeApi(), containers), LAB, "lab@sha256:aa", "bio")
    (run,) = containers.runs
    assert (run["image"], run["network"], run["removed"]) == ("lab@sha256:aa", "none", True)
    assert run["labels"] == {"cloudscale.course": "bio"}


@pytest.mark.parametrize(
    "inside",
    [
        b"bash: hello\n",
        b"",
        api_error(400, 'exec: "sh": executable file not found in $PATH'),
    ],
    ids=["something else", "nothing", "no shell"],
)
def test_an_image_without_jupyter_is_told_with_one_that_has_it(inside: bytes | Exception) -> None:
    with pytest.raises(ImageError, match=f"{LAB} has no Jupyter") as raised:
        look_inside(fake_engine(FakeApi(), FakeContainers(inside)), LAB, "lab@sha256:aa", "bio")
    assert "--image pydata" in raised.value.remedy


def test_a_full_disk_is_not_the_images_fault() -> None:
    containers = FakeContainers(api_error(500, "mkdir /var/lib/docker/overlay2: no space left on device"))
    with pytest.raises(EngineError, match="is full"):
        look_inside(fake_engine(FakeApi(), containers), LAB, "lab@sha256:aa", "bio")
    assert [run["removed"] for run in containers.runs] == [True]
