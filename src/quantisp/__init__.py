"""How many bits does an image-restoration network need? quantisp measures it."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives. They are fetched on first use (PEP 562), so that importing the
# package, and asking a command for help, does not wait for torch.
_HOMES = {
    "CFAPattern": "quantisp.cfa",
    "mosaic": "quantisp.cfa",
    "load_model": "quantisp.api",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'quantisp' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
