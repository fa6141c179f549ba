"""The normative page runs, and says what the code does."""

from __future__ import annotations

import doctest
import re
from fractions import Fraction
from pathlib import Path

import pytest

from quantisp.quantization import round_scalar
from quantisp.quantization.activations.rescaling import MAX_SHIFT, MULTIPLIER_BITS
from quantisp.quantization.activations.settings import TIE_RULES
from quantisp.quantization.graph.nodes import Operation
from quantisp.quantization.integer.operations import INPUTS

pytestmark = pytest.mark.golden

PAGE = Path(__file__).parents[3] / "docs" / "arithmetic.md"


def test_the_examples_run():
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted > 15
    assert found.failed == 0


def test_the_table_of_roundings_is_right():
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if "-2.5" in line]
    values = [Fraction(cell.strip()) for cell in rows[0][1:]]
    for rule in TIE_RULES:
        (line,) = re.findall(rf"^\| `{rule}` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
        shown = [int(cell) for cell in line.split("|")]
        assert shown == [round_scalar(value, rule) for value in values]


def test_the_widths_are_those_of_the_code():
    page = PAGE.read_text()
    assert f"(unsigned, {MULTIPLIER_BITS} bits)" in page
    assert f"`s` (1 to {MAX_SHIFT})" in page


def test_the_file_knows_every_operation():
    assert set(INPUTS) == set(Operation.__args__)
