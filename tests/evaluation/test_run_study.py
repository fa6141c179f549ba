"""A study is the same study whatever it ran on."""

from __future__ import annotations

import copy
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from study_kit import (
    JOBS,
    KODAK_CFA,
    SETTINGS,
    SIZES,
    request,
    surveyed,
    tiny_net,
    write_pictures,
)
from torch import Tensor, nn

from quantisp.cfa import mosaic
from quantisp.data import read_picture
from quantisp.errors import ImageError, OutputError, RunError
from quantisp.evaluation import (
    StudyOutcome,
    StudyPicture,
    StudyProgress,
    evaluate_pictures,
    measure,
    mosaicked,
    networks,
    restoration,
    run_study,
)
from quantisp.inference import prepare, restore
from quantisp.metrics import psnr_db
from quantisp.quantization import Plan, QuantizedModel, quantize

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")


def test_figures_follow_from_the_networks(
    pictures: tuple[StudyPicture, ...], straight: StudyOutcome
) -> None:
    net = prepare(tiny_net(), CPU)
    result = straight.result
    truths = [read_picture(picture.path).tensor() for picture in pictures]
    floats = [restore(net, mosaic(truth, KODAK_CFA)) for truth in truths]
    references = [measure(*pair) for pair in zip(floats, truths, strict=True)]
    assert list(result.float.images) == list(SIZES)
    assert list(result.float.images.values()) == pytest.approx([m.psnr_db for m in references])
    assert [row.setting for row in result.rows] == list(SETTINGS)
    for row in result.rows:
        plan = Plan.uniform(weight_bits=row.weight_bits, granularity=row.granularity)
        network = prepare(quantize(net, plan), CPU)
        found = [
            measure(restore(network, mosaic(truth, KODAK_CFA)), truth, output.clamp(0, 1))
            for truth, output in zip(truths, floats, strict=True)
        ]
        to_float = statistics.mean(psnr_db(m.mse_to_float) for m in found)
        drops = [r.psnr_db - m.psnr_db for r, m in zip(references, found, strict=True)]
        tiles = [m.worst_tile_drop_db(r) for r, m in zip(references, found, strict=True)]
        assert list(row.images.values()) == pytest.approx([m.psnr_db for m in found], abs=1e-6)
        assert row.psnr_to_float_db == pytest.approx(to_float, abs=1e-6)
        assert row.drop_db == pytest.approx(result.float.psnr_db - row.psnr_db, abs=2e-6)
        assert row.worst_image_drop_db == pytest.approx(max(drops), abs=1e-6)
        assert row.worst_tile_drop_db == pytest.approx(max(tiles), abs=1e-6)
        assert row.ssim == pytest.approx(statistics.mean(m.ssim for m in found), abs=1e-6)
    assert result.rows[0].drop_db > 5 > result.rows[1].drop_db > 0.1
    assert result.protocol["pictures"] == 3
    assert not result.is_kodak


def test_two_runs_are_identical(
    pictures: tuple[StudyPicture, ...], straight: StudyOutcome, tmp_path: Path
) -> None:
    again = run_study(request(pictures), tmp_path, device=CPU)
    assert again.result.to_json() == straight.result.to_json()
    other = run_study(request(pictures, tiny_net(seed=2)), tmp_path / "other", device=CPU)
    assert other.result.to_json() != straight.result.to_json()


def figures(outcome: StudyOutcome) -> dict[tuple[str, int], dict[str, float]]:
    """Every figure in dB of each setting, by setting."""
    return {
        (row.granularity, row.weight_bits): {
            "psnr": row.psnr_db,
            "drop": row.drop_db,
            "to float": row.psnr_to_float_db or 0.0,
            "worst image": row.worst_image_drop_db,
            "worst tile": row.worst_tile_drop_db,
            "crop": row.psnr_crop10_db,
            **row.images,
        }
        for row in outcome.result.rows
    }


