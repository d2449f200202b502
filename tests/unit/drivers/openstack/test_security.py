"""Exactly the required ports of a course's machines can be reached."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack import security
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.security import base_rules, ensure_group, runs, seat_rules
from cloudscale.errors import CloudError
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    OwnCloud,
    settings,
)

pytestmark = MARKS
RULES = "/security-group-rules"
Seen = tuple[str, str, int, int, str]


def opened(cloud: Cloud, ports: set[int], given: OpenStackSettings | None = None, *families: str) -> str:
    """The same as the driver does, with or without existing rules."""
    given, families = given or settings(), families or ("IPv4",)
    group = ensure_group(cloud, MARK)
    rules = base_rules(given, families) | seat_rules(ports, given.student_cidr, families)
    security.add_rules(cloud, MARK, group, rules)
    security.remove_others(cloud, MARK, group, rules)
    return group


def let_in(stand_in: OwnCloud, group: str) -> set[Seen]:
    """Protocol, ports and source of all ingress rules of the group, whoever created them."""
    rules = stand_in.network.rules.items.values()
    own = [rule for rule in rules if rule["security_group_id"] == group and rule["direction"] == "ingress"]
    pairs = {
        (
            rule["ethertype"],
            rule["protocol"],
            rule["port_range_min"],
            rule["port_range_max"],
            "group" if rule["remote_group_id"] == group else _source(rule),
        )
        for rule in own
    }
    assert len(pairs) == len(own)
    return pairs


def _source(rule: dict[str, Any]) -> str:
    return rule["remote_group_id"] or rule["remote_address_group_id"] or rule["remote_ip_prefix"] or ""


ANYWHERE = "0.0.0.0/0"
BASE: set[Seen] = {
    ("IPv4", "tcp", 22, 22, ANYWHERE),
    ("IPv4", "tcp", 2376, 2376, ANYWHERE),
    ("IPv4", "tcp", 22, 22, "group"),
    ("IPv4", "tcp", 2377, 2377, "group"),
    ("IPv4", "tcp", 7946, 7946, "group"),
    ("IPv4", "udp", 7946, 7946, "group"),
    ("IPv4", "udp", 4789, 4789, "group"),
}


def add_rule(stand_in: OwnCloud, group: str, text: str = "", **given: Any) -> str:
    """Adds a rule; it is somebody else's, unless the description is the mark."""
    rule = {"security_group_id": group, "direction": "ingress", "description": text, **given}
    return str(stand_in.network.rules.make(rule)["id"])


# --- the required rules ---


def test_a_new_course_lets_in_what_machines_need_and_the_seats(stand_in: OwnCloud, cloud: Cloud) -> None:
    group = opened(cloud, {4321, 4322, 4323})
    assert let_in(stand_in, group) == BASE | {("IPv4", "tcp", 4321, 4323, ANYWHERE)}
    made = stand_in.network.groups.items[group]
    assert (made["name"], made["description"], made["tags"]) == (MARK, MARK, [MARK])
    out = [rule for rule in stand_in.network.rules.items.values() if rule["security_group_id"] == group]
    assert len(out) == security.count(settings())  # as counted by a plan


def test_the_group_and_each_rule_are_marked_in_the_request_itself(stand_in: OwnCloud, cloud: Cloud) -> None:
    opened(cloud, {4321})
    assert [body["description"] for body in stand_in.bodies("/security-groups$")] == [MARK]
    assert {body["description"] for body in stand_in.bodies(RULES)} == {MARK}


def test_each_range_of_addresses_gets_in_where_it_is_meant_to(stand_in: OwnCloud, cloud: Cloud) -> None:
    given = settings(admin_cidr="192.0.2.0/28", student_cidr="198.51.100.0/24")
    group = opened(cloud, {4321}, given)
    outside = {seen for seen in let_in(stand_in, group) if seen[-1] != "group"}
    assert outside == {
        ("IPv4", "tcp", 22, 22, "192.0.2.0/28"),
        ("IPv4", "tcp", 2376, 2376, "192.0.2.0/28"),
        ("IPv4", "tcp", 4321, 4321, "198.51.100.0/24"),
    }


def test_ranges_of_the_newer_protocol_are_ones_of_it(stand_in: OwnCloud, cloud: Cloud) -> None:
    given = settings(admin_cidr="2001:DB8:0::/48", student_cidr="::/0")
    for _ in range(2):  # the second time they exist
        group = opened(cloud, {4321}, given, "IPv4", "IPv6")
        newer = {seen for seen in let_in(stand_in, group) if seen[0] == "IPv6"}
        assert {seen[1:] for seen in newer if seen[-1] == "group"} == {seen[1:] for seen in BASE if seen[-1] == "group"}
        assert {seen for seen in newer if seen[-1] != "group"} == {
            ("IPv6", "tcp", 22, 22, "2001:db8::/48"),
            ("IPv6", "tcp", 2376, 2376, "2001:db8::/48"),
            ("IPv6", "tcp", 4321, 4321, "::/0"),
        }
    assert stand_in.count("POST", RULES) == security.count(given, ("IPv4", "IPv6")) - security.DEFAULT_RULES
    assert stand_in.count("DELETE", RULES) == 0


