"""Base models: a preset trained from scratch by the one loop, all classes or all but one (the gold standard)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .autoencoder import encoded, load_autoencoder
from .checking import check_kind
from .data import ImageSet, batch_indices, draw_batch, load_dataset, mirrored, step_generator
from .data.targets import Wanted, find_target
from .errors import CheckpointError, DataError
from .files import write_atomically
from .models.cards import command_line, provenance
from .models.checkpoints import build_pipeline, check_dtype, load_pipeline, save_checkpoint
from .models.codec import Codec
from .models.conditions import ClassConditions, PromptConditions, conditions_of
from .models.denoiser import Preset, build_denoiser, build_text_denoiser, get_preset
from .models.diffusion import draw_noise
from .models.history import History, history_of, remember
from .models.networks import network_of, placed
from .models.sampling import ClassConditionalPipeline, coloured
from .models.text_to_image import TextDenoiser, TextToImagePipeline
from .resuming import check_begins
from .training import TrainConfig, TrainResult, digest_of, train


@dataclass(frozen=True)
class DenoisingObjective:
    """L_den on an image set, with the condition dropped now and then: what every base model and every attack minimises.

    encoded: the set as the network sees it, and mirrored, for a training that sees each image so often that encoding is done once.
    """

    data: ImageSet
    batch_size: int
    conditions: ClassConditions | PromptConditions
    label_dropout: float = 0.1
    flip: bool = False
    about: dict = field(default_factory=dict)  # what else makes another training: the weights that are finetuned, what is measured
    encoded: tuple[Tensor, Tensor] | None = None

    @property
    def fingerprint(self) -> dict:
        settings = {key: getattr(self, key) for key in ("batch_size", "label_dropout", "flip")}
        return {"data": self.data.digest, **settings, **self.conditions.fingerprint, **self.about}

    def __call__(self, model: nn.Module, seed: int, step: int) -> Tensor:
        return self.errors(model, seed, step)[0].mean()

    def errors(self, model: nn.Module, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Squared errors of batch `step`, B x C x H x W, and its timesteps, int64, B."""
        device = next(model.parameters()).device
        generator = step_generator(seed, step)
        x, labels = self.batch(seed, step)
        condition = self.conditions.of_labels(labels, seed, step, partial=True)
        condition = self.conditions.dropped(condition, generator, self.label_dropout).to(device)
        x = x.to(device)
        eps, t = draw_noise(x, generator)
        return self.conditions.denoising_error(model, x, eps, t, condition), t

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Batch `step` as the network sees it, and its labels."""
        if self.encoded is None:
            images, labels = draw_batch(self.data, self.batch_size, seed, step, self.flip)
            return self.conditions.encode(images), labels
        indices = batch_indices(len(self.data), self.batch_size, seed, step)
        x, other = (part[indices].float() for part in self.encoded)
        if self.flip:
            x = torch.where(mirrored(self.batch_size, seed, step)[:, None, None, None], other, x)
        return x, self.data.labels[indices]


def train_base(
    preset: str | Preset, out: Path | None = None, *, without: Wanted | None = None, data: ImageSet | None = None,
    start: str | Path | None = None, resume: bool = False, dtype: str = "float32", evaluate=None, evaluate_every: int = 0,
    on_log=None, progress: bool = True, **settings,
) -> tuple[ClassConditionalPipeline | TextToImagePipeline, TrainResult]:
    """Train a preset from scratch; returns the pipeline with averaged weights, and the log.

    out: folder for the checkpoint, beside the state of the training, which stays there so that `resume` can add steps.
    without: a class, style or object, or a list of them, that it never sees: the model that unlearning is measured against.
    data: an image set in place of the preset's own.
    start: a checkpoint of the same preset and classes, whose weights are trained on in place of fresh ones. DataError if the images
        would teach it again what it was made to forget.
    evaluate: called with (step, pipeline) every `evaluate_every` steps and after the last; with 0, after the last alone.
    settings: fields of TrainConfig that differ from the preset's, e.g. steps=200, seed=1.
    """
    preset = preset if isinstance(preset, Preset) else get_preset(preset)
    check_dtype(dtype)
    check_begins(out, resume)
    config = preset.training.changed(**settings)
    whole, data = _data_of(preset, data, without)
    model, pipe = new_model(preset, data, config.seed)
    history = History() if start is None else begin_with(model, pipe, start)
    if (known := history.leave_out(data)[1]):
        raise DataError(
            f"{start} was made to forget {', '.join(known)}, and {data.name} has images of it, which would teach it again: leave "
            "it out with --without (in Python, without=)."
        )
    remember(pipe, history_after(history, config, data, whole, without))
    objective = DenoisingObjective(
        data, config.batch_size, conditions_of(pipe, text_trains=preset.text_width > 0), preset.label_dropout, preset.flip,
        start_of(model, start), encoded_both_ways(pipe.codec, data) if pipe.codec.latent else None,
    )
    result = train(
        model, objective, config, out=out, resume=resume, evaluate=evaluate and (lambda step, _: evaluate(step, pipe)),
        evaluate_every=evaluate_every, on_log=on_log, description=f"training {preset.name}", progress=progress,
    )
    if out is not None:
        write_atomically(Path(out) / "log.csv", result.log.to_csv(index=False).encode())
        save_checkpoint(pipe, Path(out), base_card(preset, config, data, without, result), dtype)
    return pipe, result


def history_after(history: History, config: TrainConfig, seen: ImageSet, whole: ImageSet, without: Wanted | None) -> History:
    """What a model will have been through after a training. whole: the images, with those that were left out of what was seen."""
    if without is not None:
        history = history.having_forgotten(find_target(without, seen.class_names), whole.only(without))
    return replace(history.having_seen(seen), training_set=seen, weights="ema" if config.ema_decay else "raw")


def _data_of(preset: Preset, data: ImageSet | None, without: Wanted | None) -> tuple[ImageSet, ImageSet]:
    """All images, at the preset's size, and those that the model is to see."""
    data = load_dataset(preset.dataset).train if data is None else data
    check_kind("data", data, ImageSet, "an image set, such as load_dataset('digits').train")
    seen = data = data.resized(preset.image_size)
    held_out = [name for name in preset.held_out if name in data.class_names]  # one's own pictures may have other classes
    for left_out in (*([] if without is None else [without]), *held_out):
        seen = seen.without(left_out)
    return data, seen


