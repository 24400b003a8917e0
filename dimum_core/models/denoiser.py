"""The networks eps(x_t, t, condition) and the presets that size everything from a laptop to a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, UNet2DModel

from ..checking import check_multiple
from ..data.captions import PARAPHRASES, PARTIAL_TEMPLATES, TEMPLATES, caption
from ..errors import DataError, SettingError, UnknownName
from ..training import TrainConfig
from .codec import Codec
from .text_to_image import TextDenoiser, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Preset:
    """Sizes and budgets of one base model. A preset changes sizes, never the path through the code.

    dataset, image_size: what it is trained on.
    patch_size: images are folded by pixel-unshuffle, patch_size^2 pixels to one position (see `Codec`).
    autoencoder: the checkpoint of one whose latents the network sees; none, folded pixels.
    channels, layers, attention: width of each level, residual blocks a level, and the levels that attend.
    guidance_scale: the default of the pipeline, chosen on held-out noise (notebook 02).
    text_width: of the text encoder's embeddings; 0 is a class-conditional model.
    held_out: combinations of a style and an object that are left out of training, to see whether the model composes.
    """

    name: str
    dataset: str
    image_size: int
    patch_size: int
    channels: tuple[int, ...]
    layers: int
    attention: tuple[bool, ...]
    autoencoder: str = ""
    dropout: float = 0.0
    label_dropout: float = 0.1
    flip: bool = True
    guidance_scale: float = 2.5
    text_width: int = 0
    held_out: tuple[str, ...] = ()
    training: TrainConfig = field(default_factory=TrainConfig)


HEAD_WIDTH = 64  # channels of each head of attention; a level with fewer would have none

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "digits", dataset="digits", image_size=8, patch_size=2, channels=(64, 128), layers=1,
            attention=(False, True), flip=False, guidance_scale=2.0,
            training=TrainConfig(steps=2_000, batch_size=128, learning_rate=1e-3, warmup_steps=50, ema_decay=0.995),
        ),
        Preset(
            "cifar10-small", dataset="cifar10", image_size=32, patch_size=2, channels=(128, 256), layers=1,
            attention=(False, True), autoencoder="cifar10-autoencoder", guidance_scale=4.0,
            training=TrainConfig(  # no decay: it can be gone on with for more steps, and the average does what a decay would
                steps=20_000, batch_size=64, learning_rate=4e-4, warmup_steps=500, decay=False, ema_decay=0.9998
            ),
        ),
        Preset(
            "shapes", dataset="shapes", image_size=16, patch_size=2, channels=(48, 96), layers=1, attention=(False, True),
            flip=False, guidance_scale=3.0, text_width=64,
            held_out=("outline heart", "hatched circle", "dotted square", "watercolour star"),
            training=TrainConfig(steps=10_000, batch_size=64, learning_rate=1.2e-3, warmup_steps=100, ema_decay=0.998),
        ),
        Preset(
            "cifar10", dataset="cifar10", image_size=32, patch_size=1, channels=(128, 256, 256, 256), layers=2,
            attention=(False, True, False, False), dropout=0.1,
            training=TrainConfig(
                steps=400_000, batch_size=128, learning_rate=2e-4, warmup_steps=5_000, decay=False, ema_decay=0.9999
            ),
        ),
    )
}


def get_preset(name: str) -> Preset:
    if not isinstance(name, str) or name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name]


def check_preset(preset: Preset, factor: int, groups: int) -> None:
    """Refuse a preset that no network fits. factor: side of an image by the side of what the network sees; groups: of its norms."""
    levels = len(preset.channels)
    check_multiple(f"image_size of {preset.name}", preset.image_size, factor * 2 ** (levels - 1))
    for width in preset.channels:
        check_multiple(f"Each of the channels of {preset.name}", width, groups)
    if len(preset.attention) != levels:
        raise SettingError(f"attention of {preset.name} must say for each of the {levels} levels whether it attends.")


def build_denoiser(
    preset: Preset, num_classes: int, image_channels: int, seed: int = 0, vae: AutoencoderTiny | AutoencoderKL | None = None
) -> UNet2DModel:
    """A freshly initialised UNet for a preset.

    Input and output: what `Codec.encode` makes of images: B x (C * patch_size^2) x (H / patch_size) x (W / patch_size), or the
    latents of `vae`. Labels 0 to num_classes - 1; the last row of the label embedding, num_classes, is the null condition.
    """
    codec = Codec(preset.patch_size, vae)
    check_preset(preset, codec.factor, groups=32)
    for width, attends in zip(preset.channels, [*preset.attention[:-1], True], strict=True):  # the middle does, at the last width
        if attends and width < HEAD_WIDTH:
            raise SettingError(f"Attending levels of {preset.name}, such as the last, need {HEAD_WIDTH} channels, not {width}.")
    down = ["AttnDownBlock2D" if attends else "DownBlock2D" for attends in preset.attention]
    up = ["AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(preset.attention)]
    channels = vae.config.latent_channels if vae else image_channels * preset.patch_size**2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=preset.image_size // codec.factor,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=preset.channels,
            layers_per_block=preset.layers,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            attention_head_dim=HEAD_WIDTH,
            dropout=preset.dropout,
            num_class_embeds=num_classes + 1,
        )


def _check_apart_in_words(class_names: tuple[str, ...], tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse two classes with the same words in a caption: upper case and underscores are no difference there."""
    said = {}
    for name in class_names:
        for template in TEMPLATES:
            words = tuple(tokenizer(caption(name, template)).input_ids)
            if said.setdefault(words, name) != name:
                raise DataError(f"The classes {said[words]!r} and {name!r} are the same in words, in lower case: rename one.")


def build_text_denoiser(
    preset: Preset, class_names: tuple[str, ...], image_channels: int, seed: int = 0
) -> tuple[TextDenoiser, PreTrainedTokenizerFast]:
    """A freshly initialised UNet with cross-attention and a text encoder that is trained along with it, and their tokenizer.

    Input and output of the UNet as in `build_denoiser`; its condition is the encoder's last hidden states, B x L x text_width,
    where L is that of the longest caption, or 12. DataError for two classes that are one in words.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    check_preset(preset, preset.patch_size, groups=16)
    captions = [caption(name, template) for name in class_names for template in (*TEMPLATES, *PARTIAL_TEMPLATES, *PARAPHRASES)]
    tokenizer = word_tokenizer(captions)
    _check_apart_in_words(class_names, tokenizer)
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in preset.attention]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(preset.attention)]
    folded = image_channels * preset.patch_size**2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=preset.image_size // preset.patch_size, in_channels=folded, out_channels=folded,
            block_out_channels=preset.channels, layers_per_block=preset.layers, down_block_types=tuple(down),
            up_block_types=tuple(up), cross_attention_dim=preset.text_width, norm_num_groups=16,
            attention_head_dim=4,  # the number of heads: diffusers keeps the old name for this network
        )
        text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=preset.text_width, intermediate_size=2 * preset.text_width,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=tokenizer.model_max_length,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        ))
    return TextDenoiser(unet, text_encoder), tokenizer
