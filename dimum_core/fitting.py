"""The data set that fits a pipeline: a shipped one, or your own pictures at its size and in the order of its classes."""

from __future__ import annotations

from diffusers import DiffusionPipeline

from .data import Dataset, load_data, load_dataset
from .errors import DataError, brief
from .models.networks import image_shape
from .models.text_to_image import TextToImagePipeline

YOURS = "give yours with --data, a folder of pictures by class, say (in Python, as data=)"


def default_data(pipe: DiffusionPipeline) -> Dataset:
    """The data set without download that a pipeline's classes belong to."""
    if not hasattr(pipe, "image_shape"):
        raise DataError(f"No data set is known to fit this pipeline: {YOURS}.")
    kind = "shapes" if isinstance(pipe, TextToImagePipeline) else "digits" if pipe.image_shape[0] == 1 else "cifar10-mini"
    data = load_dataset(kind)
    if data.class_names != pipe.class_names:
        raise DataError(f"No shipped data set has the classes {brief(pipe.class_names)} of this pipeline: {YOURS}.")
    return data


def data_for(pipe: DiffusionPipeline, named: str | None = None) -> Dataset:
    """A data set by its name, or your own pictures by their folder or table; without a name, the one shipped for the pipeline."""
    if named is None:
        return default_data(pipe)
    channels, side, _ = image_shape(pipe)
    return load_data(named, side, image_channels=channels, class_names=getattr(pipe, "class_names", None))
