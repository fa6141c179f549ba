from __future__ import annotations

import pytest

from quantisp.errors import SettingError
from quantisp.quantization import IntFormat

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("bits", range(2, 17))
def test_codes_are_those_of_twos_complement(bits: int):
    codes = range(-(2 ** (bits - 1)), 2 ** (bits - 1))
    full, narrow = IntFormat(bits=bits, narrow_range=False), IntFormat(bits=bits)
    assert (full.qmin, full.qmax) == (codes[0], codes[-1])
    assert (narrow.qmin, narrow.qmax) == (codes[1], codes[-1])


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("bits", [-1, 0, 1, 17, 32, 7.5, True])
def test_other_widths_are_refused_in_one_line(bits: int):
    with pytest.raises(SettingError, match=rf"^weight bits are 2 to 16, found {bits}: .*$"):
        IntFormat(bits=bits)
