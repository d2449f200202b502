"""How VBoxManage reports errors: on stderr, with exit code 1, or 2 if the command line is wrong."""

from __future__ import annotations

CODES = {  # from the reference of the Main API, in the form of hosts other than Windows
    "VBOX_E_OBJECT_NOT_FOUND": "0x80bb0001",
    "VBOX_E_INVALID_VM_STATE": "0x80bb0002",
    "VBOX_E_FILE_ERROR": "0x80bb0004",
    "VBOX_E_IPRT_ERROR": "0x80bb0005",
    "VBOX_E_INVALID_OBJECT_STATE": "0x80bb0007",
    "VBOX_E_NOT_SUPPORTED": "0x80bb0009",
    "VBOX_E_OBJECT_IN_USE": "0x80bb000c",
    "NS_ERROR_FAILURE": "0x80004005",
    "NS_ERROR_INVALID_ARG": "0x80070057",
}


class Refused(Exception):
    """A command fails; `kept`: what it did until then is not undone.

    `code`: "" for an error of VBoxManage itself, which has no details. `call`: of the API, for the context.
    """

    exit_code = 1

    def __init__(
        self, *lines: str, code: str = "", interface: str = "IMachine", call: str = "", kept: bool = False
    ) -> None:
        super().__init__("\n".join(lines))
        self.lines, self.code, self.kept = lines, code, kept
        self._interface, self._call, self._last = interface, call, ""

    def after(self, line: str) -> None:
        """Adds a line of VBoxManage itself after those of the API."""
        self._last = line

    def text(self, version: str) -> str:
        lines = list(self.lines)
        if self.code:
            part = "SessionMachine" if self._interface == "SessionMachine" else f"{self._interface[1:]}Wrap"
            interface = "IMachine" if self._interface == "SessionMachine" else self._interface
            details = f"Details: code {self.code} ({CODES[self.code]}), component {part}, interface {interface}"
            lines.append(f"{details}, callee nsISupports" if self._call else details)
        if self._call:
            lines.append(f'Context: "{self._call}" at line 1 of file VBoxManage.cpp')
        lines += [self._last] if self._last else []
        return "".join(f"VBoxManage: error: {line}\n" for line in lines)


class Misused(Refused):
    """The command line is wrong. `exit_code` is 1 for the few commands that continue after a wrong option."""

    def __init__(self, line: str, *, exit_code: int = 2, usage: bool = True) -> None:
        super().__init__(line)
        self.exit_code, self._usage = exit_code, usage

    def text(self, version: str) -> str:
        if not self._usage:
            return super().text(version)
        logo = f"Oracle VirtualBox Command Line Management Interface Version {version.partition('r')[0]}\n\n"
        return f"{logo}{super().text(version)}\nUsage:\n\n"
