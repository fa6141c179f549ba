"""Losses and the training loop; the model is passed in."""

from quantisp.training.board import TrainingBoard
from quantisp.training.checkpoints import START_NAME, check_run_folder
from quantisp.training.guide import Guide
from quantisp.training.loop import train
from quantisp.training.losses import frequency_loss
from quantisp.training.progress import CurvePoint, TrainProgress, validation_psnr_db
from quantisp.training.record import RECORD_NAME, write_record
from quantisp.training.run import TrainingRun
from quantisp.training.settings import TrainSettings
from quantisp.training.workers import Workers, is_first_process, start_workers

__all__ = [
    "RECORD_NAME",
    "START_NAME",
    "CurvePoint",
    "Guide",
    "TrainProgress",
    "TrainSettings",
    "TrainingBoard",
    "TrainingRun",
    "Workers",
    "check_run_folder",
    "frequency_loss",
    "is_first_process",
    "start_workers",
    "train",
    "validation_psnr_db",
    "write_record",
]
