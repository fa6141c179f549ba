"""Networks in integers: their representation, its file, the specification, and a fast executor.

``docs/arithmetic.md`` says what they compute.
"""

from __future__ import annotations

from quantisp.quantization.integer.bounds import LayerAccumulator, worst_accumulators
from quantisp.quantization.integer.conversion import integer_network
from quantisp.quantization.integer.executor import IntegerExecutor
from quantisp.quantization.integer.network import (
    OVERFLOWS,
    Accumulator,
    Codes,
    IntegerNetwork,
    NodeIntegers,
    Overflow,
    Weights,
)
from quantisp.quantization.integer.profile import (
    HardwareProfile,
    apply_profile,
    packaged_profiles,
    read_profile,
)
from quantisp.quantization.integer.specification import Array, node_rule, run_specification
from quantisp.quantization.integer.storage import (
    DOCUMENT,
    load_integer_network,
    network_content,
    save_integer_network,
)

__all__ = [
    "DOCUMENT",
    "OVERFLOWS",
    "Accumulator",
    "Array",
    "Codes",
    "HardwareProfile",
    "IntegerExecutor",
    "IntegerNetwork",
    "LayerAccumulator",
    "NodeIntegers",
    "Overflow",
    "Weights",
    "apply_profile",
    "integer_network",
    "load_integer_network",
    "network_content",
    "node_rule",
    "packaged_profiles",
    "read_profile",
    "run_specification",
    "save_integer_network",
    "worst_accumulators",
]
