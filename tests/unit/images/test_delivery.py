from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cloudscale.engines.client import Engine
from cloudscale.errors import ConnectionFailed, EngineError, ImageError, RequestError
from cloudscale.fanout import fan_out
from cloudscale.images import delivery
from cloudscale.model import Outcome, Outcomes
from cloudscale.units import GIB
from cloudscale.waiting import poll
from tests.unit.fakes import FakeHosts, fake_apis
from tests.unit.images.deliveries import BUILT, OWN, PUBLIC, PULLED, Course


def pinned(outcomes: Iterable[Outcome[str]]) -> list[str]:
    return [outcome.get() for outcome in outcomes]


# --- pulled ----------------------------------------------------------------------------------


def test_each_machine_pulls_what_a_registry_has(course: Course) -> None:
    for api in course.apis:
        api.registry[PUBLIC] = PULLED
    assert pinned(course.deliver(PUBLIC)) == ["quay.io/jupyter/lab@sha256:aa"] * 3
    assert course.changes() == [[f"pull {PUBLIC}"]] * 3
    assert course.driver.done == []


def test_a_machine_that_has_the_image_is_left_as_it_is(course: Course) -> None:
    for api in course.apis:
        api.images_[PUBLIC] = PULLED
    assert pinned(course.deliver(PUBLIC)) == ["quay.io/jupyter/lab@sha256:aa"] * 3
    assert [api.changes for api in course.apis] == [[], [], []]


