"""What a student's process does: reads its order, runs what was handed in, says what was answered, and answers calls."""

from __future__ import annotations

import ast
import contextlib
import json
import sys

from . import wire
from .cells import IMPORTS, Cell, compiled, read_cell
from .fence import NoCourse, fence, limit
from .hand import Hand

LIBRARIES = {"dimum_core", "diffusers", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch", "tqdm"}
FEW = 5  # answers to one exercise that are sent, the last ones: the very last may be a copy that nobody filled in


def serve(line: wire.Line) -> None:
    """Run what was handed in, say what was answered, then answer calls until the grader has enough."""
    order = line.receive()
    sys.meta_path.insert(0, NoCourse)
    if "checkpoint" in order:
        from .forgetting import forget  # answers to exercises do without

        forget(order, line)
        return
    hand = Hand(wire.decode(order["questions"]), order["student"], order["seconds"], order["reading"])
    limit(order["memory"])
    files = [([read_cell(source) for source in cells], whole) for cells, whole in order["pieces"]]
    import_libraries([cell for cells, _ in files for cell in cells])
    fence(order["secret"], order["readable"])
    for cells, whole in files:
        hand.run(cells, whole)
    functions: list = []
    line.send({"answers": encoded(hand, functions), "errors": hand.errors})
    while True:
        answer_call(line, functions)


def import_libraries(cells: list[Cell]) -> None:
    """Import, before the fence, what the cells import of well-known libraries: they read settings as they load."""
    for statement in (statement for cell in cells for statement in cell.statements if isinstance(statement, IMPORTS)):
        names = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else [alias.name for alias in statement.names]
        if all(name.split(".")[0] in LIBRARIES for name in names):
            with contextlib.suppress(Exception):  # it fails again where it counts
                exec(compiled(statement), {})


def encoded(hand: Hand, functions: list) -> dict[str, list]:
    """Exercise -> its last answers, as they cross; functions stay here, in `functions`, each with its world. What cannot cross is
    noted as an error."""
    answers: dict[str, list] = {}
    room = wire.LIMIT // (2 * FEW * len(hand.questions))  # so that all of them together fit into one message
    last = [(number, *each) for number in hand.questions
            for each in zip(hand.answers.get(number, [])[-FEW:], hand.worlds.get(number, [])[-FEW:], strict=True)]
    for number, answer, world in last:
        own = [function for function, _ in functions]
        try:
            data = wire.encode(answer, own)
            functions += [(function, world) for function in own[len(functions):]]
            if len(json.dumps(data)) > room:
                raise ValueError(f"an answer may be {room:,} bytes long, and this one is longer")
            answers.setdefault(number, []).append(data)
        except Exception as error:  # for want of memory, too
            hand.errors[number] = str(error)[:300] or type(error).__name__
            answers.pop(number, None)  # only a later answer can take its place
    return answers


def answer_call(line: wire.Line, functions: list[tuple]) -> None:
    """One call of a function that was handed in; what it calls itself is asked of the grader."""

    def back(place: int):
        def call(*arguments, **named):
            line.send({"callback": place, "arguments": wire.encode(list(arguments)), "named": wire.encode(named)})
            reply = line.receive()
            if "wrong" in reply:
                raise TypeError(f"a function of the exercise was called wrongly: {reply['wrong']}")
            return wire.decode(reply["result"])

        return call

    order = line.receive()
    try:
        function, world = functions[order["call"]]
        world.restore()
        result = wire.encode(function(*wire.decode(order["arguments"], back)))
    except NotImplementedError:
        line.send({"result": {"gap": True}})
    except Exception as error:
        line.send({"raised": f"{type(error).__name__}: {error}"[:300]})
    else:
        line.send({"result": result})
