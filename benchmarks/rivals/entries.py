"""Which toolkits and methods are measured, at which formats."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .task import Outcome, Task

# Weight bits, and activation bits or None.
FORMATS: Mapping[str, tuple[int, int | None]] = {
    "W4": (4, None),
    "W6": (6, None),
    "W8": (8, None),
    "W8A8": (8, 8),
}
WEIGHTS_ONLY = ("W4", "W6", "W8")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One method of one toolkit.

    Args:
        toolkit: for people.
        method: its name there.
        module: of this package, imported when a row of it is measured.
        function: of the module; takes a :class:`Task` and the options.
        packages: of the toolkit, whose versions are recorded.
        options: of the function.
        formats: that it can do, names of ``FORMATS``.
        iterations: that are recommended at each weight width, where the method learns.
    """

    toolkit: str
    method: str
    module: str
    function: str
    packages: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    formats: tuple[str, ...] = tuple(FORMATS)
    iterations: Mapping[int, int] = field(default_factory=dict[int, int])

    @property
    def name(self) -> str:
        """As given to ``--only`` and ``--iterations``."""
        return f"{self.toolkit}-{self.method}"

    def measure(self, task: Task) -> Outcome:
        """Quantize.

        Raises:
            Exception: whatever the toolkit raises, an ``ImportError`` where it is not there.
        """
        module = importlib.import_module(f".{self.module}", __package__)
        return getattr(module, self.function)(task, **self.options)


def _ours(method: str, name: str = "", **changes: Any) -> Entry:
    settings: dict[str, Any] = {"options": {"method": method}, **changes}
    return Entry(
        toolkit="quantisp",
        method=name or method,
        module="ours",
        function="measure_ours",
        packages=("quantisp",),
        **settings,
    )


def _brevitas(method: str, **changes: Any) -> Entry:
    settings: dict[str, Any] = {"options": {"rounding": method}, **changes}
    return Entry(
        toolkit="brevitas",
        method=method,
        module="brevitas_rival",
        function="measure_brevitas",
        packages=("brevitas",),
        **settings,
    )


def _mct(method: str, **changes: Any) -> Entry:
    return Entry(
        toolkit="mct",
        method=method,
        module="mct_rival",
        function="measure_mct",
        packages=("model-compression-toolkit", "mct-quantizers"),
        options={"variant": method},
        **changes,
    )


def _aimet(method: str, **changes: Any) -> Entry:
    return Entry(
        toolkit="aimet",
        method=method,
        module="aimet_rival",
        function="measure_aimet",
        packages=("aimet-torch",),
        options={"variant": method},
        **changes,
    )


# The default of the examples, for each layer.
_LEARNED_ROUND = {4: 1000, 6: 1000, 8: 1000}
# Passes over the crops, one crop at a step.
_EPOCHS = {4: 50, 6: 50, 8: 50}
# The toolkit's own default, for each layer.
_ADAROUND = {4: 15_000, 6: 15_000, 8: 10_000}

ENTRIES: tuple[Entry, ...] = (
    _ours("rtn"),
    _ours("quantease"),
    _ours("auto"),
    # As toolkits that leave sums in float; ours are integers of 16 bits.
    _ours(
        "quantease",
        "quantease-wide-sums",
        options={"method": "quantease", "sum_bits": 16},
        formats=("W8A8",),
    ),
    _brevitas("gptq"),
    _brevitas("gpfq"),
    _brevitas("qronos"),
    _brevitas("learned-round", iterations=_LEARNED_ROUND),
    _mct("ptq"),
    _mct("gptq", iterations=_EPOCHS),
    # Without what takes an hour of one core before its first step.
    _mct("gptq-plain", iterations=_EPOCHS),
    # At a mean of 8 bits there is nothing to mix, for its targets have none wider.
    _mct("mixed", formats=("W4", "W6")),
    _mct("mixed-gptq", formats=("W4", "W6"), iterations=_EPOCHS),
    _aimet("seqmse"),
    _aimet("adaround", iterations=_ADAROUND),
    _aimet("cle-adaround", iterations=_ADAROUND),
    Entry(
        toolkit="torchao",
        method="pt2e",
        module="torchao_rival",
        function="measure_torchao",
        packages=("torchao",),
        # Its quantizers for convolutions know 8 bits alone.
        formats=("W8A8",),
    ),
)
