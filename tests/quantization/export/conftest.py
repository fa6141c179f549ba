"""Vectors of tests are compared with the specification in fewer places."""

from __future__ import annotations

import pytest

from quantisp.quantization.export.vectors import verification


@pytest.fixture(autouse=True)
def few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MOST_PRODUCTS", 4000)
    monkeypatch.setattr(verification, "LEAST_VALUES", 8)
