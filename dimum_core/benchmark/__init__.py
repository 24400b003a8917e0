"""The laboratory: a grid of method x target x budget x attack x seed, resumable, on one core or many machines."""

from .plan import Plan, load_plan
from .report import report
from .run import run
from .store import read_results

__all__ = ["Plan", "load_plan", "read_results", "report", "run"]
