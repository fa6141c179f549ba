"""Studies with budgets, given plans and weight formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from study_kit import KODAK_CFA, SETTINGS, request, tiny_net, truth

from quantisp.cfa import mosaic
from quantisp.errors import OutputError, PlanError, SettingError
from quantisp.evaluation import (
    StudyOutcome,
    StudyPicture,
    StudyProgress,
    StudyRequest,
    mixed_settings,
    run_study,
    treatments,
)
from quantisp.quantization import LayerPlan, Plan, count_macs, network_work

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
NET = tiny_net()
GIVEN = Plan.uniform(weight_bits=6, method="mse", granularity="channel").with_layer(
    "tail", LayerPlan(weight_bits=None)
)


class Killed(BaseException):
    pass


def mixed_request(pictures: tuple[StudyPicture, ...], **options: Any) -> StudyRequest:
    content: dict[str, Any] = {
        "budgets": ["mean-bits=4", "bops=20%"],
        "plans": {"mine": GIVEN},
        "weight_formats": ["float16", "mxfp4"],
    }
    mixed = mixed_settings(NET, ways=[("quantease", "channel")], **{**content, **options})
    macs = count_macs(NET, torch.empty(1, 1, 48, 48))
    return request(
        pictures[:1],
        NET,
        settings=(SETTINGS[0], *mixed.settings),
        plans=mixed.plans,
        budgets=mixed.budgets,
        work=network_work(NET, macs),
        calibration=[mosaic(truth(seed, 48, 48), KODAK_CFA) for seed in range(30, 34)],
        calibration_sha256=["a", "b"],
    )


@pytest.fixture(scope="module")
def whole(
    pictures: tuple[StudyPicture, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StudyOutcome]:
    folder = tmp_path_factory.mktemp("mixed")
    torch.set_num_threads(1)
    return folder, run_study(mixed_request(pictures), folder, device=CPU)


def test_the_rows_say_what_they_are_and_cost(whole: tuple[Path, StudyOutcome]) -> None:
    uniform, given, mean, bops, half, four = whole[1].result.rows
    assert (uniform.plan, uniform.layer_bits, uniform.mean_weight_bits) == (None, None, 4.0)
    assert (given.plan, given.method, given.weight_bits) == ("mine", "mse", None)
    assert given.layer_bits is not None
    assert given.layer_bits["tail"] is None
    assert set(given.layer_bits.values()) == {6, None}
    assert (mean.plan, mean.method, mean.granularity) == ("mean-bits=4", "quantease", "channel")
    assert mean.mean_weight_bits is not None
    assert mean.mean_weight_bits <= 4.0
    assert mean.layer_bits is not None
    assert len(set(mean.layer_bits.values())) > 1
    floats = whole[1].result.float
    assert floats.bops_per_px is not None
    assert bops.bops_per_px is not None
    assert bops.bops_per_px <= 0.2 * floats.bops_per_px
    assert (half.weight_format, half.method, half.granularity) == ("float16", "cast", "none")
    assert (half.mean_weight_bits, four.granularity) == (16.0, "block")
    assert (half.psnr_to_float_db or 0) > (mean.psnr_to_float_db or 0)
    # With the same number of bits a weight, and better rounding.
    assert mean.psnr_db > uniform.psnr_db


def test_only_uniform_rows_are_recommended_and_shown_as_crops(
    whole: tuple[Path, StudyOutcome],
) -> None:
    assert [choice.method for choice in whole[1].result.recommendation] == ["rtn"]
    labels = {panel.label for crop in whole[1].crops for panel in crop.panels}
    assert labels == {"4 bits, rtn", "float"}


def test_the_chosen_plan_is_written_and_gives_the_same_row(
    whole: tuple[Path, StudyOutcome], pictures: tuple[StudyPicture, ...], tmp_path: Path
) -> None:
    plan = Plan.from_json((whole[0] / "plans" / "quantease-channel-mean-bits=4.json").read_text())
    assert (whole[0] / "plans" / "quantease-channel-bops=20-percent.json").exists()
    again = mixed_request(pictures, budgets=[], plans={"again": plan}, weight_formats=[])
    row = run_study(again, tmp_path, device=CPU).result.rows[1]
    chosen = whole[1].result.rows[2]
    assert (row.plan, row.images, row.layer_bits) == ("again", chosen.images, chosen.layer_bits)
    assert not (tmp_path / "plans").exists()


def test_a_killed_study_goes_on_and_measures_no_layer_again(
    whole: tuple[Path, StudyOutcome],
    pictures: tuple[StudyPicture, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[str] = []
    measure = treatments.measure_sensitivity

    def counted(
        *arguments: Any, on_layer: Callable[[str, Mapping[int, float]], None], **options: Any
    ) -> Any:
        def note(name: str, errors: Mapping[int, float]) -> None:
            measured.append(name)
            on_layer(name, errors)

        return measure(*arguments, on_layer=note, **options)

    monkeypatch.setattr(treatments, "measure_sensitivity", counted)

    def kill(progress: StudyProgress) -> None:
        assert progress.done_px <= progress.total_px
        if "sensitivity of layer 3 of" in progress.doing:
            raise Killed

    with pytest.raises(Killed):
        run_study(mixed_request(pictures), tmp_path, device=CPU, on_progress=kill)
    assert len(measured) == 3
    again = run_study(mixed_request(pictures), tmp_path, device=CPU)
    layers = again.result.rows[2].layer_bits
    assert layers is not None
    assert sorted(measured) == sorted(layers)
    assert again.result.to_json() == whole[1].result.to_json()
    for name in ("study.json", "study.csv", "plans/quantease-channel-mean-bits=4.json"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()


def test_another_budget_is_another_study(
    whole: tuple[Path, StudyOutcome], pictures: tuple[StudyPicture, ...]
) -> None:
    for other in ({"budgets": ["mean-bits=5"]}, {"weight_formats": []}, {"plans": {"x": GIVEN}}):
        with pytest.raises(OutputError, match="not the same settings"):
            run_study(mixed_request(pictures, **other), whole[0], device=CPU)


def test_a_damaged_note_is_refused(
    whole: tuple[Path, StudyOutcome], pictures: tuple[StudyPicture, ...], tmp_path: Path
) -> None:
    lines = (whole[0] / "jobs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "jobs.jsonl").write_text(lines[0] + json.dumps({"note": "x", "content": 3}) + "\n")
    with pytest.raises(OutputError, match="it is damaged"):
        run_study(mixed_request(pictures), tmp_path, device=CPU)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"budgets": ["4"]}, SettingError, "expected a budget like"),
        ({"weight_formats": ["fp3"]}, SettingError, "expected a weight format among"),
        ({"plans": {"x": Plan.uniform(weight_bits=None)}}, PlanError, "at least one layer"),
        (
            {"plans": {"x": GIVEN.with_layer("nose", LayerPlan(weight_bits=4))}},
            PlanError,
            "the plan names 'nose'",
        ),
    ],
)
def test_bad_input(
    pictures: tuple[StudyPicture, ...], options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        mixed_request(pictures, **options)


def test_a_plan_may_not_have_the_name_of_a_budget(pictures: tuple[StudyPicture, ...]) -> None:
    plan = Plan.uniform(weight_bits=4, method="quantease", granularity="channel")
    with pytest.raises(SettingError, match="'mean-bits=4' twice: rename the plan"):
        mixed_request(pictures, plans={"mean-bits=4": plan})


def test_a_budget_is_met_at_every_width_of_activations(
    pictures: tuple[StudyPicture, ...], tmp_path: Path
) -> None:
    """Bit operations are those of the activations' width; sensitivities are measured once."""
    asked = mixed_request(
        pictures,
        budgets=["mean-bits=4", "bops=8%"],
        plans={},
        weight_formats=[],
        activation_bits=(None, 12, 8),
    )
    outcome = run_study(asked, tmp_path, device=CPU)
    mean, bops = (
        [row for row in outcome.result.rows if row.plan == plan]
        for plan in ("mean-bits=4", "bops=8%")
    )
    for rows in (mean, bops):
        assert [row.activation_bits for row in rows] == [None, 12, 8]
    assert len({json.dumps(row.layer_bits) for row in mean}) == 1
    limit = 0.08 * (outcome.result.float.bops_per_px or 0.0)
    assert all(row.bops_per_px is not None and row.bops_per_px <= limit for row in bops)
    # Narrower activations leave more operations for weights.
    widths = [row.mean_weight_bits or 0.0 for row in bops]
    assert widths[0] < widths[1] <= widths[2]
    energies = [row.mac_energy_pj or 0.0 for row in bops]
    assert energies[2] < energies[1] < energies[0]
    names = {path.stem for path in (tmp_path / "plans").iterdir()}
    assert len(names) == 6
    for path in (tmp_path / "plans").iterdir():
        plan = Plan.from_json(path.read_text())
        assert f"a{plan.default.activation_bits}" in path.stem or not plan.quantizes_activations
    lines = (tmp_path / "jobs.jsonl").read_text().splitlines()
    notes = [line for line in lines if '"note"' in line]
    assert len(notes) == len({json.loads(line)["note"] for line in notes})
    assert len(notes) == len(mean[0].layer_bits or ())
