"""Attacks by words alone: the weights stay, and prompts or their embeddings are sought that bring the target back."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..data import ImageSet, draw_batch, step_generator
from ..data.captions import KINDS, PARAPHRASES, PARTIAL_TEMPLATES, caption
from ..data.targets import Target
from ..errors import DataError
from ..judges import Judge, PairJudge, judge_for
from ..metrics import wilson_interval
from ..models.conditions import PromptConditions, conditions_of, image_size
from ..models.diffusion import add_noise, draw_noise
from ..models.history import history_of
from ..models.sampling import seed_noise_sampler
from ..precision import short_attention
from ..training import TrainConfig, train


def probe_prompts(
    pipe: DiffusionPipeline, target: str, *, judge: Judge | PairJudge | None = None, count: int = 48, seed: int = 0, **sampling
) -> pd.DataFrame:
    """In how many of `count` images the target is seen, for several ways to ask: one row each, with its 95 % interval.

    captions: as in training. paraphrases: wordings that no training had. word left out: the same without the target's word.
    away from the target: the word is left out, and the target's caption is the negative prompt; a method that only turns the
    target's direction round is turned back by it.
    sampling: guidance_scale, num_inference_steps.
    """
    judge = judge_for(pipe, judge)
    conditions = _prompts(pipe, target, judge.class_names)
    wanted = conditions.forgotten
    names = [conditions.class_names[wanted.labels[i % len(wanted.labels)]] for i in range(count)]
    whole = conditions.templates[: conditions.wordings]
    short = [_without(name, wanted) for name in names]
    asked = {
        "captions": ([caption(name, whole[i % len(whole)]) for i, name in enumerate(names)], None),
        "paraphrases": ([caption(name, PARAPHRASES[i % len(PARAPHRASES)]) for i, name in enumerate(names)], None),
        "word left out": (short, None),
        "away from the target": (short, [caption(name, whole[0]) for name in names]),
    }
    rows = {}
    for k, (probe, (prompts, negative)) in enumerate(asked.items()):
        images = _ask(pipe, prompts, negative, step_generator(seed, k), sampling)
        rows[probe] = wilson_interval(int(judge.judge(images).shows(wanted).sum()), count)
    return pd.DataFrame({name: vars(row) for name, row in rows.items()}).T


def _prompts(pipe, target: str, class_names: tuple[str, ...]) -> PromptConditions:
    conditions = conditions_of(pipe, target, class_names)
    if not isinstance(conditions, PromptConditions):
        raise DataError("This attack works on prompts, and this pipeline is asked by class labels.")
    return conditions


def _without(name: str, target: Target) -> str:
    """A caption that leaves the target's word out; for one combination, the style."""
    kept = 1 if target.position is None else 1 - target.position
    return caption(name, next(t for t in PARTIAL_TEMPLATES if "{" + KINDS[kept] + "}" in t))


@torch.no_grad()
def _ask(pipe, prompts, negative, generator, sampling) -> Tensor:
    shown = getattr(pipe, "_progress_bar_config", {})
    seed_noise_sampler(pipe.scheduler, generator)
    pipe.set_progress_bar_config(disable=True)
    try:
        images = pipe(prompts, negative_prompt=negative, generator=generator, output_type="pt", **sampling).images
    finally:
        pipe.set_progress_bar_config(**shown)
    return images.float().cpu() * 2 - 1


class SoftPrompts(nn.Module):
    """One embedding, L x D, for each label of the target: what the search changes."""

    def __init__(self, start: Tensor):
        super().__init__()
        self.embeddings = nn.Parameter(start.clone())  # labels x L x D


