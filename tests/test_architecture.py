"""docs/architecture.md is true: every module is on it, and imports keep to its layers and never run in a circle."""

from __future__ import annotations

import ast
import collections
import functools
import graphlib
import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dimum_core"


def sources(package: Path) -> dict[str, Path]:
    """Module name (without the package's own in front, except for its root) -> file."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name or package.name] = path
    return found


def full_name(node: ast.ImportFrom, path: Path, package: Path) -> str:
    """What stands after `from`, as a path from the root: for `from ..data import x` in dimum_core/attacks, `dimum_core.data`."""
    here = path.parent.relative_to(package.parent).parts
    start = here[:len(here) + 1 - node.level] if node.level else ()
    return ".".join([*start, *([node.module] if node.module else [])])


@functools.cache
def imports(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, those inside functions, those for type checkers alone and the packages
    passed through included."""
    modules = sources(package)
    graph = {}
    for name, path in modules.items():
        asked = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                asked |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                start = full_name(node, path, package)
                asked |= {start} | {f"{start}.{alias.name}" for alias in node.names}
        within = {word.removeprefix(f"{package.name}.") for word in asked if word.startswith(f"{package.name}.")}
        within |= {word.rpartition(".")[0] for word in within} - {""}
        graph[name] = {word for word in within & modules.keys() if word != name and not name.startswith(f"{word}.")}
    return graph


def layers(page: str) -> dict[str, int]:
    """Module -> the number of the section that describes it; the root has none, and comes first."""
    parts = re.split(r"(?m)^## \d+\. ", page)
    named = [(name, number) for number, part in enumerate(parts) for name in re.findall(r"\*\*`([\w.]+)`\*\*", part)]
    assert len(dict(named)) == len(named), "a module is described twice"
    return dict(named)


def upward(graph: dict[str, set[str]], layer: dict[str, int]) -> list[str]:
    return [f"{name} -> {other}" for name, others in graph.items() for other in others if layer[other] > layer[name]]


@pytest.fixture(scope="module")
def layer():
    return layers((ROOT / "docs" / "architecture.md").read_text())


def test_every_module_is_on_the_page_and_no_other(layer):
    assert set(layer) == set(sources(PACKAGE))


def test_imports_keep_to_the_layers(layer):
    assert upward(imports(PACKAGE), layer) == []


def test_imports_never_run_in_a_circle():
    tuple(graphlib.TopologicalSorter(imports(PACKAGE)).static_order())


def test_no_function_of_a_package_stands_in_the_place_of_its_module():
    names = [f"dimum_core.{name}" for name in sources(PACKAGE) if name not in ("dimum_core", "cli")]
    modules = {name: importlib.import_module(name) for name in names}
    for name, module in modules.items():
        parent, _, own = name.rpartition(".")
        assert getattr(importlib.import_module(parent), own) is module


def test_nothing_imports_the_command_line_and_what_it_runs():
    outer = ("cli", "commands", "training_commands", "doctor")
    importers = {other: {name for name, others in imports(PACKAGE).items() if other in others} for other in outer}
    assert importers == {"cli": set(), "commands": {"cli"}, "training_commands": {"cli", "commands"}, "doctor": {"commands"}}


def test_a_method_imports_the_base_and_at_most_another_method():
    """Those that go on top of any other import what says so instead."""
    from_unlearning = {
        name: {other for other in others if other.startswith("unlearning.")} - {"unlearning.base", "unlearning.on_top"}
        for name, others in imports(PACKAGE).items()
        if name.startswith("unlearning.") and re.search(r"(?m)^@register\(", sources(PACKAGE)[name].read_text())
    }
    methods = set(from_unlearning)
    assert len(methods) > 10
    assert all(len(others) <= 1 and others <= methods for others in from_unlearning.values())


