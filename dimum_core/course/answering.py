"""A student's process: runs the code that was handed in, then answers the grader's calls. Started by grade.py as a script.

It holds no solution, no seed and no mark, so nothing in it is worth tampering with: it can only return results, which the grader
judges. What follows is a fence against accidents and simple attacks, not a jail: limits of memory and time, no new processes, no
network, no file outside its own folder written, none of the course's own, of other students or of the marks read. The hook sees
only what Python itself does; for files and programs, Linux's Landlock binds native code too, where the kernel has it.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import dis
import json
import os
import re
import resource
import signal
import struct
import sys
import time
import types
from pathlib import Path

FORBIDDEN = ("os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill", "os.chown", "os.link", "os.symlink",
             "subprocess.", "socket.", "ctypes.", "gc.", "signal.", "pty.", "sys._current", "sys.settrace", "sys.setprofile")
IN_OWN_FOLDER = ("os.remove", "os.rename", "os.rmdir", "os.chmod", "os.truncate", "os.mkdir", "shutil.")
LIBRARIES = {"dimum_core", "diffusers", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch", "tqdm"}
FEW = 5  # answers to one exercise that are sent, the last ones: the very last may be a copy that nobody filled in
KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def fence(memory: int, secret_folders: list[str], readable_paths: list[str]) -> None:
    """From here on: `memory` bytes more than now, and no event of FORBIDDEN; cannot be undone within this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:  # elsewhere than on Linux the address space cannot be limited so
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000_000, 16_000_000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    here = os.path.realpath(os.getcwd()) + os.sep
    secret = tuple(os.path.realpath(folder) + os.sep for folder in secret_folders)
    landlock(here, readable_paths)
    changing = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_CREAT
    sys.modules["_posixsubprocess"] = None  # starts a process without an event; what subprocess holds of it goes, too
    if "subprocess" in sys.modules:
        sys.modules["subprocess"]._fork_exec = None

    def hook(event, arguments, forbidden=FORBIDDEN, own=IN_OWN_FOLDER, secret=secret, here=here, real=os.path.realpath,
             changing=changing, is_folder=os.path.isdir):
        if event.startswith(forbidden) or (event == "object.__setattr__" and arguments[1] == "__code__") or (
            event == "import" and arguments[0] == "_posixsubprocess"
        ):
            raise PermissionError(f"an answer may not do this ({event})")
        if event == "open" and not isinstance(arguments[0], int):
            path, flags = real(os.fsdecode(arguments[0])), arguments[2] or 0
            if (path + os.sep).startswith(secret) and not path.startswith(here):
                raise PermissionError("an answer may not read the course's own files, nor those of others")
            if is_folder(path):  # what is opened relative to a folder would be judged by the wrong path
                raise PermissionError("an answer may not open a folder")
            if flags & changing and not path.startswith((here, "/dev/null")):
                raise PermissionError("an answer may write only in its own folder")
        if event.startswith(own):
            paths = [argument for argument in arguments if isinstance(argument, (str, bytes, os.PathLike))]
            if not all(real(os.fsdecode(path)).startswith(here) for path in paths):
                raise PermissionError("an answer may change only its own folder")

    sys.addaudithook(hook)


def landlock(here: str, readable_paths: list[str]) -> None:
    """Have Linux deny native code, too, what the hook denies of files and programs; nothing happens on kernels without Landlock."""
    system = ctypes.CDLL(None).syscall
    version = system(444, None, 0, 1) if sys.platform == "linux" else 0
    if version < 1:
        return
    execute, write, read, list_folder, truncate = (1 << bit for bit in (0, 1, 2, 3, 14))
    handled = ((1 << min(12 + version, 15)) - 1) & ~list_folder  # versions 1 to 3 know 13 to 15 rights; imports list folders
    rules = system(444, struct.pack("=Q", handled), 8, 0)
    paths = ["/proc/self", *(f"/proc/{name}" for name in ("cpuinfo", "meminfo", "sys")), *readable_paths]  # /proc: for C libraries
    for path, rights in [(here, ~execute), ("/dev/null", write | truncate), *((path, read) for path in paths)]:
        with contextlib.suppress(OSError):  # it has gone by now
            place = os.open(path, os.O_PATH)
            system(445, rules, 1, struct.pack("=Qi", rights & handled, place), 0)
            os.close(place)
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # no new privileges, which the kernel asks for first
    system(446, rules, 0)


