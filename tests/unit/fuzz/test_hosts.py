"""What hosts print: their facts, the settings of their engines, the output of commands."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from hypothesis import example
from hypothesis import strategies as st

from cloudscale.engines import setup
from cloudscale.engines.passing import Reports
from cloudscale.hosts.facts import listening_ports, parse_facts, script_failure
from cloudscale.model import CommandResult, Printed, command_result, last_lines
from tests.unit.fake_host import FRESH, WITH_ENGINE, facts, printed
from tests.unit.fuzz.inputs import changed_bytes, changed_json, changed_text, fuzz, reading

HOSTS: tuple[Mapping[str, str], ...] = (FRESH, {**FRESH, **WITH_ENGINE})
NAMES = sorted(HOSTS[1])


@fuzz(text=changed_text(*map(printed, HOSTS)))
def test_any_output_of_the_facts(text: str) -> None:
    with reading():
        host = parse_facts(text, "m1")
        host.mtu(host.own_address("192.0.2.11"))


@fuzz(host=st.sampled_from(HOSTS), name=st.sampled_from(NAMES), data=st.data())
def test_any_single_fact(host: Mapping[str, str], name: str, data: st.DataObject) -> None:
    value = data.draw(changed_bytes(host.get(name, "").encode(), most=3))
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in host.items()}
    encoded[name] = base64.b64encode(value).decode()
    with reading():
        read = parse_facts("".join(f"{key} {text}\n" for key, text in encoded.items()), "m1")
        read.mtu(read.own_address("192.0.2.11", "m1"))


@fuzz(text=changed_text(FRESH["sockets"]))
def test_any_table_of_sockets(text: str) -> None:
    with reading():
        assert all(0 <= port < 65536 for port in listening_ports(text))


SETTINGS = {
    "data-root": "/srv/docker",
    "live-restore": True,
    "log-driver": "json-file",
    "labels": ["a=b"],
    "hosts": ["fd://"],
}
POOLS = [{"base": "10.200.0.0/16", "size": 20}]
MARK = {
    "settings": {"hosts": ["fd://", "tcp://0.0.0.0:2376"], "mtu": 1450, "icc": False, "default-address-pools": POOLS},
    "course": "bio",
}


@fuzz(
    text=changed_json(SETTINGS),
    before=changed_json({"data-root": "/srv/docker"}) | st.just(b""),
    mark=changed_json(MARK) | st.just(b""),
    unit=st.sampled_from(["", "[Service]\n"]),
)
@example(text=b"[" * 20_000, before=b"", mark=b"", unit="")
@example(text=b"{}", before=b"[" * 20_000, mark=b"", unit="[Service]\n")
@example(text=b"{}", before=b"[]", mark=b'{"settings": []}', unit="[Service]\n")
@example(text=b"{}", before=b"", mark=b'{"settings": {"default-address-pools": [{"base": true}]}}', unit="")
def test_any_settings_of_an_engine(text: bytes, before: bytes, mark: bytes, unit: str) -> None:
    texts = {
        name: value.decode(errors="replace") for name, value in (("settings", text), ("before", before), ("mark", mark))
    }
    with reading():
        host = facts({**FRESH, **WITH_ENGINE}, unit=unit, **texts)
        own = setup._without(setup._settings(host.settings_text, "m1"), host, "m1")
        course = setup._course_settings(host, own, "192.0.2.11", "192.0.2.11")
        setup._disk_limits(host, own, 2**30)
        setup._networks(host, own)
        setup._can_have_walls(host, {**own, **course})
        setup._restored(host, "m1")


@fuzz(
    out=changed_text("cloudscale: no space left\nE: Unable to locate package\n", "\x1b[31mfailed\x1b[0m\n"),
    code=st.integers(0, 255),
)
def test_any_end_of_a_script(out: str, code: int) -> None:
    with reading():
        done = CommandResult(code, out, out)
        assert script_failure(done) is not None and done.last_words(3) and last_lines(out, 3) is not None


@fuzz(data=changed_bytes(b"1048576 bytes (1.0 MB, 1.0 MiB) copied, 0.1 s, 10 MB/s\r2097152 bytes copied\n"))
@example(data=b"9" * 5000 + b" bytes copied\n")
@example(data=b"cloudscale: loaded 1\ncloudscale: failed 2 why\ncloudscale: unsaved 0\n")
def test_any_output_of_a_copy_and_of_a_command(data: bytes) -> None:
    with reading():
        reports = Reports({1: "m1"}, lambda done: None, lambda name: None)
        for at in range(0, len(data), 999):
            reports.add(data[at : at + 999])
        reports.end(CommandResult(0, "", data.decode(errors="replace")))
        assert isinstance(reports.cause(1), str)
        stream = Printed(1000)
        for at in range(0, len(data), 999):
            stream.add(data[at : at + 999])
        assert len(command_result(0, stream, stream, "late").stdout) <= 1000
