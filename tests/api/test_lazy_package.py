"""Importing the package, and asking for help, must not wait for torch."""

from __future__ import annotations

import json

import pytest
from api_kit import run_python

import quantisp

pytestmark = pytest.mark.unit


def test_the_package_alone_imports_no_torch() -> None:
    ended = run_python("""
import json, sys
import quantisp

def heavy():
    return sorted({"torch", "numpy", "PIL", "matplotlib"} & set(sys.modules))

steps = [heavy(), dir(quantisp), heavy()]
quantisp.StudyResult, quantisp.__version__
steps += [heavy()]
quantisp.CFAPattern
print(json.dumps([*steps, heavy()]))
""")
    assert ended.returncode == 0, ended.stderr
    at_first, names, after_dir, after_records, at_last = json.loads(ended.stdout)
    assert at_first == after_dir == after_records == []
    assert names == sorted(quantisp.__all__)
    # The twin: the first name that needs torch brings it.
    assert "torch" in at_last


@pytest.mark.parametrize(
    "options", [["--help"], ["study", "--help"], ["train", "--help"], ["evaluate", "--help"]]
)
def test_help_imports_no_torch(options: list[str]) -> None:
    ended = run_python(
        """
import sys
sys.argv[0] = "quantisp"
from quantisp.cli.main import main
try:
    main()
except SystemExit as ended:
    code = ended.code
print("HEAVY", code, sorted({"torch", "numpy", "PIL", "matplotlib"} & set(sys.modules)))
""",
        *options,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Usage: quantisp" in ended.stdout
    assert ended.stdout.splitlines()[-1] in ("HEAVY 0 []", "HEAVY None []")


def test_every_public_name_is_there() -> None:
    for name in quantisp.__all__:
        assert getattr(quantisp, name) is not None
    assert dir(quantisp) == sorted(quantisp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = quantisp.nothing
