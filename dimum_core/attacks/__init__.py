"""Attacks: what brings a forgotten class back, and the controls beside it."""

from .auxiliary import AUXILIARY, auxiliary_set
from .controls import add_weight_noise, few_shot, prune, relearn_embedding, swap_embedding
from .relearning import Relearning, refuse_leaks, relearn

__all__ = [
    "AUXILIARY", "Relearning", "add_weight_noise", "auxiliary_set", "few_shot", "prune", "refuse_leaks", "relearn",
    "relearn_embedding", "swap_embedding",
]
