"""What all tests share: annotations that are checked, repeatable examples, and local pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

# Before anything imports the package: every annotated shape and type is checked at every call.
jaxtyping.install_import_hook("quantisp", "beartype.beartype")

# Where the tests take a core each, so do the programs that they start.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import hypothesis  # noqa: E402
import torch  # noqa: E402

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")
torch.set_num_threads(THREADS)

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of local pictures, beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the pictures in ../shared/data (relative to the repository root)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def kodak(shared_data: Path) -> tuple[Path, ...]:
    """The 24 Kodak photographs, in order."""
    pictures = tuple(sorted((shared_data / "kodak").glob("*.png")))
    if len(pictures) != 24:
        pytest.skip(f"needs the 24 pictures of ../shared/data/kodak, {len(pictures)} are there")
    return pictures


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """As users run it: wrong shapes reach the package's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of tests are small: the descents of rounding methods need fewer steps."""
    from quantisp.quantization.methods import adaround, brecq, incremental

    for method, steps in ((adaround, 400), (brecq, 100), (incremental, 100)):
        monkeypatch.setattr(method, "STEPS", steps)
