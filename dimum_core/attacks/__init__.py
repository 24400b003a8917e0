"""Attacks: what brings a forgotten class back, one file a family, behind one interface; and the audit that runs them."""

from .auditing import Audit, audit
from .auxiliary import AUXILIARY, auxiliary_set
from .base import ATTACKS, Attack, Attacked, Means, Outcome, attack, get_attack, register
from .finetuning import few_shot
from .leaks import refuse_leaks
from .page import report_card
from .prompts import EmbeddingSearch, probe_prompts, search_embedding
from .relearning import Relearning, relearn
from .rows import relearn_embedding, reset_embedding, swap_embedding
from .starts import ddim_path, seek_noise
from .tokens import TokenSearch, search_tokens
from .weights import add_weight_noise, complete_weights, prune, round_weights

__all__ = [
    "ATTACKS", "AUXILIARY", "Attack", "Attacked", "Audit", "EmbeddingSearch", "Means", "Outcome", "Relearning", "TokenSearch",
    "add_weight_noise", "attack", "audit", "auxiliary_set", "complete_weights", "ddim_path", "few_shot", "get_attack",
    "probe_prompts", "prune", "refuse_leaks", "register", "relearn", "relearn_embedding", "report_card", "reset_embedding",
    "round_weights", "search_embedding", "search_tokens", "seek_noise", "swap_embedding",
]
