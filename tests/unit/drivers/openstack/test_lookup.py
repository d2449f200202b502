"""A name or an id of the configuration, and the message if nothing has it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cloudscale.drivers.openstack.lookup import SHOWN, among, names_of, several
from cloudscale.errors import SettingsError


def resources(*names: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(id=f"id-{number}", name=name) for number, name in enumerate(names)]


def test_one_is_found_by_its_name_or_its_id() -> None:
    nets = resources("a", "b")
    assert among(nets, "network", "b") is among(nets, "network", "id-1") is nets[1]
    assert among(nets, "network", "c") is None


def test_a_name_that_is_the_id_of_another_is_the_id() -> None:
    nets = resources("id-1", "b")
    assert among(nets, "network", "id-1") is nets[1]


def test_of_several_with_the_name_the_ids_are_listed() -> None:
    with pytest.raises(SettingsError, match=r"openstack\.network: 'a': the cloud has several") as raised:
        among(resources("a", "b", "a"), "network", "a")
    assert raised.value.remedy == "Use an id instead: id-0, id-2."
    assert several("network", "a").remedy == "Use an id instead."


def test_the_most_similar_names_are_listed_first_and_a_long_list_is_cut() -> None:
    assert names_of(resources("zone", "abc", "course-net"), "course-nett") == "course-net, abc, zone"
    assert names_of([]) == "none"
    text = names_of(resources(*(f"net-{number:02}" for number in range(SHOWN + 3))))
    assert text.endswith(f"net-{SHOWN - 1:02} and 3 more")
