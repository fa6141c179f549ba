"""Losses and the training loop; the model is passed in."""

from quantisp.training.checkpoints import check_run_folder
from quantisp.training.loop import CurvePoint, TrainProgress, train
from quantisp.training.losses import frequency_loss
from quantisp.training.settings import TrainSettings

__all__ = [
    "CurvePoint",
    "TrainProgress",
    "TrainSettings",
    "check_run_folder",
    "frequency_loss",
    "train",
]
