from __future__ import annotations

import pytest

from cloudscale.errors import CloudscaleError, EngineError, ImageError, RequestError
from cloudscale.images.on_engine import (
    EngineImage,
    NotebookImage,
    check_pullable,
    find_image,
    look_inside,
    pull_image,
)
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeContainers, fake_engine

PUBLIC = "quay.io/jupyter/lab:1"
PULLED = {"Id": "sha256:11", "RepoDigests": ["mirror/lab@sha256:bb", "quay.io/jupyter/lab@sha256:aa"]}


# --- looking it up ---------------------------------------------------------------------------


def image_on(api: FakeApi, reference: str = PUBLIC) -> EngineImage:
    image = find_image(fake_engine(api), reference)
    assert image
    return image


def test_an_image_that_the_engine_lacks_is_none() -> None:
    assert find_image(fake_engine(FakeApi()), PUBLIC) is None


@pytest.mark.parametrize("reference", [PUBLIC, "quay.io/jupyter/lab@sha256:aa"])
def test_an_image_of_a_registry_is_pinned_by_its_digest(reference: str) -> None:
    api = FakeApi()
    api.images_[PUBLIC] = PULLED
    assert image_on(api, reference).pinned == "quay.io/jupyter/lab@sha256:aa"
    assert image_on(api, reference).from_registry
    assert api.changes == []


def test_an_image_of_no_registry_is_pinned_by_its_id() -> None:
    api = FakeApi()
    api.images_["cloudscale/pydata:latest"] = {"Id": "sha256:22", "RepoDigests": None}
    assert image_on(api, "cloudscale/pydata:latest").pinned == "sha256:22"
    assert image_on(api, "cloudscale/pydata").pinned == "sha256:22"
    assert not image_on(api, "cloudscale/pydata").from_registry


def test_a_digest_of_another_repository_does_not_pin_it() -> None:
    api = FakeApi()
    api.images_["own/lab:1"] = PULLED
    assert image_on(api, "own/lab:1").pinned == "sha256:11"


def test_the_same_image_is_recognized_on_every_engine() -> None:
    here, elsewhere, other = FakeApi(), FakeApi(), FakeApi()
    image: Json = {"Created": "2025-03-14T00:00:00Z", "RootFS": {"Layers": ["sha256:01"]}, "Size": 5}
    here.images_[PUBLIC] = {**PULLED, **image, "Architecture": "arm64"}
    elsewhere.images_[PUBLIC] = {"Id": "sha256:99", **image}
    other.images_[PUBLIC] = {**PULLED, **image, "Created": "2025-03-15T00:00:00Z"}
    assert image_on(here).is_same(image_on(elsewhere))
    assert not image_on(here).is_same(image_on(other))
    assert (image_on(here).size, image_on(here).architecture) == (5, "arm64")


# --- pulling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [PUBLIC, "quay.io/jupyter/lab@sha256:aa"])
def test_an_image_is_pulled(reference: str) -> None:
    api = FakeApi()
    api.registry[reference] = PULLED
    pull_image(fake_engine(api), reference)
    assert image_on(api, reference).pinned == "quay.io/jupyter/lab@sha256:aa"
    assert api.changes == [f"pull {reference}"]


def test_without_a_tag_the_latest_is_pulled() -> None:
    api = FakeApi()
    api.registry["jupyter/lab:latest"] = {"Id": "sha256:11"}
    pull_image(fake_engine(api), "jupyter/lab")
    assert api.changes == ["pull jupyter/lab:latest"]


def test_the_bytes_of_all_layers_are_counted() -> None:
    api, counts = FakeApi(), []
    api.registry[PUBLIC] = PULLED
    pull_image(fake_engine(api), PUBLIC, lambda have, of: counts.append((have, of)))
    assert counts == [(50, 100), (100, 100), (110, 120)]


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
def test_a_pull_that_breaks_off_is_reported(error: str, kind: type[CloudscaleError], message: str) -> None:
    api = FakeApi()
    api.registry[PUBLIC] = {"error": error}
    with pytest.raises(kind, match=message):
        pull_image(fake_engine(api), PUBLIC)


def test_an_image_that_no_registry_has_is_reported_with_what_to_use_instead() -> None:
    with pytest.raises(ImageError) as raised:
        pull_image(fake_engine(FakeApi()), PUBLIC)
    assert PUBLIC in raised.value.message
    assert "m1" in raised.value.message
    assert "invoke image_build pydata" in raised.value.remedy


def test_a_registry_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()

    def no_answer(repository: str, tag: str, stream: bool, decode: bool) -> None:
        raise api_error(500, "Get https://quay.io/v2/: dial tcp: connection refused")

    monkeypatch.setattr(api, "pull", no_answer)
    with pytest.raises(ImageError, match="connection refused"):
        pull_image(fake_engine(api), PUBLIC)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [(400, RequestError, "is not a valid image name"), (500, EngineError, "input/output error")],
)
def test_an_engine_that_refuses_to_look_is_reported(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[CloudscaleError], message: str
) -> None:
    api = FakeApi()

    def refuse(image: str) -> None:
        raise api_error(status, "input/output error")

    monkeypatch.setattr(api, "inspect_image", refuse)
    with pytest.raises(kind, match=message):
        find_image(fake_engine(api), PUBLIC)


