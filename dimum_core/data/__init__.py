"""Labelled images: the one type, the sets by name, what is to be forgotten of them, and batches."""

from .batches import batch_indices, draw_batch, mirrored, step_generator
from .image_set import Dataset, ImageSet, from_uint8
from .loaders import DATA_FOLDER, DATASETS, HOW_TO_GET, load_data, load_dataset
from .own_pictures import OwnPictures, load_images
from .unlearn_canvas import load_unlearn_canvas

__all__ = [
    "DATASETS", "DATA_FOLDER", "HOW_TO_GET", "Dataset", "ImageSet", "OwnPictures", "batch_indices", "draw_batch", "from_uint8",
    "load_data", "load_dataset", "load_images", "load_unlearn_canvas", "mirrored", "step_generator",
]
