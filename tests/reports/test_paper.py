"""The paper's numbers, as its table prints them."""

from __future__ import annotations

import pytest

from quantisp.reports import paper

pytestmark = pytest.mark.reference

DROPS_DB = (15.838, 6.914, 3.972, 1.450, 0.432, 0.098, 0.028, 0.004, 0.002, 0.001, 0.001, 0.0, 0.0)


def test_the_drops_are_those_that_follow_from_the_table():
    assert list(paper.PSNR_DB) == list(range(4, 17))
    assert tuple(map(paper.paper_drop_db, paper.PSNR_DB)) == DROPS_DB


@pytest.mark.parametrize(
    ("within_db", "bits"), [(0.0, 15), (0.05, 10), (0.5, 8), (20.0, 4), (-1.0, None)]
)
def test_the_fewest_bits_within_a_drop(within_db: float, bits: int | None):
    assert paper.paper_bits_within(within_db) == bits
