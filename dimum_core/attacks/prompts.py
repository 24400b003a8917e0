"""Attacks by words alone: the weights stay, and prompts or their embeddings are sought that bring the target back."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..checking import check_kind, check_whole
from ..data import ImageSet, draw_batch, step_generator
from ..data.captions import PARAPHRASES, PARTIAL_TEMPLATES, WORD_KINDS, caption
from ..data.targets import Target, Wanted, word_kinds
from ..errors import DataError, ModelError
from ..evaluation import at_once, drawing
from ..judges import Judge, PairJudge, judge_for
from ..metrics import wilson_interval
from ..models.conditions import PromptConditions, conditions_of, image_size, in_several_encoders
from ..models.diffusion import draw_noise
from ..models.fresh_noise import FRESH_STEPS, with_fresh_noise
from ..models.history import history_of
from ..models.sampling import check_pipeline, fresh_noise_from, unfiltered
from ..precision import as_its_weights, short_attention
from ..training import TrainConfig, train
from ..unlearning.student import evaluation_interval
from .base import SHOTS, Attack, Attacked, Means, register
from .finetuning import images_of


def probe_prompts(
    pipe: DiffusionPipeline, target: Wanted, *, judge: Judge | PairJudge | None = None, count: int = 48, batch_size: int = 48,
    seed: int = 0, **sampling,
) -> pd.DataFrame:
    """In how many of `count` images the target is seen, for several ways to ask: one row each, with its 95 % interval.

    captions: as in training. paraphrases: wordings that no training had. word left out: the same without the target's word.
    away from the target: the word is left out, and the target's caption is the negative prompt; it undoes a method
    that only reverses the target's direction.
    batch_size: images drawn at a time, at most. sampling: guidance_scale, num_inference_steps.
    Drawn by the pipeline's own sampler: to compare with `evaluate`, give `with_fresh_noise(pipe)`, 25 steps.
    """
    check_pipeline(pipe)
    check_whole("count", count)
    judge = judge_for(pipe, judge)
    conditions = _prompt_conditions(pipe, target, judge.class_names)
    target = conditions.forgotten
    names = [conditions.class_names[target.labels[i % len(target.labels)]] for i in range(count)]
    whole = conditions.templates[: conditions.wordings]
    short = [_without(name, target) for name in names]
    prompts = {
        "captions": {"prompt": [caption(name, whole[i % len(whole)]) for i, name in enumerate(names)]},
        "paraphrases": {"prompt": [caption(name, PARAPHRASES[i % len(PARAPHRASES)]) for i, name in enumerate(names)]},
        "word left out": {"prompt": short},
        "away from the target": {"prompt": short, "negative_prompt": [caption(name, whole[0]) for name in names]},
    }
    rows = {}
    for k, (probe, words) in enumerate(prompts.items()):
        images = _drawn(pipe, words, step_generator(seed, k), batch_size, sampling)
        rows[probe] = vars(wilson_interval(int(judge.judge(images).shows(target).sum()), count))
    return pd.DataFrame(rows).T


def _prompt_conditions(pipe, target: Wanted, class_names: tuple[str, ...]) -> PromptConditions:
    conditions = conditions_of(pipe, target, class_names)
    if not isinstance(conditions, PromptConditions):
        raise DataError("This attack works on prompts, and this pipeline is asked by class labels.")
    return conditions


def _without(name: str, target: Target) -> str:
    """A caption that leaves the target's word out; for one combination, the style."""
    kept = 1 if target.position is None else 1 - target.position
    return caption(name, next(t for t in PARTIAL_TEMPLATES if "{" + WORD_KINDS[kept] + "}" in t))