class NoCourse:
    """Finds nothing of the course, whoever imports it: its modules hold the solutions."""

    @staticmethod
    def find_spec(name: str, *_):
        if name.startswith("dimum_core.course"):
            raise ImportError(f"{name} is not for answers")


def import_libraries(cells: list[str]) -> None:
    """Import, before the fence, what the cells import of well-known libraries: they read settings as they load."""
    for cell in cells:
        try:
            statements = ast.parse(readable(cell)).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for statement in statements:
            names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else [
                statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
            if names and all(name.split(".")[0] in LIBRARIES for name in names):
                with contextlib.suppress(Exception):  # it fails again where it counts
                    exec(compile(ast.Module([statement], []), "<imports>", "exec"), {})


def readable(cell: str) -> str:
    """A cell without the lines that only IPython understands."""
    return re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell)


class Hand:
    """The answers handed in so far, each exercise's in their order, and what went wrong on the way."""

    def __init__(self, given: dict, student: str, seconds: float, reading: float):
        self.answers: dict[str, list] = {}
        self.errors: dict[str, str] = {}
        self.given, self.student, self.seconds = given, student, seconds
        self.ends = time.monotonic() + reading  # what was answered by then must not be lost to what still runs
        self.assigned: dict[str, ast.stmt] = {}  # name -> the statement of the chapter that makes it
        self.lost: dict[str, BaseException] = {}  # name -> why the statement of a whole file that makes it failed
        signal.signal(signal.SIGALRM, _too_long)

    def course(self) -> types.ModuleType:
        """What takes the place of dimum_core.course here: `check` notes the answer and says nothing."""
        module = types.ModuleType("dimum_core.course")
        module.check = lambda number, answer, student="": self.answers.setdefault(str(number), []).append(answer)
        module.hint = lambda number: None
        module.given = lambda number, student="": dict(self.given.get(number, {}))
        module.variant = lambda student="": types.SimpleNamespace(**self.given["variant"])
        return module

    def run(self, cells: list[str], whole: bool) -> None:
        """Run a whole file; of a notebook the cells with exercises, and of the others imports, definitions, literals and what an
        exercise turns out to need."""
        module, self.assigned, self.lost = self.course(), {}, {}
        sys.modules["dimum_core.course"] = module
        names = {"__name__": "__answers__", "check": module.check, "hint": module.hint, "given": module.given,
                 "variant": module.variant, "student": self.student}
        for cell in cells:
            try:
                statements = ast.parse(readable(cell)).body
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                self._failed(re.findall(r"check\(\s*[\"']([\d.]+)", cell), error)
                continue
            numbers = checked(statements)
            if not whole:  # of a whole file nothing is left out, and what comes later is not to be run ahead of its turn
                self.assigned |= {name: statement for statement in statements for name in assigned_names(statement)}
            self._run_cell(statements, numbers, names, whole)
            names["student"] = self.student
        if isinstance(names.get("answers"), dict):
            for number, answer in names["answers"].items():
                self.answers.setdefault(str(number), []).append(answer)

    def _run_cell(self, statements, numbers, names, whole: bool) -> None:
        """A notebook's cell ends with a statement that raises; a whole file goes on, without what that statement makes."""
        gaps: set[str] = set()
        for statement in statements:
            own = set(checked([statement]))
            if gaps & own and not isinstance(statement, KEPT):  # what it hands in would be an older value of that name
                gaps -= own
            elif whole or numbers or isinstance(statement, KEPT) or _literal(statement):
                try:
                    self._execute_in_time(statement, names)
                except BaseException as error:
                    if whole and not isinstance(error, SystemExit):
                        gaps |= self._lose(statement, statements, names, error)
                    elif whole or numbers:
                        self._failed(numbers, error)
                        return

    def _lose(self, statement, statements, names, error: BaseException) -> set[str]:
        """Fail only what a statement itself hands in; no older value stands in for what it makes. Returns the gaps it is."""
        error = self.lost.get(error.name, error) if isinstance(error, NameError) else error  # the cause, not what follows from it
        for name in made_names(statement):
            self.lost[name] = error
            if not isinstance(statement, (ast.Import, ast.ImportFrom)):  # a module is no answer, and others may need it
                names.pop(name, None)
        words = re.findall(r"\w+", ast.unparse(statement))
        called = [other for other in statements if isinstance(other, ast.FunctionDef) and other.name in words]
        self._failed(checked([statement, *called]), error)
        return set(re.findall(r"Exercise (\d\d\.\d+)", str(error))) if isinstance(statement, ast.Raise) else set()

    def _execute_in_time(self, statement: ast.stmt, names: dict) -> None:
        try:  # when the time for all is over, what takes no time is still run
            signal.setitimer(signal.ITIMER_REAL, max(min(self.seconds, self.ends - time.monotonic()), 0.01))
            self._execute(statement, names)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _execute(self, statement: ast.stmt, names: dict, depth: int = 0) -> None:
        """Run a statement; what it needs of the chapter is made when it turns out to be missing."""
        try:
            exec(compile(ast.Module([statement], []), "<answer>", "exec"), names)
        except NameError as error:
            if error.name not in self.assigned or depth > 8:
                raise
            self._execute(self.assigned.pop(error.name), names, depth + 1)
            self._execute(statement, names, depth + 1)

    def _failed(self, numbers, error: BaseException) -> None:
        for number in set(numbers) - set(self.answers):
            if not isinstance(error, (NotImplementedError, SystemExit)):  # a gap is not a mistake
                self.errors[number] = f"{type(error).__name__}: {error}"[:300]


