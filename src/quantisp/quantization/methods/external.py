"""Methods that other packages bring, by Python's entry points.

A package names its function under one of three groups, for what the function looks at::

    [project.entry-points."quantisp.layer_methods"]
    my-rounding = "my_package:my_rounding"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

from quantisp.errors import SettingError

__all__ = ["GROUPS", "external_methods"]

# The entry points of a LayerMethod, a CalibratedMethod and a NetworkMethod.
GROUPS = ("quantisp.layer_methods", "quantisp.calibrated_methods", "quantisp.network_methods")


def external_methods(group: str, taken: set[str]) -> dict[str, Callable[..., Any]]:
    """The methods of the installed packages under one group, by name.

    One that cannot be used does no harm until somebody asks for it.

    Args:
        group: one of ``GROUPS``.
        taken: names of other methods, which no package may use again.
    """
    found: dict[str, Callable[..., Any]] = {}
    for entry in entry_points(group=group):
        if entry.name in taken or entry.name in found:
            raise SettingError(
                f"expected new names of methods, {_origin(entry)} brings another {entry.name!r}: "
                "uninstall it or rename its method"
            )
        found[entry.name] = _loaded(entry)
    return found


def _loaded(entry: EntryPoint) -> Callable[..., Any]:
    try:
        method = entry.load()
    except Exception as error:  # noqa: BLE001 - a foreign module may fail in any way
        reason = f"{type(error).__name__}: {error}"
    else:
        if callable(method):
            return method
        reason = f"{entry.value} is a {type(method).__name__}, not a function"

    def refuse(*_: object, **__: object) -> NoReturn:
        raise SettingError(
            f"expected a method {entry.name!r} in {_origin(entry)}, found {reason}: mend or "
            "uninstall that package"
        )

    return refuse


def _origin(entry: EntryPoint) -> str:
    return "a package" if entry.dist is None else f"package {entry.dist.name}"
