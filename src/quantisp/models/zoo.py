"""The networks there are: presets to build, and packaged weights to load."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from quantisp.cfa import CFAPattern
from quantisp.errors import ModelError
from quantisp.models import dephasenet
from quantisp.models.classical.linear import LinearFilters
from quantisp.models.program import InputSize, load_program
from quantisp.models.weights import ModelFile, Provenance, read_model_file

__all__ = [
    "LoadedModel",
    "build_preset",
    "build_structure",
    "load_model_file",
    "load_own_model",
    "load_program_file",
    "own_pattern",
    "packaged_models",
    "presets",
]

Builder = Callable[[CFAPattern], nn.Module]

# To add a network: one file beside dephasenet.py, and one line here.
BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {name: partial(dephasenet.DePhaseNet, config) for name, config in dephasenet.PRESETS.items()}
)
# Networks that are not trained but fitted: `quantisp fit`.
FITTED: Mapping[str, Builder] = MappingProxyType({"linear": LinearFilters})
PACKAGED = Path(__file__).parent / "packaged"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network ready to run.

    Args:
        name: for people.
        model: the network.
        pattern: the CFA of the mosaics that it restores; None where it names none.
        provenance: where its weights come from; None for a user's own.
        input_size: of a program: the inputs that it was exported for.
        preset: the preset's name or the factory that built it; None for other networks.
        float_sha256: of the float network that a quantized one was made from.
    """

    name: str
    model: nn.Module
    pattern: CFAPattern | None
    provenance: Provenance | None
    input_size: InputSize | None = None
    preset: str | None = None
    float_sha256: str | None = None

    @property
    def capture_domain(self) -> str:
        """In what domain captures are nearest to what the network expects.

        A tone curve and sampling may change places where each filter sees one colour. The curve of
        a sum is not the sum of the curves: a coded W would be too bright, and colours pale, so that
        networks of sRGB get linear values there.
        """
        trained_on = "srgb" if self.provenance is None else self.provenance.domain
        if self.pattern is None or trained_on in ("linear", "root"):
            return trained_on
        responses = [self.pattern.response(letter) for letter in self.pattern.letters]
        pure = all(sorted(response) == [0.0, 0.0, 1.0] for response in responses)
        return "srgb" if pure else "linear"


def presets() -> tuple[str, ...]:
    """The names that :func:`build_preset` knows."""
    return tuple(BUILDERS)


def packaged_models() -> tuple[str, ...]:
    """The names of the weights that come with the package."""
    return tuple(sorted(path.stem for path in PACKAGED.glob("*.safetensors")))


def build_preset(name: str, pattern: CFAPattern) -> nn.Module:
    """An untrained network.

    Raises:
        ModelError: no preset of that name, or it cannot be made for this CFA.
    """
    if name not in BUILDERS:
        raise ModelError(f"no preset is called {name!r}: choose one of {', '.join(BUILDERS)}")
    return BUILDERS[name](pattern)


def build_structure(name: str, pattern: CFAPattern) -> nn.Module:
    """A preset, or filters that are fitted rather than trained, to load weights into.

    Raises:
        ModelError: neither, or it cannot be made for this CFA.
    """
    fitted = FITTED.get(name)
    return build_preset(name, pattern) if fitted is None else fitted(pattern)


def load_model_file(name_or_path: str | Path) -> LoadedModel:
    """Load a packaged model by name, or a ``.safetensors`` file that quantisp wrote.

    Raises:
        ModelError: no such model, or its file cannot be used.
    """
    packaged = str(name_or_path) in packaged_models()
    path = PACKAGED / f"{name_or_path}.safetensors" if packaged else Path(name_or_path).expanduser()
    if not packaged and path.suffix == "" and not path.exists():
        raise ModelError(
            f"no packaged model is called {str(name_or_path)!r}: choose one of "
            f"{', '.join(packaged_models()) or '(none)'}, or give a .safetensors file"
        )
    file = read_model_file(path)
    return LoadedModel(
        name=str(name_or_path) if packaged else path.stem,
        model=_build(path, file),
        pattern=file.pattern,
        provenance=file.provenance,
        preset=file.preset,
    )


