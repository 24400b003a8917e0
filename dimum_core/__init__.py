"""dimum: machine unlearning for diffusion models, with DiMUM, DiMRA and their rivals."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Names are imported when first used, so that `import dimum_core` and `dimum --help` are quick.
_HOMES = {
    "load_dataset": "data",
    "load_images": "data",
    "ImageSet": "data",
    "Dataset": "data",
    "load_pipeline": "models.checkpoints",
    "ClassConditionalPipeline": "models.sampling",
    "evaluate": "evaluation",
    "unlearn": "unlearning",
    "relearn": "attacks",
    "train_base": "pretraining",
    "TrainConfig": "training",
    "train": "training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
