"""Exercises that check themselves: `check("01.1", answer)` says whether the answer is right, and if not, what to look at."""

from .checks import check

__all__ = ["check"]
