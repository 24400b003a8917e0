"""diffusers' own text-to-image pipelines, of the real classes, tiny, with random weights."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from dimum_core.judges.classifier import Judge, PairJudge
from dimum_core.models.text_to_image import word_tokenizer

STYLES, OBJECTS = ("Crayon", "Van_Gogh"), ("Cats", "Dogs", "Trees")


def canvas_judge(side: int = 32) -> PairJudge:
    """Says at random which style and which object an image shows."""
    torch.manual_seed(0)
    return PairJudge(*(Judge(side, 3, words, (8, 8), (2, 2)) for words in (STYLES, OBJECTS)))


def tokenizer():
    return word_tokenizer(["A image in style .", *STYLES, *OBJECTS, "van gogh"], length=16)


def text_config(**more) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer()), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )


def autoencoder(channels: tuple[int, ...] = (8, 16), **more) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, block_out_channels=channels, latent_channels=4, norm_num_groups=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * len(channels), up_block_types=("UpDecoderBlock2D",) * len(channels), **more,
    )


def loaded(pipe):
    """As a pipeline is once it has been read from a folder, and without bars."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unet(**more) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, norm_num_groups=8, **more,
    )


def stable_diffusion(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """32 x 32 pixels, latents of 4 x 16 x 16. prediction_type: of 1.x or, v_prediction, of 2.x."""
    torch.manual_seed(0)
    text = CLIPTextModel(text_config())
    network = unet(cross_attention_dim=16)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
        prediction_type=prediction_type,
    )
    return loaded(StableDiffusionPipeline(
        autoencoder(), text, tokenizer(), network, scheduler, None, None, requires_safety_checker=False
    ))


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """Two encoders, and conditions beside the prompt."""
    first = stable_diffusion()
    torch.manual_seed(1)
    second = CLIPTextModelWithProjection(text_config(projection_dim=8))
    network = unet(
        cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 + 6 * 8,
    )
    return loaded(StableDiffusionXLPipeline(
        first.vae, first.text_encoder, second, first.tokenizer, first.tokenizer, network, first.scheduler, add_watermarker=False
    ))


def t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer()), d_model=32, d_ff=16, d_kv=8, num_layers=1, num_heads=2))


def stable_diffusion_3(with_t5: bool = True) -> StableDiffusion3Pipeline:
    """A transformer of two streams, and flow matching with the shift of the real one. with_t5: or without, as many have it."""
    torch.manual_seed(2)
    clips = [CLIPTextModelWithProjection(text_config(projection_dim=8)) for _ in range(2)]
    network = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=16, pos_embed_max_size=16,
    )
    scheduler, vae, words = FlowMatchEulerDiscreteScheduler(shift=3.0), autoencoder(shift_factor=0.06), tokenizer()
    third = (t5(), words) if with_t5 else (None, None)
    return loaded(StableDiffusion3Pipeline(network, scheduler, vae, clips[0], words, clips[1], words, *third))


def flux(guidance_embeds: bool = True) -> FluxPipeline:
    """Latents of 4 x 128 x 128, as the class always draws, and images of that size; the shift depends on it."""
    torch.manual_seed(3)
    words = tokenizer()
    network = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(2, 2, 4), guidance_embeds=guidance_embeds,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    vae = autoencoder((8,), mid_block_add_attention=False, shift_factor=0.1)
    return loaded(FluxPipeline(scheduler, vae, CLIPTextModel(text_config()), words, t5(), words, network))
