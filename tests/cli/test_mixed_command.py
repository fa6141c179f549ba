"""Bad budgets, plans and formats end with one line, exit code 2, and nothing written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from quantisp.cli.main import main

pytestmark = pytest.mark.unit

NONE = json.dumps({"schema": 1, "default": {"weight_bits": None}})
NOWHERE = json.dumps(
    {"schema": 1, "default": {"weight_bits": 8}, "layers": {"nose": {"weight_bits": 4}}}
)
TWO = json.dumps(
    {
        "schema": 1,
        "default": {"weight_bits": 8, "method": "auto"},
        "layers": {"tail": {"weight_bits": 4, "method": "brecq"}},
    }
)
TEXTS = {"none": NONE, "sub/none": NONE, "nowhere": NOWHERE, "two": TWO}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "mean-bits=1"], "expected a budget of at least mean-bits=2,"),
        (["--budget", "bytes=10"], "expected a budget of at least bytes="),
        (["--budget", "bops=1%"], "expected a budget of at least bops=6."),
        (["--budget", "four"], "expected a budget like mean-bits=5"),
        (["--weight-format", "fp4"], "expected a weight format among float16"),
        (["--plan", "missing.json"], "expected a plan as JSON at missing.json"),
        (["--plan", "none.json"], "expected a plan that quantizes at least one layer"),
        (["--plan", "nowhere.json"], "the plan names 'nose'"),
        (["--plan", "two.json"], "rounds layers together, found auto and brecq: plan all such"),
        (["--plan", "none.json", "--plan", "sub/none.json"], "different names"),
    ],
)
def test_one_line(
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sub").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["quantisp", "study", *options, "--out", "out"])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
