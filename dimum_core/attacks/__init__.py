"""Attacks: what brings a forgotten class back, and the controls beside it."""

from .relearning import Relearning, relearn

__all__ = ["Relearning", "relearn"]
