"""What the site shows of a cell's code: the lines that matter. Set-up and plotting are folded, and stay one click away."""

from __future__ import annotations

import ast

DRAWN = {"plt", "ax", "axes", "figure", "fig", "show"}  # a statement that only speaks to these draws, and computes nothing
FEW = 4  # lines of plotting that need no fold


def split(source: str, tags: list[str]) -> tuple[str, str, str]:
    """Code of a cell as (what stays in sight, what is folded, what that is called). IPython's own commands are left in sight."""
    if "parameters" in tags:
        return "", source, "Set-up: the numbers of this chapter"
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return source, "", ""
    lines = source.splitlines()
    imports = [s for s in statements if isinstance(s, (ast.Import, ast.ImportFrom))]
    if sum(s.end_lineno - s.lineno + 1 for s in imports) > len(lines) / 3:
        return "", source, "Set-up: imports"
    drawn, start = DRAWN | _axes(statements), len(lines)
    for statement in reversed(statements):
        if not _draws(statement, drawn):
            break
        start = statement.lineno - 1
    if len(lines) - start < FEW:
        return source, "", ""
    return "\n".join(lines[:start]).rstrip(), "\n".join(lines[start:]), "The plot"


def _axes(statements: list[ast.stmt]) -> set[str]:
    """Names that `plt.subplots` gave."""
    made = [s for s in statements if isinstance(s, ast.Assign) and "subplots" in ast.unparse(s.value)]
    return {node.id for s in made for target in s.targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _draws(statement: ast.stmt, drawn: set[str]) -> bool:
    """A call, a loop or an assignment that touches what is drawn on. A definition does not: it may hold what matters."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
        return False
    return any(isinstance(node, ast.Name) and node.id in drawn for node in ast.walk(statement))
