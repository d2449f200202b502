"""All errors of the project, with the exit code of each.

CloudscaleError              1  something failed; the message names it, and everything else was still done
├── EngineError              1  the Docker Engine of a machine is missing, not accessible or not usable
│   ├── NotSetUp             1  the machine's engine is not set up for the course
│   └── SwarmError           1  the engine's swarm can't be used for this course
├── MachineError             1  a machine is lost, in use by others, or can't be set up
├── ImageError               1  the notebook image can't be pulled, built or used
├── SeatError                1  a student's server did not start
│   └── SlowSeat             1  it has not started yet
├── ConnectionFailed         1  a host can't be reached over SSH
│   ├── NotReached           1  no connection leads from a host to a port
│   ├── LoginRefused         1  the host refuses the login
│   └── HostKeyChanged       1  the host's key is not the known one, so it may be another host
├── CloudError               1  the cloud could not do what was requested
└── RequestError             2  the request itself is wrong; nothing was changed
    ├── Declined             2  the user's answer to a question is no
    ├── SettingsError        2  the configuration or a flag is wrong
    ├── RosterError          2  the students' file is wrong; the message names the line
    ├── AccessError          2  the cloud refuses the credentials
    └── CapacityError        2  not enough memory, ports or quota

An error says what is wrong and where (`message`), and what to do about it (`remedy`).
"""

from __future__ import annotations

LONGEST = 16 * 1024  # characters of a message or a remedy: what others wrote may be a part of it


class CloudscaleError(Exception):
    """The base of the tree. `remedy` says what the user can do; it may be empty."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = _bounded(message)
        self.remedy = _bounded(remedy)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


def _bounded(text: str) -> str:
    """The text without its middle, if it is too long to be read."""
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    return f"{text[: LONGEST // 2]} … ({left_out} characters left out) … {text[-LONGEST // 2 :]}"


class EngineError(CloudscaleError):
    pass


class NotSetUp(EngineError):
    pass


class SwarmError(EngineError):
    pass


class MachineError(CloudscaleError):
    pass


class ImageError(CloudscaleError):
    pass


class SeatError(CloudscaleError):
    pass


class SlowSeat(SeatError):
    pass


class ConnectionFailed(CloudscaleError):
    pass


class NotReached(ConnectionFailed):
    pass


class LoginRefused(ConnectionFailed):
    pass


class HostKeyChanged(ConnectionFailed):
    pass


class CloudError(CloudscaleError):
    pass


class RequestError(CloudscaleError):
    exit_code = 2


class Declined(RequestError):
    pass


class SettingsError(RequestError):
    pass


class RosterError(RequestError):
    pass


class AccessError(RequestError):
    pass


class CapacityError(RequestError):
    pass


def in_others_swarm(name: str, whose: str = "of somebody else") -> tuple[str, str]:
    """Message and remedy for a machine that can't be used because of the swarm that it is in."""
    return (
        f"{name}: it belongs to a swarm {whose}, so it is not used.",
        "Leave it out of the course; or take it out of that swarm: docker swarm leave (--force on a manager).",
    )
