"""How many bits does an image-restoration network need? quantisp measures it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantisp.api import evaluate, load_model, study
    from quantisp.api_export import export
    from quantisp.cfa import CFAPattern, mosaic
    from quantisp.quantization import Plan, QuantizedModel, quantize
    from quantisp.quantization.integer import IntegerExecutor, IntegerNetwork, integer_network
    from quantisp.records import StudyResult

__all__ = [
    "CFAPattern",
    "IntegerExecutor",
    "IntegerNetwork",
    "Plan",
    "QuantizedModel",
    "StudyResult",
    "__version__",
    "evaluate",
    "export",
    "integer_network",
    "load_model",
    "mosaic",
    "quantize",
    "study",
]
__version__ = "0.1.0"

# Where each public name lives. They are fetched on first use (PEP 562), so that importing the
# package, and asking a command for help, does not wait for torch.
_HOMES = {
    "CFAPattern": "cfa",
    "IntegerExecutor": "quantization.integer",
    "IntegerNetwork": "quantization.integer",
    "Plan": "quantization",
    "QuantizedModel": "quantization",
    "StudyResult": "records",
    "evaluate": "api",
    "export": "api_export",
    "integer_network": "quantization.integer",
    "load_model": "api",
    "mosaic": "cfa",
    "quantize": "quantization",
    "study": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'quantisp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"quantisp.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
