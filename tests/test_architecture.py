"""The floors of the house: imports run down, or sideways on one floor without cycles.

Reads the syntax trees, so a module is checked as soon as its file exists, and what a function imports when it is called
counts as well. What stands under ``if TYPE_CHECKING:`` is no import.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "marl_stable"

# The one place that says where a room (a file or folder right below marl_stable/) stands.
FLOORS = {
    **dict.fromkeys(("types", "conversion", "config"), 0),
    **dict.fromkeys(("returns", "rewards", "rows", "normalize", "drift", "networks", "buffers", "turns"), 1),
    **dict.fromkeys(("optim", "clipping", "rates", "graphs", "generators", "statistics", "distributed"), 1),
    **dict.fromkeys(("agents", "envs", "monitor", "configs"), 2),
    **dict.fromkeys(
        (
            "report",
            "checkpoint",
            "replay_files",
            "recorder",
            "folder",
            "facts",
            "interruption",
            "profile",
            "provenance",
        ),
        3,
    ),
    **dict.fromkeys(
        ("evaluation", "acting", "episodes", "terms", "validation", "watching", "defence", "training", "loop"), 3
    ),
    **dict.fromkeys(("investigate", "observer", "policy", "transfer"), 4),
    **dict.fromkeys(
        (
            "run",
            "showing",
            "diagnosing",
            "reporting",
            "exporting",
            "trial",
            "ladder",
            "experiment",
            "sweep",
            "threads",
            "allocation",
        ),
        5,
    ),
    **dict.fromkeys(("__init__", "flags", "cli", "__main__", "integrations"), 6),
}
STRANGERS = {"agents": {"envs"}, "monitor": {"agents", "envs"}}  # room: rooms it must not know
LIBRARY_FLOORS = {"ruamel": 2, "tensorboard": 3, "torch.utils.tensorboard": 3}  # library: lowest floor that may use it
LIBRARY_ROOMS = {"tyro": "flags", "optuna": "sweep"}  # library: the one room that may use it
WITHOUT_TORCH = (
    "marl_stable",
    "marl_stable.types",
    "marl_stable.config",
    "marl_stable.conversion",
    "marl_stable.agents.config",
    "marl_stable.configs",
    "marl_stable.envs.catalog",
    "marl_stable.envs.pettingzoo",
    "marl_stable.envs.worker",
    "marl_stable.envs.workers",
    "marl_stable.diagnosing",
    "marl_stable.reporting",
    "marl_stable.sweep.command",
    "marl_stable.sweep.study_command",
    "marl_stable.cli",
)


class Import(NamedTuple):
    target: str  # dotted, with the imported name: marl_stable.types.Step
    line: int
    at_import_time: bool  # outside any function


class Imports(ast.NodeVisitor):
    """Collects what a module imports; `package` is what its relative imports start from."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.depth = 0
        self.found: list[Import] = []

    def add(self, target: str, line: int) -> None:
        self.found.append(Import(target, line, self.depth == 0))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self.package.split(".")
        above = above[: len(above) - node.level + 1] if node.level else []
        base = [*above, node.module] if node.module else above
        for alias in node.names:
            self.add(".".join([*base, alias.name]), node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if name in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self.add(str(node.args[0].value), node.lineno)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        for_types = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in node.orelse if for_types else [node.test, *node.body, *node.orelse]:
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef  # noqa: N815 - names ast looks for


def imports(module: str, source: str, *, is_package: bool = False) -> list[Import]:
    collector = Imports(module if is_package else module.rpartition(".")[0])
    collector.visit(ast.parse(source))
    return collector.found


def room(dotted: str) -> str:
    """The room of a module of the package, or of a name in it (names of the package itself are in `__init__`)."""
    below = dotted.split(".")[1:]
    return below[0] if below and below[0] in FLOORS else "__init__"


def within(dotted: str, package: str) -> bool:
    return dotted == package or dotted.startswith(f"{package}.")


def broken_rules(module: str, found: list[Import]) -> Iterator[str]:
    """One sentence for each import of `module` that goes up, to a stranger, or to a library out of reach."""
    here = room(module)
    for target, line, _ in found:
        said = f"{module}, line {line}, imports {target}: "
        if within(target, PACKAGE):
            there = room(target)
            if FLOORS[there] > FLOORS[here]:
                yield said + f"{here} is on floor {FLOORS[here]}, {there} on floor {FLOORS[there]}"
            if there in STRANGERS.get(here, ()):
                yield said + f"{here} must not know {there}"
        for library, floor in LIBRARY_FLOORS.items():
            if within(target, library) and FLOORS[here] < floor:
                yield said + f"nothing below floor {floor} may"
        for library, only in LIBRARY_ROOMS.items():
            if within(target, library) and here != only:
                yield said + f"only {only} may"


def module_graph(all_imports: dict[str, list[Import]]) -> dict[str, set[str]]:
    """Module -> modules it imports while it is being imported itself."""
    graph: dict[str, set[str]] = {module: set() for module in all_imports}
    for module, found in all_imports.items():
        for target in (i.target for i in found if i.at_import_time and within(i.target, PACKAGE)):
            parts = target.split(".")
            prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            graph[module] |= {next(prefix for prefix in prefixes if prefix in all_imports)} - {module}
    return graph


def room_graph(all_imports: dict[str, list[Import]]) -> dict[str, set[str]]:
    """Room -> rooms it imports, at any time."""
    graph: dict[str, set[str]] = {room(module): set() for module in all_imports}
    for module, found in all_imports.items():
        graph[room(module)] |= {room(i.target) for i in found if within(i.target, PACKAGE)} - {room(module)}
    return graph


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules or rooms of a cycle, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def checkout() -> dict[str, list[Import]]:
    """Every module of the package and its imports."""
    modules = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        is_package = path.name == "__init__.py"
        module = dotted.removesuffix(".__init__")
        modules[module] = imports(module, path.read_text(encoding="utf-8"), is_package=is_package)
    return modules


CHECKOUT = checkout()


def test_the_walk_sees_modules_and_their_imports() -> None:
    assert {"marl_stable", "marl_stable.types", "marl_stable.agents.config"} <= CHECKOUT.keys()
    assert "marl_stable.config" in module_graph(CHECKOUT)["marl_stable.agents.config"]


@pytest.mark.parametrize("path", sorted((ROOT / PACKAGE).rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_stands_on_a_floor(path: Path) -> None:
    name = path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")
    assert name in FLOORS, f"place {name} in FLOORS and in ARCHITECTURE.md"


@pytest.mark.parametrize("module", CHECKOUT)
def test_imports_run_down(module: str) -> None:
    assert list(broken_rules(module, CHECKOUT[module])) == []


def test_no_module_needs_itself_to_be_imported() -> None:
    assert cycle(module_graph(CHECKOUT)) == []


def test_rooms_form_no_cycle() -> None:
    assert cycle(room_graph(CHECKOUT)) == []


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_imported_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"{module} imports torch"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("marl_stable.returns", "from marl_stable.training import evaluate", id="up"),
        pytest.param("marl_stable.returns", "from .training import evaluate", id="up, relative"),
        pytest.param("marl_stable.networks.heads", "from ..run import train", id="up, from a folder"),
        pytest.param("marl_stable.optim", "from marl_stable import load_policy", id="up, to a public name"),
        pytest.param("marl_stable.optim", "import marl_stable", id="up, to the package"),
        pytest.param("marl_stable.optim", "from marl_stable import run", id="up, to a submodule"),
        pytest.param("marl_stable.config", "def f():\n  import marl_stable.agents.config", id="up, in a function"),
        pytest.param(
            "marl_stable.config", "class A:\n  async def f(self):\n    from .run import x", id="up, in a method"
        ),
        pytest.param("marl_stable.config", "import_module('marl_stable.run')", id="up, by importlib"),
        pytest.param("marl_stable.config", "if TYPE_CHECKING:\n  pass\nelse:\n  from .run import x", id="up, in else"),
        pytest.param("marl_stable.agents.mappo", "from marl_stable.envs.base import BatchedEnv", id="agents, envs"),
        pytest.param("marl_stable.monitor.guard", "from marl_stable.agents import mappo", id="monitor, agents"),
        pytest.param("marl_stable.monitor.guard", "import marl_stable.envs", id="monitor, envs"),
        pytest.param("marl_stable.run", "import tyro", id="tyro"),
        pytest.param("marl_stable.networks.body", "from ruamel.yaml import YAML", id="ruamel"),
        pytest.param("marl_stable.monitor.recorder", "from torch.utils import tensorboard", id="tensorboard in torch"),
        pytest.param("marl_stable.configs", "import tensorboard.compat", id="tensorboard"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert len(list(broken_rules(module, imports(module, source)))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("marl_stable.training", "from marl_stable.agents.mappo import MAPPO"),
        ("marl_stable.training", "from marl_stable.checkpoint import save"),
        ("marl_stable.agents.mappo", "from .config import MAPPOConfig"),
        ("marl_stable.types", "if TYPE_CHECKING:\n  from marl_stable.run import Run"),
        ("marl_stable.flags", "import tyro\nfrom marl_stable import train"),
        ("marl_stable.report.board", "from torch.utils.tensorboard import SummaryWriter"),
        ("marl_stable.optim", "import marl_stablest, typography"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert list(broken_rules(module, imports(module, source))) == []


def test_a_planted_cycle_is_found() -> None:
    planted = {
        "marl_stable.envs.base": imports("marl_stable.envs.base", "from marl_stable.configs import load"),
        "marl_stable.configs": imports("marl_stable.configs", "from marl_stable.envs.base import BatchedEnv"),
    }
    assert set(cycle(module_graph(planted))) == {"marl_stable.envs.base", "marl_stable.configs"}
    assert set(cycle(room_graph(planted))) == {"envs", "configs"}


def test_a_late_import_hides_a_cycle_from_python_but_not_between_rooms() -> None:
    planted = {
        "marl_stable.envs.base": imports("marl_stable.envs.base", "def f():\n  import marl_stable.configs"),
        "marl_stable.configs": imports("marl_stable.configs", "from marl_stable.envs.base import BatchedEnv"),
    }
    assert cycle(module_graph(planted)) == []
    assert set(cycle(room_graph(planted))) == {"envs", "configs"}