def test_a_name_that_only_the_pull_refuses_is_a_wrong_request_too(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()

    def refuse(repository: str, tag: str, stream: bool, decode: bool) -> None:
        raise api_error(400, "invalid tag format")

    monkeypatch.setattr(api, "pull", refuse)
    with pytest.raises(RequestError, match="invalid tag format"):
        pull_image(fake_engine(api), PUBLIC)


def test_an_invalid_name_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="'Jupyter/Lab' is not a valid image name"):
        find_image(fake_engine(FakeApi()), "Jupyter/Lab")


# --- engines that keep images in containerd --------------------------------------------------


def test_where_every_image_has_a_digest_it_is_pinned_by_its_id() -> None:
    api = FakeApi()
    api.images_["own/lab:1"] = {"Id": "sha256:55", "RepoDigests": ["own/lab@sha256:55"], "Size": 100}
    image = image_on(api, "own/lab:1")
    assert image.pinned == "sha256:55"
    assert not image.from_registry
    assert image.room > 2 * image.size  # the size is that of the packed layers


def test_an_image_without_a_date_is_the_same_however_an_engine_says_so() -> None:
    old, new = FakeApi(), FakeApi()
    layers = {"RootFS": {"Layers": ["sha256:l1"]}}
    old.images_["own/lab:1"] = {"Id": "sha256:11", "Created": "0001-01-01T00:00:00Z", **layers}
    new.images_["own/lab:1"] = {"Id": "sha256:55", **layers}
    assert image_on(old, "own/lab:1").is_same(image_on(new, "own/lab:1"))


# --- looking inside --------------------------------------------------------------------------


def test_an_image_shows_who_runs_jupyter_and_where() -> None:
    containers = FakeContainers(b"lab\n1000\n100\n/home/jovyan/work\n1048576\n")
    image = look_inside(fake_engine(FakeApi(), containers), PUBLIC, "lab@sha256:aa", "bio")
    assert image == NotebookImage(PUBLIC, "lab", 1000, 100, "/home/jovyan/work", 1048576)


@pytest.mark.parametrize("limit", [b"unlimited\n", b"sh: ulimit: not found\n", b""])
def test_an_image_that_does_not_say_how_many_files_may_be_open_is_used(limit: bytes) -> None:
    containers = FakeContainers(b"lab\n1000\n100\n/home/jovyan/work\n" + limit)
    assert look_inside(fake_engine(FakeApi(), containers), PUBLIC, "lab@sha256:aa", "bio").open_files == 0


def test_the_look_is_without_a_network_and_leaves_nothing() -> None:
    containers = FakeContainers()
    look_inside(fake_engine(FakeApi(), containers), PUBLIC, "lab@sha256:aa", "bio")
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
def test_an_image_without_jupyter_is_reported_with_one_that_has_it(inside: bytes | Exception) -> None:
    with pytest.raises(ImageError, match=f"{PUBLIC} has no Jupyter") as raised:
        look_inside(fake_engine(FakeApi(), FakeContainers(inside)), PUBLIC, "lab@sha256:aa", "bio")
    assert "--image pydata" in raised.value.remedy


@pytest.mark.parametrize(
    "text",
    ["failed to create shim task: unable to apply caps: operation not permitted", "cgroups: cannot find cgroup mount"],
)
def test_an_engine_that_can_not_start_a_container_is_reported_as_that(text: str) -> None:
    with pytest.raises(EngineError, match=text.rpartition(": ")[2]):
        look_inside(fake_engine(FakeApi(), FakeContainers(api_error(500, text))), PUBLIC, "lab@sha256:aa", "bio")


def test_a_look_that_is_killed_says_nothing_of_the_image() -> None:
    with pytest.raises(ImageError, match="ended with exit code 137") as raised:
        look_inside(fake_engine(FakeApi(), FakeContainers(b"", 137)), PUBLIC, "lab@sha256:aa", "bio")
    assert "has no Jupyter" not in str(raised.value)


def test_a_full_disk_is_not_the_images_fault() -> None:
    containers = FakeContainers(api_error(500, "mkdir /var/lib/docker/overlay2: no space left on device"))
    with pytest.raises(EngineError, match="is full"):
        look_inside(fake_engine(FakeApi(), containers), PUBLIC, "lab@sha256:aa", "bio")
    assert [run["removed"] for run in containers.runs] == [True]


# --- asking for it without a download --------------------------------------------------------


def test_an_image_that_can_be_pulled_is_not_pulled() -> None:
    api = FakeApi()
    api.registry = {PUBLIC: PULLED}
    assert check_pullable(fake_engine(api), PUBLIC) == ""
    assert api.changes == []


def test_a_registry_that_an_engine_does_not_reach_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(image: str) -> Json:
        raise api_error(500, "dial tcp: no route to host\n")

    api = FakeApi()
    monkeypatch.setattr(api, "inspect_distribution", unreachable)
    assert check_pullable(fake_engine(api), PUBLIC) == "dial tcp: no route to host"


def test_an_image_that_can_not_be_pulled_is_refused_as_by_a_pull() -> None:
    api = FakeApi()
    with pytest.raises(ImageError) as asked:
        check_pullable(fake_engine(api), PUBLIC)
    with pytest.raises(ImageError) as pulled:
        pull_image(fake_engine(api), PUBLIC)
    assert str(asked.value) == str(pulled.value)
