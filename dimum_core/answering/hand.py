"""The hand of a student: runs their cells, and notes what they answer to which exercise."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import signal
import sys
import time
import types
from dataclasses import dataclass
from unittest.mock import MagicMock

import dimum_core

from .cells import KEPT, Cell, check_spellings, compiled, handed_in, made_names, needed_steps, numbers_in


@dataclass(frozen=True)
class World:
    """The names of a file as they were when an answer was handed in: a helper's may have another meaning at the file's end."""

    names: dict
    then: dict

    def restore(self) -> None:
        self.names.update(self.then)  # names that are made later stay: they cost nothing


class Hand:
    """The answers handed in so far, each exercise's in their order, the worlds that they come from, and what went wrong on the way.

    questions: exercise -> the numbers of its question, and "variant" -> what the student works on. seconds: for each statement.
    reading: seconds for all of them together. To be made before the fence: an event loop needs sockets.
    """

    def __init__(self, questions: dict, student: str, seconds: float, reading: float):
        self.answers: dict[str, list] = {}
        self.worlds: dict[str, list[World]] = {}
        self.names: dict = {}  # of the file that runs
        self.errors: dict[str, str] = {}
        self.questions, self.student, self.seconds = questions, student, seconds
        self.ends = time.monotonic() + reading  # what was answered by then must not be lost to what still runs
        self.lost: dict[str, BaseException] = {}  # name -> why the statement that makes it failed
        self.spellings: set[str] = set()  # of a call of `check`, in this file
        self.loop = asyncio.new_event_loop()
        signal.signal(signal.SIGALRM, _too_long)

    def note(self, number: str, answer, student: str = "") -> bool:
        """What `check` is here. It returns True, so that what follows an asserted answer still runs."""
        self.answers.setdefault(str(number), []).append(answer)
        self.worlds.setdefault(str(number), []).append(World(self.names, dict(self.names)))
        return True

    def course(self) -> types.ModuleType:
        """What takes the place of dimum_core.course here: `check` notes the answer and says nothing."""
        module = types.ModuleType("dimum_core.course")
        module.check, module.Variant = self.note, types.SimpleNamespace
        module.hint = lambda number: None
        module.given = lambda number, student="": dict(self.questions.get(number, {}))
        module.variant = lambda student="": types.SimpleNamespace(**self.questions["variant"])
        return module

    def run(self, cells: list[Cell], whole: bool) -> None:
        """Run a whole file; of a notebook, what `needed_steps` names."""
        course, main = self.course(), types.ModuleType("__main__")
        sys.modules |= {"dimum_core.course": course, "dimum_core.course.checks": course, "dimum_core.course.variants": course}
        dimum_core.course = course
        sys.modules["__main__"], sys.argv = main, ["answers.py"]
        self.names = names = vars(main)
        self.lost = {}
        names.update(check=course.check, hint=course.hint, given=course.given, variant=course.variant, student=self.student)
        names["display"] = lambda *things, **options: None  # as in a notebook, without an import
        self.spellings = check_spellings([statement for cell in cells for statement in cell.statements])
        for cell in cells:
            if cell.error:
                self._failed(numbers_in(cell.source), cell.error)
        if whole:
            for cell in cells:
                self._run_whole(cell.statements, names)
        else:
            for cell, steps in zip(cells, needed_steps(cells, self.spellings), strict=True):
                self._run_cell(cell, steps, names)
                names["student"] = self.student
        if isinstance(names.get("answers"), dict):
            for number, answer in names["answers"].items():
                self.note(number, answer)

    def _run_cell(self, cell: Cell, steps: list, names: dict) -> None:
        """A notebook's cell ends with a statement on the way to its answers that raises, as it does in a notebook."""
        for step in steps:
            error = self._attempt(step.statement, names)
            if error and step.handed_in:
                self._failed(handed_in(cell.statements, self.spellings), self._cause(error))
                return
            if error:
                self._lose(step.statement, names, error)

    def _run_whole(self, statements: list[ast.stmt], names: dict) -> None:
        """A whole file goes on after a statement that raises, without what that statement makes."""
        gaps: set[str] = set()
        for statement in statements:
            own = set(handed_in([statement], self.spellings))
            if gaps & own and not isinstance(statement, KEPT):  # what it hands in would be an older value of that name
                gaps -= own
                continue
            error = self._attempt(statement, names)
            if isinstance(error, SystemExit):
                return
            if error:
                self._lose(statement, names, error)
                self._failed(handed_in([statement, *_called(statement, statements)], self.spellings), self._cause(error))
                gaps |= set(re.findall(r"Exercise (\d\d\.\d+)", str(error))) if isinstance(statement, ast.Raise) else set()

    def _lose(self, statement: ast.stmt, names: dict, error: BaseException) -> None:
        """No older value stands in for what a statement that failed would have made."""
        for name in made_names(statement):
            self.lost[name] = self._cause(error)
            if not isinstance(statement, (ast.Import, ast.ImportFrom)):  # a module is no answer, and others may need it
                names.pop(name, None)

    def _cause(self, error: BaseException) -> BaseException:
        """What came first, where a name is missing because the statement that makes it failed."""
        return self.lost.get(error.name, error) if isinstance(error, NameError) else error

    def _attempt(self, statement: ast.stmt, names: dict) -> BaseException | None:
        """Run a statement, within its time; when the time for all is over, what takes no time is still run. What it raised."""
        names["get_ipython"] = MagicMock  # whatever the notebook is asked for, it does nothing; an import may have hidden it
        try:
            signal.setitimer(signal.ITIMER_REAL, max(min(self.seconds, self.ends - time.monotonic()), 0.01))
            code = compiled(statement)
            result = eval(code, names)  # exec drops the coroutine of a statement that awaits
            if code.co_flags & inspect.CO_COROUTINE:
                self.loop.run_until_complete(result)
        except BaseException as error:
            return error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return None

    def _failed(self, numbers: list[str], error: BaseException) -> None:
        for number in set(numbers) - set(self.answers):
            if not isinstance(error, (NotImplementedError, SystemExit)):  # a gap is not a mistake
                self.errors[number] = f"{type(error).__name__}: {error}"[:300]


def _called(statement: ast.stmt, statements: list[ast.stmt]) -> list[ast.stmt]:
    """The functions of a file that a statement names."""
    words = re.findall(r"\w+", ast.unparse(statement))
    return [other for other in statements if isinstance(other, (ast.FunctionDef, ast.AsyncFunctionDef)) and other.name in words]


def _too_long(*_) -> None:
    raise TimeoutError("it ran longer than allowed")
