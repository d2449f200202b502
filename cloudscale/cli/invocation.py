"""Connects Invoke with the project: flags → a Session, errors → exit codes, a Report → output.

`invoke --list` imports this module too. Imports that take long are therefore made when a task runs.
"""

from __future__ import annotations

import atexit
import errno
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import invoke.executor
import invoke.parser.parser
import invoke.program
from invoke.context import Context
from invoke.exceptions import Exit, ParseError, UnexpectedExit
from invoke.parser.context import ParserContext
from invoke.tasks import Task

from cloudscale import terminal
from cloudscale.cli import configuration, interrupt
from cloudscale.errors import CloudscaleError, Declined, RequestError, SettingsError

if TYPE_CHECKING:
    from cloudscale.cli.report import Report
    from cloudscale.course.session import Session

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of what the output is written to

COMMON_FLAGS = {
    "driver": "where the machines come from: openstack, generic, local, qemu or virtualbox",
    "course": "the name of the class; everything that is made for the class carries it",
    "only": "only these machines, seats or students: a,b",
    "skip": "leave out these machines, seats or students: a,b",
    "timeout": "seconds that a command, the start of a seat or a visit to it may take before it counts as failed",
    "format": "the format of the result: table, csv, json, or another format of tabulate",
    "yes": "remove without asking for confirmation",
}

VM_FLAGS = {
    "cpus": "cores of each VM on this computer (default: 2)",
    "memory": "memory of each VM on this computer (default: 2G)",
    "disk": "disk of each VM on this computer (default: 20G)",
    "base_image": "cloud image for the disk of each VM on this computer: a file or an https:// address",
}
SETTINGS_FLAGS = {  # flags that set a key of the configuration
    "students": "the CSV file with the students: id;name;surname;email, or with a header",
    "columns": "what the header of that file calls id, name, surname and email: id=Matrikel,name=Vorname",
    "image": "the notebook image: REGISTRY/REPOSITORY:TAG, or the short name of an image that is built here (pydata)",
    **VM_FLAGS,
}


def cloudscale_task(
    settings: Iterable[str] = (), *, tolerant: bool = False, **help: str
) -> Callable[[Callable[..., Report]], Task[Any]]:
    """Turns a function of (session, own flags…) that returns a Report into an Invoke task.

    Two kinds of flags are added to the function's signature: those that all tasks share, and those of SETTINGS_FLAGS
    that `settings` names. The session carries their values. `help` describes the function's own flags. For Invoke,
    each flag is text or on/off; the values are validated together with the configuration, so a wrong one is a
    SettingsError. A `tolerant` task runs without the parts of the configuration that are wrong.
    """
    added = {name: SETTINGS_FLAGS[name] for name in settings} | COMMON_FLAGS
    return functools.partial(_make_task, added, help, tolerant)


def _make_task(
    added: Mapping[str, str], help: Mapping[str, str], tolerant: bool, body: Callable[..., Report]
) -> Task[Any]:
    own = list(inspect.signature(body).parameters.values())[1:]
    others = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "yes" else None)
        for name in added
    ]

    @functools.wraps(body)
    def run(context: Context, *args: Any, **flags: Any) -> None:
        bound = {**dict(zip((parameter.name for parameter in own), args, strict=False)), **flags}
        _refuse_empty(bound)
        session = _session(context, {name: bound.pop(name) for name in added}, tolerant=tolerant)
        interrupt.begin(body.__name__)
        present(body(session, **bound))

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(run)["__signature__"] = inspect.Signature([context, *own, *others])
    lists = [parameter.name for parameter in own if str(parameter.annotation).startswith("list[")]
    return Task(
        run,
        name=body.__name__,
        iterable=lists,
        auto_shortflags=False,  # else -f after a task would no longer be Invoke's own -f FILE
        help={**added, **help},
    )


def _session(context: Context, flags: Mapping[str, Any], *, tolerant: bool) -> Session:
    from cloudscale.course.flags import Common, read_flags
    from cloudscale.course.session import Session
    from cloudscale.course.settings import read_settings
    from cloudscale.course.usable_settings import Usable, read_usable
    from cloudscale.progress import progress_on

    configured = {name: flags[name] for name in ("driver", "course", "students", "columns", "image") if name in flags}
    of_vms = {f"vm.{name}": name for name in VM_FLAGS if flags.get(name) is not None}
    given = configuration.read(context.config).override({key: flags[name] for key, name in of_vms.items()})
    common = read_flags(Common, **{name: flags[name] for name in Common.model_fields})
    if tolerant:
        usable = read_usable(given.values, given.origins, **configured)
    else:
        usable = Usable(read_settings(given.values, given.origins, **configured))
    return Session(
        settings=usable.settings,
        common=common,
        progress=progress_on(sys.stderr),
        ask=functools.partial(_ask, common.yes),
        names_driver=flags["driver"] is not None,
        names_course=flags["course"] is not None,
        vm_flags=tuple(f"--{name.replace('_', '-')}" for name in of_vms.values()),
        refused=usable.refused,
        left_out=usable.left_out,
    )


