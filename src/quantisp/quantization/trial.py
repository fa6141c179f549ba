"""A network tried out before and after long work: what would be nonsense is found in a moment."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from quantisp.errors import QuantispError, RunError, SettingError
from quantisp.quantization.watching import beside

__all__ = ["check_finite", "check_inputs"]


def check_inputs(calibration: object) -> None:
    """Refuse calibration that is no list of inputs.

    Args:
        calibration: what should be one; None is none.

    Raises:
        SettingError: something else.
    """
    if calibration is None:
        return
    if not isinstance(calibration, list | tuple):
        raise SettingError(
            f"expected a list of network inputs as calibration, found one "
            f"{type(calibration).__name__}: pass it in a list"
        )
    for x in cast("Sequence[object]", calibration):
        if not isinstance(x, Tensor):
            raise SettingError(
                f"expected calibration inputs as tensors, found {type(x).__name__}: convert them"
            )
        if x.numel() == 0:
            raise SettingError(
                f"expected calibration inputs with values, found one of shape {tuple(x.shape)}: "
                "leave it out"
            )


def check_finite(network: nn.Module, inputs: Sequence[Tensor], subject: str) -> None:
    """Refuse a network that gives NaN or infinity for the first of its inputs.

    Args:
        network: in any mode; it is not changed.
        inputs: at least one.
        subject: what the network is, for people.

    Raises:
        SettingError: it fails on them.
        RunError: it gives NaN or infinity.
    """
    trial = copy.deepcopy(network).eval()
    x = inputs[0][:1]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            # What a network warns of is of no interest in a trial.
            warnings.simplefilter("ignore")
            output = trial(beside(trial, x))
    except QuantispError:
        raise
    # A network of somebody else may refuse an input in any way.
    except Exception as error:
        raise SettingError(
            f"expected calibration inputs that the network takes, it fails on one of shape "
            f"{tuple(x.shape)} ({' '.join(str(error).split())}): pass inputs as it is to get them"
        ) from error
    if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
        raise RunError(
            f"expected finite outputs of {subject} on the calibration inputs, found NaN or "
            "infinity: check its weights, or plan wider formats"
        )