def test_a_hidden_import_against_the_layers_and_a_circle_are_found(tmp_path):
    package = tmp_path / "p"
    (package / "high").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "low.py").write_text("def f():\n    from .high.top import g\nif TYPE_CHECKING:\n    from .other import T\n")
    (package / "high" / "__init__.py").write_text("from . import top\n")
    (package / "high" / "top.py").write_text("from .. import low\nimport p.other\nfrom os import path\n")
    (package / "other.py").write_text("")
    graph = imports(package)
    assert graph == {
        "p": set(), "low": {"high", "high.top", "other"}, "high": {"high.top"}, "high.top": {"low", "other"}, "other": set(),
    }
    page = "**`p`**\n## 1. Low\n**`low`** **`other`**\n## 2. High\n**`high`** **`high.top`**"
    assert sorted(upward(graph, layers(page))) == ["low -> high", "low -> high.top"]
    with pytest.raises(graphlib.CycleError):
        tuple(graphlib.TopologicalSorter(graph).static_order())


# Dead code ------------------------------------------------------------------------------------------------------------

CALLED_BY_OTHERS = {"_repr_html_", "visit_Call", "visit_Expr"}  # by IPython, by ast


def written() -> str:
    """All code of the repository, that of the chapters included, as one text; prose does not make a name alive."""
    folders = ("dimum_core", "tools", "experiments", "speed", "tests")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    chapters = [path for path in sorted((ROOT / "notebooks").rglob("*.ipynb")) if "student" not in path.parts]
    cells = [cell for path in chapters for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    return "\n".join([*(path.read_text("utf-8") for path in files), *("".join(cell["source"]) for cell in cells)])


def defined(source: str) -> set[str]:
    """Functions, methods, classes and constants; what a decorator may have registered, and what Python itself calls, aside."""
    tree, names = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.decorator_list:
            names.add(node.name)
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("__")} - CALLED_BY_OTHERS


def unused(names: set[str], text: str) -> list[str]:
    """Names that stand in the text once: where they are defined."""
    counts = collections.Counter(re.findall(r"\w+", text))
    return sorted(name for name in names if counts[name] < 2)


def test_nothing_is_defined_and_never_used():
    files = [path for folder in ("dimum_core", "tools") for path in (ROOT / folder).rglob("*.py")]
    names = set().union(*(defined(path.read_text("utf-8")) for path in files))
    assert len(names) > 500
    assert unused(names, written()) == []


def test_a_function_that_nobody_calls_is_found():
    source = "OLD = 1\ndef used(): ...\ndef forgotten(): ...\n@register('x')\ndef by_name(): ...\nused()\n"
    assert unused(defined(source), source) == ["OLD", "forgotten"]


# Encodings ------------------------------------------------------------------------------------------------------------


def system_encoded(source: str) -> list[str]:
    """Calls that read or write text in whatever encoding the system has."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = {keyword.arg for keyword in node.keywords} & {"encoding", None}  # None: **settings
        positional = len(node.args) > {"read_text": 0, "write_text": 1}.get(name, 99)
        modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        opens_text = name == "open" and any(mode in ("r", "w", "a", "x", "r+", "w+") for mode in modes)
        opens_by_default = isinstance(node.func, ast.Name) and name == "open" and len(node.args) == 1
        as_text = "text" in {keyword.arg for keyword in node.keywords}  # of a process
        if not named and not positional and (name in ("read_text", "write_text") or opens_text or opens_by_default or as_text):
            found.append(f"line {node.lineno}: {ast.unparse(node)[:60]}")
    return found


def test_every_text_file_has_its_encoding_named():
    files = [path for folder in ("dimum_core", "tools", "experiments", "speed") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 150 and {path.name: found for path in files if (found := system_encoded(path.read_text("utf-8")))} == {}


def test_a_text_file_in_the_systems_encoding_is_found():
    wrong = ["p.read_text()", "p.write_text(s)", "open(p)", "p.open('w', newline='')", "run(c, text=True)"]
    right = ["p.read_text('utf-8')", "p.write_text(s, 'utf-8')", "open(p, 'rb')", "Image.open(p)", "open(p, encoding='utf-8')"]
    assert [len(system_encoded(call)) for call in wrong + right] == [1] * 5 + [0] * 5
