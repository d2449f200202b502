from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from cloudscale.errors import SeatError
from cloudscale.seats.kernel import LONGEST_OUTPUT, KernelLine

Say = Callable[[str], list[object]]  # the id of a request → what the kernel sends


def message(parent: str, kind: str, **content: object) -> str:
    return json.dumps({"header": {"msg_type": kind}, "parent_header": {"msg_id": parent}, "content": content})


class FakeConnection:
    """`says`: what a kernel sends after each request; the end of it closes the connection."""

    def __init__(self, says: Say) -> None:
        self._says = says
        self._pending: list[object] = []
        self.requests: list[dict[str, Any]] = []
        self.is_closed = False

    async def write_message(self, message: str) -> None:
        if self.is_closed:
            raise ConnectionError("closed")
        self.requests.append(json.loads(message))
        self._pending += self._says(self.requests[-1]["header"]["msg_id"])

    async def read_message(self) -> Any:
        return self._pending.pop(0) if self._pending else None

    def close(self) -> None:
        self.is_closed = True


def run(says: Say) -> str:
    return asyncio.run(KernelLine(FakeConnection(says)).run("6 * 7"))


def reply(request: str, status: str = "ok") -> str:
    return message(request, "execute_reply", status=status)


def idle(request: str) -> str:
    return message(request, "status", execution_state="idle")


@pytest.mark.parametrize("ends", [[reply, idle], [idle, reply]])
def test_a_cell_has_ended_when_the_kernel_has_replied_and_is_idle(ends: Sequence[Callable[[str], str]]) -> None:
    printed = run(
        lambda id: [
            message(id, "status", execution_state="busy"),
            message(id, "stream", text="4"),
            message(id, "execute_result", data={"text/plain": "2"}),
            *(end(id) for end in ends),
            message(id, "stream", text="too late"),
        ]
    )
    assert printed == "42"


def test_what_belongs_to_other_requests_does_not_count() -> None:
    assert run(lambda id: [message("x", "stream", text="no"), reply("x"), idle("x"), reply(id), idle(id)]) == ""


def test_a_cell_is_not_kept_in_the_students_history() -> None:
    connection = FakeConnection(lambda id: [reply(id), idle(id)])
    asyncio.run(KernelLine(connection).run("6 * 7"))
    (request,) = connection.requests
    assert (request["channel"], request["content"]["store_history"]) == ("shell", False)


def test_a_cell_that_fails_is_an_error_with_the_kernels_words() -> None:
    says: Say = lambda id: [message(id, "execute_reply", status="error", ename="NameError", evalue="x\n" * 10_000)]  # noqa: E731
    with pytest.raises(SeatError, match=r"the cell ended with an error: NameError: x x") as raised:
        run(says)
    assert len(raised.value.message) < 400


@pytest.mark.parametrize("state", ["dead", "restarting", "autorestarting"])
@pytest.mark.parametrize("act", [KernelLine.ask_who, lambda line: line.run("6 * 7")])
def test_a_kernel_that_dies_is_an_error(state: str, act: Callable[[KernelLine], Awaitable[object]]) -> None:
    async def main() -> None:
        await act(KernelLine(FakeConnection(lambda id: [message("", "status", execution_state=state)])))

    with pytest.raises(SeatError, match="the kernel died"):
        asyncio.run(main())


def test_a_connection_that_ends_is_an_error() -> None:
    with pytest.raises(SeatError, match="closed"):
        run(lambda id: [reply(id)])
    connection = FakeConnection(lambda id: [])
    line = KernelLine(connection)
    line.close()
    with pytest.raises(SeatError, match="closed"):
        asyncio.run(line.run("6 * 7"))


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_kernel_that_sends_without_an_end_is_an_error(size: int) -> None:
    with pytest.raises(SeatError, match="more than 4 MiB"):
        run(lambda id: [message(id, "stream", text="x" * size)] * 6000)


def test_of_a_long_output_the_beginning_is_kept() -> None:
    assert len(run(lambda id: [message(id, "stream", text="x" * 10_000), reply(id), idle(id)])) == LONGEST_OUTPUT


@pytest.mark.parametrize(
    "nonsense",
    ["", "7", "[]", "[" * 100_000, b"\xff", '{"header": 7}', '{"header": {"msg_type": 7}, "content": []}', "\ud800"],
)
def test_nonsense_is_passed_over(nonsense: object) -> None:
    assert run(lambda id: [nonsense, reply(id), idle(id)]) == ""


def test_the_first_answer_is_that_to_the_question_who_it_is() -> None:
    connection = FakeConnection(lambda id: [message("x", "kernel_info_reply"), message(id, "kernel_info_reply")])
    asyncio.run(KernelLine(connection).ask_who())
    assert [request["header"]["msg_type"] for request in connection.requests] == ["kernel_info_request"]