@torch.no_grad()
def _drawn(
    pipe: DiffusionPipeline, words: dict[str, list[str] | Tensor], generator: torch.Generator, batch_size: int, sampling: dict
) -> Tensor:
    """Draw in batches: float32, N x C x H x W in [-1, 1], on the CPU.

    words: what the pipeline is asked, one entry for each image: prompt, negative_prompt, prompt_embeds.
    """
    check_whole("batch_size", batch_size)
    images, batch_size = [], at_once(pipe, batch_size)
    with drawing(pipe):
        for start in range(0, len(next(iter(words.values()))), batch_size):
            batch = {key: entries[start:start + batch_size] for key, entries in words.items()}
            with fresh_noise_from(pipe.scheduler, generator), unfiltered(pipe):
                images.append(pipe(**batch, generator=generator, output_type="pt", **sampling).images.float().cpu())
    return torch.cat(images) * 2 - 1


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
        x_t = self.conditions.schedule.add_noise(x, eps, t)
        with short_attention(x_t), as_its_weights(self.unet):
            prediction = self.unet(x_t, t, encoder_hidden_states=model.embeddings[rows]).sample
        return (self.conditions.schedule.wanted(x, eps, t) - prediction.float()).square().mean()


@dataclass
class EmbeddingSearch:
    """What a search for embeddings came to.

    curve: one row per evaluation, step 0 first: accuracy on the target with its interval, and how far the embeddings have moved.
    embeddings: labels of the target x L x D, for `pipe(prompt_embeds=...)`. images: drawn from the last ones, in [-1, 1].
    """

    curve: pd.DataFrame
    embeddings: Tensor
    images: Tensor = field(repr=False)


def search_embedding(
    pipe: DiffusionPipeline, shots: ImageSet, *, target: Wanted | None = None, steps: int = 100, learning_rate: float = 0.03,
    batch_size: int = 32, seed: int = 0, judge: Judge | PairJudge | None = None, samples: int = 48,
    evaluate_every: int | None = None, progress: bool = True, **sampling,
) -> EmbeddingSearch:
    """Is the target still in the weights, under another name? Seek prompt embeddings under which images of the target are denoised.

    In the spirit of textual inversion (Gal et al. 2022, arXiv 2208.01618) and UnlearnDiffAtk (Zhang et al. 2023, arXiv 2310.11868),
    without their discrete tokens: the whole embedding of a caption is free, which makes the attack stronger. No weight changes.

    shots: images of the target; this attacker has some. target: default, what the pipeline says it has unlearned.
    batch_size: images in a step of the search, and at most drawn at a time. sampling: guidance_scale, num_inference_steps.
    Drawn by the pipeline's own sampler: to compare with `evaluate`, give `with_fresh_noise(pipe)`, 25 steps.
    """
    check_pipeline(pipe)
    if in_several_encoders(pipe):
        raise ModelError("Embeddings are sought for pipelines with one text encoder, and this one has several: use probe_prompts.")
    check_whole("samples", samples)
    config = TrainConfig(steps=steps, batch_size=batch_size, learning_rate=learning_rate, decay=False, ema_decay=0, seed=seed)
    evaluate_every = evaluation_interval(evaluate_every, steps, count=5)
    judge = judge_for(pipe, judge)
    conditions, shots = sought(pipe, shots, target, judge.class_names)
    first = torch.tensor(conditions.forgotten.labels) * conditions.all_wordings
    model = SoftPrompts(conditions.embeddings(first).float())
    measure = Measure(pipe, judge, conditions, samples, batch_size, seed, sampling, model.embeddings.detach().clone())
    curve = [{"step": 0, **measure(model)}]
    unet = copy.deepcopy(pipe.unet).to(Accelerator().device).eval().requires_grad_(False)
    result = train(
        model, EmbeddingObjective(unet, conditions, shots, batch_size), config, evaluate=lambda _, model: measure(model),
        evaluate_every=evaluate_every, progress=progress, description="seeking embeddings",
    )
    if steps:
        curve += result.log.dropna(subset="target accuracy")[list(curve[0])].to_dict("records")
    return EmbeddingSearch(pd.DataFrame(curve), model.embeddings.detach().cpu(), measure.images)


