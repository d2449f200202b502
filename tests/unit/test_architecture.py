"""The house's plan: which room may import which, who loads which library, and how large a module may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGE = "cloudscale"
LONGEST = 400  # lines of a module
# From the top down: a room imports rooms of the rows below its own, and none beside it.
LAYERS = (
    {"tasks"},
    {"workflow"},
    {"cli"},
    {"cluster"},
    {"gateway", "material"},
    {"drivers", "seats", "swarm"},
    {"images"},
    {"engines"},
    {"hosts", "plan"},
    {"course"},
    {"fanout", "files", "networks", "phases", "progress", "scripts", "units", "waiting"},
    {"terminal"},
    {"errors", "model", "outside"},
)
LIBRARIES = {  # and the modules that import them
    "paramiko": {
        *("hosts.ssh", "hosts.running", "hosts.known_hosts", "hosts.private_keys", "hosts.credentials"),
        *("hosts.signs_of_life", "hosts.transport"),
    },
    "cryptography": {
        *("engines.certificates", "gateway.authority", "gateway.certificates"),
        *("hosts.login_key", "hosts.private_keys"),
    },
    "invoke": {"cli.configuration", "cli.invocation"},
    "rich": {"cli.live", "progress"},
    "tabulate": {"cli.report", "course.flags"},
    "pydantic": {"course.flags", "course.settings", "course.values"},
    "pycdlib": {"drivers.vm.seed"},
    "qemu": {"drivers.vm.qemu"},
    "segno": {"cli.cards"},
    "psutil": {"drivers.vm.driver"},
    "filelock": {"drivers.vm.base_image"},
    "tornado": {"seats.browser", "seats.visit"},
}
PRINTING = {"cli.invocation"}


@dataclass(frozen=True)
class Module:
    """A module of the project; `name` is without the package's own."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]


@cache
def modules() -> tuple[Module, ...]:
    found = [Module("tasks", PROJECT / "tasks.py")]
    code = (path for path in (PROJECT / PACKAGE).rglob("*.py") if path.parent.name != "scripts")  # those run elsewhere
    for path in sorted(code):
        parts = path.relative_to(PROJECT / PACKAGE).with_suffix("").parts
        found.append(Module(".".join(parts).removesuffix("__init__").removesuffix("."), path))
    return tuple(module for module in found if module.name)


@cache
def imports(module: Module) -> frozenset[str]:
    """All that a module imports, wherever in it: `os`, `cloudscale.course.naming`, …"""
    return frozenset(_imports(module))


def _imports(module: Module) -> Iterator[str]:
    known = {f"{PACKAGE}.{other.name}" for other in modules()}
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
    """The project's modules that a module imports."""
    found = {name.removeprefix(f"{PACKAGE}.") for name in imports(module) if name.startswith(f"{PACKAGE}.")}
    return found | (imports(module) & {"tasks"})


def importers(library: str) -> set[str]:
    return {m.name for m in modules() if any(name == library or name.startswith(f"{library}.") for name in imports(m))}


def row(room: str) -> int:
    """Which layer a room is on, counted from the top."""
    (found,) = (at for at, rooms in enumerate(LAYERS) if room in rooms)
    return found


every_module = pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)


def test_every_room_has_its_layer_and_every_layer_has_its_rooms() -> None:
    assert {module.room for module in modules()} == set().union(*LAYERS)
    assert sum(map(len, LAYERS)) == len(set().union(*LAYERS))


@every_module
def test_imports_point_downward(module: Module) -> None:
    rooms = {name.partition(".")[0] for name in own_imports(module)} - {module.room}
    assert all(row(room) > row(module.room) for room in rooms), module.name


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


@every_module
def test_a_module_is_short(module: Module) -> None:
    assert len(module.text.splitlines()) <= LONGEST


@every_module
def test_a_module_has_tests_of_its_own(module: Module) -> None:
    if module.name == "tasks" or module.path.name == "__init__.py" or module.name.endswith("protocols"):
        return
    folder, _, name = module.name.rpartition(".")
    tests = Path(__file__).parent / folder.replace(".", "/")
    assert list(tests.glob(f"test_{name}*.py"))


def test_a_room_is_empty_at_its_door() -> None:
    """Or `invoke --list` would load the world."""
    for module in modules():
        if module.path.name == "__init__.py" and module.name != "drivers":
            code = [node for node in ast.parse(module.text).body if not isinstance(node, ast.Expr)]
            assert not code, module.name


@every_module
def test_only_what_speaks_with_the_user_prints(module: Module) -> None:
    calls = (node.func for node in ast.walk(ast.parse(module.text)) if isinstance(node, ast.Call))
    prints = any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
    assert not prints or module.name in PRINTING


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_has_few_importers(library: str) -> None:
    assert importers(library) == LIBRARIES[library]


@pytest.mark.parametrize("library", ["openstack", "keystoneauth1"])
def test_the_clouds_libraries_are_imported_by_its_driver_alone(library: str) -> None:
    found = importers(library)
    assert found
    assert {name for name in found if not name.startswith("drivers.openstack.")} == set()


def test_a_driver_is_loaded_for_those_who_use_it() -> None:
    outside = [module for module in modules() if module.room != "drivers"]
    known = set().union(*(own_imports(module) for module in outside))
    assert {name for name in known if name.partition(".")[0] == "drivers"} == {"drivers", "drivers.protocols"}
    (registry,) = (module for module in modules() if module.name == "drivers")
    at_import = [node for node in ast.parse(registry.text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert {ast.unparse(node) for node in at_import if "drivers" in ast.unparse(node)} == {
        "from cloudscale.drivers.protocols import Driver"
    }


def test_the_environment_is_not_read_at_import() -> None:
    for module in modules():
        at_import = [n for n in ast.parse(module.text).body if not isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        names = {getattr(part, "attr", "") for node in at_import for part in ast.walk(node)}
        assert not names & {"environ", "getenv"}, module.name


def test_no_ring_of_tests_loads_the_long_runs() -> None:
    """They give the lab's parts other names, for the whole process."""
    rings = [path for ring in ("unit", "hosts", "cloud", "lab") for path in (PROJECT / "tests" / ring).rglob("*.py")]
    assert [path.name for path in rings if re.search(r"^\s*(from|import) tests\.soak", path.read_text(), re.M)] == []