def test_without_seats_no_student_gets_in(stand_in: OwnCloud, cloud: Cloud) -> None:
    assert let_in(stand_in, opened(cloud, set())) == BASE


@given(st.sets(st.integers(1, 65535), max_size=40))
def test_runs_contain_exactly_the_ports_and_are_as_few_as_possible(ports: set[int]) -> None:
    pairs = runs(ports)
    assert [port for first, last in pairs for port in range(first, last + 1)] == sorted(ports)
    assert all(second[0] - first[1] > 1 for first, second in itertools.pairwise(pairs))


def test_a_gap_stays_closed(stand_in: OwnCloud, cloud: Cloud) -> None:
    seats = let_in(stand_in, opened(cloud, {4321, 4322, 4330, 65535})) - BASE
    assert {(first, last) for _, _, first, last, _ in seats} == {(4321, 4322), (4330, 4330), (65535, 65535)}


def test_a_network_has_rules_only_for_its_own_protocol_versions(stand_in: OwnCloud, cloud: Cloud) -> None:
    given = settings(student_cidr=["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"])
    seats = let_in(stand_in, opened(cloud, {4321}, given)) - BASE
    assert {source for *_, source in seats} == {"192.0.2.0/24", "198.51.100.0/24"}
    seats = let_in(stand_in, opened(cloud, {4321}, given, "IPv6"))
    assert {source for version, _, first, _, source in seats if first == 4321} == {"2001:db8::/32"}
    assert {version for version, *_ in seats} == {"IPv6"}


# --- existing rules ---


def test_what_is_as_it_should_be_is_left_alone(stand_in: OwnCloud, cloud: Cloud) -> None:
    opened(cloud, {4321})
    stand_in.requests.clear()
    opened(cloud, {4321})
    assert {made.method for made in stand_in.requests} == {"GET"}


def test_seats_that_go_close_their_ports_and_new_ones_open_theirs(stand_in: OwnCloud, cloud: Cloud) -> None:
    opened(cloud, {4321, 4322})
    group = opened(cloud, {4322, 4323})
    assert let_in(stand_in, group) - BASE == {("IPv4", "tcp", 4322, 4323, ANYWHERE)}
    group = opened(cloud, set())
    assert let_in(stand_in, group) == BASE


def test_nothing_is_closed_before_its_successor_is_open(stand_in: OwnCloud, cloud: Cloud) -> None:
    opened(cloud, {4321, 4322})
    stand_in.requests.clear()
    opened(cloud, {4321})
    changes = [made.method for made in stand_in.requests if made.method != "GET"]
    assert changes == ["POST", "DELETE"]


def test_a_narrower_range_takes_the_place_of_the_wider_one(stand_in: OwnCloud, cloud: Cloud) -> None:
    opened(cloud, {4321})
    group = opened(cloud, {4321}, settings(student_cidr="192.0.2.0/24", admin_cidr="192.0.2.7/32"))
    assert not [seen for seen in let_in(stand_in, group) if seen[-1] == ANYWHERE]


def test_a_rule_of_somebody_else_stays_and_is_not_made_twice(stand_in: OwnCloud, cloud: Cloud) -> None:
    group = opened(cloud, set())
    theirs = [
        add_rule(stand_in, group, "ping", protocol="icmp"),
        add_rule(stand_in, group),
        add_rule(stand_in, group, ethertype="IPv6", protocol="tcp"),
        add_rule(stand_in, group, protocol="tcp", port_range_min=80, port_range_max=80),
        add_rule(stand_in, group, protocol="tcp", port_range_min=4321, port_range_max=4321, remote_ip_prefix=ANYWHERE),
    ]
    opened(cloud, {4321})
    opened(cloud, set())
    assert not set(theirs) - stand_in.network.rules.items.keys()
    assert len(stand_in.network.rules.items) == 4 + security.count(settings()) - 1 + len(theirs)


def test_what_others_may_send_from_a_group_of_theirs_is_no_rule_of_ours(stand_in: OwnCloud, cloud: Cloud) -> None:
    group = opened(cloud, set())
    other = stand_in.network.groups.add("theirs")
    port: dict[str, Any] = {"protocol": "tcp", "port_range_min": 4321, "port_range_max": 4321}
    theirs = add_rule(stand_in, group, remote_group_id=other["id"], **port)
    addresses = stand_in.network.rules.items[add_rule(stand_in, group, **port)]
    addresses |= {"remote_address_group_id": "0" * 32, "normalized_cidr": "of a group"}
    opened(cloud, {4321})
    assert ("IPv4", "tcp", 4321, 4321, ANYWHERE) in let_in(stand_in, group)
    assert theirs in stand_in.network.rules.items


