"""High-quality linear interpolation, for Bayer.

Source: Malvar, He, Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned
color images", ICASSP 2004. A missing colour is the mean of its neighbours, corrected by the
Laplacian of the colour that is there, through 5x5 filters. The implementation is
colour-demosaicing's.
"""

from __future__ import annotations

from quantisp.models.classical.bayer_library import BayerMethod

__all__ = ["Malvar"]


class Malvar(BayerMethod):
    """Malvar, He, Cutler 2004; for one of the four phases of the Bayer CFA."""

    function = "demosaicing_CFA_Bayer_Malvar2004"
