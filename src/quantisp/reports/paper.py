"""The numbers to be reproduced: DePhaseNet on the 24 pictures of Kodak, weights quantized.

Source: Y. Seo, I. Kim, J. Lee, W. Choi, S. Song, "On quantization of convolutional neural networks
for image restoration", Electronic Imaging 2022, table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CITATION", "FLOAT_PSNR_DB", "PSNR_DB", "paper_bits_within", "paper_drop_db"]

CITATION = (
    "Seo, Kim, Lee, Choi, Song: On quantization of convolutional neural networks for image "
    "restoration. Electronic Imaging 2022."
)
FLOAT_PSNR_DB = 42.917
PSNR_DB: Mapping[int, float] = MappingProxyType(
    {
        4: 27.079,
        5: 36.003,
        6: 38.945,
        7: 41.467,
        8: 42.485,
        9: 42.819,
        10: 42.889,
        11: 42.913,
        12: 42.915,
        13: 42.916,
        14: 42.916,
        15: 42.917,
        16: 42.917,
    }
)


def paper_drop_db(bits: int) -> float:
    """The paper's loss against its float network, in its own three decimals.

    >>> paper_drop_db(8)
    0.432
    """
    return round(FLOAT_PSNR_DB - PSNR_DB[bits], 3)


def paper_bits_within(db: float) -> int | None:
    """The fewest bits whose drop is at most ``db`` there and at every larger width.

    >>> paper_bits_within(0.05)
    10
    """
    enough = None
    for bits in sorted(PSNR_DB, reverse=True):
        if paper_drop_db(bits) > db:
            break
        enough = bits
    return enough