def going_out(stand_in: OwnCloud, group: str) -> list[str]:
    rules = stand_in.network.rules.items.values()
    own = [rule for rule in rules if rule["security_group_id"] == group and rule["direction"] == "egress"]
    return sorted(rule["ethertype"] for rule in own if rule["protocol"] is rule["remote_ip_prefix"] is None)


def test_what_a_new_group_lets_out_is_left_as_it_is(stand_in: OwnCloud, cloud: Cloud) -> None:
    opened(cloud, {4321})
    assert {body["direction"] for body in stand_in.bodies(RULES)} == {"ingress"}


@pytest.mark.parametrize(
    "first_rule",
    [
        None,
        {"protocol": "tcp", "port_range_min": 443, "port_range_max": 443},
        {"remote_ip_prefix": "10.0.0.0/8"},
        {"ethertype": "IPv6"},
    ],
)
def test_where_administrators_changed_what_a_new_group_lets_out_all_is_let_out(
    stand_in: OwnCloud, cloud: Cloud, first_rule: dict[str, Any] | None
) -> None:
    stand_in.network.groups.lets_out = False
    group = ensure_group(cloud, MARK)
    if first_rule:
        stand_in.network.rules.make({"security_group_id": group, "direction": "egress", **first_rule})
    for _ in range(2):  # the second time, nothing is missing
        opened(cloud, {4321})
        assert going_out(stand_in, group) == ["IPv4", "IPv6"]
    opened(cloud, set())
    assert going_out(stand_in, group) == ["IPv4", "IPv6"]
    assert let_in(stand_in, group) == BASE


# --- the group ---


def test_the_group_of_an_earlier_run_is_used_and_marked(stand_in: OwnCloud, cloud: Cloud) -> None:
    made = stand_in.network.groups.add(MARK, MARK)
    assert ensure_group(cloud, MARK) == made["id"]
    assert made["tags"] == [MARK]
    assert ensure_group(cloud, MARK) == made["id"]
    assert stand_in.count("POST", "/security-groups$") == 0
    assert stand_in.count("PUT", "/tags/") == 1


def test_of_two_everyone_takes_the_same(stand_in: OwnCloud, cloud: Cloud) -> None:
    made = [stand_in.network.groups.add(MARK, MARK)["id"] for _ in range(3)]
    assert {ensure_group(cloud, MARK) for _ in range(3)} == {min(made)}


def test_a_group_of_its_name_without_its_mark_is_somebody_elses(stand_in: OwnCloud, cloud: Cloud) -> None:
    theirs = stand_in.network.groups.add(MARK, "mine")
    assert ensure_group(cloud, MARK) != theirs["id"]


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"drop": "before"}, {"status": 500}, {"status": 504}])
def test_it_is_made_once_whatever_becomes_of_the_answer(
    stand_in: OwnCloud, cloud: Cloud, fault: dict[str, Any]
) -> None:
    stand_in.faults.append(Fault("POST", "/security-groups$", **fault))
    ensure_group(cloud, MARK)
    assert stand_in.totals()["security groups"] == 1


def test_a_rule_that_was_made_without_an_answer_is_no_conflict(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault("POST", RULES, drop="after", times=4))
    assert let_in(stand_in, opened(cloud, {4321})) == BASE | {("IPv4", "tcp", 4321, 4321, ANYWHERE)}


def test_one_that_another_run_made_at_the_same_time_is_none(stand_in: OwnCloud, cloud: Cloud) -> None:
    group = ensure_group(cloud, MARK)

    def meanwhile(request: Any) -> None:
        if request.method == "POST" and RULES in request.path:
            given = request.json()["security_group_rule"]
            if given["port_range_min"] == 4321:
                stand_in.network.rules.make(dict(given))

    stand_in.seen = meanwhile
    security.add_rules(cloud, MARK, group, seat_rules({4321}, settings().student_cidr))
    assert len(let_in(stand_in, group)) == 1


def test_a_quota_that_is_used_up_is_reported(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.set_quota("security_group_rule", 8)
    with pytest.raises(CloudError, match=r"Opening port \d+ failed: Quota .*security_group_rule.* \(HTTP 409\)"):
        opened(cloud, {4321})


def test_a_rule_that_is_gone_already_is_no_failure(stand_in: OwnCloud, cloud: Cloud) -> None:
    group = opened(cloud, {4321})
    stand_in.faults.append(Fault("DELETE", RULES, drop="after"))
    opened(cloud, set())
    assert let_in(stand_in, group) == BASE
