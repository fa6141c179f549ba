"""Folders of pictures, and patches of them."""

from quantisp.data.images import SAMPLE, ImageFile, Picture, find_images, read_picture
from quantisp.data.patches import PatchCache, read_training_tiles

__all__ = [
    "SAMPLE",
    "ImageFile",
    "PatchCache",
    "Picture",
    "find_images",
    "read_picture",
    "read_training_tiles",
]
