"""Finding a network by its name, its file or its code, composed from the rooms."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from quantisp.api_files import holds_quantized, load_quantized
from quantisp.api_integers import holds_integers, load_integers
from quantisp.cfa import CFAPattern, parse_pattern
from quantisp.errors import ModelError
from quantisp.models import (
    LoadedModel,
    check_pattern,
    classical_methods,
    load_classical,
    load_model_file,
    load_own_model,
    load_program_file,
    own_pattern,
    packaged_models,
)

__all__ = ["DEFAULT_MODEL", "Model", "find_model", "load_model"]

DEFAULT_MODEL = "dephasenet-lite"

Model = str | Path | nn.Module


def load_model(
    name_or_path: str | Path,
    weights: str | Path | None = None,
    *,
    pattern: str | CFAPattern | None = None,
) -> nn.Module:
    """A network: of ours, ``forward`` maps a mosaic (n, 1, h, w) in [0, 1] to RGB (n, 3, h, w).

    Args:
        name_or_path: a packaged name, a ``.safetensors`` file that quantisp wrote, a method
            without training such as ``bilinear``, the folder of an integer network, or, for a
            network of your own, ``package.module:factory`` or a ``torch.export`` program (.pt2).
        weights: for a network of your own, its state dict as a safetensors file, or the file of
            its quantized form.
        pattern: the CFA of a method without training, such as ``bayer`` or ``WRGB/...``; any
            other model is refused if it is for another CFA.

    Returns:
        The network in evaluation mode, with its CFA as ``.pattern`` if it restores mosaics. Its
        output is not clipped. From the file of a quantized network, a
        :class:`quantisp.QuantizedModel`; from the folder of an integer network, a
        :class:`quantisp.IntegerExecutor`.

    Raises:
        ModelError: no such model, or it cannot be used.
    """
    return find_model(name_or_path, weights, pattern=pattern).model


def find_model(
    model: Model, weights: str | Path | None = None, *, pattern: str | CFAPattern | None = None
) -> LoadedModel:
    """As :func:`load_model`, with the name, the CFA and the provenance beside the network.

    A network that restores mosaics has its CFA as ``.pattern``.
    """
    cfa = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    if isinstance(model, str) and model in classical_methods():
        if weights is not None:
            raise ModelError(f"expected no weights beside {model}, found {weights}: leave them out")
        return load_classical(model, cfa)
    found = _find_network(model, weights)
    if cfa is not None:
        check_pattern(found, cfa)
    return found


def _find_network(model: Model, weights: str | Path | None) -> LoadedModel:
    if isinstance(model, nn.Module):
        if weights is not None:
            raise ModelError(
                f"expected a network with its weights in it, found {type(model).__name__} and "
                f"weights {weights}: load them before"
            )
        pattern = own_pattern(model)
        return LoadedModel(name=type(model).__name__, model=model, pattern=pattern, provenance=None)
    if holds_integers(model):
        if weights is not None:
            raise ModelError(
                f"expected no weights beside {model}, which has its own, found {weights}: leave "
                "them out"
            )
        return load_integers(Path(model))
    is_file = Path(model).suffix in (".safetensors", ".pt2")
    if weights is not None and (is_file or str(model) in packaged_models()):
        raise ModelError(
            f"expected package.module:factory beside --weights, found {model}, which has its own: "
            "leave out one of the two"
        )
    if weights is not None and holds_quantized(Path(weights)):
        return load_quantized(Path(weights), str(model))
    if is_file and holds_quantized(Path(model)):
        return load_quantized(Path(model))
    if weights is not None or (":" in str(model) and not is_file):
        return load_own_model(str(model), None if weights is None else Path(weights))
    if Path(model).suffix == ".pt2":
        return load_program_file(model)
    return load_model_file(model)
