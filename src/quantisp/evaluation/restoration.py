"""What a network makes of a picture, with errors that name the picture's size."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import ModelError, QuantispError
from quantisp.evaluation.pictures import Sample
from quantisp.inference import restore

__all__ = ["restored_sample"]


def restored_sample(network: nn.Module, sample: Sample) -> Float[Tensor, "1 3 h w"]:
    """RGB of a sample, in the size of its truth.

    Args:
        network: as ``prepare`` returns it.
        sample: what it gets, and what it should give.

    Raises:
        ModelError: it fails on an input of this size, or gives another size than the truth's.
    """
    given = tuple(sample.given.shape)
    try:
        restored = restore(network, sample.given)
    except QuantispError:
        raise
    # A network of somebody else may refuse a size in any way.
    except Exception as error:
        raise ModelError(
            f"expected a network that restores an input {given}, it fails on it "
            f"({' '.join(str(error).split())}): pad in its forward, or leave out such pictures"
        ) from error
    if restored.shape != sample.truth.shape:
        raise ModelError(
            f"expected RGB {tuple(sample.truth.shape)} from an input {given}, found "
            f"{tuple(restored.shape)}: name the degradation that the network undoes"
        )
    return sample.shown(restored)
