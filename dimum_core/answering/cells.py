"""What was handed in, read as Python: a cell's statements, the names that they make and need, the answers that they hand in.

A notebook is IPython and not Python: `%time`, `!ls` and `check?` become calls of get_ipython(), as in a notebook, and the Python
that a magic was given stands in its place.
"""

from __future__ import annotations
import __future__

import ast
import dis
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

UNPARSABLE = (SyntaxError, ValueError, RuntimeError, MemoryError)  # what parsers raise; RecursionError is a RuntimeError
FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | __future__.annotations.compiler_flag  # a type hint need not exist: it is no answer
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
KEPT = (*IMPORTS, *DEFINITIONS)
NO_PYTHON_HERE = {  # cell magics in other languages, and those whose Python is not run in the notebook's own process
    "!", "HTML", "R", "SVG", "bash", "cmd", "cython", "file", "html", "javascript", "js", "julia", "latex", "markdown", "perl",
    "powershell", "pypy", "python", "python2", "python3", "ruby", "script", "sh", "sql", "svg", "sx", "system", "writefile",
}
RUN_AT_ONCE = ("<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")  # the code of anything else waits for a call


@dataclass
class Cell:
    """A cell's statements, or why there are none."""

    source: str
    statements: list[ast.stmt] = field(default_factory=list)
    error: BaseException | None = None


def read_cell(source: str) -> Cell:
    try:
        return Cell(source, parse(source))
    except UNPARSABLE as error:
        return Cell(source, error=error)


def parse(source: str) -> list[ast.stmt]:
    """The statements of a cell; raises one of UNPARSABLE. IPython never sees what is Python already."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        tree = ast.parse(_as_python(source, error))
    return _Magics().visit(tree).body


def _as_python(source: str, error: SyntaxError) -> str:
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ImportError:
        reason = f"{error}. Lines for IPython, such as %time and !ls, can be read where it is installed: pip install ipython"
        raise SyntaxError(reason) from error
    return TransformerManager().transform_cell(source)


class _Magics(ast.NodeTransformer):
    """Puts the Python that magics were given in their place."""

    def visit_Expr(self, node: ast.Expr):
        match _magic(node.value):
            case ["run_cell_magic", name, line, body] if name not in NO_PYTHON_HERE:
                kept = [word for word in line.split() if word.isidentifier()] if name == "capture" else []
                return parse("".join(f"{word} = get_ipython()\n" for word in kept) + body) or ast.parse("pass").body
            case ["run_line_magic", "time", line] if line.strip():
                return parse(line)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call):
        match _magic(node):
            case ["run_line_magic", "time", line] if line.strip():  # x = %time f()
                return ast.parse(line, mode="eval").body
        return self.generic_visit(node)


def _magic(node: ast.expr) -> list[str]:
    """Method and arguments of a call such as get_ipython().run_line_magic("time", "f()"); empty for any other expression."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "get_ipython()":
        arguments = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        if len(arguments) == len(node.args) and all(isinstance(value, str) for value in arguments):
            return [node.func.attr, *arguments]
    return []


def compiled(statement: ast.stmt) -> types.CodeType:
    return compile(ast.Module([statement], []), "<answer>", "exec", FLAGS, dont_inherit=True)


# Names --------------------------------------------------------------------------------------------------------------------


@dataclass
class Step:
    """A statement of a notebook, and the names that it makes (or changes), needs, and has functions in it look up later."""

    statement: ast.stmt
    made: set[str]
    needed: set[str]
    later: set[str]
    handed_in: bool = False  # part of a cell's way to its last answer

    @property
    def replaces(self) -> bool:
        """Whether nothing of an earlier value remains in the names that it makes."""
        return isinstance(self.statement, (*KEPT, ast.Assign, ast.AnnAssign)) and not self.made & changed_names(self.statement)


def read_step(statement: ast.stmt) -> Step:
    try:
        codes = list(_all_code(compiled(statement)))
    except UNPARSABLE:
        return Step(statement, made_names(statement), set(), set())
    later = _looked_up(code for code in codes if code.co_name not in RUN_AT_ONCE)
    return Step(statement, made_names(statement) | changed_names(statement), _looked_up(codes), later)


