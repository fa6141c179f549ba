"""The published points are met, and what lies between them is in order."""

from __future__ import annotations

import pytest

from quantisp.hardware import MAC_EXAMPLES, float_mac_cost, mac_cost


@pytest.mark.golden
def test_the_published_points():
    # 8 x 8 bits to a sum of 16, 32 x 32 to one of 64 (on the adders' line).
    small, wide = mac_cost(8, 8), mac_cost(32, 32)
    assert small.energy_pj == pytest.approx(0.2 + 0.03 + 0.07 / 3)
    assert small.area_um2 == pytest.approx(282 + 36 + 101 / 3)
    assert wide.energy_pj == pytest.approx(3.1 + 0.1 + 0.07 * 4 / 3)
    for bits, energy, area in ((11, 1.5, 3000), (24, 4.6, 11884)):
        unit = float_mac_cost(bits, bits)
        assert (unit.energy_pj, unit.area_um2) == (pytest.approx(energy), pytest.approx(area))


@pytest.mark.property
def test_wider_is_never_cheaper():
    for a in range(4, 17):
        costs = [mac_cost(w, a, 576) for w in range(2, 17)]
        assert costs == sorted(costs, key=lambda unit: unit.energy_pj)
        assert costs == sorted(costs, key=lambda unit: unit.area_um2)
        assert costs[0].energy_pj > 0.0
        assert mac_cost(a, 7) == mac_cost(7, a)


@pytest.mark.unit
def test_float_operands_make_a_float_unit():
    assert mac_cost(2, None) == mac_cost(None, 2) == mac_cost(None, None)
    assert MAC_EXAMPLES["int8 x int8"].energy_pj < MAC_EXAMPLES["float32 x float32"].energy_pj / 10
