from __future__ import annotations

from cloudscale.material.marks import forget_marks, read_marks, write_marks
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine


def test_marks_are_replaced_and_go_with_the_last(api: FakeApi) -> None:
    engine = fake_engine(api)
    assert read_marks(engine, "bio") == {}
    write_marks(engine, "bio", {"1": 10, "2": 20})
    write_marks(engine, "bio", {"1": 11, "2": 20})
    write_marks(engine, "bio", {"1": 11, "2": 20})
    (config,) = api.configs_
    assert config["Spec"]["Labels"] == {"cloudscale.course": "bio", "cloudscale.role": "collected"}
    assert read_marks(engine, "bio") == {"1": 11, "2": 20} and read_marks(engine, "geo") == {}
    forget_marks(engine, "bio", {"1", "3"})
    assert read_marks(engine, "bio") == {"2": 20}
    forget_marks(engine, "bio", {"2"})
    assert api.configs_ == []


def test_what_somebody_else_wrote_there_is_no_mark(api: FakeApi) -> None:
    labels = {"cloudscale.course": "bio", "cloudscale.role": "collected"}
    api.configs_ = [{"ID": "1", "Spec": {"Name": "x", "Labels": labels, "Data": "eA=="}}]
    assert read_marks(fake_engine(api), "bio") == {}
