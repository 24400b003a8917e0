"""Unlearning: methods, one small file each, and the one call that runs any of them."""

from . import concept_ablation, dimum, esd, finetune, negative_gradient, random_label, salun
from .base import METHODS, Method, Step, get_method, register
from .run import unlearn

__all__ = [
    "METHODS", "Method", "Step", "concept_ablation", "dimum", "esd", "finetune", "get_method", "negative_gradient", "random_label",
    "register", "salun", "unlearn",
]
