"""Exercises that check themselves: `check("01.1", answer)` says whether the answer is right, and if not, what to look at."""

from . import checks_geometry  # noqa: F401 (its import registers the checks of chapters 11 and 12)
from .checks import check

__all__ = ["check"]
