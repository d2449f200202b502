"""Programs on the volumes of students, in a helper container; here they are processes of this computer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import pytest

from cloudscale.errors import EngineError
from cloudscale.material import volumes
from cloudscale.material.volumes import Helper, Mount, image_of, opened, remove_helpers
from cloudscale.seats.services import running_seats
from tests.unit.classroom import Class
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

MARKS = {"cloudscale.course": "bio", "cloudscale.student": "1"}
WORK = Mount("v1", "/home/jovyan/work", MARKS, writable=True)


@pytest.fixture
def helper(api: FakeApi, processes: None) -> Iterator[Helper]:
    with opened(fake_engine(api), "bio", "sha256:11", [WORK]) as helper:
        yield helper


def printed(helper: Helper, code: str, *words: str, feed: Iterable[bytes] = (), timeout: float = 30) -> bytes:
    return b"".join(helper.run(code, words, feed=feed, timeout=timeout))


def test_a_program_writes_into_the_volume(helper: Helper, api: FakeApi) -> None:
    code = "with open(sys.argv[1] + '/a.txt', 'wb') as file:\n    for piece in feed(): file.write(piece)\nprint('done')"
    assert printed(helper, code, WORK.folder, feed=iter([b"one ", b"", b"two"])) == b"done\n"
    assert (api.folder("v1") / "a.txt").read_bytes() == b"one two"


def test_much_goes_in_and_out_at_once(helper: Helper) -> None:
    """More than all buffers between the two hold."""
    pieces = [bytes([number]) * 1_000_000 for number in range(8)]
    code = "for piece in feed(): sys.stdout.buffer.write(piece)"
    assert (
        hashlib.sha256(printed(helper, code, feed=iter(pieces))).digest() == hashlib.sha256(b"".join(pieces)).digest()
    )


def test_a_program_that_fails_is_an_error_with_its_last_words(helper: Helper) -> None:
    with pytest.raises(EngineError, match=r"m1: .*\(ZeroDivisionError: division by zero\)"):
        printed(helper, "1 / 0")
    with pytest.raises(EngineError, match=r"exit code 3"):
        printed(helper, "raise SystemExit(3)")


def test_one_that_does_not_take_what_is_sent_is_no_hindrance(helper: Helper) -> None:
    pieces = iter([b"x" * 10_000_000])
    with pytest.raises(EngineError, match="enough"):
        printed(helper, "sys.exit('enough')", feed=pieces)


def test_errors_are_bounded(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "MOST_ERRORS", 100)
    with pytest.raises(EngineError) as error:
        printed(helper, "sys.exit('x' * 100_000)")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: print('x' * 1000)", "list(feed())"])
def test_all_of_it_has_one_deadline(helper: Helper, code: str, api: FakeApi) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    with pytest.raises(EngineError, match=r"longer than 0 s"):
        printed(helper, code, feed=endless(), timeout=0.3)
    (_, process) = api.programs[-1]
    assert process
    process.kill()


def test_a_helper_has_few_rights_and_the_courses_mark_and_is_removed(api: FakeApi) -> None:
    with pytest.raises(ValueError, match="broken"), opened(fake_engine(api), "bio", "sha256:11", [WORK]):
        (container,) = api.containers_
        assert container["Labels"] == {"cloudscale.course": "bio", "cloudscale.role": "helper"}
        config = container["Config"]
        assert config["cap_drop"] == ["ALL"] and config["cap_add"] == [] and config["read_only"]
        assert config["security_opt"] == ["no-new-privileges"] and config["pids_limit"] and config["mem_limit"]
        raise ValueError("broken")
    assert api.containers_ == []
    assert api.volumes_["v1"]["Labels"] == MARKS


def test_only_what_is_to_be_written_can_be(api: FakeApi) -> None:
    with opened(fake_engine(api), "bio", "sha256:11", [Mount("v1", "/students", MARKS)]):
        (mount,) = api.containers_[0]["Mounts"]
        assert mount["ReadOnly"]


def test_what_a_killed_run_left_is_removed_and_nothing_else(api: FakeApi) -> None:
    engine = fake_engine(api)
    with opened(engine, "bio", "sha256:11", [WORK]), opened(engine, "geo", "sha256:11", [WORK]):
        remove_helpers(engine, "bio")
        assert [each["Labels"]["cloudscale.course"] for each in api.containers_] == ["geo"]


def test_a_seat_says_where_its_work_is_and_what_it_runs(bio: Class) -> None:
    bio.launch()
    seat, *_ = running_seats(fake_engine(bio.api), "bio")
    mount = Mount.of_seat(seat, writable=True)
    assert mount.volume in bio.api.volumes_ and mount.folder == "/home/jovyan/work" and mount.writable
    assert mount.labels["cloudscale.student"] == seat.student.id
    assert image_of(seat) in bio.api.containers_[0]["Image"]
