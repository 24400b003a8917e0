"""Exercises that check themselves: `check("01.1", answer)` says whether the answer is right, and if not, what to look at."""

import importlib
import pkgutil

from .checks import check, given, hint
from .variants import Variant, variant

for _module in pkgutil.iter_modules(__path__):
    if _module.name.startswith("checks_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Variant", "check", "given", "hint", "variant"]
