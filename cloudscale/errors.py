"""Everything that can go wrong, and the exit code that each ends in.

CloudscaleError              1  something failed; what is named here, the rest was still done
├── EngineError              1  the Docker Engine of a machine is absent, closed or unusable
│   ├── NotSetUp             1  the course has not set the machine's engine up
│   └── SwarmError           1  the engine's swarm can't be used for this course
├── MachineError             1  a machine is lost, in other hands, or can't be set up
├── ImageError               1  the notebook image can't be fetched, built or used
├── SeatError                1  a student's server did not come up
│   └── SlowSeat             1  it has not come up yet
├── ConnectionFailed         1  an SSH host can't be reached
│   ├── LoginRefused         1  it does not let us in
│   └── HostKeyChanged       1  it may be another than the one that is known
├── CloudError               1  the cloud did not do what it was asked
└── RequestError             2  the request itself is wrong; nothing was changed
    ├── SettingsError        2  configuration or flags
    ├── RosterError          2  the students' file, with the line
    ├── AccessError          2  the cloud does not know the credentials
    └── CapacityError        2  too little memory, too few ports, too small a quota

An error is two sentences: what was wrong and where, and what to do about it.
"""

from __future__ import annotations


class CloudscaleError(Exception):
    """Base of the tree. `remedy` says what the user can do; it may be empty."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


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


class LoginRefused(ConnectionFailed):
    pass


class HostKeyChanged(ConnectionFailed):
    pass


class CloudError(CloudscaleError):
    pass


class RequestError(CloudscaleError):
    exit_code = 2


class SettingsError(RequestError):
    pass


class RosterError(RequestError):
    pass


class AccessError(RequestError):
    pass


class CapacityError(RequestError):
    pass