def new_model(preset: Preset, data: ImageSet, seed: int) -> tuple[nn.Module, ClassConditionalPipeline | TextToImagePipeline]:
    """What trains, freshly initialised, and the pipeline around it; DataError for images that an autoencoder cannot take."""
    if preset.text_width:
        model, tokenizer = build_text_denoiser(preset, data.class_names, data.images.shape[1], seed)
        return model, build_pipeline(model.unet, preset, data.class_names, model.text_encoder, tokenizer)
    vae = load_autoencoder(preset.autoencoder) if preset.autoencoder else None
    unet = build_denoiser(preset, len(data.class_names), data.images.shape[1], seed, vae)
    pipe, given = build_pipeline(unet, preset, data.class_names, vae=vae), data.images.shape[1]
    if pipe.image_shape[0] != given:
        raise DataError(
            f"{data.name} has {coloured(given)} images, and the autoencoder of {preset.name} takes {coloured(pipe.image_shape[0])} "
            f"ones: train a model of pixels, by dimum train digits --data FOLDER --image-size {preset.image_size}, or, in Python, "
            f"load them by load_images(..., image_channels={pipe.image_shape[0]})."
        )
    return unet, pipe


def begin_with(model: nn.Module, pipe: ClassConditionalPipeline | TextToImagePipeline, checkpoint: str | Path) -> History:
    """Take the weights of a checkpoint's network, its text encoder's included if that trains, too, and tell its history;
    CheckpointError if it is of another shape, or was trained on other classes, words, noise or latents than `pipe` is to be."""
    before = load_pipeline(checkpoint)
    known = TextDenoiser(before.unet, before.text_encoder) if isinstance(before, TextToImagePipeline) else network_of(before)
    shapes, theirs = ({name: w.shape for name, w in net.state_dict().items()} for net in (model, known))
    if shapes != theirs:
        raise CheckpointError(f"{checkpoint} has a network of another shape, so it cannot be trained on: give one of this preset.")
    ours, theirs = (_meaning(each) for each in (pipe, before))
    if other := [key.replace("_", " ") for key in ours if ours[key] != theirs.get(key)]:
        raise CheckpointError(
            f"{checkpoint} was trained with other {', '.join(other)}, so its weights mean something else here: give a checkpoint "
            "with the same ones, in the same order, or leave --start (start=) out."
        )
    model.load_state_dict(known.state_dict())
    return history_of(before)


def _meaning(pipe: ClassConditionalPipeline | TextToImagePipeline) -> dict:
    """What weights that fit by their shapes must have in common, too."""
    words = {"vocabulary": pipe.tokenizer.get_vocab()} if isinstance(pipe, TextToImagePipeline) else {}
    return conditions_of(pipe, text_trains=True).fingerprint | words


def start_of(model: nn.Module, start: str | Path | None) -> dict:
    """What a training that did not start from fresh weights must have in common with the one that goes on."""
    return {} if start is None else {"start": digest_of(model)}


def encoded_both_ways(codec: Codec, data: ImageSet) -> tuple[Tensor, Tensor]:
    """The latents of all images, and of their mirror images, in half precision: 1 kB for an image of 32 x 32 pixels."""
    with placed([codec.vae], Accelerator().device):  # and back: a pipeline draws where any part of it is
        return tuple(encoded(codec, images).half() for images in (data.images, data.images.flip(-1)))


def base_card(preset: Preset, config: TrainConfig, data: ImageSet, without: Wanted | None, result: TrainResult) -> dict:
    kind = "text" if preset.text_width else "class"
    target = None if without is None else find_target(without, data.class_names)
    lacking = "" if target is None else f" without {target.in_words}"
    losses = result.log["loss"].dropna() if len(result.log) else []
    held_out = [name for name in preset.held_out if name in data.class_names]
    return {
        "title": f"{preset.name}{lacking}",
        "summary": f"A {kind}-conditional DDPM for {data.name} at {preset.image_size} x {preset.image_size} pixels{lacking}.",
        "kind": "denoiser",
        "preset": preset.name,
        "without": target and target.said,
        **({"held_out": held_out} if held_out else {}),
        "training": {
            "command": command_line(),
            "parameters": sum(p.numel() for p in result.model.parameters()),
            **asdict(config),
            "precision": result.precision,
            "weights": "EMA" if config.ema_decay else "raw",
            "final_loss": round(float(losses.iloc[-20:].mean()), 5) if len(losses) else None,
            "seconds": round(result.seconds),
        },
        "data": {"name": data.name, "images": len(data), "image_size": preset.image_size, "digest": data.digest},
        "provenance": provenance(),
    }
