"""What of other packages ONNX files need, imported when it is needed."""

from __future__ import annotations

import importlib
from typing import Any

from quantisp.errors import SettingError

__all__ = ["needed"]


def needed(module: str, extra: str) -> Any:
    """A module of a package that quantisp does not always bring along.

    Args:
        module: its name.
        extra: the extra of quantisp that brings it.

    Raises:
        SettingError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise SettingError(
            f"expected the package {package} for this format, found none ({str(error)[:80]}): "
            f"pip install 'quantisp[{extra}]'"
        ) from error
