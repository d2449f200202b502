"""What helper containers print of students' files, what these are called, and what students left in their folders."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example
from hypothesis import strategies as st

from cloudscale.material import shared
from cloudscale.material.collecting import Limits, collect_work
from cloudscale.material.handout import Distributor, Handout
from cloudscale.material.restoring import restore_work
from cloudscale.material.shared import Mirror, Shared, SharedFile
from cloudscale.material.sources import Material, MaterialFile
from cloudscale.material.volumes import Helper, _printed
from cloudscale.material.work_folder import WorkFolder
from cloudscale.material.work_manifest import Row
from cloudscale.material.work_names import LONGEST_NAME, BadName, Names, local_name, own_name
from cloudscale.model import Printed, Student
from cloudscale.seats import containers
from tests.unit.fakes import fake_engine
from tests.unit.fuzz import inputs
from tests.unit.fuzz.inputs import EDITS, Edit, changed_bytes, changed_json, edited, fuzz, reading

ANN = Student("1", "Ann", "Lee")


def helper(*printed: bytes) -> Helper:
    """A helper whose programs print these, one after another, in pieces of odd sizes."""
    rest = list(printed)

    def run(code: str, words: Any = (), *, feed: Any = (), timeout: float) -> Iterator[bytes]:
        data = rest.pop(0) if rest else b""
        for _ in feed:
            pass
        for at in range(0, len(data), 777):
            yield data[at : at + 777]

    return cast(Helper, SimpleNamespace(engine=SimpleNamespace(name="m1"), run=run))


def record(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "big") + content


# --- collect -----------------------------------------------------------------------------------------

TEXT = b"print(6 * 7)\n"
SUM = hashlib.sha256(TEXT).hexdigest()
ABOUT = [len(TEXT), 1_700_000_000_000_000_000, 1]
RECORDS: list[Any] = [
    ["T", "1700000000000000000"],
    ["F", [*ABOUT], "data/lesson.py"],
    ["D", TEXT.decode()],
    ["E", SUM, ""],
    ["F", [*ABOUT], "b.py"],
    ["A", ""],
    ["F", [*ABOUT], "b.py"],
    ["D", TEXT.decode()],
    ["E", SUM, "changed"],
    ["S", [*ABOUT, SUM], "here.py"],
    ["X", "link", "a"],
    ["X", "unreadable: Permission denied", "b"],
    ["Z", ""],
]


def as_records(value: Any) -> bytes:
    """The records of such a list, whatever became of it."""
    parts = []
    for each in value if isinstance(value, list) else []:
        kind, *rest = each if isinstance(each, list) and each else [each]
        texts = [json.dumps(part) if isinstance(part, (list, dict)) else str(part) for part in rest]
        parts.append(
            record(str(kind).encode("utf-8", "replace")[:1] or b"?", "\0".join(texts).encode("utf-8", "replace"))
        )
    return b"".join(parts)


def one_file(path: str, *about: Any) -> bytes:
    return as_records([["F", [*about], path], ["D", TEXT.decode()], ["E", SUM, ""], ["Z", ""]])


@fuzz(edits=EDITS, data=st.none() | changed_bytes(as_records(RECORDS)))
@example(edits=[], data=record(b"X", b"9" * 100_000 + b"\0a") + record(b"Z", b""))
@example(edits=[], data=one_file("../../outside", *ABOUT))
@example(edits=[], data=one_file("a", 1, 10**30, 0))
@example(edits=[], data=one_file("a", 1, -(10**30), 0))
@example(edits=[], data=as_records([["S", [10**400, 1, 0, SUM], "here.py"], ["Z"]]))
@example(edits=[], data=record(b"F", b"[" * 20_000 + b"\0a") + record(b"Z", b""))
def test_any_work_that_is_collected(tmp_path: Path, edits: list[Edit], data: bytes | None) -> None:
    folder = tmp_path / "work"
    (tmp_path / "outside").write_bytes(b"as it was")
    with WorkFolder.to_fill(folder):
        pass
    (folder / "ann").mkdir(exist_ok=True)
    (folder / "ann" / "here.py").write_bytes(TEXT)
    with WorkFolder.to_fill(folder) as here, reading():
        printed = as_records(edited(RECORDS, edits)) if data is None else data
        done = collect_work(helper(printed), "/students", here, ANN, "ann", {}, Limits(30, files=5, bytes=10_000))
        done.lines.close()
        assert done.files <= 5 and done.bytes <= 10_000 and len(str(done.left_out)) < 10_000
    assert {path.name for path in tmp_path.iterdir()} == {"work", "outside"}
    assert {path.name for path in folder.iterdir()} == {"ann", "manifest.csv"}
    assert (tmp_path / "outside").read_bytes() == b"as it was"


# --- restore -----------------------------------------------------------------------------------------

COMPARED = b"".join(
    record(kind, content)
    for kind, content in ((b"S", b"a.py"), (b"N", b"b.py"), (b"C", b"c.py"), (b"B", b"no\0d.py"), (b"Z", b""))
)
WRITTEN = b"".join(
    record(kind, content)
    for kind, content in ((b"W", b"b.py"), (b"M", b"c.py"), (b"C", b"c.py"), (b"B", b"no\0c.py"), (b"Z", b""))
)


@fuzz(compared=changed_bytes(COMPARED), written=changed_bytes(WRITTEN), force=st.booleans())
def test_any_work_that_is_restored(tmp_path: Path, compared: bytes, written: bytes, force: bool) -> None:
    (tmp_path / "ann").mkdir(exist_ok=True)
    rows = [Row("Ann Lee", "1", f"ann/{name}.py", len(TEXT), SUM) for name in "abcd"]
    for row in rows:
        (tmp_path / row.path).write_bytes(TEXT)
    with WorkFolder.to_read(tmp_path) as folder, reading():
        done = restore_work(helper(compared, written), "/students", folder, rows, force=force, timeout=30)
        assert len(str(done.left_out)) < 5_000


# --- distribute and the shared folder -------------------------------------------------------------------

FILE = MaterialFile("lesson.py", Path("/nowhere"), len(TEXT), SUM, False)
GIVEN = {"files": 1, "conflicts": 1, "named": ["lesson.py: changed by the student"], "error": ""}


@fuzz(missing=changed_bytes(f"{SUM}\n".encode()), given=changed_json(GIVEN))
@example(missing=b"\xff\n", given=b"[" * 20_000)
def test_any_answer_about_material(missing: bytes, given: bytes) -> None:
    distributor = Distributor("bio", Handout(Material((FILE,), (), "")))
    with reading():
        distributor._missing(helper(missing))
    with reading():
        outcomes = distributor._give(helper(given + b"\n" + given + b"\n"), ["1", "2"], ["/a", "/b"], lambda: None)
        assert {*outcomes} == {"1", "2"}
        assert all(len(outcome.problem) < inputs.LONGEST_MESSAGE for outcome in outcomes.values() if not outcome.ok)


SHARED = Shared((SharedFile("a.csv", Path("/nowhere"), 1, 1, 0o644),))


@fuzz(look=changed_json({"differing": [0], "extra": 1, "room": 10**9}), rooms=changed_bytes(b"0 1\n"))
@example(look=b"[" * 20_000, rooms=b"7 -1")
def test_any_answer_about_the_shared_folder(look: bytes, rooms: bytes) -> None:
    with reading():
        differing, extra, room = Mirror("bio", SHARED)._look(helper(look))
        assert all(0 <= number < 1 for number in differing) and extra >= 0 and room is not None
    volumes = [{"Name": f"v{id}", "Labels": {"cloudscale.student": id}} for id in ("1", "2")]
    with pytest.MonkeyPatch.context() as patch, reading():
        patch.setattr(containers, "volumes", lambda engine, course: volumes)
        patch.setattr(shared, "opened", lambda *args, **kwargs: Opened(rooms))
        assert {*shared.make_room(fake_engine(None), "bio", "lab:1", ["1", "2"], "shared")} <= {"1", "2"}


class Opened:
    def __init__(self, printed: bytes) -> None:
        self._printed = printed

    def __enter__(self) -> Helper:
        return helper(self._printed)

    def __exit__(self, *error: object) -> None:
        pass


# --- frames, names, and the student's own record ---------------------------------------------------------

FRAMES = b"".join(struct.pack(">BxxxL", channel, len(TEXT)) + TEXT for channel in (1, 2, 1))


@fuzz(data=changed_bytes(FRAMES), size=st.integers(1, 40))
def test_any_frames(data: bytes, size: int) -> None:
    with reading():
        errors = Printed(1000)
        printed = b"".join(_printed((data[at : at + size] for at in range(0, len(data), size)), errors))
        assert len(printed) + len(errors.text()) <= len(data)


NAMES = (
    b"lesson.py",
    b"data/a b.csv",
    "übung/Ä.ipynb".encode(),
    b"a%0A",
    b".",
    b"..",
    b"CON",
    b"a" * 255,
    b"/etc/passwd",
)


@fuzz(paths=st.lists(changed_bytes(*NAMES), max_size=4))
def test_any_names_of_students_files(paths: list[bytes]) -> None:
    names, taken = Names(), set()
    for path in dict.fromkeys(paths):
        with reading():
            local = names.path(path)
            assert local not in taken and not local.startswith("/") and ".." not in local.split("/")
            assert all(0 < len(part.encode()) <= LONGEST_NAME for part in local.split("/"))
            taken.add(local)
        name = path.rpartition(b"/")[2]
        with reading():
            try:
                assert own_name(local_name(name)) == name
            except BadName:
                assert name in (b"", b".", b"..") or b"\0" in name or len(name) > LONGEST_NAME


def _script(name: str) -> dict[str, Any]:
    text = resources.files("cloudscale.material").joinpath("scripts", f"{name}.py").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": name}
    exec(compile(text, name, "exec", dont_inherit=True), names)  # as a helper does
    return names


GIVE = _script("give")


@fuzz(data=changed_bytes(f"{SUM} 13 lesson.py\n{SUM} 0 data/a b.csv\n".encode()))
@example(data=f"{SUM} {'9' * 19} a\n".encode())
def test_any_record_in_a_students_folder(tmp_path: Path, data: bytes) -> None:
    (tmp_path / GIVE["RECORD"].decode()).write_bytes(data)
    give: Callable[..., dict[str, Any]] = GIVE["give_all"]
    with reading():
        done = give(str(tmp_path), str(tmp_path), {"into": "", "files": [], "folders": ["data"], "force": False})
        assert done["error"] == "" and done["files"] == 0
