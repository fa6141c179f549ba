"""Colour filter arrays: patterns, and sampling through them."""

from quantisp.cfa.borders import alignment, extend_in_phase, mirror_in_phase
from quantisp.cfa.patterns import CFAPattern, named_patterns, parse_pattern
from quantisp.cfa.sampling import (
    adjoint_mosaic,
    masks,
    mosaic,
    pad_to_periods,
    responses,
    sparse_planes,
)

__all__ = [
    "CFAPattern",
    "adjoint_mosaic",
    "alignment",
    "extend_in_phase",
    "masks",
    "mirror_in_phase",
    "mosaic",
    "named_patterns",
    "pad_to_periods",
    "parse_pattern",
    "responses",
    "sparse_planes",
]