@dataclass(frozen=True)
class EmbeddingObjective:
    """L_den on images of the target, of a frozen network, by the embedding of their prompts."""

    unet: nn.Module
    conditions: PromptConditions
    images: ImageSet
    batch_size: int

    @property
    def fingerprint(self) -> dict:
        return {"data": self.images.digest, "batch_size": self.batch_size, "target": self.conditions.target_name}

    def __call__(self, model: SoftPrompts, seed: int, step: int) -> Tensor:
        device = next(model.parameters()).device
        images, labels = draw_batch(self.images, self.batch_size, seed, step)
        x = self.conditions.encode(images).to(device)
        eps, t = draw_noise(x, step_generator(seed, step))
        rows = torch.tensor([self.conditions.forgotten.labels.index(label) for label in labels.tolist()], device=device)
        x_t = add_noise(x, eps, t, self.conditions.alphas_cumprod)
        with short_attention(x_t):
            predicted = self.unet(x_t, t, encoder_hidden_states=model.embeddings[rows]).sample
        return (eps - predicted.float()).square().mean()


@dataclass
class EmbeddingSearch:
    """What was found.

    curve: one row an evaluation, step 0 first: accuracy on the target with its interval, and how far the embeddings have moved.
    embeddings: labels of the target x L x D, for `pipe(prompt_embeds=...)`. images: drawn from the last ones, in [-1, 1].
    """

    curve: pd.DataFrame
    embeddings: Tensor
    images: Tensor = field(repr=False)


def search_embedding(
    pipe: DiffusionPipeline,
    shots: ImageSet,
    *,
    target: str | None = None,
    steps: int = 100,
    learning_rate: float = 0.03,
    batch_size: int = 32,
    seed: int = 0,
    judge: Judge | PairJudge | None = None,
    samples: int = 48,
    evaluate_every: int | None = None,
    progress: bool = True,
    **sampling,
) -> EmbeddingSearch:
    """Is the target still in the weights, under another name? Seek prompt embeddings under which images of the target are denoised.

    In the spirit of textual inversion (Gal et al. 2022, arXiv 2208.01618) and UnlearnDiffAtk (Zhang et al. 2023, arXiv 2310.11868),
    without their discrete tokens: the whole embedding of a caption is free, which makes the attack stronger. No weight changes.

    shots: images of the target; this attacker has some. target: default, what the pipeline says it has unlearned.
    sampling: guidance_scale, num_inference_steps.
    """
    last = history_of(pipe).last
    target = last.target if target is None and last else target
    if target is None:
        raise DataError("What should be sought? The pipeline names no target, so pass target=.")
    judge = judge_for(pipe, judge)
    conditions = _prompts(pipe, target, judge.class_names)
    shots = shots.resized(image_size(pipe)).only(target)
    if not len(shots):
        raise DataError(f"There are no images of {target!r} among the {shots.name} that are to be denoised.")
    first = torch.tensor(conditions.forgotten.labels) * conditions.all_wordings
    model = SoftPrompts(conditions.embeddings(first).float())
    start = model.embeddings.detach().clone()
    rows = torch.arange(samples) % len(start)
    drawn = {}

    def measure(step: int) -> dict:
        embeds = model.embeddings.detach().to(pipe.device)
        generator = step_generator(seed, 0, "embedding search")
        drawn["images"] = _ask(pipe, None, None, generator, {"prompt_embeds": embeds[rows], **sampling})
        seen = wilson_interval(int(judge.judge(drawn["images"]).shows(conditions.forgotten).sum()), samples)
        moved = float((embeds - start.to(embeds)).norm(dim=-1).mean())
        return {"target accuracy": seen.value, "target low": seen.low, "target high": seen.high, "moved": moved}

    curve = [{"step": 0, **measure(0)}]
    unet = copy.deepcopy(pipe.unet).to(Accelerator().device).eval().requires_grad_(False)
    objective = EmbeddingObjective(unet, conditions, shots, batch_size)
    config = TrainConfig(steps=steps, batch_size=batch_size, learning_rate=learning_rate, decay=False, ema_decay=0, seed=seed)
    result = train(
        model, objective, config, evaluate=lambda step, _: measure(step), evaluate_every=evaluate_every or max(1, steps // 5),
        progress=progress, description="seeking embeddings",
    )
    if steps:
        curve += result.log.dropna(subset="target accuracy")[list(curve[0])].to_dict("records")
    return EmbeddingSearch(pd.DataFrame(curve), model.embeddings.detach().cpu(), drawn["images"])
