"""Connects Invoke with the project: flags → a Session, errors → exit codes, a Report → output.

`invoke --list` imports this module too. Imports that take long are therefore made when a task runs.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import invoke.executor
import invoke.parser.parser
from invoke.context import Context
from invoke.exceptions import AmbiguousEnvVar, Exit, ParseError, UncastableEnvVar, UnexpectedExit
from invoke.parser.context import ParserContext
from invoke.tasks import Task

from cloudscale.errors import CloudscaleError, RequestError

if TYPE_CHECKING:
    from cloudscale.cli.report import Report
    from cloudscale.course.session import Session

INTERRUPTED = 130
ENVIRONMENT = "INVOKE_CLOUDSCALE_"
KEYS = "docs/configuration.md lists all keys."
YAML_FORM = "A configuration is YAML, with all keys of this project under cloudscale, as in invoke.yaml."

COMMON_FLAGS = {
    "driver": "where the machines come from: openstack, generic, local, qemu or virtualbox",
    "course": "the name of the class; everything that is made for the class carries it",
    "only": "only these machines, seats or students: a,b",
    "skip": "leave out these machines, seats or students: a,b",
    "timeout": "seconds that a command, or the start of a seat, may take before it counts as failed",
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
    "students": "the CSV file with the students: id;name;surname;email",
    "image": "the notebook image: REGISTRY/REPOSITORY:TAG, or the short name of an image that is built here (pydata)",
    **VM_FLAGS,
}


def cloudscale_task(settings: Iterable[str] = (), **help: str) -> Callable[[Callable[..., Report]], Task[Any]]:
    """Turns a function of (session, own flags…) that returns a Report into an Invoke task.

    Two kinds of flags are added to the function's signature: those that all tasks share, and those of SETTINGS_FLAGS
    that `settings` names. The session carries their values. `help` describes the function's own flags. For Invoke,
    each flag is text or on/off; the values are validated together with the configuration, so a wrong one is a
    SettingsError.
    """
    added = {name: SETTINGS_FLAGS[name] for name in settings} | COMMON_FLAGS
    return functools.partial(_make_task, added, help)


def _make_task(added: Mapping[str, str], help: Mapping[str, str], body: Callable[..., Report]) -> Task[Any]:
    own = list(inspect.signature(body).parameters.values())[1:]
    others = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "yes" else None)
        for name in added
    ]

    @functools.wraps(body)
    def run(context: Context, *args: Any, **flags: Any) -> None:
        session = _session(context, {name: flags.pop(name) for name in added})
        present(body(session, *args, **flags))

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


def _session(context: Context, flags: Mapping[str, Any]) -> Session:
    from cloudscale.course.session import Session
    from cloudscale.course.settings import Common, read_flags, read_settings
    from cloudscale.progress import progress_on

    configuration = context.config.get("cloudscale") or {}
    configured = {name: flags[name] for name in ("driver", "course", "students", "image") if name in flags}
    of_vms = {name: flags[name] for name in VM_FLAGS if flags.get(name) is not None}
    common = read_flags(Common, **{name: flags[name] for name in Common.model_fields})
    return Session(
        settings=read_settings(_with_vms(configuration, of_vms), **configured),
        common=common,
        progress=progress_on(sys.stderr),
        ask=functools.partial(_ask, common.yes),
        names_driver=flags["driver"] is not None,
        vm_flags=tuple(f"--{name.replace('_', '-')}" for name in of_vms),
    )


def _with_vms(configuration: Mapping[str, Any], flags: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with the flags for VMs on this computer in its section `vm`."""
    section = configuration.get("vm") or {}
    return {**configuration, "vm": {**section, **flags}} if flags and isinstance(section, Mapping) else configuration


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
        raise RequestError("Nothing was removed.")


def present(report: Report) -> None:
    """Prints a report. Raises Exit with code 1 if something failed."""
    if report.text:
        print(report.text, flush=True)
    if report.problems:
        raise Exit("\n".join(f"Failed: {problem}" for problem in report.problems), code=1)


class Executor(invoke.executor.Executor):
    """Runs tasks. Turns the project's errors into messages and exit codes; with `--debug`, shows the traceback."""

    def execute(self, *tasks: Any) -> Any:
        try:
            self._declare_keys()
            return super().execute(*tasks)
        except (Exit, UnexpectedExit):
            raise
        except KeyboardInterrupt:
            raise Exit(
                "Interrupted. What was made so far stays. Run the same command again to continue.", INTERRUPTED
            ) from None
        except BrokenPipeError:  # the program that reads our output (such as head) has ended
            raise Exit(code=1) from None
        except Exception as error:
            if self.core and self.core[0].args.debug.value:
                raise
            raise Exit(*_message(error)) from None

    def _declare_keys(self) -> None:
        """Declares the keys of the configuration. Invoke reads only declared keys from the environment."""
        from cloudscale.course.settings import env_skeleton

        config = self.config
        if config._runtime_path and not config._runtime_found:
            raise RequestError(
                f"The configuration file {config._runtime_path} does not exist.", "Check the name after -f."
            )
        if not isinstance(config.get("cloudscale") or {}, Mapping):
            raise RequestError("In the configuration, cloudscale must contain keys and values.", YAML_FORM)
        skeleton = _fitting(env_skeleton(), config.get("cloudscale") or {})
        given = sorted(name for name in os.environ if name.startswith(ENVIRONMENT))
        if unknown := [name for name in given if name not in set(_variables(env_skeleton(), ENVIRONMENT))]:
            raise RequestError(
                f"Unknown keys of the configuration in the environment: {', '.join(unknown)}.",
                f"A variable is {ENVIRONMENT} and the key, such as {ENVIRONMENT}SEAT_MEMORY. {KEYS}",
            )
        self.collection.configure({"cloudscale": skeleton})
        try:
            config.load_collection(self.collection.configuration())
            config.load_shell_env()
        except (ValueError, TypeError, AmbiguousEnvVar, UncastableEnvVar) as error:
            raise RequestError(
                f"The configuration can't be read ({', '.join(given) or 'a file'}): {error}.", KEYS
            ) from None


def _fitting(skeleton: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The skeleton without sections that are something else in `values`: Invoke can't merge those, Settings reports."""
    return {
        key: below if key not in values or not below else _fitting(below, values[key])
        for key, below in skeleton.items()
        if not below or isinstance(values.get(key, {}), Mapping)
    }


def _variables(keys: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The names of the environment variables for the keys of the configuration."""
    for key, below in keys.items():
        name = f"{prefix}{key.upper()}"
        yield from _variables(below, f"{name}_") if below else (name,)


def _message(error: BaseException) -> tuple[str, int]:
    if isinstance(error, CloudscaleError):
        return f"Error: {error}", error.exit_code
    bug = "This is a bug in cloudscale. --debug shows where it happened."
    return f"Error: {type(error).__name__}: {error}\n  {bug}", 1


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
    invoke.parser.parser.ParseError = _UsageError  # type: ignore[attr-defined, assignment]
    sys.excepthook = _last_resort


def _last_resort(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Reports errors that Invoke does not catch while it reads the configuration, before it starts an Executor."""
    if "--debug" in sys.argv or "-d" in sys.argv:
        sys.__excepthook__(kind, error, traceback)
        return
    text = " ".join(str(error).split())
    print(
        f"Error: The configuration can't be read ({kind.__name__}: {text}).\n  {YAML_FORM}",
        file=sys.stderr,
        flush=True,
    )
    _end(RequestError.exit_code)


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    os._exit(code)  # an excepthook has no other way to choose the exit code
