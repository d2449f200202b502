"""A fake is worth something only where it takes what the real thing takes."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable

import pytest
import requests
from docker import APIClient
from docker.errors import APIError
from docker.models.containers import ContainerCollection

from cloudscale.drivers.protocols import Driver
from tests.unit.api_schema import SERVICE, check_keys
from tests.unit.fake_api import FakeApi
from tests.unit.fake_cloud import FakeCloud
from tests.unit.fakes import FakeContainers, FakeDriver, fake_apis

CALLS = [name for name, method in inspect.getmembers(FakeApi) if hasattr(method, "__wrapped__")]


@pytest.mark.parametrize("name", CALLS)
def test_the_fake_engine_takes_only_arguments_that_docker_py_takes(name: str) -> None:
    fake, real = (inspect.signature(getattr(kind, name)).parameters for kind in (FakeApi, APIClient))
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in real.values())
    assert free or set(fake) <= set(real)
    if not free:  # what is given by position means the same
        needed = [known for known, parameter in fake.items() if parameter.default is parameter.empty]
        required = [known for known, parameter in real.items() if parameter.default is parameter.empty]
        assert needed[: len(required)] == required


def test_the_fake_containers_take_what_docker_py_takes() -> None:
    known = set(inspect.signature(APIClient.create_container).parameters) | {"remove", "network_mode"}
    taken = set(inspect.signature(FakeContainers.create).parameters)
    assert taken <= known | set(inspect.signature(ContainerCollection.create).parameters)


@pytest.mark.parametrize("fake", [FakeDriver(FakeApi()), FakeCloud({})], ids=lambda fake: type(fake).__name__)
def test_a_fake_driver_is_a_driver(fake: FakeDriver) -> None:
    driver: Driver = fake
    assert isinstance(driver.adopts_swarm, bool)
    for name in [name for name in vars(Driver) if not name.startswith("_")]:
        # what comes back may be narrower: mypy has an eye on that, by the assignment above
        taken, asked = (inspect.signature(getattr(kind, name)).parameters for kind in (type(fake), Driver))
        assert taken == asked, name
        assert hasattr(driver, name)


def test_every_call_that_docker_py_has_too_is_answered_as_a_call() -> None:
    public = {name for name, _ in inspect.getmembers(FakeApi, inspect.isfunction) if not name.startswith("_")}
    assert public - set(CALLS) == {"add_task", "become_worker", "clone", "come_back", "end", "go_down"} | {
        "folder",
        "read_gateway",
        "receive",
        "rename_node",
        "run",
    }


def test_an_engine_that_is_down_answers_no_call_at_all() -> None:
    api = FakeApi()
    api.go_down()
    for name in CALLS:
        with pytest.raises(requests.ConnectionError):
            getattr(api, name)()


# --- a swarm of several ----------------------------------------------------------------------


def labelled(api: FakeApi, node_id: str, **spec: object) -> None:
    """Updates a node as a client does it."""
    node = api.inspect_node(node_id)
    api.update_node(node_id, node["Version"]["Index"], {**node["Spec"], **spec})


def refused(call: Callable[[], object], status: int, text: str) -> None:
    with pytest.raises(APIError, match=text) as raised:
        call()
    assert raised.value.status_code == status


def test_engines_of_one_network_join_one_swarm() -> None:
    apis = fake_apis("m1", "m2", "m3", "m4", in_swarm=True)
    assert [api.info()["Swarm"]["ControlAvailable"] for api in apis] == [True, True, True, False]
    assert [node["Spec"]["Role"] for node in apis[1].nodes()] == ["manager", "manager", "manager", "worker"]
    assert len({api.info()["Swarm"]["NodeID"] for api in apis}) == 4
    assert len(apis[3].info()["Swarm"]["RemoteManagers"]) == 3
    refused(apis[3].nodes, 503, "not a swarm manager")


def test_nobody_joins_without_a_token_an_answer_or_an_address_of_its_own() -> None:
    first, other, alone = *fake_apis("m1", "m2"), FakeApi()
    alone_token, second = alone.inspect_swarm()["JoinTokens"]["Worker"], "10.0.0.2"
    first.init_swarm("10.0.0.1", "10.0.0.1:2377", "10.0.0.1", ["198.18.0.0/16"], {"Labels": {}})
    token = first.inspect_swarm()["JoinTokens"]["Worker"]
    refused(lambda: other.join_swarm(["10.0.0.1:2377"], alone_token, second, second, second), 400, "valid join token")
    refused(lambda: other.join_swarm(["10.0.0.1:2377"], token, "10.0.0.1", second, second), 400, "none of this host")
    refused(lambda: other.join_swarm(["192.0.2.1:2377"], alone_token, second, second, second), 503, "in the background")
    assert other.info()["Swarm"]["LocalNodeState"] == "pending"
    refused(lambda: other.join_swarm(["10.0.0.1:2377"], token, second, second, second), 503, "already part")


def test_an_update_of_a_node_that_comes_too_late_is_refused() -> None:
    first, _ = fake_apis("m1", "m2", in_swarm=True)
    node = first.nodes()[1]
    labelled(first, node["ID"], Labels={"a": "b"})
    refused(lambda: first.update_node(node["ID"], node["Version"]["Index"], node["Spec"]), 500, "out of sequence")


def test_of_the_managers_a_majority_decides() -> None:
    apis = fake_apis("m1", "m2", "m3", in_swarm=True)
    apis[2].go_down()
    first, second, third = (node["ID"] for node in apis[0].nodes())
    refused(lambda: labelled(apis[0], second, Role="worker"), 400, "loss of quorum")
    refused(lambda: apis[0].remove_node(third), 400, "must be demoted")
    labelled(apis[0], third, Role="worker")
    apis[1].go_down()
    refused(apis[0].inspect_swarm, 503, "does not have a leader")
    assert apis[0].info()["Swarm"]["ControlAvailable"]
    apis[1].come_back()
    labelled(apis[0], second, Role="worker")
    refused(lambda: labelled(apis[0], first, Role="worker"), 400, "last manager")
    refused(lambda: apis[0].remove_node(second), 400, "not down")
    apis[0].remove_node(second, force=True)
    apis[0].remove_node(third)
    assert [node["ID"] for node in apis[0].nodes()] == [first]
    assert not apis[1].info()["Swarm"]["ControlAvailable"]


def test_an_engine_that_was_removed_while_it_was_down_does_not_know_it() -> None:
    apis = fake_apis("m1", "m2", "m3", in_swarm=True)
    apis[2].go_down()
    labelled(apis[0], apis[2].node_id, Role="worker")
    apis[0].remove_node(apis[2].node_id)
    apis[2].come_back()
    swarm = apis[2].info()["Swarm"]
    assert (swarm["LocalNodeState"], swarm["ControlAvailable"], len(swarm["RemoteManagers"])) == ("active", True, 3)
    refused(apis[2].inspect_swarm, 503, "does not have a leader")


def test_an_image_keeps_its_names_apart_and_what_is_in_use() -> None:
    api = FakeApi()
    api.registry["lab:1"] = {"Id": "sha256:1", "RepoDigests": ["lab@sha256:a"]}
    list(api.pull("lab", "1", stream=True, decode=True))
    api.tag("lab:1", "own/lab", "x")
    assert [image["RepoTags"] for image in api.images({"reference": "own/lab"})] == [["own/lab:x"]]
    assert api.inspect_image("lab@sha256:a")["RepoTags"] == ["lab:1", "own/lab:x"]
    api.containers_ = [{"Image": "lab@sha256:a"}]
    api.remove_image("lab:1")
    refused(lambda: api.remove_image("own/lab:x"), 409, "is using it")
    refused(lambda: api.inspect_image("lab:1"), 404, "No such image")


def test_an_image_travels_without_its_digests() -> None:
    here, there = FakeApi(), FakeApi()
    here.images_["lab:1"] = {"Id": "sha256:1", "RepoDigests": ["lab@sha256:a"]}
    packed = zlib.compressobj(wbits=31)
    data = [*map(packed.compress, here.get_image("lab:1")), packed.flush()]
    assert list(there.load_image(data, quiet=True)) == [{"stream": "Loaded image: lab:1\n"}]
    assert there.inspect_image("lab:1") == {"Id": "sha256:1", "RepoDigests": [], "RepoTags": ["lab:1"]}


def test_the_fake_engine_rejects_a_key_that_the_api_does_not_know() -> None:
    check_keys({"TaskTemplate": {"Resources": {"Limits": {"MemoryBytes": 1}}}, "Labels": {"any": "key"}}, SERVICE)
    with pytest.raises(APIError, match=r"unknown key service\.TaskTemplate\.Resources\.Limits\.Memory"):
        check_keys({"TaskTemplate": {"Resources": {"Limits": {"Memory": 1}}}}, SERVICE)
