"""Commands that draw nothing must not wait for what draws."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

HEAVY = "{'torch', 'numpy', 'matplotlib', 'PIL'}"


def loaded_after(statement: str) -> str:
    code = f"import sys; {statement}; print(sorted({HEAVY} & set(sys.modules)))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_the_reports_loads_nothing_heavy():
    assert loaded_after("import quantisp.reports") == "[]"


def test_drawing_loads_matplotlib_but_never_torch_or_global_plotting_state():
    """The twin: the probe sees what is loaded."""
    found = loaded_after(
        "from quantisp.reports.style import drawing_style; drawing_style().__enter__(); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    assert "matplotlib" in found
    assert "torch" not in found