def test_the_order_of_pictures_and_settings_changes_no_figure(
    pictures: tuple[StudyPicture, ...], straight: StudyOutcome, tmp_path: Path
) -> None:
    turned = request(tuple(reversed(pictures)), settings=tuple(reversed(SETTINGS)))
    outcome = run_study(turned, tmp_path, device=CPU)
    assert figures(outcome) == figures(straight)
    assert outcome.result.to_json() != straight.result.to_json()


# A convolution that is shared out differently sums in another order. The outputs of this network
# were then equal, and those of dephasenet-lite on 512x512 px differed by 1.2e-7, one unit in the
# last place: now and then that moves a sample over the edge between two 8-bit values. In the
# smallest picture here, of 5700 samples, each such sample is worth less than 4e-4 dB.
THREADS_DB = 1e-3


def test_the_number_of_threads_changes_no_figure_that_anyone_reads(
    pictures: tuple[StudyPicture, ...], straight: StudyOutcome, tmp_path: Path
) -> None:
    torch.set_num_threads(2)
    found = figures(run_study(request(pictures, settings=SETTINGS[1:2]), tmp_path, device=CPU))
    assert len(found) == 1
    for setting, outcome in found.items():
        assert outcome == pytest.approx(figures(straight)[setting], abs=THREADS_DB)


def test_pictures_of_equal_content_are_measured_once(
    pictures: tuple[StudyPicture, ...], tmp_path: Path, measured: list[int]
) -> None:
    (tmp_path / "pictures").mkdir()
    source = pictures[0].path
    for name in ("first.png", "second.png"):
        shutil.copy(source, tmp_path / "pictures" / name)
    twins = surveyed(tmp_path / "pictures")
    result = run_study(request(twins), tmp_path / "out", device=CPU).result
    assert len(measured) == JOBS / 3
    assert list(result.float.images) == ["first", "second"]
    assert len(set(result.float.images.values())) == 1


def test_a_renamed_picture_is_not_measured_again(
    pictures: tuple[StudyPicture, ...], straight: StudyOutcome, tmp_path: Path, measured: list[int]
) -> None:
    (tmp_path / "before").mkdir()
    for picture in pictures:
        shutil.copy(picture.path, tmp_path / "before" / f"{picture.name}.png")
    run_study(request(surveyed(tmp_path / "before")), tmp_path / "out", device=CPU)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    for number, path in enumerate(sorted((tmp_path / "after").iterdir())):
        path.rename(path.with_name(f"{number}.png"))
    renamed = run_study(request(surveyed(tmp_path / "after")), tmp_path / "out", device=CPU).result
    assert len(measured) == JOBS
    assert list(renamed.float.images) == ["0", "1", "2"]
    assert [r.psnr_db for r in renamed.rows] == [r.psnr_db for r in straight.result.rows]


def test_another_study_in_the_folder_is_refused(
    pictures: tuple[StudyPicture, ...], tmp_path: Path
) -> None:
    run_study(request(pictures), tmp_path, device=CPU)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for changed, name in (
        (request(pictures, tiny_net(seed=2)), "model"),
        (request(pictures[1:]), "pictures"),
        (request(pictures, settings=SETTINGS[1:]), "settings"),
        (request(pictures, within_db=0.1), "tolerance"),
    ):
        with pytest.raises(OutputError, match=rf"holds another study \(not the same {name}\):"):
            run_study(changed, tmp_path, device=CPU)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_float_outputs_are_kept_while_it_runs_and_removed_at_the_end(
    pictures: tuple[StudyPicture, ...], tmp_path: Path
) -> None:
    seen: set[int] = set()

    def look(_progress: StudyProgress) -> None:
        seen.add(len(list((tmp_path / ".float").iterdir())))

    run_study(request(pictures), tmp_path, device=CPU, on_progress=look)
    assert seen == {1, 2, 3}
    assert sorted(os.listdir(tmp_path)) == ["jobs.jsonl", "study.csv", "study.json"]


