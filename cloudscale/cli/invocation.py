"""Where Invoke and the project meet: flags → a Session, errors → exit codes, a Report → output.

This module is imported for `invoke --list` too, so whatever is heavy is imported when a task runs.
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

COMMON_FLAGS = {
    "driver": "where machines come from: openstack, generic, local, qemu, virtualbox",
    "course": "the class; everything made for it carries this name",
    "only": "only these machines or seats: a,b",
    "skip": "leave out these machines or seats: a,b",
    "timeout": "seconds; past them a target counts as failed",
    "format": "table (or any other format of tabulate), csv, json",
    "yes": "do not ask before something is removed",
}

VM_FLAGS = {
    "cpus": "cores of each VM on this computer (2)",
    "memory": "memory of each VM on this computer (2G)",
    "disk": "disk of each VM on this computer (20G)",
    "base_image": "what such a VM's disk is made from: a cloud image's file or https:// address",
}
SETTINGS_FLAGS = {
    "students": "the students' file: id;name;surname;email",
    "image": "the notebook image: a reference, or the short name of a built one",
    **VM_FLAGS,
}


def cloudscale_task(settings: Iterable[str] = (), **help: str) -> Callable[[Callable[..., Report]], Task[Any]]:
    """Makes an Invoke task of a function of (session, own flags…) that returns a Report.

    The flags that all tasks share are added to its signature, and those of SETTINGS_FLAGS that `settings` names: the
    session has their values. `help` describes the task's own. Every flag is text or on/off for Invoke, and is
    validated with the configuration, so that a wrong value is an error of ours.
    """
    added = {name: SETTINGS_FLAGS[name] for name in settings} | COMMON_FLAGS
    return functools.partial(_make_task, added, help)


def _make_task(added: Mapping[str, str], help: Mapping[str, str], body: Callable[..., Report]) -> Task[Any]:
    own = list(inspect.signature(body).parameters.values())[1:]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "yes" else None)
        for name in added
    ]

    @functools.wraps(body)
    def run(context: Context, *args: Any, **flags: Any) -> None:
        session = _session(context, {name: flags.pop(name) for name in added})
        present(body(session, *args, **flags))

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(run)["__signature__"] = inspect.Signature([context, *own, *more])
    lists = [parameter.name for parameter in own if str(parameter.annotation).startswith("list[")]
    return Task(
        run,
        name=body.__name__,
        iterable=lists,
        auto_shortflags=False,  # -f after a task would no longer be Invoke's own -f FILE
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
    """The configuration with what the flags say of VMs on this computer."""
    section = configuration.get("vm") or {}
    return {**configuration, "vm": {**section, **flags}} if flags and isinstance(section, Mapping) else configuration


def _ask(yes: bool, question: str) -> None:
    """Asks before something is removed. Raises RequestError where the answer is no, or nobody can give one."""
    if yes:
        return
    from cloudscale.hosts.this_computer import on_terminal

    if not on_terminal():
        raise RequestError(f"{question} Nobody is there to answer.", "Add --yes to go on without the question.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RequestError("Nothing was removed.")


def present(report: Report) -> None:
    """Prints a report. Raises Exit with code 1 where something failed."""
    if report.text:
        print(report.text, flush=True)
    if report.problems:
        raise Exit("\n".join(f"Failed: {problem}" for problem in report.problems), code=1)


class Executor(invoke.executor.Executor):
    """Runs tasks, and turns the project's errors into messages with their exit code (`--debug`: a traceback)."""

    def execute(self, *tasks: Any) -> Any:
        try:
            self._know_all_keys()
            return super().execute(*tasks)
        except (Exit, UnexpectedExit):
            raise
        except KeyboardInterrupt:
            raise Exit(
                "Interrupted. What was made stays; the same command again goes on from there.", INTERRUPTED
            ) from None
        except BrokenPipeError:  # the reader of our output (head, say) has had enough
            raise Exit(code=1) from None
        except Exception as error:
            if self.core and self.core[0].args.debug.value:
                raise
            raise Exit(*_message(error)) from None

    def _know_all_keys(self) -> None:
        """Tells Invoke the keys of the configuration, without which it does not look for them in the environment."""
        from cloudscale.course.settings import env_skeleton

        config = self.config
        if config._runtime_path and not config._runtime_found:
            raise RequestError(f"There is no configuration file {config._runtime_path} (-f).")
        if not isinstance(config.get("cloudscale") or {}, Mapping):
            raise RequestError("The configuration's key cloudscale should hold keys and values.")
        skeleton = _fitting(env_skeleton(), config.get("cloudscale") or {})
        given = sorted(name for name in os.environ if name.startswith(ENVIRONMENT))
        if unknown := [name for name in given if name not in set(_variables(env_skeleton(), ENVIRONMENT))]:
            raise RequestError(f"The environment sets {', '.join(unknown)}: there is no such key.")
        self.collection.configure({"cloudscale": skeleton})
        try:
            config.load_collection(self.collection.configuration())
            config.load_shell_env()
        except (ValueError, TypeError, AmbiguousEnvVar, UncastableEnvVar) as error:
            raise RequestError(f"The configuration can't be read ({', '.join(given) or 'a file'}): {error}.") from None


def _fitting(skeleton: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The skeleton without the sections in whose place something else stands: Settings tells what is wrong there."""
    return {
        key: below if key not in values or not below else _fitting(below, values[key])
        for key, below in skeleton.items()
        if not below or isinstance(values.get(key, {}), Mapping)
    }


def _variables(keys: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The environment's names of the configuration's keys."""
    for key, below in keys.items():
        name = f"{prefix}{key.upper()}"
        yield from _variables(below, f"{name}_") if below else (name,)


def _message(error: BaseException) -> tuple[str, int]:
    if isinstance(error, CloudscaleError):
        return f"Error: {error}", error.exit_code
    return f"Error: {type(error).__name__}: {error}\n  This should not happen. --debug shows where it did.", 1


class _UsageError(ParseError, Exit):
    """A wrong or a missing argument. It is an Exit too, so that it ends in the exit code of a wrong request."""

    def __init__(self, text: str, context: ParserContext | None = None) -> None:
        missing = context.missing_positional_args if context else []
        lines = [text, *(f"  {argument.name}: {argument.help}" for argument in missing)]
        Exit.__init__(self, message=None, code=RequestError.exit_code)
        self.args = ("\n".join(lines),)  # what Program.run prints of a ParseError; of an Exit it prints the message
        self.context = context


def install() -> None:
    """Has Invoke end in the project's exit codes where no Executor is at work yet: flags and configuration files."""
    # load-bearing: Program.run gives a ParseError exit code 1, and has no setting for it
    invoke.parser.parser.ParseError = _UsageError  # type: ignore[attr-defined, assignment]
    sys.excepthook = _last_resort


def _last_resort(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Whatever Invoke lets pass before an Executor is at work: it reads the configuration there."""
    if "--debug" in sys.argv or "-d" in sys.argv:
        sys.__excepthook__(kind, error, traceback)
        return
    told = " ".join(str(error).split())
    print(
        f"Error: The configuration can't be read ({kind.__name__}: {told}).\n"
        "  It is YAML, with everything of this project under cloudscale: as in invoke.yaml.",
        file=sys.stderr,
        flush=True,
    )
    _end(RequestError.exit_code)


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    os._exit(code)  # an excepthook can't choose the exit code otherwise
