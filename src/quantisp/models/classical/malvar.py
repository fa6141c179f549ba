"""High-quality linear interpolation, for Bayer.

Source: Malvar, He, Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned
color images", ICASSP 2004. A missing colour is the mean of its neighbours, corrected by the
Laplacian of the colour that is there, through 5x5 filters. The implementation is
colour-demosaicing's.
"""

from __future__ import annotations

from quantisp.cfa import CFAPattern
from quantisp.models.classical.bayer_library import BayerMethod

__all__ = ["Malvar"]


class Malvar(BayerMethod):
    """Malvar, He, Cutler 2004.

    Args:
        pattern: one of the four phases of the Bayer CFA.

    Raises:
        ModelError: another CFA, or colour-demosaicing is not installed.
    """

    def __init__(self, pattern: CFAPattern) -> None:
        super().__init__("demosaicing_CFA_Bayer_Malvar2004", pattern)
