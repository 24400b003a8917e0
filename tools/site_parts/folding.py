"""What the site shows of a cell's code: the lines that matter. Set-up and plotting are folded, and stay one click away."""

from __future__ import annotations

import ast
import itertools

DRAWN = {"plt", "ax", "axes", "figure", "fig", "show"}  # a statement that only speaks to these draws, and computes nothing
FEW = 4  # lines of plotting that need no fold


def pieces(source: str, tags: list[str]) -> list[tuple[str, str]]:
    """Code of a cell, piece by piece: (code, what it is called if it is folded, else ""). IPython's own commands stay in sight."""
    if "parameters" in tags:
        return [(source, "Set-up: the numbers of this chapter")]
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return [(source, "")]
    lines = source.splitlines()
    imports = [s for s in statements if isinstance(s, (ast.Import, ast.ImportFrom))]
    if sum(s.end_lineno - s.lineno + 1 for s in imports) > len(lines) / 3:
        return [(source, "Set-up: imports")]
    drawn, found, start = DRAWN | _axes(statements), [], 0
    for draws, run in itertools.groupby(statements, lambda statement: _draws(statement, drawn)):
        run = list(run)
        first, last = run[0].lineno - 1, run[-1].end_lineno
        if draws and last - first >= FEW:
            found += [("\n".join(lines[start:first]), ""), ("\n".join(lines[first:last]), "The plot")]
            start = last
    found.append(("\n".join(lines[start:]), ""))
    return [(code.strip("\n"), called) for code, called in found if code.strip()]


def _axes(statements: list[ast.stmt]) -> set[str]:
    """Names that `plt.subplots` gave."""
    made = [s for s in statements if isinstance(s, ast.Assign) and "subplots" in ast.unparse(s.value)]
    return {node.id for s in made for target in s.targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _draws(statement: ast.stmt, drawn: set[str]) -> bool:
    """A call, a loop or an assignment that touches what is drawn on. A definition does not: it may hold what matters."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
        return False
    return any(isinstance(node, ast.Name) and node.id in drawn for node in ast.walk(statement))
