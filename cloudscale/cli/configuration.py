"""Invoke's configuration → the values under `cloudscale:`, and what of Invoke's own flags and keys is refused.

The environment goes before all files. Invoke would convert its text to the type of the value in the file, and so take
`maybe` for true, and refuse lists; therefore it is read here, as text, and validated with the rest.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import invoke.config
from invoke.config import merge_dicts
from invoke.parser.context import ParserContext
from invoke.vendor import yaml

from cloudscale.errors import RequestError, SettingsError

PREFIX = "INVOKE_"
OWN = "cloudscale"
ENVIRONMENT = f"{PREFIX}{OWN.upper()}_"
KEYS = "docs/configuration.md lists all keys."
YAML_FORM = "A configuration is YAML, with all keys of this project under cloudscale, as in invoke.yaml."
FORMS = {  # by the end of the file's name
    "json": 'It should be JSON: {"cloudscale": {"driver": "local"}}, with all keys of this project under cloudscale.',
    "py": 'It should be Python that only sets values, such as cloudscale = {"driver": "local"}.',
}

PLAN = "invoke themachine --plan shows what a launch would do, and changes nothing."
TIMEOUT = "Add --timeout SECONDS after the task: invoke com_node --timeout 60 …"
RUN_HERE = "The tasks do not run their commands through Invoke."
CORE_FLAGS = {  # Invoke's own flags without an effect on these tasks, and what to do instead
    "dry": PLAN,
    "command-timeout": TIMEOUT,
    "warn-only": f"{RUN_HERE} Leave it out: a failure on one target never stops the others.",
    "echo": f"{RUN_HERE} Leave it out; --debug shows more.",
    "hide": f"{RUN_HERE} Leave it out; to hide the progress, add 2>/dev/null.",
    "pty": f"{RUN_HERE} Leave it out: commands run without a terminal.",
    "prompt-for-sudo-password": f"{RUN_HERE} Leave it out: where a task needs sudo, sudo asks for the password itself.",
}
CORE_KEYS = {("run", "dry"): PLAN, ("timeouts", "command"): TIMEOUT}  # the same as keys of the configuration
PASSWORD = re.compile(r"""(['"]?pwd['"]?:)\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d+)""")
OTHER_BASE = re.compile(r"[-+]?(0[0-9_]|[0-9_]+:)")  # 010 is 8 and 1:30 is 90, in YAML 1.1
OFF = ("", "0", "false", "no", "off")


def install() -> None:
    """Makes Invoke read files as this project does, and keep passwords out of its log (--debug)."""
    # load-bearing: it refuses to merge `seat:` without a value with a section
    invoke.config.merge_dicts = _merge
    logging.getLogger("invoke").addFilter(_without_passwords)

    for name in ("_load_yaml", "_load_yml", "_load_json", "_load_py"):
        setattr(invoke.config.Config, name, _named(getattr(invoke.config.Config, name)))


def _named(load: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Invoke's way to load a file, with errors that name the file."""

    @functools.wraps(load)
    def load_named(config: Any, path: str) -> Any:
        try:
            if load.__name__ == "_load_yaml":
                check_yaml(path)
            return load(config, path)
        except (FileNotFoundError, SettingsError):
            raise
        except (Exception, SystemExit) as error:  # a file may be a program
            text = (
                f"it ends with exit code {error.code}"
                if isinstance(error, SystemExit)
                else " ".join(str(error).split())
            )
            form = FORMS.get(str(path).rpartition(".")[2], YAML_FORM)
            raise RequestError(
                f"The configuration {path} can't be read ({type(error).__name__}: {text}).", form
            ) from None

    return load_named


def check_yaml(path: str) -> None:
    """Refuses what YAML reads without a word, and otherwise than it was meant. Raises SettingsError."""
    with open(path, encoding="utf-8-sig") as file:
        root = yaml.compose(file, Loader=yaml.SafeLoader)  # type: ignore[no-untyped-call]
    if isinstance(root, yaml.MappingNode):
        _check_keys([(key, value) for key, value in root.value if key.value == OWN], path, (root,))


def _check_keys(pairs: Sequence[tuple[Any, Any]], path: str, above: tuple[Any, ...]) -> None:
    lines: dict[str, int] = {}
    for key, value in pairs:
        line = key.start_mark.line + 1
        where, name = f"{path}, line {line}", key.value
        if isinstance(name, str) and name in lines:
            raise SettingsError(f"{where}: the key {name} is on line {lines[name]} already.", "Remove one of the two.")
        lines[str(name)] = line
        if value in above:
            raise SettingsError(f"{where}: {name} refers to what it is a part of.", YAML_FORM)
        if isinstance(value, yaml.MappingNode):
            _check_keys(value.value, path, (*above, value))
        elif name == OWN and value.tag != "tag:yaml.org,2002:null":
            raise SettingsError(f"{where}: {OWN} must contain keys and values.", YAML_FORM)
        elif value.tag.endswith((":int", ":float")) and OTHER_BASE.match(value.value):
            raise SettingsError(
                f"{where}: {name}: YAML reads {value.value} as another number.",
                "Write a number without zeros in front and without a colon, and a text in quotation marks.",
            )


def _merge(base: dict[str, Any], updates: Mapping[str, Any] | None) -> dict[str, Any]:
    """Invoke's merge of two files; a key without a value counts as not given."""
    if updates and not isinstance(updates, Mapping):
        kind = "a list" if isinstance(updates, list) else "a single value"
        raise ValueError(f"a file must contain keys and values, and this one is {kind}")
    return merge_dicts(base, _given(updates or {}))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under `cloudscale:` without those that are None; Invoke's own keys may be None."""
    return {key: _filled(value) if key == OWN else value for key, value in values.items() if value or key != OWN}


def _filled(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {key: _filled(value) for key, value in values.items() if value is not None}


def _without_passwords(record: logging.LogRecord) -> bool:
    text = PASSWORD.sub(r"\1 ***", record.getMessage())
    words = sys.argv
    given = [word.partition("=")[2] for word in words if word.startswith("--pwd=")]
    given += [word for flag, word in itertools.pairwise(words) if flag == "--pwd"]
    for password in given:
        text = text.replace(repr(password), "***").replace(f"--pwd={password}", "--pwd=***")
    record.msg, record.args = text, ()
    return True


class FilesOnly(invoke.config.Config):
    """Invoke's configuration from files and flags."""

    def load_shell_env(self) -> None:
        self.merge()


@dataclass(frozen=True)
class Configuration:
    """The values under `cloudscale:`. `origins`: where keys (`vm.kvm`) come from that are not from a file."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def override(self, flags: Mapping[str, str]) -> Configuration:
        """The same with the values of flags; each key (`vm.cpus`) ends in its flag's name."""
        values = self.values
        for key, value in flags.items():
            values = _replaced(values, tuple(key.split(".")), value)
        names = {key: f"flag --{key.rpartition('.')[2].replace('_', '-')}" for key in flags}
        return Configuration(values, {**self.origins, **names})


def check(config: invoke.config.Config, flags: ParserContext | None) -> None:
    """Raises RequestError for flags and keys that would have no effect, and for files that do not exist."""
    if config._runtime_path and not config._runtime_found:
        raise RequestError(f"The configuration file {config._runtime_path} does not exist.", "Check the name after -f.")
    _check_core(config, flags)
    _check_top_level(config)
    _check_variables()


def _check_core(config: invoke.config.Config, flags: ParserContext | None) -> None:
    for name, remedy in CORE_FLAGS.items():
        value = flags.args[name].value if flags and name in flags.args else None
        if value is not None and value is not False:
            raise RequestError(f"Invoke's own flag --{name} has no effect on these tasks.", remedy)
    for (section, key), remedy in CORE_KEYS.items():
        variable = f"{PREFIX}{section}_{key}".upper()
        if config[section][key]:
            raise RequestError(f"Invoke's own key {section}.{key} has no effect on these tasks.", remedy)
        if os.environ.get(variable, "").lower() not in OFF:
            raise RequestError(f"Invoke's own variable {variable} has no effect on these tasks. Unset it.", remedy)


def _check_top_level(config: invoke.config.Config) -> None:
    """Our keys one level too high would be ignored, and so would a misspelt `cloudscale`."""
    from cloudscale.course.settings import Settings

    known = {OWN, *config.global_defaults(), "debug"}
    for level in ("system", "user", "project", "runtime"):
        path = str(getattr(config, f"_{level}_path"))
        names = [str(name) for name in getattr(config, f"_{level}") or ()]  # empty: None
        if ours := [name for name in names if name in Settings.model_fields]:
            raise SettingsError(
                f"{path}: {', '.join(ours)}: belongs under {OWN}:.",
                f"Write {OWN}: above, and indent what belongs under it by two spaces, as in invoke.yaml.",
            )
        # the files of the system and of the user are those of other projects too
        unknown = [name for name in names if name not in known]
        if unknown and level in ("project", "runtime") and not path.endswith(".py"):
            raise SettingsError(f"{path}: unknown keys: {', '.join(unknown)}.", YAML_FORM)


def _check_variables() -> None:
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    paths = dict(_paths())
    if unknown := [name for name in given if name.startswith(ENVIRONMENT) and name not in paths]:
        raise SettingsError(
            f"Unknown keys of the configuration in the environment: {', '.join(unknown)}.",
            f"A variable is {ENVIRONMENT} and the key, such as {ENVIRONMENT}SEAT_MEMORY. {KEYS}",
        )
    if short := [name for name in given if name.replace(PREFIX, ENVIRONMENT, 1) in paths]:
        raise SettingsError(
            f"{', '.join(short)}: belongs under {OWN}.",
            f"Write {', '.join(name.replace(PREFIX, ENVIRONMENT, 1) for name in short)}.",
        )


def read(config: invoke.config.Config) -> Configuration:
    """The values under `cloudscale:`, with the environment's text over those of the files. Raises SettingsError."""
    values: Any = config.get(OWN) or {}
    if not isinstance(values, Mapping):
        raise SettingsError(f"In the configuration, {OWN} must contain keys and values.", YAML_FORM)
    origins = {}
    for variable, path in _paths():
        if variable in os.environ:
            values = _replaced(values, path, os.environ[variable])
            origins[".".join(path)] = f"{variable}, key {OWN}.{'.'.join(path)}"
    return Configuration(values, origins)


def _replaced(values: Mapping[str, Any], path: tuple[str, ...], value: str) -> Mapping[str, Any]:
    """The values with another one at the path. A section that is something else stays: Settings names it."""
    key, *below = path
    if not below:
        return {**values, key: value}
    section = values.get(key)
    section = {} if section is None else section
    return {**values, key: _replaced(section, tuple(below), value)} if isinstance(section, Mapping) else values


def _paths() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The environment variable for each key of the configuration, and the path to the key."""
    from cloudscale.course.settings import key_paths

    return ((f"{ENVIRONMENT}{'_'.join(path)}".upper(), path) for path in key_paths())
