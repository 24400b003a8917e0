"""An attack by words that are sought: tokens before a caption, under which images of the target are denoised."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..checking import check_seed, check_whole
from ..data import ImageSet, step_generator
from ..data.targets import Wanted
from ..errors import ModelError
from ..judges import Judge, PairJudge, judge_for
from ..models.conditions import in_several_encoders
from ..models.fresh_noise import FRESH_STEPS, with_fresh_noise
from ..models.sampling import check_pipeline
from ..models.text_to_image import tokenize
from .base import SHOTS, Attacked, Means, register
from .finetuning import images_of
from .prompts import EmbeddingObjective, Measure, SoughtWords, sought


class TokenPrompts(nn.Module):
    """A caption for each label of the target, all with the same tokens before it; `embeddings` are labels x L x D.

    captions: int64, labels x L, as the tokenizer gives them, with the token that begins a prompt. prefix: int64, k.
    """

    def __init__(self, text_encoder: nn.Module, captions: Tensor, prefix: Tensor):
        super().__init__()
        self.text_encoder, self.captions, self.prefix = text_encoder, captions, prefix

    @property
    def input_ids(self) -> Tensor:
        """The captions, cut where the tokens before them leave no room."""
        before = self.prefix.expand(len(self.captions), -1)
        return torch.cat([self.captions[:, :1], before, self.captions[:, 1:]], dim=1)[:, : self.captions.shape[1]]

    @property
    def embeddings(self) -> Tensor:
        return self.text_encoder(self.input_ids).last_hidden_state.float()

    def slopes(self, objective: EmbeddingObjective, seed: int, step: int) -> Tensor:
        """k x V: by how much the loss would change, to first order, if the token at a place of the prefix were another one.

        e_v - e_now, times the gradient of the loss by the token's embedding (HotFlip, Ebrahimi et al. 2018, arXiv 1712.06751).
        """
        table, seen = self.text_encoder.get_input_embeddings(), []

        def keep(module: nn.Module, arguments: tuple, embedded: Tensor) -> Tensor:
            seen.append(embedded.detach().requires_grad_())
            return seen[-1]

        hook = table.register_forward_hook(keep)
        loss = objective(self, seed, step)
        hook.remove()
        gradient = torch.autograd.grad(loss, seen[0])[0][:, 1 : 1 + len(self.prefix)].sum(0)  # the same tokens for every label
        return gradient @ table.weight.T - (gradient * table.weight[self.prefix]).sum(1, keepdim=True)


@dataclass
class TokenSearch:
    """What a search for tokens came to.

    curve: one row for each round, 0 first, without tokens: the loss on images of the target under the captions, accuracy on the
        target with its interval, and how far the captions' embeddings have moved. tokens: what stands before each caption.
    images: drawn by these, in [-1, 1].
    """

    curve: pd.DataFrame
    tokens: list[str]
    images: Tensor = field(repr=False)


def search_tokens(
    pipe: DiffusionPipeline, shots: ImageSet, *, target: Wanted | None = None, count: int = 3, rounds: int = 2,
    candidates: int = 16, batch_size: int = 32, seed: int = 0, judge: Judge | PairJudge | None = None, samples: int = 48,
    **sampling,
) -> TokenSearch:
    """Which words bring the target back? Seek tokens before its captions that lower the denoising loss on images of the target.

    min over tokens v of E |eps - eps(x_t, t, [v, caption])|^2, the objective of UnlearnDiffAtk (Zhang et al. 2023,
    arXiv 2310.11868), where P4D (Chin et al. 2023, arXiv 2309.06135) asks the original model. Theirs are relaxed tokens, projected;
    this is a greedy coordinate search (Zou et al. 2023, arXiv 2307.15043): place after place, the loss is measured for the
    `candidates` tokens whose slopes promise most, on the same images and noise, and the best stays. No weight changes.

    shots, target: as in `search_embedding`. count: tokens. rounds: over all places. Special tokens are none of the candidates.
    sampling: guidance_scale, num_inference_steps. Drawn by the pipeline's own sampler, as there.
    """
    check_pipeline(pipe)
    if in_several_encoders(pipe):
        raise ModelError("Tokens are sought for pipelines with one text encoder, and this one has several: use probe_prompts.")
    for name, value in {"count": count, "rounds": rounds, "candidates": candidates, "samples": samples}.items():
        check_whole(name, value)
    check_seed(seed)
    judge = judge_for(pipe, judge)
    conditions, shots = sought(pipe, shots, target, judge.class_names)
    device = Accelerator().device
    unet, encoder = (copy.deepcopy(part).to(device).eval().requires_grad_(False) for part in (pipe.unet, pipe.text_encoder))
    captions = [conditions.caption(label * conditions.all_wordings) for label in conditions.forgotten.labels]
    prompts = TokenPrompts(encoder, tokenize(pipe.tokenizer, captions).to(device), torch.empty(0, dtype=torch.long, device=device))
    objective = EmbeddingObjective(unet, conditions, shots, batch_size)
    measure = Measure(pipe, judge, conditions, samples, batch_size, seed, sampling, prompts.embeddings)
    curve = [_row(0, prompts, objective, measure, seed)]
    words = _vocabulary(pipe.tokenizer).to(device)
    prompts.prefix = words[torch.randint(len(words), (count,), generator=step_generator(seed, 0, "token search")).to(device)]
    for number in range(rounds):
        for place in range(count):
            _improve(prompts, place, objective, words, candidates, seed, number * count + place)
        curve.append(_row(number + 1, prompts, objective, measure, seed))
    tokens = pipe.tokenizer.convert_ids_to_tokens(prompts.prefix.tolist())
    return TokenSearch(pd.DataFrame(curve), tokens, measure.images)


def _vocabulary(tokenizer) -> Tensor:
    """Every token that stands for something."""
    return torch.tensor(sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)))


@torch.no_grad()
def _row(number: int, prompts: TokenPrompts, objective: EmbeddingObjective, measure: Measure, seed: int) -> dict[str, float]:
    return {"round": number, "loss": float(objective(prompts, seed, 10**6)), **measure(prompts)}


def _improve(
    prompts: TokenPrompts, place: int, objective: EmbeddingObjective, words: Tensor, candidates: int, seed: int, step: int
) -> None:
    """Put the best of the most promising tokens at one place of the prefix, if it is better than what is there."""
    promise = prompts.slopes(objective, seed, step)[place, words]
    tried = [prompts.prefix[place], *words[promise.topk(min(candidates, len(words)), largest=False).indices]]
    losses = []
    for token in tried:
        prompts.prefix = torch.cat([prompts.prefix[:place], token[None], prompts.prefix[place + 1 :]])
        with torch.no_grad():
            losses.append(float(objective(prompts, seed, step)))
    best = tried[losses.index(min(losses))]
    prompts.prefix = torch.cat([prompts.prefix[:place], best[None], prompts.prefix[place + 1 :]])


@register("tokens")
@dataclass(frozen=True)
class Tokens(SoughtWords):
    """Seek tokens before the target's captions under which a few images of the target are denoised."""

    shots: int = 16
    count: int = 3
    rounds: int = 1
    has: ClassVar[tuple[str, ...]] = (SHOTS,)

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        images = images_of(means.target, means.data)
        found = search_tokens(
            with_fresh_noise(pipe), images.select(torch.arange(min(self.shots, len(images)))), target=means.target,
            judge=means.judge, samples=means.samples, count=self.count, rounds=self.rounds, seed=means.seed,
            num_inference_steps=FRESH_STEPS,
        )
        return Attacked(images=found.images, steps=self.rounds * self.count)
