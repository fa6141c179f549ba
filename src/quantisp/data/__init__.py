"""Folders of pictures, and patches of them."""

from quantisp.data.calibration import (
    CROP_PX,
    CalibrationCrops,
    calibration_batches,
    calibration_crops,
    default_calibration,
)
from quantisp.data.datasets import Dataset, find_dataset, read_training_picture
from quantisp.data.images import (
    SAMPLE,
    SUFFIXES,
    ImageFile,
    Picture,
    as_8_bits,
    find_images,
    read_picture,
)
from quantisp.data.pairs import PairFiles, find_pairs
from quantisp.data.patches import PatchCache
from quantisp.data.tiles import TileSet, decode_tiles, open_tiles, remove_tiles

__all__ = [
    "CROP_PX",
    "SAMPLE",
    "SUFFIXES",
    "CalibrationCrops",
    "Dataset",
    "ImageFile",
    "PairFiles",
    "PatchCache",
    "Picture",
    "TileSet",
    "as_8_bits",
    "calibration_batches",
    "calibration_crops",
    "decode_tiles",
    "default_calibration",
    "find_dataset",
    "find_images",
    "find_pairs",
    "open_tiles",
    "read_picture",
    "read_training_picture",
    "remove_tiles",
]
