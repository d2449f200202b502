"""The messages to and from a kernel, over the WebSocket of a Jupyter server: requests, and what a cell prints.

The format is that of jupyter-client.readthedocs.io (messaging) and Jupyter Server's "default WebSocket protocol". What
a kernel sends is its student's and may be hostile: it is limited in size, and nothing in it is taken for granted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

from cloudscale.errors import SeatError
from cloudscale.units import MIB

MOST_MESSAGES = 4 * MIB  # bytes of what a kernel sends in all
LONGEST_OUTPUT = 4096  # characters of a cell's that are looked at
LONGEST_WORDS = 300  # characters of an error's
DEAD = ("dead", "restarting", "autorestarting")  # states that nobody has asked for


class Connection(Protocol):
    """A WebSocket, such as tornado's."""

    def read_message(self) -> Awaitable[str | bytes | None]: ...

    def write_message(self, message: str) -> Awaitable[object]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Message:
    """What counts of a message; empty where that is missing. `parent`: the id of the request that it belongs to."""

    kind: str
    parent: str
    content: dict[str, Any]


class KernelLine:
    """A connection to a kernel. Every method raises SeatError if the kernel dies, or the connection ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session = secrets.token_hex(16)
        self._received = 0

    async def ask_who(self) -> None:
        """Waits until the kernel says what it is, which is what it can do first."""
        request = await self._send("kernel_info_request", {})
        async for message in self._messages():
            if message.parent == request and message.kind == "kernel_info_reply":
                return

    async def run(self, code: str) -> str:
        """What a cell prints, or the beginning of it; it is not kept in the student's history.

        Raises SeatError if it ends with an error.
        """
        cell = {
            "code": code,
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        request = await self._send("execute_request", cell)
        output, pending = "", {"reply", "idle"}  # they come in either order, and all output before idle
        async for message in self._messages():
            if message.parent != request:
                continue
            output = (output + _printed(message))[:LONGEST_OUTPUT]
            if message.kind == "execute_reply":
                if message.content.get("status") != "ok":
                    raise SeatError(f"the cell ended with an error: {_error(message.content)}")
                pending.discard("reply")
            elif message.kind == "status" and message.content.get("execution_state") == "idle":
                pending.discard("idle")
            if not pending:
                break
        return output

    def close(self) -> None:
        self._connection.close()

    async def _send(self, kind: str, content: object) -> str:
        """Sends a request, and returns its id."""
        request = secrets.token_hex(16)
        header = {"msg_id": request, "username": "", "session": self._session, "msg_type": kind, "version": "5.3"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        try:
            await self._connection.write_message(json.dumps(message))
        except Exception:  # each library has its own for a connection that is closed
            raise SeatError("the connection to the kernel was closed") from None
        return request

    async def _messages(self) -> AsyncIterator[Message]:
        while (data := await self._connection.read_message()) is not None:
            self._received += len(data)
            if self._received > MOST_MESSAGES:
                raise SeatError(f"the kernel sent more than {MOST_MESSAGES // MIB} MiB")
            message = _message(data)
            if message.kind == "status" and message.content.get("execution_state") in DEAD:
                raise SeatError("the kernel died")
            yield message
        raise SeatError("the connection to the kernel was closed")


def _message(data: str | bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    message = message if isinstance(message, dict) else {}
    header, parent, content = (
        part if isinstance(part := message.get(name), dict) else {} for name in ("header", "parent_header", "content")
    )
    return Message(str(header.get("msg_type", "")), str(parent.get("msg_id", "")), content)


def _printed(message: Message) -> str:
    if message.kind == "stream":
        return str(message.content.get("text", ""))
    data = message.content.get("data") if message.kind in ("execute_result", "display_data") else None
    return str(data.get("text/plain", "")) if isinstance(data, dict) else ""


def _error(content: dict[str, Any]) -> str:
    words = f"{content.get('ename', '')}: {content.get('evalue', '')}"[: 4 * LONGEST_WORDS]
    return " ".join(words.split())[:LONGEST_WORDS]
