"""Two processes on the CPU take the very steps that one takes with all the patches."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_kit import KODAK_CFA, tiny_net, tiny_patches, tiny_settings, validation

from quantisp.errors import SettingError
from quantisp.training import Workers, start_workers, train

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")

TRAINED = """
import sys
from pathlib import Path
import torch
from training_kit import KODAK_CFA, tiny_net, tiny_patches, tiny_settings, validation
from quantisp.training import start_workers, train

torch.set_num_threads(1)
workers = start_workers(torch.device("cpu"), devices=int(sys.argv[2]))
settings = tiny_settings(steps=5, optimizer=sys.argv[3])
train(tiny_net(), tiny_patches(), validation(), settings, pattern=KODAK_CFA,
      folder=Path(sys.argv[1]), workers=workers)
# In one piece, for the processes share the pipe.
print(f"{workers.rank} {workers.count}\\n", end="", flush=True)
"""


def run(
    folder: Path, devices: int, optimizer: str, *launcher: str
) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    script = folder.parent / "trained.py"
    script.write_text(TRAINED)
    here = str(Path(__file__).parent)
    ended = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder), str(devices), optimizer],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


# Gradients are summed in another order. Muon's iteration runs in bfloat16, and makes much of
# directions that hardly any gradient has: by how much depends on the processor.
@pytest.mark.parametrize(("optimizer", "most"), [("adamw", 1e-4), ("muon", 0.15)])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, optimizer: str, most: float) -> None:
    run(tmp_path / "one", 1, optimizer)
    run(tmp_path / "two", 2, optimizer)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    ended = run(tmp_path / "torchrun", 1, optimizer, *torchrun)
    assert sorted(ended.stdout.split("\n")) == ["", "0 2", "1 2"]
    one, first = weights(tmp_path / "one"), dict(tiny_net().state_dict())

    def apart(folder: Path) -> dict[str, float]:
        """The distance of each parameter from one process's, in what that moved it by."""
        return {
            name: float((value - one[name]).norm() / (one[name] - first[name]).norm())
            for name, value in weights(folder).items()
        }

    for other in ("two", "torchrun"):
        for name, distance in apart(tmp_path / other).items():
            assert distance < most, name
    # The twin: with other patches the steps are others.
    (tmp_path / "seeded").mkdir()
    settings = tiny_settings(steps=5, seed=1, optimizer=optimizer)
    train(
        tiny_net(),
        tiny_patches(),
        validation(),
        settings,
        pattern=KODAK_CFA,
        folder=tmp_path / "seeded",
    )
    seeded = apart(tmp_path / "seeded")
    assert seeded["tail.weight"] > 0.1
    matrices = [distance for name, distance in seeded.items() if first[name].ndim > 1]
    assert statistics.median(matrices) > most


def test_one_process_needs_no_launcher() -> None:
    alone = start_workers(CPU)
    assert (alone.rank, alone.count) == (0, 1)
    values = torch.tensor([1.0, 2.0])
    assert alone.mean(values) is values
    assert alone.from_first(3.0) == 3.0
    model = torch.nn.Linear(1, 1)
    assert Workers().shared(model, compiled=False) is model


@pytest.mark.parametrize(("devices", "nodes"), [(0, 1), (1, 0), (-1, 1)])
def test_fewer_than_one(devices: int, nodes: int) -> None:
    with pytest.raises(SettingError, match="at least 1 device and 1 node"):
        start_workers(CPU, devices=devices, nodes=nodes)


def test_another_number_than_torchrun_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SettingError, match="torchrun started 2 processes here, --devices asks"):
        start_workers(CPU, devices=3)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    three = Workers()
    three.count = 3
    with pytest.raises(SettingError, match="that 3 processes can share evenly, 4 patches of 32"):
        train(
            tiny_net(),
            tiny_patches(),
            validation(),
            tiny_settings(),
            pattern=KODAK_CFA,
            folder=tmp_path,
            workers=three,
        )


def test_several_machines_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="expected torchrun"):
        start_workers(CPU, nodes=2)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(SettingError, match="torchrun started 1 machines, --nodes asks for 5"):
        start_workers(CPU, nodes=5)
