"""Methods that other packages bring, by Python's entry points.

A package names its function under one of three groups, for what the function looks at::

    [project.entry-points."quantisp.layer_methods"]
    my-rounding = "my_package:my_rounding"

The package is imported when its method rounds something, not when methods are listed: it may import
quantisp itself, and whoever lists methods may still be half imported.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from torch import Tensor, nn

from quantisp.errors import QuantispError, RunError, SettingError
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.layers import bias_of
from quantisp.quantization.network import NetworkTask, RoundedNetwork

__all__ = ["GROUPS", "external_methods"]


def external_methods(group: str, taken: set[str]) -> dict[str, Callable[..., Any]]:
    """The methods of the installed packages under one group, by name.

    One that cannot be used does no harm until somebody asks for it.

    Args:
        group: one of ``GROUPS``.
        taken: names of other methods, which no package may use again.

    Raises:
        SettingError: a package uses a name again.
    """
    found: dict[str, Callable[..., Any]] = {}
    for entry in entry_points(group=group):
        if entry.name in taken or entry.name in found:
            raise SettingError(
                f"expected new names of methods, {_origin(entry)} brings another {entry.name!r}: "
                "uninstall it or rename its method"
            )
        found[entry.name] = _held(entry, _FAULTS[group])
    return found


def _held(entry: EntryPoint, fault: Callable[..., str]) -> Callable[..., Any]:
    """The method of an entry point, held to what the methods of its group promise."""

    def run(*given: Any) -> Any:
        method = _loaded(entry)
        try:
            found = method(*given)
        except QuantispError:
            raise
        except Exception as error:
            raise _failed(entry, _one_line(error)) from error
        try:
            wrong = fault(found, *given)
        except Exception as error:  # noqa: BLE001 - what came back may be anything
            wrong = _one_line(error)
        if wrong:
            raise _failed(entry, wrong)
        return found

    return run


def _loaded(entry: EntryPoint) -> Callable[..., Any]:
    try:
        method = entry.load()
    except Exception as error:  # noqa: BLE001 - a foreign module may fail in any way
        reason = _one_line(error)
    else:
        if callable(method):
            return method
        reason = f"{entry.value} is a {type(method).__name__}, not a function"
    raise SettingError(
        f"expected a method {entry.name!r} in {_origin(entry)}, found {reason}: mend or "
        "uninstall that package"
    )


def _failed(entry: EntryPoint, reason: str) -> RunError:
    return RunError(
        f"expected a rounding by method {entry.name!r} of {_origin(entry)}, found {reason}: mend "
        "that package, or choose another method"
    )


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _origin(entry: EntryPoint) -> str:
    return "a package" if entry.dist is None else f"package {entry.dist.name}"


# What each kind of method gave that it must not, in words; empty where all is well.


def _layer_fault(found: object, weight: Tensor, *_: object) -> str:
    if not isinstance(found, QuantizedWeight):
        return f"a {type(found).__name__} instead of a QuantizedWeight"
    shape = found.dequantize().shape
    return (
        "" if shape == weight.shape else f"codes of shape {tuple(shape)}, not those of the weight"
    )


def _calibrated_fault(found: object, layer: nn.Module, weight: Tensor, *_: object) -> str:
    if not isinstance(found, tuple) or len(cast("tuple[object, ...]", found)) != 2:
        return f"a {type(found).__name__} instead of a QuantizedWeight and a bias or None"
    rounded, bias = cast("tuple[object, object]", found)
    own = bias_of(layer)
    if bias is not None and (
        own is None or not isinstance(bias, Tensor) or bias.shape != own.shape
    ):
        return "a bias that does not fit the layer"
    return _layer_fault(rounded, weight)


def _network_fault(found: object, task: NetworkTask) -> str:
    if not isinstance(found, RoundedNetwork):
        return f"a {type(found).__name__} instead of a RoundedNetwork"
    shapes, wanted = (
        {name: value.shape for name, value in network.state_dict().items()}
        for network in (found.network, task.model)
    )
    if shapes != wanted:
        return "a network that is no copy of the float one"
    for name in dict.fromkeys((*task.formats, *found.weights)):
        weight = task.model.get_submodule(name).get_parameter("weight")
        wrong = _layer_fault(found.weights.get(name), weight)
        if wrong:
            return f"{wrong} for layer {name!r}"
    return ""


# The entry points of a LayerMethod, a CalibratedMethod and a NetworkMethod.
_FAULTS: dict[str, Callable[..., str]] = {
    "quantisp.layer_methods": _layer_fault,
    "quantisp.calibrated_methods": _calibrated_fault,
    "quantisp.network_methods": _network_fault,
}
GROUPS = tuple(_FAULTS)