def _build(path: Path, file: ModelFile) -> nn.Module:
    model = build_structure(file.preset, file.pattern)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in file.tensors.items()}
    if expected != found:
        name = next(n for n in [*expected, *found] if expected.get(n) != found.get(n))
        raise ModelError(
            f"expected the tensors of preset {file.preset!r}, {path} differs at {name} "
            f"(expected {expected.get(name)}, found {found.get(name)}): it belongs to another "
            "preset or version"
        )
    # Files may hold float16; load_state_dict turns it into the network's float32.
    model.load_state_dict(dict(file.tensors))
    return model.eval().requires_grad_(False)


def load_program_file(path: str | Path) -> LoadedModel:
    """Load a ``torch.export`` program, a ``.pt2`` file, which names no CFA.

    Raises:
        ModelError: it cannot be used; see :func:`~quantisp.models.program.load_program`.
    """
    place = Path(path).expanduser()
    model = load_program(place)
    size = model.get_submodule("input_size")
    return LoadedModel(
        name=place.stem,
        model=model,
        pattern=None,
        provenance=None,
        input_size=size if isinstance(size, InputSize) else None,
    )


def load_own_model(factory: str, weights: Path | None, *, frozen: bool = True) -> LoadedModel:
    """Build a user's own network by calling ``package.module:factory`` without arguments.

    Args:
        factory: the callable's module and name; it returns an ``nn.Module`` that gives RGB
            (n, 3, h, w). One that restores mosaics (n, 1, h, w) has its CFA as ``.pattern``.
        weights: a safetensors file with its state dict, or None to use it as it is returned.
        frozen: in evaluation mode and without gradients; else as the factory leaves it.

    Raises:
        ModelError: no such factory, or what it returns cannot be used.
    """
    module_name, _, attribute = factory.partition(":")
    try:
        build = getattr(importlib.import_module(module_name), attribute)
    # Importing runs somebody's code, which may fail in any way.
    except Exception as error:
        raise ModelError(
            f"expected package.module:factory, {factory!r} cannot be imported ({error}): "
            "correct the name, or set PYTHONPATH"
        ) from error
    if not callable(build):
        raise ModelError(
            f"expected package.module:factory, {factory} is {type(build).__name__}, "
            "not a function: correct the name"
        )
    try:
        model = build()
    # Building runs somebody's code, too.
    except Exception as error:
        raise ModelError(
            f"expected {factory} to build a network without arguments, it fails ({error}): mend it"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"expected {factory} to return a torch.nn.Module, found {type(model).__name__}: mend it"
        )
    pattern = own_pattern(model)
    if weights is not None:
        _load_own_weights(model, weights)
    return LoadedModel(
        name=factory,
        model=model.eval().requires_grad_(False) if frozen else model,
        pattern=pattern,
        provenance=None,
        preset=factory,
    )


def own_pattern(model: nn.Module) -> CFAPattern | None:
    """The CFA that a network names as ``.pattern``, or None.

    Raises:
        ModelError: its pattern is no CFA.
    """
    pattern = getattr(model, "pattern", None)
    if pattern is not None and not isinstance(pattern, CFAPattern):
        raise ModelError(
            f"expected a CFAPattern as .pattern, {type(model).__name__} has {pattern!r}: set "
            "model.pattern, or leave it out for a network that restores no mosaics"
        )
    return pattern


def _load_own_weights(model: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(f"expected a file of weights, {path} is none: correct the path")
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"expected the network's state dict as safetensors, {path} does not fit "
            f"({' '.join(str(error).split())}): save it with safetensors.torch.save_model"
        ) from error
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise ModelError(f"expected finite weights, {path} has NaN or infinity: train it again")
