"""Attacks: what brings a forgotten class back, and the controls beside it."""

from .auxiliary import AUXILIARY, auxiliary_set
from .controls import add_weight_noise, few_shot, prune, relearn_embedding, swap_embedding
from .leaks import refuse_leaks
from .prompts import EmbeddingSearch, probe_prompts, search_embedding
from .relearning import Relearning, relearn

__all__ = [
    "AUXILIARY", "EmbeddingSearch", "Relearning", "add_weight_noise", "auxiliary_set", "few_shot", "probe_prompts", "prune",
    "refuse_leaks", "relearn",
    "relearn_embedding", "search_embedding", "swap_embedding",
]
