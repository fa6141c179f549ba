"""The network, the crops and the pictures that every row has in common."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quantisp.api import load_model
from quantisp.cfa import mosaic
from quantisp.data import calibration_crops, default_calibration, find_images
from quantisp.errors import ImageError, ModelError
from quantisp.evaluation import StudyPicture, survey
from quantisp.evaluation.degradation import mosaicked
from quantisp.models import DePhaseNet

from .task import Task
from .twin import TOLERANCE, Twin, twin_error

if TYPE_CHECKING:
    from .rows import Asked


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Read anew in each row's process, so that no toolkit can leave anything behind.

    Args:
        network: float, in evaluation mode.
        state: a copy of its weights.
        mosaics: calibration batches.
        pictures: to measure on, none of them calibrated on.
        twin_error: the largest difference of the twin's outputs, as a share.
        seed: for the methods.
    """

    network: DePhaseNet
    state: dict[str, Tensor]
    mosaics: tuple[Tensor, ...]
    pictures: tuple[StudyPicture, ...]
    twin_error: float
    seed: int

    @classmethod
    def of(cls, asked: Asked) -> Bench:
        """Read everything, and hold the twin against the original.

        Raises:
            InputError: an unusable model or picture, or one both measured and calibrated on.
        """
        network = load_model(asked.model)
        if not isinstance(network, DePhaseNet):
            found = type(network).__name__
            raise ModelError(f"expected a DePhaseNet, found {found}: choose a packaged model")
        network = network.eval()
        pictures = survey(find_images(list(asked.images)), mosaicked(network.pattern))
        files = find_images(list(asked.calibration)) if asked.calibration else default_calibration()
        crops = calibration_crops(files, seed=asked.seed)
        both = {p.sha256: p.name for p in pictures}.keys() & set(crops.sha256)
        if both:
            names = ", ".join(p.name for p in pictures if p.sha256 in both)
            raise ImageError(
                f"expected other pictures to calibrate with than to measure on, {names} is in "
                "both: take it out of --images or --calibration"
            )
        mosaics = tuple(mosaic(x, network.pattern) for x in crops.batches)
        error = twin_error(network, Twin(copy.deepcopy(network)), [x[:1] for x in mosaics])
        if error > TOLERANCE:
            raise ModelError(
                f"expected a twin that gives the network's outputs but for {TOLERANCE}, found a "
                f"difference of {error:.3g}: the network has parts that the twin does not know"
            )
        state = copy.deepcopy(network.state_dict())
        return cls(
            network=network,
            state=state,
            mosaics=mosaics,
            pictures=pictures,
            twin_error=error,
            seed=asked.seed,
        )

    def task(self, weight_bits: int, activation_bits: int | None, iterations: int) -> Task:
        """One row's."""
        return Task(
            network=self.network,
            mosaics=self.mosaics,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            iterations=iterations,
            seed=self.seed,
        )

    def check_unchanged(self) -> None:
        """A toolkit must leave the float network alone, for the row is measured against it.

        Raises:
            ModelError: it did not.
        """
        for name, value in self.network.state_dict().items():
            if not torch.equal(value, self.state[name]):
                raise ModelError(f"expected the float network unchanged, {name} is not: see Task")
