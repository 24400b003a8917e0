"""The judge: a small classifier that says what a sample shows, how sure it is, and when it shows none of the classes.

A classifier forced to choose calls noise a class. The judge therefore also measures how strange an image is, and rejects what is
stranger than nearly all held-out real images. Strange is what lies far from every class (Mahalanobis distance of its features, Lee
et al. 2018, arXiv 1807.03888), or, for a judge that was shown images of no class, what looks like those (`outliers`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from ..checking import check_kind
from ..data.targets import Target, word_kinds
from ..errors import DataError

NONE_OF_THESE = -1


@dataclass(frozen=True)
class Verdict:
    """What the judge says of N images, on the CPU.

    probabilities: float32, N x classes, calibrated by the fitted temperature; the forced choice.
    distance: float32, N; how strange each is: squared Mahalanobis distance to the nearest class, or log-odds that it shows none.
    labels: int64, N; the most probable class, or NONE_OF_THESE where the distance exceeds the threshold.
    features: float32, N x D; what fidelity is measured on.
    """

    probabilities: Tensor
    distance: Tensor
    labels: Tensor
    features: Tensor

    @property
    def forced_labels(self) -> Tensor:
        return self.probabilities.argmax(1)

    def shows(self, target: Target) -> Tensor:
        """Which images show the target: bool, N."""
        return target.among(self.labels)


@dataclass(frozen=True)
class PairVerdict(Verdict):
    """What two judges, of styles and of objects, say together: a combination, or none if either says so.

    words: the label of the style and that of the object: int64, N each, NONE_OF_THESE where a judge recognises none.
    """

    words: tuple[Tensor, Tensor]

    def shows(self, target: Target) -> Tensor:
        """A style is shown if the judge of styles says so, whatever the object."""
        if target.position is None:
            return target.among(self.labels)
        kind, words = word_kinds(target.class_names)[target.position], self.words[target.position]
        return torch.isin(words, torch.tensor([kind.index(part.name) for part in target.each], device=words.device))


@dataclass(frozen=True)
class PairJudge:
    """Two judges as one: the first tells styles apart, the second objects. Any object with `judge` and `class_names` will do."""

    style: Judge
    object: Judge

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"{style} {thing}" for style in self.style.class_names for thing in self.object.class_names)

    @property
    def image_size(self) -> int:
        return self.style.image_size

    def judge(self, images: Tensor) -> PairVerdict:
        """images: N x C x H x W in [-1, 1]."""
        style, thing = self.style.judge(images), self.object.judge(images)
        none = (style.labels < 0) | (thing.labels < 0)
        return PairVerdict(
            (style.probabilities[:, :, None] * thing.probabilities[:, None]).flatten(1),
            torch.maximum(style.distance, thing.distance),
            torch.where(none, NONE_OF_THESE, style.labels * thing.probabilities.shape[1] + thing.labels),
            torch.cat([style.features, thing.features], dim=1),
            (style.labels, thing.labels),
        )


class Judge(ModelMixin, ConfigMixin):
    """A convolutional classifier for images of one size, with a temperature and a rejection threshold.

    widths, pools: channels of each stage, and by how much it shrinks the image (1 or 2). A stage is two 3 x 3
        convolutions, each with batch normalisation and GELU, as in airbench (Jordan 2024, arXiv 2404.00498).
    mirror: average over the image and its mirror image (right for photographs, wrong for digits).
    residual: another architecture, for a second opinion: a stage is two residual blocks (He et al. 2015, arXiv 1512.03385), and
        features are means over the image in place of maxima.
    knows_outliers: what is strange is told by a regression on images of no class, in place of the Mahalanobis distance.
    whitened: begin as airbench94 does (section 3 of that paper): 2 x 2 patches are decorrelated by fixed filters, convolutions
        start as identities, normalisations have no scale of their own, and logits are divided by 9. It learns several times faster.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 32,
        image_channels: int = 3,
        class_names: tuple[str, ...] = (),
        widths: tuple[int, ...] = (64, 256, 256),
        pools: tuple[int, ...] = (2, 2, 2),
        mirror: bool = False,
        temperature: float = 1.0,
        threshold: float = float("inf"),
        whitened: bool = False,
        residual: bool = False,
        knows_outliers: bool = False,
    ):
        super().__init__()
        first = 8 * image_channels if whitened else 32
        self.stem = nn.Conv2d(image_channels, first, 2) if whitened else nn.Conv2d(image_channels, first, 3, padding=1)
        self.stages = nn.ModuleList(
            (_residual_stage if residual else _stage)(a, b, pool)
            for a, b, pool in zip((first, *widths), widths, pools, strict=False)
        )
        self.head = nn.Linear(widths[-1], len(class_names), bias=False)
        traces = sum(widths)
        self.register_buffer("class_means", torch.zeros(len(class_names), traces))
        self.register_buffer("whitening", torch.eye(traces))
        if knows_outliers:
            self.register_buffer("outlier_weights", torch.zeros(traces + widths[-1] + len(class_names) + 1))

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.config.class_names)

    @property
    def image_size(self) -> int:
        return self.config.image_size

    def stage_outputs(self, images: Tensor) -> list[Tensor]:
        """B x C x H x W in [-1, 1] to the output of each stage."""
        outputs = [F.gelu(self.stem(images))]
        for stage in self.stages:
            outputs.append(stage(outputs[-1]))
        return outputs[1:]

    def forward(self, images: Tensor) -> Tensor:
        """Uncalibrated logits, B x classes."""
        return self._logits(self._features(self.stage_outputs(images)[-1]))

    def _features(self, output: Tensor) -> Tensor:
        return output.mean(dim=(2, 3)) if self.config.residual else output.amax(dim=(2, 3))

    def _logits(self, features: Tensor) -> Tensor:
        return self.head(features) / (9 if self.config.whitened else 1)

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features, B x D: the strongest response of each channel of the last stage, or the mean; fidelity is measured on them.
        Traces, B x sum(widths): the mean response of each channel of every stage; the early ones betray noise.
        """
        outputs = self.stage_outputs(images)
        return self._features(outputs[-1]), torch.cat([output.mean(dim=(2, 3)) for output in outputs], dim=1)

    def distance(self, traces: Tensor) -> Tensor:
        """Squared Mahalanobis distance to the nearest class mean, B."""
        return torch.cdist(traces @ self.whitening, self.class_means @ self.whitening).square().amin(1)

    def outlier_odds(self, features: Tensor, traces: Tensor) -> Tensor:
        """The log-odds that an image shows no class, B."""
        return self.evidence(features, traces) @ self.outlier_weights[:-1] + self.outlier_weights[-1]

    def evidence(self, features: Tensor, traces: Tensor) -> Tensor:
        """What tells images of no class, B x (traces + D + classes): traces, features of length 1, and logits by rank."""
        ranked = self._logits(features).sort(1, descending=True).values
        return torch.cat([traces, F.normalize(features, eps=1e-6), ranked], dim=1)

    @torch.inference_mode()
    def judge(self, images: Tensor, batch_size: int = 500) -> Verdict:
        """What N images show. images: float32, N x C x H x W in [-1, 1], of the judge's own size."""
        expected = (self.config.image_channels, self.config.image_size, self.config.image_size)
        check_kind("images", images, Tensor, "a tensor, N x C x H x W in [-1, 1]")
        if images.ndim != 4 or tuple(images.shape[1:]) != expected or not images.is_floating_point():
            actual = f"{tuple(images.shape)} of {images.dtype}"
            raise DataError(f"This judge looks at float images of shape N x {expected}, not {actual}.")
        if not len(images) or not bool(images.isfinite().all()):
            raise DataError("The judge needs at least one image, and finite pixels.")
        self.eval()
        parts = [self._judge_batch(batch.to(self.device, self.dtype)) for batch in images.split(batch_size)]
        probabilities, distance, features = (torch.cat(part).float().cpu() for part in zip(*parts, strict=True))
        labels = torch.where(distance > self.config.threshold, NONE_OF_THESE, probabilities.argmax(1))
        return Verdict(probabilities, distance, labels, features)

    def _judge_batch(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, traces = self._look_both_ways(images)
        logits = self._logits(features)
        strange = self.outlier_odds(features, traces) if self.config.knows_outliers else self.distance(traces)
        return (logits / self.config.temperature).softmax(1), strange, features

    def _look_both_ways(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not self.config.mirror:
            return self.look(images)
        return tuple((a + b) / 2 for a, b in zip(self.look(images), self.look(images.flip(-1)), strict=True))

    @torch.inference_mode()
    def seen(self, images: Tensor, batch_size: int = 500) -> tuple[Tensor, Tensor]:
        """Features and traces of N images, on the CPU: what is strange is told from them."""
        self.eval()
        looks = [self._look_both_ways(batch.to(self.device)) for batch in images.split(batch_size)]
        return tuple(torch.cat(part).float().cpu() for part in zip(*looks, strict=True))


def _stage(in_channels: int, out_channels: int, pool: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.MaxPool2d(pool) if pool > 1 else nn.Identity(),
        nn.BatchNorm2d(out_channels),
        nn.GELU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.GELU(),
    )


class _Residual(nn.Module):
    """x + convolutions of x, shrunk by `pool`; the shortcut is a 1 x 1 convolution where sizes differ."""

    def __init__(self, in_channels: int, out_channels: int, pool: int):
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride=pool, padding=1, bias=False)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(2))
        alike = in_channels == out_channels and pool == 1
        self.shortcut = nn.Identity() if alike else nn.Conv2d(in_channels, out_channels, 1, stride=pool, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        change = self.norms[1](self.second(F.gelu(self.norms[0](self.first(x)))))
        return F.gelu(change + self.shortcut(x))


def _residual_stage(in_channels: int, out_channels: int, pool: int) -> nn.Sequential:
    return nn.Sequential(_Residual(in_channels, out_channels, pool), _Residual(out_channels, out_channels, 1))


@torch.no_grad()
def whiten(judge: Judge, images: Tensor) -> None:
    """Give a new judge that is `whitened` its first values, from images of N x C x H x W, some thousands.

    The stem's filters are the eigenvectors of the covariance of all 2 x 2 patches, each divided by the deviation along it, and
    their negatives; they are never trained.
    """
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).movedim(1, 3).flatten(3).flatten(0, 2).double()
    values, vectors = torch.linalg.eigh(patches.T.cov())
    filters = (vectors / (values + 5e-4 * values.mean()).sqrt()).T.reshape(-1, images.shape[1], 2, 2).float()
    judge.stem.weight.copy_(torch.cat([filters, -filters]))
    judge.stem.bias.zero_()
    judge.stem.requires_grad_(False)
    for layer in judge.stages.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight[: layer.in_channels])
        elif isinstance(layer, nn.BatchNorm2d):
            layer.weight.requires_grad_(False)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises cross-entropy on held-out logits (Guo et al. 2017, arXiv 1706.04599)."""
    from scipy.optimize import minimize_scalar

    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / np.exp(log_temperature), labels))

    return float(np.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x))


def class_gaussians(traces: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Class means, and the matrix W with W W' = inverse of the pooled covariance, so that |(x - m) W| is the distance.

    The covariance is shrunk by Ledoit and Wolf's estimate: a small judge has channels that hardly vary.
    """
    from sklearn.covariance import ledoit_wolf

    means = torch.stack([traces[labels == label].mean(0) for label in range(classes)])
    covariance, _ = ledoit_wolf((traces - means[labels]).double().numpy(), assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    return means, torch.from_numpy(vectors / np.sqrt(np.maximum(values, 1e-12))).float()