def _refuse_empty(flags: Mapping[str, object]) -> None:
    """An empty value is that of a shell's variable which is not set. As "not given", it could mean: all."""
    if empty := [name for name, value in flags.items() if value == ""]:
        names = ", ".join(f"--{name.strip('_').replace('_', '-')}" for name in empty)
        raise SettingsError(f"{names}: the value is empty.", "Give a value, or leave it out.")


def _ask(yes: bool, question: str) -> None:
    """Asks the user before something is removed. Raises RequestError if the answer is no or if there is no terminal."""
    if yes:
        return
    from cloudscale.hosts.this_computer import on_terminal

    if not on_terminal():
        raise RequestError(
            f"{question} This needs confirmation, and there is no terminal.", "Add --yes to confirm beforehand."
        )
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("Nothing was removed.")


def present(report: Report) -> None:
    """Prints a report. Raises Exit with code 1 if something failed."""
    if report.text:
        terminal.write(sys.stdout, report.text)
    if report.problems:
        raise Exit("\n".join(f"Failed: {terminal.visible(problem)}" for problem in report.problems), code=1)


class Executor(invoke.executor.Executor):
    """Runs tasks. Turns the project's errors into messages and exit codes; with `--debug`, shows the traceback."""

    def execute(self, *tasks: Any) -> Any:
        try:
            with interrupt.guarded():
                configuration.check(self.config, self.core[0] if self.core else None)
                self.config = self.config.clone(into=configuration.FilesOnly)
                return super().execute(*tasks)
        except (Exit, UnexpectedExit):
            raise
        except KeyboardInterrupt:
            raise Exit(interrupt.message(), interrupt.INTERRUPTED) from None
        except BrokenPipeError:  # the program that reads our output (such as head) has ended
            raise Exit(code=1) from None
        except Exception as error:
            if self.core and self.core[0].args.debug.value:
                raise
            raise Exit(*_message(error)) from None


def _message(error: BaseException) -> tuple[str, int]:
    if isinstance(error, Declined):
        return str(error), error.exit_code
    if isinstance(error, CloudscaleError):
        return terminal.visible(f"Error: {error}"), error.exit_code
    bug = "This is a bug in cloudscale. --debug shows where it happened."
    return terminal.visible(f"Error: {type(error).__name__}: {error}\n  {bug}"), 1


class _UsageError(ParseError, Exit):
    """A wrong or a missing argument. It is an Exit too, so that it ends in the exit code of a wrong request."""

    def __init__(self, text: str, context: ParserContext | None = None) -> None:
        missing = context.missing_positional_args if context else []
        lines = [text, *(f"  {argument.name}: {argument.help}" for argument in missing)]
        Exit.__init__(self, message=None, code=RequestError.exit_code)
        self.args = ("\n".join(lines),)  # what Program.run prints of a ParseError; of an Exit it prints the message
        self.context = context


def install() -> None:
    """Makes Invoke use the project's exit codes for wrong flags and files too, which it reads before any Executor."""
    # load-bearing: for a ParseError, Program.run always uses exit code 1
    for module in (invoke.parser.parser, invoke.program):
        module.ParseError = _UsageError  # type: ignore[attr-defined]
    configuration.install()
    sys.excepthook = _last_resort
    atexit.register(_flush)
    atexit.register(interrupt.end_plainly)


def _last_resort(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Reports errors that Invoke does not catch while it reads the configuration, before it starts an Executor."""
    if "--debug" in sys.argv or "-d" in sys.argv:
        sys.__excepthook__(kind, error, traceback)
        return
    if isinstance(error, BrokenPipeError):  # the reader of --list or --help (such as head) has ended
        _end(0)
    if isinstance(error, OSError) and error.errno in FULL:
        _end_full(error)
    if isinstance(error, CloudscaleError):  # also of a task, where invoke.yaml does not name the Executor
        text, code = _message(error)
        _say(text)
        _end(code)
    text = " ".join(str(error).split())
    _say(f"Error: The configuration can't be read ({kind.__name__}: {text}).\n  {configuration.YAML_FORM}")
    _end(RequestError.exit_code)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _flush() -> None:
    """Writes what is still in memory, such as a short --list: at the very end, Python would report it its own way."""
    try:
        sys.stdout.flush()
    except OSError as error:
        terminal.silence(sys.stdout)
        if error.errno in FULL:  # else the reader has ended
            _end_full(error)


def _end_full(error: OSError) -> NoReturn:
    terminal.silence(sys.stdout)
    _say(f"Error: The output can't be written ({error.strerror}).\n  Make room there, or write it elsewhere.")
    os._exit(1)


def _end(code: int) -> NoReturn:
    _flush()
    os._exit(code)  # an excepthook has no other way to choose the exit code
