"""Networks that draw classes, whoever trained them: diffusers' UNet2DModel, with labels or without, and DiTTransformer2DModel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers import UNet2DModel
from diffusers.models.embeddings import LabelEmbedding
from torch import Tensor, nn

from ..errors import ModelError

if TYPE_CHECKING:  # a transformer takes seconds to import
    from diffusers import DiTTransformer2DModel

    Labelled = UNet2DModel | DiTTransformer2DModel


def label_rows(network: Labelled) -> int:
    """Rows of the table of labels; 0 if the network takes none. A transformer's last row is its null condition."""
    transformer = network.config.get("num_embeds_ada_norm")
    return transformer + 1 if transformer else network.config.get("num_class_embeds") or 0


def has_labels(network: Labelled) -> bool:
    return label_rows(network) > 0


def null_row(network: Labelled, names: int) -> int | None:
    """The row of the null condition, which is the last one; None if every row is a class. names: how many, 0 if nobody says."""
    rows = label_rows(network)
    return None if rows in (0, names) else rows - 1


def output_of(network: nn.Module, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
    """What a network predicts, B x C x H x W, without the variance that a transformer may predict beside it.

    t: int64, B, or one for all. labels: int64, B; none for a network that takes none.
    """
    return network(x_t, t.expand(len(x_t)), class_labels=labels).sample[:, :x_t.shape[1]]


def keep_labels(network: Labelled) -> None:
    """A transformer in training drops labels by itself, from the global random stream: here the objective does that."""
    for module in network.modules():
        if isinstance(module, LabelEmbedding):
            module.dropout_prob = 0.0


def check_labels(network: Labelled, names: dict[str, str]) -> None:
    """Refuse a table of labels that does not fit the names: a row for each class, in their order, and perhaps one for the null
    condition. A network without a table draws one class, everything."""
    rows = label_rows(network)
    if network.config.get("class_embed_type") is not None or (not rows and len(names) != 1):
        raise ModelError(
            "The network has no table of labels (num_class_embeds), so it draws no class: give one with it, or name the one kind "
            "of image that it draws."
        )
    if not names:
        raise ModelError(
            f"The pipeline has {rows} label rows and does not say what they are: give id2label, with {rows} names if each is a "
            f"class, or with {rows - 1} if the last one is the null condition."
        )
    if sorted(names) != sorted(map(str, range(len(names)))) or len(set(names.values())) < len(names):
        raise ModelError(f"id2label must give each of the numbers 0 to {len(names) - 1} a name of its own.")
    if rows and rows - len(names) not in (0, 1):
        raise ModelError(
            f"{len(names)} classes need {len(names)} label rows, or {len(names) + 1} with a last one for the null condition, and "
            f"this network has {rows}: name as many classes as it knows."
        )
