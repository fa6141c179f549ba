"""Methods without training, found by name and CFA; and which models fit a CFA."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from quantisp.cfa import CFAPattern
from quantisp.errors import ModelError
from quantisp.models.classical import Bilinear, GuidedResidual, Malvar, Menon
from quantisp.models.classical.bayer_library import is_bayer
from quantisp.models.weights import read_model_file
from quantisp.models.zoo import PACKAGED, Builder, LoadedModel, load_model_file, packaged_models

__all__ = ["check_pattern", "classical_methods", "fitting_models", "load_classical"]

# To add a method: one file in classical/, and one line here.
UNIVERSAL: Mapping[str, Builder] = MappingProxyType(
    {"bilinear": Bilinear, "residual": GuidedResidual}
)
FOR_BAYER: Mapping[str, Builder] = MappingProxyType({"malvar": Malvar, "menon": Menon})
# Its filters are fitted to pictures; those of some CFAs are packaged.
LINEAR = "linear"


def classical_methods() -> tuple[str, ...]:
    """The names that :func:`load_classical` knows."""
    return (*UNIVERSAL, LINEAR, *FOR_BAYER)


def load_classical(name: str, pattern: CFAPattern | None) -> LoadedModel:
    """A method without training, for a CFA.

    Args:
        name: of :func:`classical_methods`.
        pattern: the CFA at pixel (0, 0).

    Raises:
        ModelError: no CFA, or one that the method is not made for.
    """
    if pattern is None:
        raise ModelError(
            f"expected a CFA beside {name}, which takes several: pass --pattern bayer, or another, "
            "to `quantisp evaluate` or `info`"
        )
    if name == LINEAR:
        return _packaged_linear(pattern)
    build = {**UNIVERSAL, **FOR_BAYER}[name]
    model = build(pattern).eval().requires_grad_(False)
    return LoadedModel(name=name, model=model, pattern=pattern, provenance=None)


def _packaged_linear(pattern: CFAPattern) -> LoadedModel:
    fitted = [model for model in packaged_models() if model.startswith(f"{LINEAR}-")]
    for model in fitted:
        if _pattern_of(model) == pattern:
            return load_model_file(model)
    raise ModelError(
        "expected a CFA that linear filters are packaged for "
        f"({', '.join(str(_pattern_of(model)) for model in fitted)}), found {pattern}: fit some "
        f"with `quantisp fit --cfa {pattern} --data DIR --out FILE`, or take bilinear or residual"
    )


def check_pattern(found: LoadedModel, pattern: CFAPattern) -> None:
    """Refuse a network that is not made for a CFA.

    Raises:
        ModelError: it is for another CFA, or names none.
    """
    if found.pattern == pattern:
        return
    made_for = "no CFA that it names" if found.pattern is None else str(found.pattern)
    raise ModelError(
        f"expected a model for {pattern}, {found.name} is made for {made_for}: take "
        f"{', '.join(fitting_models(pattern))}, or train one with `quantisp train --cfa {pattern}`"
    )


def fitting_models(pattern: CFAPattern) -> tuple[str, ...]:
    """The packaged models and the methods that take mosaics of a CFA."""
    packaged = [name for name in packaged_models() if _pattern_of(name) == pattern]
    return (*packaged, *UNIVERSAL, *(FOR_BAYER if is_bayer(pattern) else ()))


@cache
def _pattern_of(packaged: str) -> CFAPattern:
    return read_model_file(PACKAGED / f"{packaged}.safetensors").pattern
