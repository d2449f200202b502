from __future__ import annotations

import pytest

from cloudscale.errors import EngineError
from cloudscale.images.listing import Built, built_on, differing, rows
from cloudscale.images.recipes import RECIPE, find_recipe
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

PYDATA = Built("p", "2026-01-01 10:00", 100, ("a", "b"))
ML = Built("m", "2026-01-01 11:00", 120, ("a", "b", "c"))
MAPS = Built("x", "2026-01-01 12:00", 130, ("a", "b", "c", "d"))


def test_an_engine_lists_the_images_that_cloudscale_built_by_their_short_names() -> None:
    api = FakeApi(in_swarm=False)
    image = {
        "Id": "sha256:77",
        "Created": "2026-01-02T03:04:05.6Z",
        "Size": 300,
        "RootFS": {"Layers": ["a", "b"]},
        "Config": {"Labels": {RECIPE: "abc"}},
    }
    # a delivered image has a second name, and an image that somebody built on ours has the label as well
    for name in ("cloudscale/ml:latest", "cloudscale/brought-1:77", "theirs:latest"):
        api.images_[name] = image
    api.images_["cloudscale/base:13"] = {"Id": "sha256:88"}
    assert built_on(fake_engine(api)) == {"ml": Built("abc", "2026-01-02 03:04", 300, ("a", "b"))}
    api.is_down = True
    with pytest.raises(EngineError):
        built_on(fake_engine(api))


def test_each_image_has_a_row_with_what_it_shares_and_which_machines_have_it() -> None:
    listed = rows(
        {"pydata": PYDATA, "ml": ML}, {"m1": {"ml": ML, "pydata": PYDATA, "maps": MAPS}, "m2": {"maps": MAPS}}
    )
    assert [(row.image, row.built, row.size, row.shared, row.machines) for row in listed] == [
        ("ml", ML.created, 120, 100, ["m1"]),
        ("pydata", PYDATA.created, 100, 0, ["m1"]),
        ("spark", None, None, None, []),
        ("maps", None, 130, 120, ["m1", "m2"]),
    ]


def test_an_image_that_is_out_of_date_is_reported() -> None:
    current = Built(find_recipe("pydata").fingerprint(""), "", 1, ("a",))
    assert differing({"pydata": current, "maps": MAPS}, {"m1": {"maps": MAPS}}) == []
    outdated, elsewhere = differing({"ml": ML, "maps": MAPS}, {"m1": {"ml": ML}, "m2": {"maps": PYDATA}})
    assert outdated.startswith("ml: its recipe has changed") and "invoke image_build ml" in outdated
    assert elsewhere.startswith("maps: another build of it is on m2")
