"""Imports point downward, each library has one importer, and modules stay short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGE = "cloudscale"
LONGEST = 400  # lines of a module
GROUND_FLOOR = {"model", "errors"}
SIBLINGS = ("swarm", "spawner", "drivers")
PRINTING = {"tasks", "cloudscale.invocation", "cloudscale.progress"}


def room_of(name: str) -> str:
    """`swarm` for cloudscale.swarm, `drivers` for all of cloudscale.drivers."""
    return name.partition(".")[2].partition(".")[0]


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def room(self) -> str:
        return room_of(self.name)


@cache
def modules() -> tuple[Module, ...]:
    paths = [PROJECT / "tasks.py", *sorted((PROJECT / PACKAGE).rglob("*.py"))]
    named = [(".".join(path.relative_to(PROJECT).with_suffix("").parts), path) for path in paths]
    return tuple(Module(name.removesuffix(".__init__"), path) for name, path in named)


@cache
def imports(module: Module) -> frozenset[str]:
    """All that a module imports, wherever in it: `os`, `cloudscale.naming`, …"""
    return frozenset(_imports(module))


def _imports(module: Module) -> Iterator[str]:
    known = {other.name for other in modules()}
    for node in ast.walk(ast.parse(module.text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module.name} imports relatively"
            assert node.module
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
            yield from inner
            if len(inner) < len(node.names):
                yield node.module


def own_imports(module: Module) -> set[str]:
    return {name for name in imports(module) if name.partition(".")[0] in (PACKAGE, "tasks")}


def importers(library: str) -> set[str]:
    return {m.name for m in modules() if any(name == library or name.startswith(f"{library}.") for name in imports(m))}


def rooms(names: set[str]) -> set[str]:
    return {room_of(name) for name in names}


every_module = pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)


@every_module
def test_a_module_is_short(module: Module) -> None:
    assert len(module.text.splitlines()) <= LONGEST


@every_module
def test_a_module_has_tests_of_its_own(module: Module) -> None:
    inner = module.name.partition(".")[2].replace(".", "_")
    tests = {
        "tasks": "test_invocation",
        PACKAGE: "test_style",
        f"{PACKAGE}.drivers.protocols": "test_drivers",
    }.get(module.name, f"test_{inner}")
    assert (Path(__file__).parent / f"{tests}.py").exists()


@every_module
def test_only_what_speaks_with_the_user_prints(module: Module) -> None:
    calls = (node.func for node in ast.walk(ast.parse(module.text)) if isinstance(node, ast.Call))
    prints = any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
    assert not prints or module.name in PRINTING


@every_module
def test_no_module_imports_itself_by_a_detour(module: Module) -> None:
    by_name = {other.name: other for other in modules()}
    seen: set[str] = set()
    todo = own_imports(module) - {module.name}
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= own_imports(by_name[name]) - seen
    assert module.name not in seen


def test_paramiko_is_imported_for_logins_and_for_the_keys_they_check() -> None:
    assert importers("paramiko") == {"cloudscale.ssh", "cloudscale.known_hosts"}


def test_keys_and_certificates_have_one_maker_each() -> None:
    assert importers("cryptography") == {"cloudscale.certificates", "cloudscale.sshkey"}


@pytest.mark.parametrize("library", ["openstack", "keystoneauth1"])
def test_the_clouds_libraries_are_imported_by_its_driver_alone(library: str) -> None:
    found = importers(library)
    assert found
    assert {name for name in found if not name.startswith("cloudscale.drivers.openstack.")} == set()


def test_invoke_is_imported_where_the_project_meets_it_and_nowhere_else() -> None:
    assert importers("invoke") == {"cloudscale.invocation"}


@pytest.mark.parametrize("room", sorted(GROUND_FLOOR))
def test_the_ground_floor_imports_nothing_of_the_project(room: str) -> None:
    (module,) = (module for module in modules() if module.name == f"{PACKAGE}.{room}")
    assert own_imports(module) == set()


@pytest.mark.parametrize("room", SIBLINGS)
def test_siblings_do_not_import_each_other(room: str) -> None:
    found = set().union(*(rooms(own_imports(module)) for module in modules() if module.room == room))
    assert found & set(SIBLINGS) <= {room}


def test_the_engine_knows_nothing_of_those_who_use_it() -> None:
    (engine,) = (module for module in modules() if module.room == "engine")
    assert not rooms(own_imports(engine)) & {*SIBLINGS, "workflow", "cluster", "report", "progress"}


def test_nobody_imports_upward() -> None:
    assert importers("cloudscale.workflow") == {"tasks"}
    assert importers("cloudscale.invocation") == {"tasks"}
    assert importers("tasks") == set()


def test_the_environment_is_not_read_at_import() -> None:
    for module in modules():
        at_import = [n for n in ast.parse(module.text).body if not isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        names = {getattr(part, "attr", "") for node in at_import for part in ast.walk(node)}
        assert not names & {"environ", "getenv"}, module.name