def test_all_machines_pull_at_the_same_time(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(3)
    for api in course.apis:
        api.registry[PUBLIC] = PULLED

        def pull(*args: Any, _pull: Callable[..., Any] = api.pull, **kwargs: Any) -> Any:
            meeting.wait(30)  # nobody goes on before all have arrived
            return _pull(*args, **kwargs)

        monkeypatch.setattr(api, "pull", pull)
    way = course.delivery(PUBLIC)
    engines = course.driver.engines.values()
    assert all(outcome.ok for outcome in fan_out(lambda e: way.deliver(e, course.survey(e)), engines))


def test_an_invalid_name_is_a_wrong_request(course: Course) -> None:
    assert isinstance(course.deliver("Jupyter/Lab", "m1")[0].error, RequestError)


def test_bytes_of_all_machines_are_counted_together(course: Course) -> None:
    for api in course.apis:
        api.registry[PUBLIC] = PULLED
    course.deliver(PUBLIC)
    assert course.counts[-1] == (3 * 110, 3 * 120)


# --- sent ------------------------------------------------------------------------------------


def test_an_image_that_no_registry_has_is_sent_once_and_copied_from_machine_to_machine(course: Course) -> None:
    course.has(BUILT, reference=PUBLIC)
    assert pinned(course.deliver(PUBLIC)) == ["sha256:22"] * 3
    assert course.changes() == [[f"load {PUBLIC}"], [], []]
    assert course.driver.done == [f"copy {PUBLIC} from m1 to m2", f"copy {PUBLIC} from m1 to m3"]
    assert course.asked == 1
    assert course.messages == [
        "Image: sending it from this computer to m1 (2048 MiB)",
        "Image: copying it from m1 to m2 (2048 MiB)",
        "Image: copying it from m1 to m3 (2048 MiB)",
    ]


STORE = {**BUILT, "RepoDigests": ["bio/lab@sha256:22"]}  # as containerd's store has each image: the id is the digest


def test_no_machine_asks_a_registry_for_what_only_the_trainer_has(course: Course) -> None:
    for api in course.apis:
        api.registry["bio/lab:1"] = {"Id": "sha256:66"}  # somebody else's, of the same name
    course.has(BUILT, reference="bio/lab:1")
    assert pinned(course.deliver("bio/lab:1")) == ["sha256:22"] * 3
    assert course.changes() == [["load bio/lab:1"], [], []]


@pytest.mark.parametrize("is_published", [True, False])
def test_the_digest_of_a_trainers_image_in_containerds_store_is_looked_up_once(
    course: Course, is_published: bool
) -> None:
    course.has(STORE, reference="bio/lab:1")
    assert course.trainer
    course.trainer.published = {"bio/lab@sha256:22"} if is_published else set()
    for api in course.apis:
        api.registry["bio/lab:1"] = STORE
    assert pinned(course.deliver("bio/lab:1")) == ["sha256:22"] * 3
    assert course.changes() == ([["pull bio/lab:1"]] * 3 if is_published else [["load bio/lab:1"], [], []])


def test_an_image_for_another_architecture_is_pulled_though_the_trainer_has_one(course: Course) -> None:
    course.has({**BUILT, "Architecture": "arm64"}, reference=PUBLIC)
    for api in course.apis:
        api.registry[PUBLIC] = PULLED
    assert pinned(course.deliver(PUBLIC)) == ["quay.io/jupyter/lab@sha256:aa"] * 3


def test_an_image_of_one_build_is_the_same_on_every_engine_whatever_its_id(course: Course) -> None:
    layers = {"RootFS": {"Layers": ["sha256:l1", "sha256:l2"]}, "Created": "2025-01-01"}
    course.apis[0].images_[OWN] = {**BUILT, **layers, "Id": "sha256:22"}
    course.apis[1].images_[OWN] = {**BUILT, **layers, "Id": "sha256:55", "RepoDigests": ["cloudscale/pydata@sha256:55"]}
    course.apis[2].images_[OWN] = {**BUILT, **layers, "Id": "sha256:77"}
    assert pinned(course.deliver(OWN)) == ["sha256:22", "sha256:55", "sha256:77"]
    assert [api.changes for api in course.apis] == [[], [], []]


def test_a_machine_with_another_build_than_the_first_one_gets_that(course: Course) -> None:
    for api in course.apis:
        api.images_["bio/lab:1"] = BUILT
    course.apis[1].images_["bio/lab:1"] = {**BUILT, "Id": "sha256:33", "Created": "2025-02-02"}
    assert pinned(course.deliver("bio/lab:1")) == ["sha256:22"] * 3
    assert course.driver.done == ["copy bio/lab:1 from m1 to m2"]


def test_a_tag_that_moved_between_two_pulls_is_pulled_by_its_first_digest(course: Course) -> None:
    for api in course.apis:
        api.registry[PUBLIC] = PULLED
        api.registry["quay.io/jupyter/lab@sha256:aa"] = PULLED
    course.apis[1].registry[PUBLIC] = {"Id": "sha256:33", "RepoDigests": ["quay.io/jupyter/lab@sha256:bb"]}
    assert pinned(course.deliver(PUBLIC)) == ["quay.io/jupyter/lab@sha256:aa"] * 3


def test_an_image_of_cloudscale_is_never_pulled(course: Course) -> None:
    for api in course.apis:
        api.registry[OWN] = {"Id": "sha256:66"}  # somebody else's, of the same name
    course.has(BUILT)
    assert pinned(course.deliver(OWN)) == ["sha256:22"] * 3
    assert course.changes()[0] == [f"load {OWN}"]


def test_of_many_machines_at_once_one_is_sent_it(course: Course) -> None:
    course.apis = fake_apis(*(f"m{number}" for number in range(1, 21)))
    course.driver = FakeHosts(*course.apis)
    course.has(BUILT)
    way = course.delivery(OWN)
    outcomes = fan_out(lambda e: way.deliver(e, course.survey(e)), course.driver.engines.values(), width=20)
    assert [outcome.get() for outcome in outcomes] == ["sha256:22"] * 20
    assert sum(change.count(f"load {OWN}") for change in course.changes()) == 1
    assert len(course.driver.done) == 19


def test_a_machine_that_has_it_passes_it_on_and_the_trainers_computer_sends_nothing(course: Course) -> None:
    course.has(BUILT)
    course.apis[0].images_[OWN] = BUILT
    assert pinned(course.deliver(OWN)) == ["sha256:22"] * 3
    assert course.changes() == [[], [], []]
    assert [done.split()[-3] for done in course.driver.done] == ["m1", "m1"]


def test_a_newer_build_replaces_the_one_before(course: Course) -> None:
    course.has({**BUILT, "Id": "sha256:33", "Created": "2025-02-02"})
    for api in course.apis:
        api.images_[OWN] = BUILT
    assert pinned(course.deliver(OWN)) == ["sha256:33"] * 3
    assert course.changes()[0] == [f"load {OWN}"]


def test_without_the_trainers_engine_the_image_of_a_machine_is_used(course: Course) -> None:
    course.apis[0].images_[OWN] = BUILT
    assert pinned(course.deliver(OWN)) == ["sha256:22"] * 3


def test_an_image_that_nobody_has_is_a_failure_of_each_machine(course: Course) -> None:
    outcomes = course.deliver(OWN)
    assert [type(outcome.error) for outcome in outcomes] == [ImageError] * 3
    assert "invoke image_build" in str(outcomes[0].error)


def test_an_image_that_neither_registry_nor_trainer_has_is_reported_with_the_registrys_message(course: Course) -> None:
    for outcome in course.deliver(PUBLIC):
        assert "manifest unknown" in str(outcome.error)
        assert outcome.target in str(outcome.error)


def test_a_trainer_without_an_engine_is_one_without_the_image(course: Course) -> None:
    def none() -> Engine:
        raise EngineError("No Docker Engine answers on this computer.")

    (outcome,) = course.deliver(OWN, "m1", delivery=course.delivery(OWN, none))
    assert "nor on this computer's engine" in str(outcome.error)


def test_an_image_is_sent_compressed(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    course.has(BUILT)
    load = course.apis[0].load_image
    sent: list[bytes] = []

    def watched(data: Any, quiet: bool | None = None) -> Any:
        sent.append(b"".join(data))
        return load([sent[0]], quiet)

    monkeypatch.setattr(course.apis[0], "load_image", watched)
    course.deliver(OWN, "m1")
    assert gzip.decompress(sent[0]).startswith(b'{"cloudscale/pydata')
    assert course.counts[-1] == (len(gzip.decompress(sent[0])), BUILT["Size"])


def test_an_image_for_another_kind_of_machine_is_not_sent(course: Course) -> None:
    course.has({**BUILT, "Architecture": "arm64"})
    (outcome,) = course.deliver(OWN, "m1")
    assert "built for arm64, but m1 has amd64" in str(outcome.error)
    assert course.changes()[0] == []


def test_an_image_that_can_not_be_loaded_is_reported_and_the_next_machine_is_tried(course: Course) -> None:
    course.has(BUILT)
    course.apis[0].loading_fails = "unexpected EOF"
    failed, *others = course.deliver(OWN)
    assert "m1: the image can't be loaded: unexpected EOF" in str(failed.error)
    assert pinned(others) == ["sha256:22"] * 2
    assert course.changes() == [[], [f"load {OWN}"], []]


def test_a_machine_that_is_down_stops_no_other(course: Course) -> None:
    course.has(BUILT)
    course.apis[0].go_down()
    failed, *others = course.deliver(OWN)
    assert isinstance(failed.error, EngineError)
    assert pinned(others) == ["sha256:22"] * 2


def test_machines_that_wait_for_an_upload_that_fails_try_it_themselves(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.has(BUILT)
    reached, go = threading.Event(), threading.Event()

    def breaks(data: Any, quiet: bool | None = None) -> Any:
        reached.set()
        assert go.wait(30)
        return iter([{"errorDetail": {"message": "no space left on device"}}])

    monkeypatch.setattr(course.apis[0], "load_image", breaks)
    way = course.delivery(OWN)
    results: dict[str, Outcomes[str]] = {}

    def one(name: str) -> threading.Thread:
        thread = threading.Thread(
            target=lambda: results.update({name: course.deliver(OWN, name, delivery=way)}), daemon=True
        )
        thread.start()
        return thread

    threads = [one("m1")]
    assert reached.wait(30)
    threads += [one("m2"), one("m3")]
    go.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not results["m1"][0].ok
    assert results["m2"][0].get() == results["m3"][0].get() == "sha256:22"
    assert sum(change.count(f"load {OWN}") for change in course.changes()) == 1


def test_where_machines_do_not_reach_each_other_the_image_goes_through_this_computer(course: Course) -> None:
    course.has(BUILT)
    course.driver.cut_off = {"m2"}
    assert pinned(course.deliver(OWN)) == ["sha256:22"] * 3
    assert course.changes() == [[f"load {OWN}"], [f"load {OWN}"], []]
    assert any("port 22 is closed" in message and "through this computer" in message for message in course.messages)


def test_a_machine_that_no_way_leads_to_is_its_own_failure(course: Course) -> None:
    course.has(BUILT)
    course.driver.cut_off = {"m2"}
    course.apis[1].loading_fails = "unexpected EOF"
    first, second, third = course.deliver(OWN)
    assert first.ok and third.ok
    assert "m2: the image can't be loaded: unexpected EOF" in str(second.error)


def waiting_for_it(course: Course, monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome[str]]:
    """Of four machines, three wait while the image is sent to the first one."""
    course.apis = fake_apis("m1", "m2", "m3", "m4")
    cut_off, free_disk = course.driver.cut_off, course.free_disk
    course.driver = FakeHosts(*course.apis)
    course.driver.cut_off, course.free_disk = cut_off, free_disk
    course.has(BUILT)
    way = course.delivery(OWN)
    load = course.apis[0].load_image
    reached = threading.Event()

    def when_all_wait(data: Any, quiet: bool | None = None) -> Any:
        reached.set()
        assert poll(lambda: len(way._chains._waiting) == 3, timeout=30, interval=0.01)
        return load(data, quiet)

    monkeypatch.setattr(course.apis[0], "load_image", when_all_wait)

    def deliver(engine: Engine) -> str:
        assert engine.name == "m1" or reached.wait(30)
        return way.deliver(engine, course.survey(engine))

    outcomes = fan_out(deliver, course.driver.engines.values(), name=lambda engine: engine.name)
    return {outcome.target: outcome for outcome in outcomes}


def test_machines_that_wait_get_it_in_one_chain(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    results = waiting_for_it(course, monkeypatch)
    assert [outcome.get() for outcome in results.values()] == ["sha256:22"] * 4
    links = [done.split()[-3::2] for done in course.driver.done]
    assert links[0][0] == "m1"
    assert [before for before, _ in links[1:]] == [behind for _, behind in links[:-1]]
    assert course.counts[-1][0] - course.counts[-2][0] == 3 * 1048576  # each machine of the chain has received that


def test_those_behind_a_broken_link_get_it_alone_and_the_broken_one_through_this_computer(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.driver.cut_off = {"m3"}
    results = waiting_for_it(course, monkeypatch)
    assert [outcome.get() for outcome in results.values()] == ["sha256:22"] * 4
    loaded = {api.name for api in course.apis if f"load {OWN}" in api.changes}
    assert loaded == {"m1", "m3"}
    assert sum("through this computer" in message for message in course.messages) == 1


def test_a_disk_that_is_too_small_breaks_no_chain(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    course.free_disk = {"m3": GIB}
    results = waiting_for_it(course, monkeypatch)
    assert "m3: its disk has 1.0 GiB free" in str(results["m3"].error)
    assert [results[name].get() for name in ("m1", "m2", "m4")] == ["sha256:22"] * 3
    assert len(course.driver.done) == 2


def test_a_source_that_is_lost_is_not_the_end_of_those_that_wait(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = FakeHosts.copy_image
    failures = [ConnectionFailed("m1: the connection is lost.")]

    def fails_once(hosts: FakeHosts, *arguments: Any) -> Outcomes[None]:
        if failures:
            raise failures.pop()
        return copy(hosts, *arguments)

    monkeypatch.setattr(FakeHosts, "copy_image", fails_once)
    results = waiting_for_it(course, monkeypatch)
    assert [outcome.get() for outcome in results.values()] == ["sha256:22"] * 4


def test_a_stream_that_takes_too_long_is_ended(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    course.has(BUILT)
    monkeypatch.setattr(delivery, "SENDING", -1.0)
    (outcome,) = course.deliver(OWN, "m1")
    assert "from this computer was not sent within" in str(outcome.error)


def test_an_image_that_is_missing_after_a_copy_is_reported(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    course.has(BUILT)
    monkeypatch.setattr(course.driver, "copy_image", lambda *arguments: Outcomes())
    assert "did not arrive on m2" in str(course.deliver(OWN)[1].error)


def test_the_bytes_of_a_copy_are_those_that_left_the_source(course: Course) -> None:
    course.has(BUILT)
    course.deliver(OWN, "m1", "m2")
    assert course.counts[-1][0] - course.counts[-2][0] == 1048576


# --- room on the disk ------------------------------------------------------------------------


@pytest.mark.parametrize(("reference", "needed"), [(PUBLIC, GIB // 2), (OWN, 4 * GIB)])
def test_a_disk_that_is_too_small_is_named_before_anything_is_sent(course: Course, reference: str, needed: int) -> None:
    course.has(BUILT)
    for api in course.apis:
        api.registry[PUBLIC] = PULLED
    course.free_disk = {"m1": needed - 1, "m2": needed, "m3": None}
    failed, *others = course.deliver(reference)
    assert f"m1: its disk has {(needed - 1) / GIB:.1f} GiB free" in str(failed.error)
    assert all(other.ok for other in others)
    assert course.changes()[0] == []


def test_a_disk_that_is_too_small_for_a_copy_is_named(course: Course) -> None:
    course.has(BUILT)
    course.free_disk = {"m2": GIB}
    first, second, third = course.deliver(OWN)
    assert first.ok and third.ok
    assert "m2: its disk has 1.0 GiB free" in str(second.error)
    assert course.driver.done == [f"copy {OWN} from m1 to m3"]


def test_a_small_disk_of_the_first_machine_does_not_stop_the_others(course: Course) -> None:
    course.has(BUILT)
    course.free_disk = {"m1": GIB}
    failed, *others = course.deliver(OWN)
    assert "m1: its disk has" in str(failed.error)
    assert pinned(others) == ["sha256:22"] * 2
