"""Demosaicing without a network: one paper, one file, each an ``nn.Module`` as a network is."""

from quantisp.models.classical.bilinear import Bilinear
from quantisp.models.classical.guided import GuidedResidual
from quantisp.models.classical.linear import LinearFilters, LinearFit
from quantisp.models.classical.malvar import Malvar
from quantisp.models.classical.menon import Menon

__all__ = ["Bilinear", "GuidedResidual", "LinearFilters", "LinearFit", "Malvar", "Menon"]
