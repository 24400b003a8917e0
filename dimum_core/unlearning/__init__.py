"""Unlearning: methods, one small file each, and the one call that runs any of them."""

from . import (
    cbft,
    concept_ablation,
    dimum,
    erasediff,
    esd,
    finetune,
    munba,
    negative_gradient,
    random_label,
    salun,
    scissorhands,
    sealed,
    selective_amnesia,
    sfr_on,
    sharpness_aware,
    simulated_attack,
    uce,
    weight_distance,
    weight_distortion,
)
from .base import METHODS, Method, Step, follow, gradient, ranged, register
from .choosing import get_method
from .plugin import load_plugin
from .run import unlearn

__all__ = [
    "METHODS", "Method", "Step", "cbft", "concept_ablation", "dimum", "erasediff", "esd", "finetune", "follow", "get_method",
    "gradient", "load_plugin", "munba", "negative_gradient", "random_label", "ranged", "register", "salun", "scissorhands",
    "sealed", "selective_amnesia", "sfr_on", "sharpness_aware", "simulated_attack", "uce", "unlearn", "weight_distance",
    "weight_distortion",
]
