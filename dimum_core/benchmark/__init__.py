"""The laboratory: a grid of method x target x budget x attack x seed, resumable, on one core or many machines."""

from .contest import contests, leaderboard, report
from .plan import Plan
from .reading import check_plan, load_plan
from .results import read_results, write_results
from .running import run

__all__ = ["Plan", "check_plan", "contests", "leaderboard", "load_plan", "read_results", "report", "run", "write_results"]