def test_the_float_network_restores_a_picture_once(
    pictures: tuple[StudyPicture, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored: list[int] = []

    def counted(network: nn.Module, samples: Tensor) -> Tensor:
        restored.append(samples.shape[-1])
        return restore(network, samples)

    monkeypatch.setattr(restoration, "restore", counted)
    run_study(request(pictures), tmp_path, device=CPU)
    assert len(restored) == JOBS


def test_outputs_beyond_white_and_black_are_compared_clipped(
    pictures: tuple[StudyPicture, ...],
) -> None:
    """Otherwise the comparison with the float network would not notice."""
    samples = mosaic(read_picture(pictures[0].path).tensor(), KODAK_CFA)
    output = restore(prepare(tiny_net(), CPU), samples)
    assert float(output.min()) < -0.01
    assert float(output.max()) > 1.01


def test_progress_counts_pixels(pictures: tuple[StudyPicture, ...], tmp_path: Path) -> None:
    seen: list[StudyProgress] = []
    run_study(request(pictures), tmp_path, device=CPU, on_progress=seen.append)
    assert len(seen) == JOBS
    total = 4 * sum(height * width for height, width in SIZES.values())
    assert {progress.total_px for progress in seen} == {total}
    done = [progress.done_px for progress in seen]
    assert done == sorted(set(done))
    assert done[-1] == total
    assert [seen[0].doing, seen[3].doing] == ["float, even", "4 bits per tensor, even"]


def test_the_network_is_not_changed(pictures: tuple[StudyPicture, ...], tmp_path: Path) -> None:
    net = tiny_net().train()
    before = copy.deepcopy(net.state_dict())
    run_study(request(pictures, net), tmp_path, device=CPU)
    evaluate(net, pictures)
    assert net.training
    assert net.skip.weight.is_contiguous()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def evaluate(net: nn.Module, pictures: tuple[StudyPicture, ...]) -> dict[str, Any]:
    result = evaluate_pictures(
        name="tiny",
        model=net,
        model_sha256="0" * 64,
        degradation=mosaicked(KODAK_CFA),
        pictures=pictures,
        device=CPU,
    )
    return json.loads(result.to_json())


def test_evaluation_gives_the_figures_of_the_float_network(
    pictures: tuple[StudyPicture, ...], straight: StudyOutcome
) -> None:
    found = evaluate(tiny_net(), pictures)
    expected = straight.result.float
    assert found["psnr_db"] == pytest.approx(expected.psnr_db, abs=1e-6)
    assert found["psnr_cropped_db"] == pytest.approx(expected.psnr_crop10_db, abs=1e-6)
    assert found["ssim"] == pytest.approx(expected.ssim, abs=1e-6)
    assert list(found["images"]) == [picture.name for picture in pictures]
    assert found["images"]["odd"]["psnr_db"] == pytest.approx(expected.images["odd"], abs=1e-6)


def test_a_network_that_gives_nan_ends_the_study(
    pictures: tuple[StudyPicture, ...], tmp_path: Path
) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(1, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x) / 0.0 * 0.0

    with pytest.raises(RunError, match="float, even: expected numbers from the network, found NaN"):
        run_study(request(pictures, Broken()), tmp_path, device=CPU)


def test_nan_is_said_to_be_of_a_setting_and_a_picture(
    pictures: tuple[StudyPicture, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> QuantizedModel:
        quantized = quantize(*arguments, **options)
        with torch.no_grad():
            quantized.network.get_submodule("tail").get_parameter("weight").fill_(torch.nan)
        return quantized

    monkeypatch.setattr(networks, "quantize", broken)
    with pytest.raises(RunError, match="4 bits per tensor, even: expected numbers"):
        run_study(request(pictures), tmp_path, device=CPU)


def test_a_picture_that_changes_under_way_is_noticed(tmp_path: Path) -> None:
    pictures = surveyed(write_pictures(tmp_path / "pictures"))
    first, second = pictures[0].path, pictures[1].path
    first.write_bytes(second.read_bytes())
    with pytest.raises(ImageError, match="it has changed"):
        run_study(request(pictures), tmp_path / "out", device=CPU)
