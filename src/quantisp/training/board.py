"""The course of a run for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from quantisp.files import cannot_write
from quantisp.training.progress import TrainProgress

__all__ = ["TrainingBoard"]


class TrainingBoard:
    """Writes loss, learning rate, throughput and validation PSNR into ``folder``.

    A run that is resumed adds to what is there; ``tensorboard --logdir`` shows it.

    Raises:
        OutputError: the folder cannot be written to, or is full.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._points = 0
        try:
            self._writer = SummaryWriter(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error

    def __enter__(self) -> TrainingBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def show(self, progress: TrainProgress) -> None:
        """Add where the run is, and the validations since the last call."""
        try:
            for name in ("loss", "learning_rate", "patches_per_s"):
                value = getattr(progress, name)
                self._writer.add_scalar(f"training/{name}", value, progress.step)
            for point in progress.curve[self._points :]:
                self._writer.add_scalar("validation/psnr_db", point.psnr_db, point.step)
        except OSError as error:
            raise cannot_write(self._folder, error) from error
        self._points = len(progress.curve)
