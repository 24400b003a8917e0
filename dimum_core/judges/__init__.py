"""Judges: what a sample shows, how they are trained, and how their verdicts are counted."""

from .classifier import Judge, PairJudge, Verdict
from .counting import accuracies
from .finding import find_judge, identity_of, judge_for, load_judge

__all__ = ["Judge", "PairJudge", "Verdict", "accuracies", "find_judge", "identity_of", "judge_for", "load_judge"]