def sought(
    pipe: DiffusionPipeline, shots: ImageSet, target: Wanted | None, class_names: tuple[str, ...]
) -> tuple[PromptConditions, ImageSet]:
    """What is sought, as conditions, and the images of it that are to be denoised."""
    last = history_of(pipe).last
    target = last.target_among(class_names) if target is None and last else target
    if target is None:
        raise DataError("What should be sought? The pipeline names no target, so pass target=.")
    conditions = _prompt_conditions(pipe, target, class_names)
    check_kind("shots", shots, ImageSet, "an image set, such as data.train.only('hatched')")
    shots = shots.resized(image_size(pipe)).only(target)
    if not len(shots):
        raise DataError(f"There are no images of {conditions.target_name!r} among the {shots.name} that are to be denoised.")
    return conditions, shots


@dataclass
class Measure:
    """How often the target is seen under the embeddings, from the same noise each time, and how far they have moved."""

    pipe: DiffusionPipeline
    judge: Judge | PairJudge
    conditions: PromptConditions
    samples: int
    batch_size: int
    seed: int
    sampling: dict
    start: Tensor  # the embeddings that the search began with
    images: Tensor | None = None  # what the last ones drew

    def __call__(self, model: SoftPrompts) -> dict[str, float]:
        embeddings = model.embeddings.detach()
        rows = embeddings[torch.arange(self.samples) % len(embeddings)].to(Accelerator().device)
        generator = step_generator(self.seed, 0, "embedding search")
        self.images = _drawn(self.pipe, {"prompt_embeds": rows}, generator, min(self.batch_size, self.samples), self.sampling)
        seen = wilson_interval(int(self.judge.judge(self.images).shows(self.conditions.forgotten).sum()), self.samples)
        moved = float((embeddings - self.start.to(embeddings)).norm(dim=-1).mean())
        return {"target accuracy": seen.value, "target low": seen.low, "target high": seen.high, "moved": moved}


# As attacks by name ---------------------------------------------------------------------------------------------------


class PromptAttack(Attack):
    """An attack by words."""

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        prompted = isinstance(conditions_of(pipe, means.target, means.target.class_names), PromptConditions)
        return "" if prompted else "it works on prompts, and this model is asked by labels"


@register("paraphrases")
@dataclass(frozen=True)
class Paraphrases(PromptAttack):
    """The target asked for in wordings that no training had."""

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        plain = "" if word_kinds(means.target.class_names) else "its wordings are of a style and an object, unlike these classes"
        return super().lacking(pipe, means) or plain

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        target = means.target
        names = [target.class_names[target.labels[i % len(target.labels)]] for i in range(means.samples)]
        words = {"prompt": [caption(name, PARAPHRASES[i % len(PARAPHRASES)]) for i, name in enumerate(names)]}
        generator = step_generator(means.seed, 0, "paraphrases")
        return Attacked(images=_drawn(with_fresh_noise(pipe), words, generator, 48, {"num_inference_steps": FRESH_STEPS}))


class SoughtWords(PromptAttack):
    """An attack by words, or by what stands for them, that are sought through the text encoder."""

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        several = "it seeks through one text encoder, and this model has several" if in_several_encoders(pipe) else ""
        return super().lacking(pipe, means) or several


@register("embedding")
@dataclass(frozen=True)
class Embedding(SoughtWords):
    """Seek embeddings of the prompt under which a few images of the target are denoised."""

    count: int = 16
    steps: int = 60
    learning_rate: float = 1e-2
    has: ClassVar[tuple[str, ...]] = (SHOTS,)

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        shots = images_of(means.target, means.data)
        found = search_embedding(
            with_fresh_noise(pipe), shots.select(torch.arange(min(self.count, len(shots)))), target=means.target,
            judge=means.judge, samples=means.samples, steps=self.steps, learning_rate=self.learning_rate,
            evaluate_every=self.steps, seed=means.seed, progress=False, num_inference_steps=FRESH_STEPS,
        )
        return Attacked(images=found.images, steps=self.steps)