def _too_long(*_) -> None:
    raise TimeoutError("it ran longer than allowed")


def checked(statements: list[ast.stmt]) -> list[str]:
    """The numbers of the exercises that a cell hands in."""
    calls = [node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return [
        str(call.args[0].value) for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "check" and call.args and isinstance(call.args[0], ast.Constant)
    ]


def assigned_names(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def made_names(statement: ast.stmt) -> set[str]:
    """The names that a statement makes in its file, not those within its functions."""
    try:
        code = compile(ast.Module([statement], []), "<answer>", "exec")
    except (SyntaxError, ValueError):
        return set(assigned_names(statement))
    return {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")}


def _literal(statement: ast.stmt) -> bool:
    try:
        return isinstance(statement, ast.Assign) and (ast.literal_eval(statement.value), True)[1]
    except (ValueError, TypeError, MemoryError, RecursionError):
        return False


def serve(line, wire) -> None:
    """Run what was handed in, say what was answered, then answer calls until the grader has enough."""
    order = line.receive()
    sys.meta_path.insert(0, NoCourse)
    hand = Hand(wire.decode(order["given"]), order["student"], order["seconds"], order["reading"])
    import_libraries([cell for cells, _ in order["pieces"] for cell in cells])
    fence(order["memory"], order["secret"], order["readable"])
    for cells, whole in order["pieces"]:
        hand.run(cells, whole)
    functions, answers = [], {}
    room = wire.LIMIT // (2 * FEW * len(hand.given))  # so that all of them together fit into one message
    last = [(number, answer) for number in hand.given for answer in hand.answers.get(number, [])[-FEW:]]
    for number, answer in last:
        try:
            encoded = wire.encode(answer, functions)
            if len(json.dumps(encoded)) > room:
                raise ValueError(f"an answer may be {room:,} bytes long, and this one is longer")
            answers.setdefault(number, []).append(encoded)
        except Exception as error:  # for want of memory, too
            hand.errors[number] = str(error)[:300] or type(error).__name__
            answers.pop(number, None)  # only a later answer can take its place
    line.send({"answers": answers, "errors": hand.errors})
    while True:
        answer_call(line, wire, functions)


def answer_call(line, wire, functions: list) -> None:
    """One call of a function that was handed in; what it calls itself is asked of the grader."""

    def back(place: int):
        def call(*arguments):
            line.send({"callback": place, "arguments": wire.encode(list(arguments))})
            return wire.decode(line.receive()["result"])

        return call

    order = line.receive()
    try:
        result = wire.encode(functions[order["call"]](*wire.decode(order["arguments"], back)))
    except NotImplementedError:
        line.send({"result": {"gap": True}})
    except Exception as error:
        line.send({"raised": f"{type(error).__name__}: {error}"[:300]})
    else:
        line.send({"result": result})


if __name__ == "__main__":
    import importlib.util

    spec = importlib.util.spec_from_file_location("wire", Path(__file__).with_name("wire.py"))
    _wire = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(_wire)
    serve(_wire.Line(int(sys.argv[1]), int(sys.argv[2])), _wire)
