"""Bayer methods of the package colour-demosaicing, as modules, with their borders mended.

Its convolutions repeat the outermost sample, which puts the picture beyond the border under the
wrong filters. Here the mosaic is mirrored in phase first, and what was added is cut off afterwards.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern, extend_in_phase
from quantisp.errors import ModelError

__all__ = ["BayerMethod", "is_bayer"]

PHASES = ("RGGB", "BGGR", "GRBG", "GBRG")
# More than any of the methods reaches, and even, so that the phase stays.
MARGIN_PX = 16


class BayerMethod(nn.Module):
    """Restores RGB from a Bayer mosaic by a function of colour-demosaicing, on the CPU.

    A subclass is one method.

    Args:
        pattern: one of the four phases of the Bayer CFA.

    Attributes:
        function: the name that colour-demosaicing gives it.

    Raises:
        ModelError: another CFA, or the package is not installed.
    """

    function: str

    def __init__(self, pattern: CFAPattern) -> None:
        super().__init__()
        self.pattern = pattern
        self.phase = "".join(pattern.tile)
        name = type(self).__name__
        if not is_bayer(pattern):
            raise ModelError(
                f"expected a Bayer CFA ({', '.join(PHASES)}) for {name}, found {pattern}: choose "
                "bilinear, residual or linear, which take others"
            )
        self.demosaic = _library_function(self.function, name)

    def forward(self, mosaic: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Restore RGB, in the domain of the mosaic, not clipped."""
        height, width = mosaic.shape[2:]
        margins = (MARGIN_PX, MARGIN_PX)
        # An odd height or width is made even.
        after = (MARGIN_PX + height % 2, MARGIN_PX + width % 2)
        wide = extend_in_phase(mosaic, before=margins, after=after, period=(2, 2))
        pictures = [self.demosaic(one[0].double().cpu().numpy(), self.phase) for one in wide]
        rgb = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(mosaic)
        inside = rgb[:, :, MARGIN_PX : MARGIN_PX + height, MARGIN_PX : MARGIN_PX + width]
        return _as_arithmetic_would(mosaic, inside)


def _as_arithmetic_would(
    mosaic: Float[Tensor, "n 1 h w"], rgb: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "n 3 h w"]:
    """NaN wherever a NaN of the mosaic may matter: a comparison with NaN decides without a word."""
    unknown = mosaic.isnan()
    if not bool(unknown.any()):
        return rgb.contiguous()
    side = 2 * MARGIN_PX + 1
    reached = functional.max_pool2d(unknown.to(rgb.dtype), side, stride=1, padding=MARGIN_PX)
    return rgb.masked_fill(reached > 0.0, math.nan)


def is_bayer(pattern: CFAPattern) -> bool:
    """Whether a CFA is Bayer's, in any phase."""
    return "".join(pattern.tile) in PHASES and pattern.period == (2, 2) and not pattern.responses


def _library_function(function: str, method: str) -> Callable[[Any, str], Any]:
    try:
        # It imports SciPy by a name that SciPy has deprecated.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = importlib.import_module("colour_demosaicing")
    except ImportError as error:
        raise ModelError(
            f"expected the package colour-demosaicing for {method}, it is not installed: "
            "pip install 'quantisp[classical]'"
        ) from error
    return getattr(library, function)
