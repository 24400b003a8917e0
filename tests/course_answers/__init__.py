"""What learners might answer: for each exercise one right answer, and wrong ones with what the message must say of each.

One module a chapter, chNN.py, with ANSWERS: number -> (right answer, [(wrong answer, words of the message), ...]). They are
written without the checks' own references, so that each is an oracle for the other. No student edition and no grader sees this
folder.
"""

from __future__ import annotations

import importlib
import pkgutil

ANSWERS: dict[str, tuple] = {}
for _module in pkgutil.iter_modules(__path__):
    ANSWERS |= importlib.import_module(f"{__name__}.{_module.name}").ANSWERS
