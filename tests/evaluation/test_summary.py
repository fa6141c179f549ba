from __future__ import annotations

import json
import statistics
from collections.abc import Mapping

import pytest
from study_kit import measurement

from quantisp.evaluation import Measurement
from quantisp.evaluation.summary import recommend, summarise
from quantisp.metrics import psnr_db
from quantisp.records import Granularity, Setting, StudyResult, StudyRow

pytestmark = pytest.mark.unit


def row(bits: int, drop_db: float, granularity: Granularity = "tensor") -> StudyRow:
    return StudyRow(
        weight_bits=bits,
        activation_bits=None,
        method="rtn",
        granularity=granularity,
        psnr_db=40.0 - drop_db,
        drop_db=drop_db,
        psnr_to_float_db=50.0,
        worst_image_drop_db=drop_db,
        worst_tile_drop_db=drop_db,
        psnr_crop10_db=40.0,
        ssim=0.9,
        images={},
    )


@pytest.mark.parametrize(
    ("drops", "within_db", "expected"),
    [
        ({4: 9.0, 6: 1.0, 8: 0.04, 10: 0.0}, 0.05, 8),
        ({4: 9.0, 6: 1.0, 8: 0.05, 10: 0.0}, 0.05, 8),
        ({4: 9.0, 6: 1.0, 8: 0.050001, 10: 0.0}, 0.05, 10),
        # 5 bits are enough by luck: 6 are not.
        ({4: 9.0, 5: 0.01, 6: 1.0, 8: 0.04, 10: 0.0}, 0.05, 8),
        # The widest is not enough, so none is.
        ({8: 0.0, 9: 0.0, 10: 0.06}, 0.05, None),
        ({4: 9.0, 6: 8.0}, 0.05, None),
        ({4: -0.2, 6: 0.0}, 0.0, 4),
        ({4: 9.0}, 10.0, 4),
    ],
)
def test_the_fewest_bits_that_suffice_there_and_above(
    drops: Mapping[int, float], within_db: float, expected: int | None
) -> None:
    for rows in (list(drops.items()), list(reversed(drops.items()))):
        (found,) = recommend([row(bits, drop) for bits, drop in rows], within_db)
        assert found.weight_bits == expected
        assert found.within_db == within_db


def test_one_recommendation_for_each_way_of_rounding() -> None:
    rows = [row(6, 0.2), row(6, 0.01, "channel"), row(8, 0.0), row(8, 0.0, "channel")]
    found = recommend(rows, 0.05)
    assert [(r.granularity, r.weight_bits) for r in found] == [("tensor", 8), ("channel", 6)]


SETTING = Setting(method="rtn", granularity="channel", weight_bits=6)


def summary(
    references: Mapping[str, Measurement], measured: Mapping[str, Measurement]
) -> StudyResult:
    return summarise("m", "0" * 64, "bayer", {}, references, [(SETTING, measured)], within_db=0.1)


def test_a_drop_is_the_difference_of_the_means() -> None:
    references = {"a": measurement(1e-4), "b": measurement(3e-5), "c": measurement(7e-3)}
    measured = {"a": measurement(2e-4), "b": measurement(2e-5), "c": measurement(9e-3)}
    result = summary(references, measured)
    (found,) = result.rows
    floats = [psnr_db(m.mse) for m in references.values()]
    quantized = [psnr_db(m.mse) for m in measured.values()]
    assert result.float.psnr_db == pytest.approx(statistics.mean(floats), abs=1e-6)
    assert found.psnr_db == pytest.approx(statistics.mean(quantized), abs=1e-6)
    assert found.drop_db == pytest.approx(
        statistics.mean(floats) - statistics.mean(quantized), abs=1e-6
    )
    assert found.worst_image_drop_db == pytest.approx(floats[0] - quantized[0], abs=1e-6)
    assert found.worst_tile_drop_db == found.worst_image_drop_db
    assert found.images == {
        name: pytest.approx(value, abs=1e-6) for name, value in zip("abc", quantized, strict=True)
    }
    assert found.setting == SETTING


def test_psnr_to_float_is_the_mean_over_the_pictures_that_differ() -> None:
    references = {"a": measurement(), "b": measurement()}
    same, other = measurement(mse_to_float=0.0), measurement(mse_to_float=1e-6)
    assert summary(references, {"a": same, "b": same}).rows[0].psnr_to_float_db is None
    assert summary(references, {"a": same, "b": other}).rows[0].psnr_to_float_db == 60.0
    assert '"psnr_to_float_db": null' in summary(references, {"a": same, "b": same}).to_json()


def test_the_order_of_pictures_changes_no_mean() -> None:
    # Sums of these floats depend on their order; their means must not.
    values = {f"p{i}": measurement(10.0 ** -(i % 7) / 3, ssim=1 / (3 + i)) for i in range(24)}
    turned = dict(reversed(values.items()))
    one, other = (json.loads(summary(v, v).to_json()) for v in (values, turned))
    assert one == other


def test_the_row_of_a_perfect_network_can_be_written() -> None:
    perfect = measurement(0.0, mse_to_float=0.0)
    result = summary({"a": perfect}, {"a": perfect})
    assert result.rows[0].psnr_db == 100.0
    assert result.rows[0].drop_db == 0.0
    assert json.loads(result.to_json())["rows"][0]["psnr_db"] == 100.0
