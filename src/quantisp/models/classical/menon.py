"""Directional filtering with a posteriori decision, for Bayer.

Source: Menon, Andriani, Calvagno, "Demosaicing with directional filtering and a posteriori
decision", IEEE TIP 2007. Green is interpolated along rows and along columns; the direction in
which colour differences vary less is kept, and red and blue follow green. The implementation is
colour-demosaicing's, with the refining step.
"""

from __future__ import annotations

from quantisp.models.classical.bayer_library import BayerMethod

__all__ = ["Menon"]


class Menon(BayerMethod):
    """Menon, Andriani, Calvagno 2007; for one of the four phases of the Bayer CFA."""

    function = "demosaicing_CFA_Bayer_Menon2007"