def made_names(statement: ast.stmt) -> set[str]:
    """The names that a statement makes in its file, not those within its functions."""
    try:
        code = compiled(statement)
    except UNPARSABLE:
        return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return {str(line.argval) for line in dis.get_instructions(code) if line.opname in ("STORE_NAME", "STORE_GLOBAL")}


def changed_names(statement: ast.stmt) -> set[str]:
    """The names whose objects a statement changes by name: x[0] = 1, x.rate = 1, x.append(1)."""
    if isinstance(statement, KEPT):
        return set()
    nodes = list(ast.walk(statement))
    stored = [node for node in nodes if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store)]
    called = [node.value.func for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    changed = [*stored, *(function for function in called if isinstance(function, ast.Attribute))]
    return {root.id for root in map(_root, changed) if isinstance(root, ast.Name)}


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_code(constant)


def _looked_up(codes: Iterable[types.CodeType]) -> set[str]:
    lines = (line for code in codes for line in dis.get_instructions(code))
    return {str(line.argval) for line in lines if line.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")}


def needed_steps(cells: list[Cell], spellings: set[str]) -> list[list[Step]]:
    """Of each cell of a notebook, the statements to run: imports, definitions, the way to each answer, and what that builds on."""
    by_cell = [_steps(cell, spellings) for cell in cells]
    steps = [step for steps in by_cell for step in steps]
    modules = set().union(*(step.made for step in steps if isinstance(step.statement, IMPORTS)))
    later: set[str] = set()  # what functions look up when they are called, wherever they stand
    while True:
        known, wanted, chosen = len(later), {"answers"}, set()
        for step in reversed(steps):
            made = step.made - (changed_names(step.statement) & modules)  # plt.show() makes no plt
            if step.handed_in or made & (wanted | later):
                wanted = (wanted - made if step.replaces else wanted) | step.needed
                later |= step.later
                chosen.add(id(step))
        if len(later) == known:
            return [[step for step in steps if id(step) in chosen or isinstance(step.statement, KEPT)] for steps in by_cell]


def _steps(cell: Cell, spellings: set[str]) -> list[Step]:
    steps = [read_step(statement) for statement in cell.statements]
    last = max((place for place, step in enumerate(steps) if handed_in([step.statement], spellings)), default=-1)
    for step in steps[:last + 1]:
        step.handed_in = True
    return steps


# Answers ------------------------------------------------------------------------------------------------------------------


def handed_in(statements: list[ast.stmt], spellings: set[str]) -> list[str]:
    """The numbers of the exercises that are handed in here; "" for one that only running shows."""
    calls = [node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return [_number(call) for call in calls if ast.unparse(call.func) in spellings]


def _number(call: ast.Call) -> str:
    named = [keyword.value for keyword in call.keywords if keyword.arg == "number"]
    first = [*call.args[:1], *named, None][0]
    return str(first.value) if isinstance(first, ast.Constant) else ""


def check_spellings(statements: list[ast.stmt]) -> set[str]:
    """How these statements write a call of `check`: also course.check, another name of it, or a function that calls it."""
    spellings = {"check"}
    for node in (node for statement in statements for node in ast.walk(statement)):
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[:2] == ["dimum_core", "course"]:
                spellings |= {alias.asname or "check" for alias in node.names if alias.name == "check"}
            case ast.ImportFrom(module="dimum_core"):
                spellings |= {f"{alias.asname or 'course'}.check" for alias in node.names if alias.name == "course"}
            case ast.Import():
                spellings |= {f"{alias.asname or alias.name}.check" for alias in node.names if alias.name == "dimum_core.course"}
                spellings |= {f"{alias.asname}.course.check" for alias in node.names if alias.name == "dimum_core" and alias.asname}
            case ast.Assign(value=ast.Name() | ast.Attribute()) if ast.unparse(node.value) in spellings:
                spellings |= {ast.unparse(target) for target in node.targets}
            case ast.FunctionDef() | ast.AsyncFunctionDef() if handed_in(node.body, spellings):
                spellings.add(node.name)
    return spellings


def numbers_in(source: str) -> list[str]:
    """The numbers of the exercises that a cell or a file which is no Python speaks of, by a call of `check` or in `answers`."""
    return re.findall(r"[\"'](\d\d\.\d+)[\"']", source)
