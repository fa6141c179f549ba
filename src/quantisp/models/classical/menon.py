"""Directional filtering with a posteriori decision, for Bayer.

Source: Menon, Andriani, Calvagno, "Demosaicing with directional filtering and a posteriori
decision", IEEE TIP 2007. Green is interpolated along rows and along columns; the direction in
which colour differences vary less is kept, and red and blue follow green. The implementation is
colour-demosaicing's, with the refining step.
"""

from __future__ import annotations

from quantisp.cfa import CFAPattern
from quantisp.models.classical.bayer_library import BayerMethod

__all__ = ["Menon"]


class Menon(BayerMethod):
    """Menon, Andriani, Calvagno 2007.

    Args:
        pattern: one of the four phases of the Bayer CFA.

    Raises:
        ModelError: another CFA, or colour-demosaicing is not installed.
    """

    def __init__(self, pattern: CFAPattern) -> None:
        super().__init__("demosaicing_CFA_Bayer_Menon2007", pattern)
