"""A small text-to-image pipeline in pixel space, with the conventions of diffusers' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, SchedulerMixin, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from torch import Tensor, nn

from ..errors import SettingError, brief
from .sampling import CodedImages, check_output_type, check_sampling

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import CLIPTextModel, PreTrainedTokenizerFast


class TextToImagePipeline(CodedImages, StableDiffusionLoraLoaderMixin, DiffusionPipeline):
    """Draws what a prompt says: `pipe("a hatched star").images`.

    unet: called as unet(x_t, t, encoder_hidden_states); text_encoder: its last hidden states are the condition.
    id2label: the class names that it was trained on, by number. templates, partial_templates: how they were put into words.
    patch_size, guidance_scale: as in ClassConditionalPipeline.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: SchedulerMixin,
        id2label: dict | None = None,
        templates: Sequence[str] = (),
        partial_templates: Sequence[str] = (),
        patch_size: int = 1,
        guidance_scale: float = 1.0,
    ):
        super().__init__()
        self.register_modules(unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)
        id2label = {str(key): value for key, value in (id2label or {}).items()}  # JSON has no integer keys
        self.register_to_config(
            id2label=id2label, templates=list(templates), partial_templates=list(partial_templates), patch_size=patch_size,
            guidance_scale=guidance_scale,
        )

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """int64, B x L; every prompt is padded to the same length, and cut there."""
        return tokenize(self.tokenizer, prompts)

    def encode_prompt(
        self, prompt, device=None, num_images_per_prompt: int = 1, do_classifier_free_guidance: bool = False,
        negative_prompt=None, prompt_embeds: Tensor | None = None, negative_prompt_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The embeddings, B x L x D, of the prompts and of what to stay away from (default: of the empty prompt)."""
        embeds = self._embed(prompt) if prompt_embeds is None else prompt_embeds
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            negative = "" if negative_prompt is None else negative_prompt
            negative = [negative] * len(embeds) if isinstance(negative, str) else list(negative)
            if len(negative) != len(embeds):
                raise SettingError(f"{len(embeds)} prompts need as many negative prompts, not {len(negative)}.")
            negative_prompt_embeds = self._embed(negative)
        repeat = lambda e: None if e is None else e.repeat_interleave(num_images_per_prompt, 0).to(device or self.device)  # noqa: E731
        return repeat(embeds), repeat(negative_prompt_embeds)

    def _embed(self, prompts: str | Sequence[str]) -> Tensor:
        prompts = [prompts] if isinstance(prompts, str) else prompts
        if not isinstance(prompts, (list, tuple)) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise SettingError(f"A prompt must be words, or a list of such, not {brief(prompts)}.")
        return self.text_encoder(self.tokenize(prompts).to(self.text_encoder.device)).last_hidden_state

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int = 20,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        return_dict: bool = True,
        eta: float | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Draw `num_images_per_prompt` images for each prompt.

        guidance_scale: s in eps_negative + s (eps_prompt - eps_negative); 1 is no guidance. Default: the checkpoint's own.
        prompt_embeds, negative_prompt_embeds: B x L x D, in place of the words.
        generator, latents, output_type, eta: as in ClassConditionalPipeline.
        """
        check_output_type(output_type)
        if (prompt is None) == (prompt_embeds is None):
            raise SettingError("Give either prompt or prompt_embeds.")
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        check_sampling(num_inference_steps, scale)
        embeds, negative = self.encode_prompt(
            prompt, self.device, num_images_per_prompt, scale != 1, negative_prompt, prompt_embeds, negative_prompt_embeds
        )
        latents = self._sample(
            lambda x_t, t: self.predict_noise(x_t, t, embeds, negative, scale), len(embeds), num_inference_steps, generator,
            latents, eta, callback_on_step_end,
        )
        return self._output(latents, output_type, return_dict)

    def predict_noise(self, x_t: Tensor, t: Tensor, embeds: Tensor, negative: Tensor | None, guidance_scale: float) -> Tensor:
        """Guided noise prediction, both conditions in one batch."""
        if guidance_scale == 1:
            return self.unet(x_t, t, encoder_hidden_states=embeds).sample.to(x_t.dtype)
        both = self.unet(torch.cat([x_t, x_t]), t, encoder_hidden_states=torch.cat([negative, embeds])).sample.to(x_t.dtype)
        eps_negative, eps_prompt = both.chunk(2)
        return eps_negative + guidance_scale * (eps_prompt - eps_negative)


class TextDenoiser(nn.Module):
    """UNet and text encoder as one network, so that they train together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, x_t: Tensor, t: Tensor, input_ids: Tensor):
        """input_ids: int64, B x L."""
        return self.unet(x_t, t, encoder_hidden_states=self.text_encoder(input_ids).last_hidden_state)


def tokenize(tokenizer, prompts: Sequence[str]) -> Tensor:
    """int64, B x L, padded and cut to the tokenizer's own length."""
    return tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids


def word_tokenizer(texts: Sequence[str], length: int = 12) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is the words of the given texts, and whose length is `length`, or more if one of them needs it;
    nothing is downloaded."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    split_texts = [[word for word, _ in split.pre_tokenize_str(text.lower())] for text in texts]
    words = sorted({word for text in split_texts for word in text})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<start>", "<end>", "<unknown>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(word, vocabulary[word]) for word in ("<start>", "<end>")]
    )
    longest = max(map(len, split_texts), default=0) + 2  # with its start and end
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max(length, longest), pad_token="<pad>", bos_token="<start>",
        eos_token="<end>", unk_token="<unknown>",
    )
